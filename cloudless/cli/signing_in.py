"""A person's identity in a context: got with a token, kept fresh whenever it is used.

A command runs for a moment and no process of the person's stays, so the certificate is renewed on use, once half of its
life is over; if it has run out meanwhile, the old one and its key bring a new one.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from cloudless.adapters.grpc.identity_calls import ask_identity_service
from cloudless.adapters.pki.credentials import Credentials
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.joining import Ask, enrol, refresh
from cloudless.cli.contexts import Context, ContextFile
from cloudless.core.identity.names import IdentityKind
from cloudless.core.identity.renewal import Freshness
from cloudless.errors import BadCredentials, CloudlessError


def sign_in(file: ContextFile, context: Context, token: str, person: str, ask: Ask = ask_identity_service) -> Context:
    """Enrol `person` with a token and keep the context as the current one. Raises what `enrol` raises."""
    directory = IdentityDir(file.identity_path(context.name))
    addresses = context.join_addresses or context.coordinators
    made = asyncio.run(enrol(directory, token, person, None, addresses, ask))
    if made.identity.kind is not IdentityKind.PERSON:
        directory.forget()
        raise BadCredentials(
            f"the token is for the role {made.identity.kind.value}, not for a person",
            hint="create one: `cloudless token create --role viewer|operator|admin`",
        )
    signed_in = Context(
        name=context.name,
        coordinators=context.coordinators,
        join_addresses=context.join_addresses,
        namespace=context.namespace,
        cluster_id=made.identity.cluster_id,
        person=made.identity.name,
    )
    file.save(file.load().with_context(signed_in, current=True))
    return signed_in


def get_coordinator_credentials(data_dir: str) -> Credentials:
    """Return a coordinator's own identity, for who may read its data directory. Raises BadCredentials."""
    directory = IdentityDir(Path(data_dir) / "pki" / "identity")
    held = directory.load()
    if held is None:
        raise BadCredentials(
            f"there is no identity in {directory.path}", hint="name the data directory of a coordinator (or be root)"
        )
    return held


def find_credentials(
    file: ContextFile, context: Context, ask: Ask = ask_identity_service, now_ms: int = 0
) -> Credentials | None:
    """Return the person's credentials in a context, renewed if that is due; None if there are none.

    A renewal that fails is no reason to fail while the certificate is still good. Raises BadCredentials, and what
    renewing a certificate that has run out fails with.
    """
    directory = IdentityDir(file.identity_path(context.name))
    held = directory.load()
    if held is None:
        return None
    now_ms = now_ms or int(time.time() * 1000)
    freshness = held.freshness(now_ms)
    if freshness is Freshness.FRESH:
        return held
    addresses = context.coordinators if freshness is Freshness.DUE else context.join_addresses or context.coordinators
    try:
        return asyncio.run(refresh(directory, held, addresses, ask, now_ms))
    except CloudlessError:
        if freshness is Freshness.DUE:
            return held
        raise
