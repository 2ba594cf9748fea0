"""Is this the cluster the token is for? Asked before anything secret is sent.

A joiner trusts no CA yet. It shakes hands with a coordinator without verifying anything, keeps of that only the chain
it was shown, and looks in it for the CA whose public key has the hash that its token pins. That CA is then the only one
trusted for the connection on which the token travels, so a wrong chain here gains nobody anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

from cryptography import x509

from cloudless.adapters.pki.certificate import find_issuer, pin_of, to_pem
from cloudless.core.identity.names import ANY_COORDINATOR
from cloudless.errors import Unavailable, WrongAuthority

TIMEOUT_S = 5.0
CHAIN_MAX = 8


async def fetch_pinned_root(address: str, pin: str, *, timeout_s: float = TIMEOUT_S) -> str:
    """Return the CA certificate with `pin` (hex) as PEM, from the coordinator at `host:port`.

    Raises WrongAuthority if the coordinator is of another cluster, Unavailable if it cannot be asked.
    """
    chain = await fetch_chain(address, timeout_s=timeout_s)
    root = find_pinned(chain, pin)
    if root is None:
        shown = ", ".join(pin_of(certificate)[:16] for certificate in chain[1:]) or "none"
        raise WrongAuthority(
            f"the coordinator at {address} is not of the cluster the token is for: its CA is {shown}, "
            f"the token names {pin[:16]}",
            hint="nothing was sent. Is the address right? After a CA was replaced, create a new token",
        )
    return to_pem([root])


def find_pinned(chain: list[x509.Certificate], pin: str) -> x509.Certificate | None:
    """Return the CA of a chain that has `pin` and signed the chain's first certificate."""
    pinned = [certificate for certificate in chain[1:] if pin_of(certificate) == pin]
    return find_issuer(chain[0], pinned)


async def fetch_chain(address: str, *, timeout_s: float = TIMEOUT_S) -> list[x509.Certificate]:
    """Return the certificates that the server at `host:port` shows, unverified. Raises Unavailable."""
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(
                host.strip("[]"), int(port), ssl=context, server_hostname=ANY_COORDINATOR
            )
    except (OSError, TimeoutError, ValueError) as error:
        what = "no TLS is spoken there" if isinstance(error, ssl.SSLError) else str(error) or "no answer in time"
        raise Unavailable(f"cannot ask {address} who it is: {what}") from error
    try:
        return _shown(writer.get_extra_info("ssl_object"))[:CHAIN_MAX]
    except ValueError as error:
        raise Unavailable(f"{address} shows certificates that cannot be read") from error
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(timeout_s):
                await writer.wait_closed()


def _shown(connection: Any) -> list[x509.Certificate]:
    """Return the peer's chain. Public since Python 3.13; before, the same method stands one layer below."""
    if hasattr(connection, "get_unverified_chain"):
        return [x509.load_der_x509_certificate(der) for der in connection.get_unverified_chain()]
    chain = connection._sslobj.get_unverified_chain() or []
    return [x509.load_der_x509_certificate(ssl.PEM_cert_to_DER_cert(item.public_bytes())) for item in chain]
