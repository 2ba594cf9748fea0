"""Fetch an official release tarball of etcd, checked against a sha256 that the operator gives.

The address and the checksum come from the operator (`CLOUDLESS_ETCD_RELEASE_URL`, `CLOUDLESS_ETCD_RELEASE_SHA256`):
no address is built in, and without a checksum nothing is downloaded. Only the programs are taken out of the
archive, by name, as plain files.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
import urllib.request
from pathlib import Path
from typing import IO

from etcd import cache
from etcd.binary import NotEtcd, ask_version
from etcd.fetch import FetchFailed
from etcd.gate import Version

_TIMEOUT_S = 60.0
_SIZE_MAX_BYTES = 256 * 1024**2
_CHUNK_BYTES = 1024**2


def fetch_release(cache_root: Path, url: str, sha256: str) -> tuple[Path, Version]:
    """Download `url`, check it and put its programs into the cache; return etcd's path and version.

    Raises FetchFailed; a wrong checksum leaves nothing behind.
    """
    if len(sha256.strip()) != 64:
        raise FetchFailed("needs the archive's sha256 in CLOUDLESS_ETCD_RELEASE_SHA256 (64 hexadecimal digits)")
    with cache.locked(cache_root), tempfile.TemporaryDirectory(prefix="cloudless-etcd-") as root:
        archive = Path(root) / "archive.tar.gz"
        try:
            actual = _download(url, archive)
            if actual != sha256.strip().lower():
                raise FetchFailed(f"checksum differs: the archive has sha256 {actual}")
            programs = _unpack(archive, Path(root))
            version = ask_version(programs["etcd"])
            return cache.install(cache_root, version, programs), version
        except (OSError, ValueError, tarfile.TarError, NotEtcd) as error:
            raise FetchFailed(str(error)) from error


def _download(url: str, target: Path) -> str:
    digest = hashlib.sha256()
    size_bytes = 0
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer, target.open("wb") as file:
        while chunk := answer.read(_CHUNK_BYTES):
            size_bytes += len(chunk)
            if size_bytes > _SIZE_MAX_BYTES:
                raise FetchFailed(f"the archive is larger than {_SIZE_MAX_BYTES} bytes")
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _unpack(archive: Path, root: Path) -> dict[str, Path]:
    programs: dict[str, Path] = {}
    with tarfile.open(archive, "r:gz") as tar:
        for entry in tar:
            name = Path(entry.name).name
            source: IO[bytes] | None = tar.extractfile(entry) if entry.isfile() and name in cache.PROGRAMS else None
            if source is not None:
                programs[name] = root / name
                with source, programs[name].open("wb") as target:
                    shutil.copyfileobj(source, target)
                programs[name].chmod(0o755)
    if "etcd" not in programs:
        raise FetchFailed("the archive holds no etcd")
    return programs
