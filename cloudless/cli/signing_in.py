"""A person's identity in a context: got with a token, kept fresh whenever it is used.

A command runs for a moment and no process of the person's stays, so the certificate is renewed on use, once half of its
life is over; if it has run out meanwhile, the old one and its key bring a new one.
"""

from __future__ import annotations

import asyncio
import time

from cloudless.adapters.grpc.identity_calls import ask_identity_service
from cloudless.adapters.pki.credentials import Credentials
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.joining import Ask, enrol, refresh
from cloudless.cli.client import Client
from cloudless.cli.contexts import Context, ContextFile
from cloudless.cli.methods import CREATE_TOKEN
from cloudless.core.identity.names import IdentityKind
from cloudless.core.identity.renewal import Freshness
from cloudless.errors import BadCredentials, CloudlessError
from cloudless.ports import Credentials as ShownCredentials
from cloudless.rpc.v1 import identity_pb2, objects_pb2

FIRST_TOKEN_TTL_S = 300


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


def create_first_token(context: Context, coordinator: ShownCredentials, name: str) -> str:
    """Return a token that lets `name` become an admin, asked for as a coordinator.

    Whoever can read a coordinator's key may do anything anyway; this is how the first admin comes to be, and the way
    back for a cluster that has lost its last one.
    """
    request = identity_pb2.CreateTokenRequest(
        role=objects_pb2.Role.ROLE_ADMIN, ttl_s=FIRST_TOKEN_TTL_S, names=[name], description="login on a coordinator"
    )
    with Client(context.coordinators, credentials=coordinator) as client:
        return client.call(CREATE_TOKEN, request).token


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
