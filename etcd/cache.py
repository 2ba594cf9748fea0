"""Keep fetched etcd binaries: `<root>/<version>/bin/etcd`, complete or absent.

A version is installed by renaming a finished directory, under a file lock, after its binary has run and named
the version expected; so a reader needs no lock, and two processes that fetch at once do the work once.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from etcd.binary import NotEtcd, ask_version
from etcd.gate import Version

PROGRAMS = ("etcd", "etcdctl", "etcdutl")
_LOCK_WAIT_S = 600.0
_LOCK_POLL_S = 0.2


class CacheUnavailable(Exception):
    """The cache directory cannot be used; the message says why."""


def default_root(environ: Mapping[str, str]) -> Path:
    """Return `${XDG_CACHE_HOME:-~/.cache}/cloudless/etcd`. Raises CacheUnavailable without a home directory."""
    base = environ.get("XDG_CACHE_HOME")
    try:
        return Path(base or Path.home() / ".cache") / "cloudless" / "etcd"
    except RuntimeError as error:
        raise CacheUnavailable("this user has no home directory: set XDG_CACHE_HOME") from error


def cached(root: Path) -> tuple[tuple[Version, Path], ...]:
    """Return the versions in the cache, newest first, as their directory's name tells."""
    found = []
    for path in root.glob("*/bin/etcd"):
        try:
            found.append((Version.parse(path.parent.parent.name), path))
        except ValueError:
            continue
    return tuple(sorted(found, key=lambda entry: entry[0], reverse=True))


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the cache for one writer. Raises CacheUnavailable if it stays taken for 10 minutes."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CacheUnavailable(f"{root} cannot be written: {error.strerror}") from error
    try:
        _wait_for_lock(handle, root)
        yield
    finally:
        os.close(handle)


def install(root: Path, version: Version, programs: Mapping[str, Path]) -> Path:
    """Copy `programs` (name to file, "etcd" among them) into the cache and return the path of etcd.

    The caller holds `locked(root)`. Raises NotEtcd if the copy does not run or is another version.
    """
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=root))
    try:
        bin_dir = staging / "bin"
        bin_dir.mkdir()
        for name, source in programs.items():
            shutil.copyfile(source, bin_dir / name)
            (bin_dir / name).chmod(0o755)
        actual = ask_version(bin_dir / "etcd")
        if actual != version:
            raise NotEtcd(f"is {actual}, though {version} was announced")
        staging.chmod(0o755)
        return _publish(staging, root / str(version)) / "bin" / "etcd"
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _publish(staging: Path, target: Path) -> Path:
    if target.exists():
        # A member may be running from it: its inodes live on until it ends.
        old = Path(tempfile.mkdtemp(prefix=".old-", dir=target.parent))
        target.rename(old / "version")
        staging.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        staging.rename(target)
    return target


def _wait_for_lock(handle: int, root: Path) -> None:
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise CacheUnavailable(f"another process holds {root / '.lock'} for {_LOCK_WAIT_S:g} s") from error
            time.sleep(_LOCK_POLL_S)
