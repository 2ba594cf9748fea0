"""A node's or a person's side of becoming somebody: enrol with a token, renew, come back after a long time away.

The token names the cluster's CA by its hash. Whoever enrols shakes hands first, compares, and sends the secret only to
that cluster; a wrong cluster costs nothing but an error. The key is made here and stays here.

This is the one adapter made of two others: what to say is `pki`'s, how to say it `grpc`'s.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
from loguru import logger

from cloudless.adapters.grpc.channel import CHANNEL_OPTIONS, Dialler, known_as
from cloudless.adapters.grpc.status import from_rpc_error
from cloudless.adapters.pki.credentials import Credentials, build_credentials
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.pinning import fetch_pinned_root
from cloudless.adapters.pki.request import build_request, key_to_pem, read_key
from cloudless.core.identity.names import ANY_COORDINATOR
from cloudless.core.identity.tokens import find_token
from cloudless.errors import BadCredentials, CloudlessError, InvalidSpec, Problem, Unavailable, WrongAuthority
from cloudless.rpc.v1 import identity_pb2 as pb
from cloudless.rpc.v1 import objects_pb2
from cloudless.rpc.v1.identity_pb2_grpc import IdentityServiceStub

A = TypeVar("A")

CALL_TIMEOUT_S = 10.0
ENROL_RETRY_PAUSE_S = 1.0
SAY_WAITING_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Who somebody has become; `handover` is what only coordinators are given."""

    credentials: Credentials
    handover: pb.Handover | None


class Waiting:
    """Says what is waited for now and then, not at every try."""

    def __init__(self, goal: str) -> None:
        self._goal, self._said_s = goal, float("-inf")

    def say(self, why: Exception) -> None:
        if time.monotonic() - self._said_s > SAY_WAITING_EVERY_S:
            self._said_s = time.monotonic()
            logger.info("waiting {}: {}", self._goal, why)


def read_token(text: str, file: Path | None) -> str:
    """Return the token given as text or in a file, "" if none is given. Raises BadCredentials."""
    if text or file is None:
        return text
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadCredentials(f"the token file {file} cannot be read: {error}") from error


async def enrol(
    addresses: Sequence[str],
    token_text: str,
    name: str,
    directory: IdentityDir,
    *,
    role: str = "",
    request_id: str = "",
) -> Enrolled:
    """Become `name` by a token, at the first of the enrolment addresses that answers, and keep the identity.

    Raises InvalidSpec for what is no token, WrongAuthority if an address is of another cluster, Unavailable if none
    answers, and what the cluster refuses by.
    """
    token = find_token(token_text)
    if token is None:
        raise InvalidSpec([Problem("token", "is not a join token: cloudless token create makes one")])
    key = directory.prepare_key()
    request = pb.EnrolRequest(
        token=token.text,
        name=name,
        role=objects_pb2.Role.Value(f"ROLE_{role}") if role else objects_pb2.Role.ROLE_UNSPECIFIED,
        csr_pem=build_request(key),
    )
    request.options.request_id = request_id

    async def ask(address: str) -> pb.EnrolResponse:
        root = await fetch_pinned_root(address, token.pin)
        return await _call(address, root.encode(), lambda stub: stub.Enrol(request, timeout=CALL_TIMEOUT_S))

    answer = await _ask_first(addresses, ask)
    credentials = build_credentials(answer.issued.chain_pem, key_to_pem(key), answer.issued.roots_pem)
    directory.store(credentials)
    return Enrolled(credentials, answer.handover if answer.HasField("handover") else None)


async def reenrol(addresses: Sequence[str], held: Credentials, directory: IdentityDir) -> Credentials:
    """Get a new certificate for an identity whose old one has run out, and keep it. Raises as `enrol`."""
    request = pb.ReenrolRequest(certificate_pem=held.chain_pem.decode(), csr_pem=build_request(read_key(held.key_pem)))

    async def ask(address: str) -> pb.ReenrolResponse:
        return await _call(address, held.roots_pem, lambda stub: stub.Reenrol(request, timeout=CALL_TIMEOUT_S))

    return _kept((await _ask_first(addresses, ask)).issued, held, directory)


async def renew(dialler: Dialler, addresses: Sequence[str], held: Credentials, directory: IdentityDir) -> Credentials:
    """Get a new certificate for an identity whose old one is still good, and keep it. Raises as `enrol`."""
    request = pb.RenewRequest(csr_pem=build_request(read_key(held.key_pem)))

    async def ask(address: str) -> pb.RenewResponse:
        channel = dialler.open(address)
        try:
            stub = IdentityServiceStub(channel)  # type: ignore[no-untyped-call]
            answer: pb.RenewResponse = await stub.Renew(request, timeout=CALL_TIMEOUT_S)
            return answer
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            await channel.close()

    return _kept((await _ask_first(addresses, ask)).issued, held, directory)


def _kept(issued: pb.Issued, held: Credentials, directory: IdentityDir) -> Credentials:
    fresh = build_credentials(issued.chain_pem, held.key_pem, issued.roots_pem)
    directory.store(fresh)
    return fresh


async def _call(address: str, root_pem: bytes, call: Callable[[Any], Awaitable[A]]) -> A:
    """Ask a coordinator that proves itself by `root_pem`, as nobody."""
    options = (*CHANNEL_OPTIONS, *known_as(ANY_COORDINATOR))
    channel = grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(root_pem), options)
    try:
        return await call(IdentityServiceStub(channel))  # type: ignore[no-untyped-call]
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    finally:
        await channel.close()


async def _ask_first(addresses: Sequence[str], ask: Callable[[str], Awaitable[A]]) -> A:
    """Return the first answer; a refusal by the cluster counts, silence and a foreign cluster do not."""
    missed: list[CloudlessError] = []
    for address in addresses:
        try:
            return await ask(address)
        except (Unavailable, WrongAuthority) as error:
            missed.append(error)
    foreign = [error for error in missed if isinstance(error, WrongAuthority)]
    if foreign and len(foreign) == len(missed):
        raise foreign[0]
    said = "; ".join(error.message for error in missed) or "no address is known"
    raise Unavailable(f"no coordinator could be asked for an identity: {said}")
