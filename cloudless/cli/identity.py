"""Who the person at the command line is: an identity on disk, renewed when a command finds it due.

Nobody runs a command once a day to stay somebody. A certificate that is due is renewed on the way, one that ran out is
exchanged by the key it was made for; only after a month away does it take a new token.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import click

from cloudless.adapters.grpc.asking import ask_identity
from cloudless.adapters.pki.credentials import Credentials
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.joining import enrol, refresh
from cloudless.cli.client import Client
from cloudless.cli.contexts import Context
from cloudless.cli.methods import CREATE_TOKEN
from cloudless.core.identity.renewal import Freshness
from cloudless.errors import BadCredentials, CloudlessError
from cloudless.ports import Credentials as AnyCredentials
from cloudless.rpc.v1 import identity_pb2, objects_pb2

FIRST_TOKEN_TTL_S = 300


def load_fresh(context: Context, directory: Path) -> Credentials:
    """Return the identity in `directory`, renewed if that is due. Raises BadCredentials."""
    kept = IdentityDir(directory)
    held = kept.load()
    if held is None:
        raise BadCredentials(f"there is no identity in {directory}", hint="log in again: cloudless login")
    now_ms = time.time_ns() // 1_000_000
    freshness = held.freshness(now_ms)
    if freshness is Freshness.FRESH:
        return held
    addresses = context.enrol if freshness is Freshness.EXPIRED else context.coordinators
    try:
        return asyncio.run(refresh(kept, held, addresses, ask_identity, now_ms))
    except CloudlessError as error:
        if freshness is Freshness.EXPIRED:
            raise
        click.echo(f"warning: your certificate could not be renewed: {error}", err=True)  # it is good for a while yet
        return held


def log_in(context: Context, directory: Path, token: str, name: str) -> Credentials:
    """Become `name` by a token and keep that identity in `directory`. Raises what the cluster refuses by."""
    return asyncio.run(enrol(IdentityDir(directory), token, name, None, context.enrol, ask_identity))


def create_first_token(context: Context, coordinator: AnyCredentials, name: str) -> str:
    """Return a token that lets `name` become an admin, asked for as a coordinator.

    Whoever can read a coordinator's key may do anything anyway; this is how the first admin comes to be, and the way
    back for a cluster that has lost its last one.
    """
    request = identity_pb2.CreateTokenRequest(
        role=objects_pb2.Role.ROLE_ADMIN, ttl_s=FIRST_TOKEN_TTL_S, names=[name], description="login on a coordinator"
    )
    with Client(context.coordinators, credentials=coordinator) as client:
        return client.call(CREATE_TOKEN, request).token
