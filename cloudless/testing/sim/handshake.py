"""TLS as far as it decides who talks to whom: both sides' certificates, whom each trusts, and each one's own clock.

A handshake is judged once, when a connection is opened; afterwards the connection stands whatever the clock says, as
TLS has it. Signatures are real ones; only their outcome is remembered, since the same pairs meet again and again.
"""

from __future__ import annotations

import functools
from typing import Protocol

from cloudless.adapters.pki.certificate import find_issuer, read_certificates, validity_of
from cloudless.core.identity.renewal import Validity


class Shown(Protocol):
    """What one side proves itself by and whom it trusts."""

    @property
    def chain_pem(self) -> bytes: ...

    @property
    def roots_pem(self) -> bytes: ...


def judge_handshake(client: Shown | None, client_ms: int, client_roots: bytes, server: Shown, server_ms: int) -> str:
    """Return why a connection does not come about, "" if it does; `client` None shows no certificate."""
    why = judge_certificate(server.chain_pem, client_roots, client_ms)
    if why:
        return f"the server's certificate {why}"
    why = judge_certificate(client.chain_pem, server.roots_pem, server_ms) if client is not None else ""
    return f"the client's certificate {why}" if why else ""


def judge_certificate(chain_pem: bytes, roots_pem: bytes, now_ms: int) -> str:
    """Return why a certificate is no good to who trusts `roots_pem`, "" if it is."""
    validities = _verify(chain_pem, roots_pem)
    if validities is None:
        return "is of no trusted authority"
    for validity in validities:
        if now_ms < validity.not_before_ms:
            return "is not valid yet"
        if now_ms >= validity.not_after_ms:
            return "has expired"
    return ""


@functools.lru_cache(maxsize=4096)
def _verify(chain_pem: bytes, roots_pem: bytes) -> tuple[Validity, Validity] | None:
    """Return the validity of the leaf and of the root that signed it, None if no root did."""
    leaf = read_certificates(chain_pem)[0]
    root = find_issuer(leaf, read_certificates(roots_pem))
    return (validity_of(leaf), validity_of(root)) if root is not None else None
