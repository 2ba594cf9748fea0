"""What this node proves itself by: an identity that the cluster gave it, kept on disk, renewed while the agent runs.

A node without one asks for it with its join token, as long as it takes. A node that has one starts at once, whatever
the clock says of it: its tasks must run though no coordinator can be reached. A certificate that ran out meanwhile is
exchanged for a new one by the key it was made for. An identity that the cluster takes no longer (it was revoked) is
exchanged for another one by a new token, if the node is started with one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from loguru import logger

from cloudless.adapters.discovery.doors import Doors
from cloudless.adapters.discovery.lookup import NetworkLookup
from cloudless.adapters.grpc.identity_calls import ask_identity_service
from cloudless.adapters.pki.credentials import Credentials
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.joining import IdentityKeeper, enrol, enrol_patiently, reenrol
from cloudless.core.identity.renewal import Freshness
from cloudless.core.model import Role
from cloudless.core.setting_values import ENROL_PORT
from cloudless.errors import BadCredentials, BadSettings, CloudlessError, Denied, Unauthenticated
from cloudless.ports import Clock
from cloudless.settings import AgentSettings, read_token

ASK_ANEW_S = 3.0
"""How long a start may be held up by the question whether the cluster takes the identity still."""


class NodeCredentials:
    """A `CredentialSource`: this node's identity, as it was last renewed."""

    def __init__(self, directory: IdentityDir, held: Credentials, doors: Doors, clock: Clock) -> None:
        self.directory, self._doors, self._clock = directory, doors, clock
        self._find_coordinators: Callable[[], Sequence[str]] = tuple
        self._renewed: Callable[[], None] = lambda: None
        self._keeper = IdentityKeeper(
            directory, held, self._find_addresses, ask_identity_service, clock, self._on_change
        )

    def __call__(self) -> Credentials:
        return self._keeper.credentials

    async def run(self, find_coordinators: Callable[[], Sequence[str]], renewed: Callable[[], None]) -> None:
        """Renew the certificate whenever it is due, for ever; `renewed` is told each time."""
        self._find_coordinators, self._renewed = find_coordinators, renewed
        await self._keeper.run()

    def _find_addresses(self) -> Sequence[str]:
        """Return whom to ask: who has a good certificate shows it, who has none comes to the other door."""
        expired = self().freshness(self._clock.wall_ms()) is Freshness.EXPIRED
        return self._doors.current() if expired else self._find_coordinators()

    def _on_change(self, credentials: Credentials) -> None:
        self._renewed()


async def obtain_credentials(settings: AgentSettings, clock: Clock) -> NodeCredentials:
    """Return this node's credentials; ask for them, as long as it takes, if there are none.

    Raises BadCredentials without token, and what the cluster refuses the token by.
    """
    directory = IdentityDir(settings.identity_dir)
    doors = Doors(
        settings.enrol_addresses, settings.coordinators, ENROL_PORT, NetworkLookup(settings.dns_servers), clock
    )
    held = directory.load()
    try:
        token = read_token(settings.join_token, settings.join_token_file)
    except BadSettings:
        if held is None:
            raise
        token = ""  # it has done its work, and was rightly deleted
    if held is not None and (token or held.freshness(clock.wall_ms()) is Freshness.EXPIRED):
        addresses = await doors.find()
        if token:
            held = await _enrol_anew(directory, held, token, addresses)
    if held is None:
        if not token:
            raise BadCredentials(
                f"this node has no identity in {directory.path}",
                hint="set CLOUDLESS_JOIN_TOKEN (cloudless token create --role agent), or CLOUDLESS_TLS_ENABLED=false "
                "on loopback",
            )
        held = await enrol_patiently(
            directory, token, settings.node_id, Role.AGENT, doors.find, ask_identity_service, clock
        )
    return NodeCredentials(directory, held, doors, clock)


async def _enrol_anew(directory: IdentityDir, held: Credentials, token: str, addresses: Sequence[str]) -> Credentials:
    """Return what this node is from now on: what it was, unless the cluster says no to that and yes to the token.

    Nobody's answer says nothing. If both are refused it stays what it was, so that its tasks are looked after.
    """
    try:
        async with asyncio.timeout(ASK_ANEW_S):
            return await reenrol(directory, held, addresses, ask_identity_service)
    except (Denied, Unauthenticated) as error:
        logger.warning("the cluster does not take this node's identity any more: {}", error)
    except (CloudlessError, OSError, TimeoutError) as error:
        logger.debug("nobody says whether the identity is good: {}", error)
        return held
    try:
        made = await enrol(directory, token, held.identity.name, Role.AGENT, addresses, ask_identity_service)
    except (CloudlessError, OSError) as error:
        logger.warning("the token this node was started with does not let it in: {}", error)
        return held
    logger.info("enrolled anew as {}", made.identity)
    return made
