"""A coordinator's own identity: it holds the CA keys, so it signs for itself, before there is anybody to ask."""

from __future__ import annotations

from cloudless.adapters.pki.credentials import Credentials, build_credentials
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.request import key_to_pem, read_key
from cloudless.adapters.pki.vault import Holdings
from cloudless.core.identity.names import Identity, IdentityKind
from cloudless.core.identity.renewal import Freshness
from cloudless.core.model import AuthorityPurpose
from cloudless.errors import BadCredentials

CLUSTER = AuthorityPurpose.CLUSTER


def coordinator_identity(holdings: Holdings, name: str) -> Identity:
    return Identity(holdings.cluster_id, IdentityKind.COORDINATOR, name)


def sign_own(holdings: Holdings, name: str, directory: IdentityDir, now_ms: int) -> Credentials:
    """Return this coordinator's credentials: those on disk while fresh and of the CA that signs, else new ones.

    The key stays the same as long as it can be read, for the records know it by its hash. Raises BadCredentials.
    """
    identity = coordinator_identity(holdings, name)
    held = _find_held(directory)
    authority, roots = holdings.get_issuing(CLUSTER), holdings.roots_pem(CLUSTER).encode()
    if (
        held is not None
        and held.identity == identity
        and held.roots_pem == roots
        and held.chain_pem.endswith(authority.certificate_pem.encode())
        and held.freshness(now_ms) is Freshness.FRESH
    ):
        return held
    key = read_key(held.key_pem) if held is not None and held.identity == identity else directory.prepare_key()
    opened = holdings.open_issuing(CLUSTER)
    chain = opened.chain_pem(opened.sign_identity(identity, key.public_key(), now_ms))
    made = build_credentials(chain, key_to_pem(key), roots)
    directory.store(made)
    return made


def _find_held(directory: IdentityDir) -> Credentials | None:
    """Return what is on disk, None if it cannot be used: with the CA key at hand, another is signed at once."""
    try:
        return directory.load()
    except BadCredentials:
        return None
