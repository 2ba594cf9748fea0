"""What this node proves itself by: an identity that the cluster gave it, kept on disk, renewed while the agent runs.

A node without one asks for it with its join token, as long as it takes. A node that has one starts at once, whatever
the clock says of it: its tasks must run though no coordinator can be reached. A certificate that ran out meanwhile is
exchanged for a new one by the key it was made for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from loguru import logger

from cloudless.adapters.enrolment import ENROL_RETRY_PAUSE_S, Waiting, enrol, read_token, reenrol, renew
from cloudless.adapters.grpc.channel import Dialler
from cloudless.adapters.pki.credentials import Credentials
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.core.identity.renewal import Freshness, retry_after_ms
from cloudless.errors import BadCredentials, CloudlessError, Unavailable
from cloudless.settings import AgentSettings

LOOK_PERIOD_MAX_S = 60.0


class NodeCredentials:
    """A `CredentialSource`: this node's identity, as it was last renewed."""

    def __init__(self, directory: IdentityDir, held: Credentials) -> None:
        self.directory, self._held = directory, held

    def __call__(self) -> Credentials:
        return self._held

    async def run(
        self, coordinators: Callable[[], Sequence[str]], enrol_addresses: Sequence[str], renewed: Callable[[], None]
    ) -> None:
        """Renew the certificate whenever it is due, for ever; `renewed` is told each time."""
        while True:
            await asyncio.sleep(min(LOOK_PERIOD_MAX_S, max(0.1, self._held.renew_at_ms / 1000 - time.time())))
            now_ms = _now_ms()
            freshness = self._held.freshness(now_ms)
            if freshness is Freshness.FRESH:
                continue
            try:
                if freshness is Freshness.EXPIRED:
                    self._held = await reenrol(enrol_addresses, self._held, self.directory)
                else:
                    self._held = await renew(Dialler(self), coordinators(), self._held, self.directory)
                logger.info("this node's certificate is renewed for {:.3g} days", self._held.days_left(_now_ms()))
                renewed()
            except (CloudlessError, OSError) as error:
                pause_s = retry_after_ms(self._held.validity, now_ms) / 1000
                logger.warning("the certificate could not be renewed, next try in {:.0f} s: {}", pause_s, error)
                await asyncio.sleep(pause_s)


async def obtain_credentials(settings: AgentSettings) -> NodeCredentials:
    """Return this node's credentials; ask for them, as long as it takes, if there are none.

    Raises BadCredentials without token, and what the cluster refuses the token by.
    """
    directory = IdentityDir(settings.identity_dir)
    held = directory.load()
    if held is not None:
        return NodeCredentials(directory, held)
    token = read_token(settings.join_token, settings.join_token_file)
    if not token:
        raise BadCredentials(
            f"this node has no identity in {directory.path}",
            hint="set CLOUDLESS_JOIN_TOKEN (cloudless token create agent), or CLOUDLESS_TLS_ENABLED=false on loopback",
        )
    waiting = Waiting("for an identity")
    while True:
        try:
            enrolled = await enrol(settings.enrol_addresses, token, settings.node_id, directory, role="AGENT")
            logger.info("enrolled as {}", enrolled.credentials.identity)
            return NodeCredentials(directory, enrolled.credentials)
        except Unavailable as error:
            waiting.say(error)
            await asyncio.sleep(ENROL_RETRY_PAUSE_S)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
