"""Find `etcdutl`, etcd's program for data directories and snapshots: it comes with etcd but not in every package.

Looked for beside the etcd that runs, on PATH, then among the binaries fetched before. It must be of the same minor
version as that etcd, which has to read what it writes, and must know how to raise revisions when it restores.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from cloudless.errors import ToolMissing
from etcd import cache
from etcd.find import Found
from etcd.gate import Version

_TIMEOUT_S = 10.0
_RAISES_REVISIONS = "--bump-revision"


def find_etcdutl(binary: Found, environ: Mapping[str, str] | None = None) -> Path:
    """Return the path of an etcdutl that fits `binary`. Raises ToolMissing with what was passed over."""
    passed: list[str] = []
    for path in dict.fromkeys(_candidates(binary, os.environ if environ is None else environ)):
        refusal = _refusal(path, binary.version)
        if not refusal:
            return path
        passed.append(f"{path}: {refusal}")
    raise ToolMissing(
        f"no etcdutl for etcd {binary.version} was found" + (f" ({'; '.join(passed)})" if passed else ""),
        hint="install etcd's client tools (Debian: etcd-client) of the same version, or let `python -m etcd --fetch` "
        "fetch both; backups and restores need them, running does not",
    )


def _candidates(binary: Found, environ: Mapping[str, str]) -> Iterator[Path]:
    for etcd in (binary.path, binary.path.resolve()):
        if (beside := etcd.with_name("etcdutl")).is_file():
            yield beside
    on_path = shutil.which("etcdutl", path=environ.get("PATH"))
    if on_path:
        yield Path(on_path).absolute()
    try:
        entries = cache.cached(cache.default_root(environ))
    except cache.CacheUnavailable:
        return
    yield from (tool for _, path in entries if (tool := path.with_name("etcdutl")).is_file())


def _refusal(path: Path, wanted: Version) -> str:
    said = _run(path, "version")
    match = re.search(r"etcdutl version: (\S+)", said)
    if match is None:
        return "does not run, or names no version"
    version = Version.parse(match[1])
    if (version.major, version.minor) != (wanted.major, wanted.minor):
        return f"is {version}"
    if _RAISES_REVISIONS not in _run(path, "snapshot", "restore", "--help"):
        return f"{version} has no {_RAISES_REVISIONS}"
    return ""


def _run(path: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
    try:
        done = subprocess.run(
            [str(path), *arguments], capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S,
            check=False, env=environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr
