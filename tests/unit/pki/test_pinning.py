"""A joiner finds the CA its token pins in what a real TLS server shows, and stops at any other."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cloudless.adapters.pki.certificate import pin_of, read_certificates
from cloudless.adapters.pki.pinning import fetch_chain, fetch_pinned_root, find_pinned
from cloudless.adapters.pki.request import key_to_pem, new_key
from cloudless.adapters.pki.vault import Holdings, found
from cloudless.core.identity.names import Identity, IdentityKind
from cloudless.core.model import AuthorityPurpose
from cloudless.errors import Unavailable, WrongAuthority

CLUSTER = AuthorityPurpose.CLUSTER
NOW_MS = int(time.time() * 1000)
OURS, THEIRS = found("ours", NOW_MS), found("theirs", NOW_MS)


def pin(holdings: Holdings) -> str:
    return holdings.open_issuing(CLUSTER).record.pin


@asynccontextmanager
async def serving(holdings: Holdings, folder: Path, chain: str = "") -> AsyncIterator[str]:
    """Serve TLS that demands a client certificate; yield the address."""
    authority, key = holdings.open_issuing(CLUSTER), new_key()
    identity = Identity(holdings.cluster_id, IdentityKind.COORDINATOR, "c1")
    pem = chain or authority.chain_pem(authority.sign_identity(identity, key.public_key(), NOW_MS))
    (folder / "server.pem").write_text(key_to_pem(key) + pem)
    (folder / "roots.pem").write_text(holdings.roots_pem(CLUSTER))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    context.load_verify_locations(folder / "roots.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # clients that leave are the point
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_the_pinned_ca_is_found_though_the_server_wants_a_certificate_of_us(tmp_path: Path) -> None:
    async with serving(OURS, tmp_path) as address:
        root = await fetch_pinned_root(address, pin(OURS))
    assert root == OURS.roots_pem(CLUSTER)


async def test_another_cluster_is_refused_and_named(tmp_path: Path) -> None:
    async with serving(THEIRS, tmp_path) as address:
        with pytest.raises(WrongAuthority, match=pin(THEIRS)[:16]):
            await fetch_pinned_root(address, pin(OURS))


def test_the_right_ca_beside_a_certificate_it_did_not_sign_helps_nobody() -> None:
    """Anybody can show our public CA certificate; only its own certificates count."""
    authority, key = THEIRS.open_issuing(CLUSTER), new_key()
    forged = authority.sign_identity(Identity("ours", IdentityKind.COORDINATOR, "c1"), key.public_key(), NOW_MS)
    ours = read_certificates(OURS.roots_pem(CLUSTER))[0]
    assert find_pinned([forged, ours], pin(OURS)) is None
    assert find_pinned([forged, authority.certificate], pin(THEIRS)) == authority.certificate
    assert find_pinned([ours], pin(OURS)) is None


async def test_a_server_without_tls_and_one_that_is_not_there_cannot_be_asked() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.write(b"HTTP/1.1 400\r\n\r\n"), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(Unavailable, match="TLS"):
        await fetch_pinned_root(f"127.0.0.1:{port}", pin(OURS))
    server.close()
    await server.wait_closed()
    with pytest.raises(Unavailable):
        await fetch_pinned_root(f"127.0.0.1:{port}", pin(OURS))


async def test_a_server_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    with pytest.raises(Unavailable):
        await fetch_chain(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout_s=0.2)
    server.close()


async def test_the_chain_is_what_the_server_shows(tmp_path: Path) -> None:
    async with serving(OURS, tmp_path) as address:
        chain = await fetch_chain(address)
    assert [pin_of(certificate) == pin(OURS) for certificate in chain] == [False, True]
