"""How a process without CA keys (an agent, a command line, a coordinator that joins) gets and keeps its identity.

    no identity, a token        pin checked → enrol         the only moment a secret is sent
    identity, fresh             nothing
    identity, due               renew, with the identity    again and again until it works
    identity, expired           re-enrol with the old certificate and its key

What is asked of whom travels through `Ask`, which the runtimes provide, so that this module opens no channel. One
coordinator that cannot be reached or cannot sign is no reason to stop: the next is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from google.protobuf.message import Message
from loguru import logger

from cloudless.adapters.pki.certificate import pin_of, read_certificates
from cloudless.adapters.pki.credentials import Credentials, build_credentials
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.pinning import fetch_pinned_root
from cloudless.adapters.pki.request import build_request, key_to_pem, read_key
from cloudless.core.identity.names import Identity, kind_of
from cloudless.core.identity.renewal import Freshness, retry_after_ms
from cloudless.core.identity.tokens import find_token
from cloudless.core.model import Role
from cloudless.errors import BadCredentials, CloudlessError, CommitUncertain, Unavailable, WrongAuthority
from cloudless.observability.secrets import keep_secret
from cloudless.ports import Clock
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.rpc.v1 import objects_pb2

ENROL_RETRY_PAUSE_S = 1.0
SAY_WAITING_EVERY_S = 10.0
LOOK_AGAIN_S = 30.0
"""The wall clock may be set while one waits for it: it is looked at this often at least."""


class Ask(Protocol):
    """Calls `IdentityService/<method>` of the coordinator at `address`, trusting `roots_pem` only.

    `own` None: without an identity, at the door that wants none. Raises typed errors.
    """

    async def __call__(
        self, address: str, method: str, request: Message, answer: type[Any], roots_pem: bytes, own: Credentials | None
    ) -> Any: ...


Take = Callable[[pb.Handover, Identity], None]
FindAddresses = Callable[[], Awaitable[Sequence[str]]]
FetchRoot = Callable[[str, str], Awaitable[str]]
"""Returns the CA that a pin (second) names, as PEM, from the coordinator at an address (first); see `pinning`."""


async def enrol(
    directory: IdentityDir, token_text: str, name: str, role: Role | None, addresses: Sequence[str], ask: Ask,
    take: Take = lambda handover, identity: None, fetch_root: FetchRoot | None = None,
) -> Credentials:  # fmt: skip
    """Let `name` in with a token and keep the identity. `take` keeps what a coordinator is handed, before that.

    Raises BadCredentials, WrongAuthority (nothing secret was sent), Unavailable, and what the coordinator refuses with.
    """
    token = find_token(token_text)
    if token is None:
        raise BadCredentials(
            "the join token is not one: it begins with cl1. and has four parts", hint="copy the whole line"
        )
    keep_secret(token.text)
    key = directory.prepare_key()
    request = pb.EnrolRequest(
        token=token.text, name=name, csr_pem=build_request(key),
        role=getattr(objects_pb2, f"ROLE_{role.name}") if role is not None else objects_pb2.ROLE_UNSPECIFIED,
    )  # fmt: skip

    async def try_one(address: str) -> Credentials:
        root = await (fetch_root or fetch_pinned_root)(address, token.pin)
        answer = await ask(address, "Enrol", request, pb.EnrolResponse, root.encode(), None)
        made = build_credentials(answer.issued.chain_pem, key_to_pem(key), answer.issued.roots_pem)
        if made.identity.name != name or (role is not None and made.identity.kind is not kind_of(role)):
            raise BadCredentials(f"the coordinator at {address} answered for {made.identity}, not for {name}")
        if token.pin not in {pin_of(root) for root in read_certificates(made.roots_pem)}:
            raise WrongAuthority(f"the coordinator at {address} wants other CAs trusted than the one the token names")
        if answer.HasField("handover"):
            take(answer.handover, made.identity)
        directory.store(made)
        return made

    return await _first_that_works(addresses, try_one)


async def enrol_patiently(
    directory: IdentityDir, token_text: str, name: str, role: Role, find_addresses: FindAddresses, ask: Ask,
    clock: Clock, take: Take = lambda handover, identity: None, fetch_root: FetchRoot | None = None,
) -> Credentials:  # fmt: skip
    """Enrol, as long as it takes until a coordinator can be asked; say now and then what is waited for.

    `find_addresses` is asked before each try: names may lead elsewhere by then. Raises what `enrol` raises, but not
    Unavailable.
    """
    said_s = float("-inf")
    while True:
        addresses = await find_addresses()
        try:
            made = await enrol(directory, token_text, name, role, addresses, ask, take, fetch_root)
            logger.info("enrolled as {}", made.identity)
            return made
        except (Unavailable, CommitUncertain) as error:
            if clock.monotonic_s() - said_s > SAY_WAITING_EVERY_S:
                said_s = clock.monotonic_s()
                logger.info("waiting for an identity, asking {}: {}", ", ".join(addresses) or "nobody", error)
            await clock.sleep(ENROL_RETRY_PAUSE_S)


async def refresh(
    directory: IdentityDir, held: Credentials, addresses: Sequence[str], ask: Ask, now_ms: int
) -> Credentials:
    """Return new credentials for the same key: renewed while the old ones are good, re-enrolled after."""
    if held.freshness(now_ms) is Freshness.EXPIRED:
        return await reenrol(directory, held, addresses, ask)
    request = pb.RenewRequest(csr_pem=build_request(read_key(held.key_pem)))

    async def try_one(address: str) -> Credentials:
        answer = await ask(address, "Renew", request, pb.RenewResponse, held.roots_pem, held)
        return _take_renewed(directory, held, answer.issued, address)

    return await _first_that_works(addresses, try_one)


async def reenrol(directory: IdentityDir, held: Credentials, addresses: Sequence[str], ask: Ask) -> Credentials:
    """Return new credentials for the same key, at the doors where nobody is asked for a certificate.

    Raises what the cluster refuses the identity by, and Unavailable.
    """
    request = pb.ReenrolRequest(certificate_pem=held.chain_pem.decode(), csr_pem=build_request(read_key(held.key_pem)))

    async def try_one(address: str) -> Credentials:
        answer = await ask(address, "Reenrol", request, pb.ReenrolResponse, held.roots_pem, None)
        return _take_renewed(directory, held, answer.issued, address)

    return await _first_that_works(addresses, try_one)


def _take_renewed(directory: IdentityDir, held: Credentials, issued: pb.Issued, address: str) -> Credentials:
    made = build_credentials(issued.chain_pem, held.key_pem, issued.roots_pem)
    if made.identity != held.identity:
        raise BadCredentials(f"the coordinator at {address} answered for {made.identity}, not for {held.identity}")
    directory.store(made)
    return made


async def _first_that_works(addresses: Sequence[str], try_one: Callable[[str], Any]) -> Credentials:
    last: CloudlessError = Unavailable("no coordinator's address is known")
    for address in addresses:
        try:
            made: Credentials = await try_one(address)
            return made
        except (Unavailable, CommitUncertain) as error:
            logger.debug("{}: {}", address, error)
            last = error
    raise last


class IdentityKeeper:
    """Keeps one identity fresh. `on_change` is told of new credentials, after they are on disk."""

    def __init__(
        self,
        directory: IdentityDir,
        held: Credentials,
        find_addresses: Callable[[], Sequence[str]],
        ask: Ask,
        clock: Clock,
        on_change: Callable[[Credentials], None],
    ) -> None:
        self._directory, self.credentials, self._find_addresses = directory, held, find_addresses
        self._ask, self._clock, self._on_change = ask, clock, on_change
        self.failures_in_a_row = 0
        self.last_error = ""

    async def run(self) -> None:
        """Renew whenever it is due, until cancelled."""
        while True:
            await self._clock.sleep(await self.step())

    async def step(self) -> float:
        """Renew if it is due; return the seconds until to look again."""
        now_ms, held = self._clock.wall_ms(), self.credentials
        if held.freshness(now_ms) is Freshness.FRESH:
            return min(LOOK_AGAIN_S, max(0.1, (held.renew_at_ms - now_ms) / 1000))
        try:
            made = await refresh(self._directory, held, self._find_addresses(), self._ask, now_ms)
        except (CloudlessError, OSError) as error:
            self.failures_in_a_row, self.last_error = self.failures_in_a_row + 1, str(error)
            left = held.days_left(now_ms)
            logger.warning("the certificate of {} ({:.2f} days left) is not renewed: {}", held.identity, left, error)
            return retry_after_ms(held.validity, now_ms) / 1000
        self.failures_in_a_row, self.last_error = 0, ""
        self.credentials = made
        logger.info("certificate renewed, good for {:.2f} days", made.days_left(self._clock.wall_ms()))
        self._on_change(made)
        return 0.1
