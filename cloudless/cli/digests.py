"""Compare the state of all coordinators at one revision.

The newest revision differs from coordinator to coordinator while writes go on, and each remembers its digests
only for a while: so ask all for their newest, take the highest, and ask all again for that one, until each has
answered for the same.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from cloudless.cli.client import Client
from cloudless.cli.methods import GET_DIGEST
from cloudless.errors import CloudlessError
from cloudless.ports import Credentials
from cloudless.rpc.v1.cluster_pb2 import GetDigestRequest

_ROUNDS_MAX = 20
_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Observation:
    """One coordinator's digest, or the reason why there is none."""

    coordinator_id: str = ""
    revision: int = 0
    digest: str = ""
    entries: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was seen at `revision`, by address."""

    revision: int
    seen: dict[str, Observation] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every coordinator answered for the same revision."""
        return all(o.digest and o.revision == self.revision for o in self.seen.values())

    @property
    def equal(self) -> bool:
        return self.complete and len({o.digest for o in self.seen.values()}) == 1

    def plain(self) -> dict[str, Any]:
        return {
            "revision": self.revision,
            "equal": self.equal,
            "coordinators": [
                {"address": a, "coordinatorId": o.coordinator_id, "revision": o.revision, "digest": o.digest,
                 "entries": o.entries, "error": o.error}
                for a, o in self.seen.items()
            ],
        }  # fmt: skip


def compare_digests(
    addresses: tuple[str, ...], timeout_s: float, revision: int = 0, credentials: Credentials | None = None
) -> Comparison:
    """Return the digests of all coordinators at `revision`, or at the newest one they have in common."""
    clients = {address: Client((address,), min(2.0, timeout_s), credentials) for address in addresses}
    deadline_s = time.monotonic() + timeout_s
    try:
        for _ in range(_ROUNDS_MAX):
            aim = revision or max((_ask(c, 0).revision for c in clients.values()), default=0)
            compared = Comparison(aim, {address: _ask(client, aim) for address, client in clients.items()})
            if compared.complete or time.monotonic() > deadline_s:
                break
            time.sleep(_PAUSE_S)
        return compared
    finally:
        for client in clients.values():
            client.close()


def _ask(client: Client, revision: int) -> Observation:
    try:
        answer = client.call(GET_DIGEST, GetDigestRequest(revision=revision))
    except CloudlessError as error:
        return Observation(error=error.message)
    return Observation(answer.header.coordinator_id, answer.revision, answer.digest, answer.entries)
