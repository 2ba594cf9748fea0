"""What a coordinator keeps to sign with: the cluster key, and the authorities as they were last replicated.

    <path>/cluster.key         64 hex digits; while the key is replaced a line for each, the one in use first
    <path>/authorities.json    the cluster's id and the authority records, their keys sealed by the cluster key

A coordinator must serve TLS and start etcd before it can read replicated state, so the records are cached here; the
replicated ones rule once they are known. The cluster key comes into being with the cluster and travels only inside an
authenticated answer to a joining coordinator, or in a founding file that an operator carries.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudless.adapters.pki.authority import LEAF_LIFETIME_S, Authority, new_authority, open_authority
from cloudless.adapters.pki.durable import make_private_directory, read_private, write_private
from cloudless.adapters.pki.sealing import ClusterKey
from cloudless.core.identity.rotation import trusted_records
from cloudless.core.keys import authority as authority_key
from cloudless.core.keys import parse as parse_key
from cloudless.core.model import AuthorityPhase, AuthorityPurpose, AuthorityRecord
from cloudless.errors import BadCredentials, Unavailable
from cloudless.rpc.codec import Malformed, decode_record, encode_record

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Holdings:
    """A cluster's authorities and the key to open them; `other_keys` are held while the key is replaced."""

    cluster_id: str
    cluster_key: ClusterKey
    records: tuple[AuthorityRecord, ...]
    other_keys: tuple[ClusterKey, ...] = ()

    @property
    def keys(self) -> tuple[ClusterKey, ...]:
        """All keys, the one in use first."""
        return (self.cluster_key, *self.other_keys)

    def find_key(self, name: str) -> ClusterKey | None:
        return next((key for key in self.keys if key.name == name), None)

    def get_issuing(self, purpose: AuthorityPurpose) -> AuthorityRecord:
        """Return the authority that signs for `purpose`. Raises Unavailable before there is one."""
        for record in trusted_records(self.records, purpose):
            if record.phase is AuthorityPhase.ISSUING:
                return record
        raise Unavailable("the cluster has no certificate authority yet", hint="try again in a moment")

    def open_issuing(self, purpose: AuthorityPurpose) -> Authority:
        """Return the authority that signs for `purpose`, opened. Raises BadCredentials, Unavailable."""
        return self.open(self.get_issuing(purpose))

    def open(self, record: AuthorityRecord) -> Authority:
        """Return one of the authorities, opened. Raises BadCredentials."""
        return open_authority(record, self.find_key(record.sealed_with) or self.cluster_key)

    def roots_pem(self, purpose: AuthorityPurpose) -> str:
        """Return the certificates to trust for `purpose`, the one that signs first."""
        return roots_pem(self.records, purpose)


def roots_pem(records: Iterable[AuthorityRecord], purpose: AuthorityPurpose) -> str:
    return "".join(record.certificate_pem for record in trusted_records(records, purpose))


def found(cluster_id: str, now_ms: int, *, leaf_lifetime_s: int = LEAF_LIFETIME_S) -> Holdings:
    """Make a cluster key and the first authority of each purpose."""
    key = ClusterKey.new()
    authorities = [
        new_authority(purpose, cluster_id, key, now_ms, leaf_lifetime_s=leaf_lifetime_s) for purpose in AuthorityPurpose
    ]
    records = sorted((authority.record for authority in authorities), key=lambda record: record.id)
    return Holdings(cluster_id, key, tuple(records))


class Vault:
    """Holdings on disk; nothing is made before something is kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key_file, self._records_file = path / "cluster.key", path / "authorities.json"

    def load(self) -> Holdings | None:
        """Return what is kept, None if nothing is. Raises BadCredentials for half of it, or what cannot be read."""
        keys, records = read_private(self._key_file), read_private(self._records_file)
        if keys is None and records is None:
            return None
        if keys is None or records is None:
            raise BadCredentials(f"{self._key_file if keys is None else self._records_file} is missing", hint=_REJOIN)
        return _read(records, keys, str(self.path))

    def keep(self, holdings: Holdings) -> None:
        """Keep holdings in place of what was there; the keys first, for records without them cannot be opened.

        Drop a key only when the records kept before need it no more: a crash between the two files leaves those.
        """
        make_private_directory(self.path)
        if read_private(self._key_file) != _key_text(holdings):
            write_private(self._key_file, _key_text(holdings))
        content = json.dumps(_to_plain(holdings), indent=1).encode()
        if read_private(self._records_file) != content:
            write_private(self._records_file, content)


def to_founding_file(holdings: Holdings) -> bytes:
    """Return all of it in one text, key included: for founders that start together. A secret."""
    return json.dumps({**_to_plain(holdings), "cluster_key": holdings.cluster_key.raw.hex()}, indent=1).encode()


def read_founding_file(content: bytes) -> Holdings:
    """Return what `to_founding_file` wrote. Raises BadCredentials."""
    try:
        key = str(json.loads(content)["cluster_key"]).encode()
    except (ValueError, KeyError, TypeError) as error:
        raise BadCredentials("the founding file cannot be read") from error
    return _read(content, key, "the founding file")


def _key_text(holdings: Holdings) -> bytes:
    return b"".join(key.raw.hex().encode() + b"\n" for key in holdings.keys)


def _to_plain(holdings: Holdings) -> dict[str, Any]:
    stored = {record.id: base64.b64encode(encode_record(record)).decode() for record in holdings.records}
    return {"format": _FORMAT, "cluster_id": holdings.cluster_id, "authorities": stored}


def _read(content: bytes, key_lines: bytes, where: str) -> Holdings:
    try:
        plain = json.loads(content)
        if plain["format"] != _FORMAT:
            raise BadCredentials(f"{where} has format {plain['format']}, which this version does not know")
        records = [
            _decode(authority_id, base64.b64decode(text, validate=True))
            for authority_id, text in sorted(plain["authorities"].items())
        ]
        keys = [ClusterKey(bytes.fromhex(line)) for line in key_lines.decode().split()]
        if not keys:
            raise ValueError("no key")
        return Holdings(str(plain["cluster_id"]), keys[0], tuple(records), tuple(keys[1:]))
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error, Malformed) as error:
        raise BadCredentials(f"{where} cannot be read: {type(error).__name__}", hint=_REJOIN) from error


def _decode(authority_id: str, stored: bytes) -> AuthorityRecord:
    parsed = parse_key(authority_key(authority_id))
    if parsed is None:
        raise Malformed(f"{authority_id} is not the id of an authority")
    record = decode_record(parsed, stored)
    assert isinstance(record, AuthorityRecord)
    return record


_REJOIN = "restore it, or join again with an empty data directory and a coordinator token"
