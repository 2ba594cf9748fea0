"""A debug bundle: everything that helps somebody else to help, in one archive, without secrets and of bounded size.

Every entry goes through `redact` on its way in, whatever it is; there is no other way into the archive. Of a log only
the end is taken. What cannot be had is an entry too, that says why.
"""

from __future__ import annotations

import dataclasses
import io
import json
import platform
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloudless import __version__
from cloudless.cli.client import Client
from cloudless.cli.doctor.coordinators import at_once
from cloudless.cli.doctor.examine import Examined
from cloudless.cli.doctor.pages import fetch_text
from cloudless.cli.doctor.show import plain_findings
from cloudless.cli.methods import (
    GET_DIGEST,
    GET_STATUS,
    INSPECT_COORDINATOR,
    LIST_EVENTS,
    LIST_MEMBERS,
    LIST_NODES,
    Method,
)
from cloudless.cli.plain import to_plain
from cloudless.core.diagnosis import CoordinatorFacts, diagnose
from cloudless.core.redaction import redact, redact_mapping
from cloudless.errors import CloudlessError
from cloudless.ports import Credentials
from cloudless.rpc.v1.cluster_pb2 import GetDigestRequest, GetStatusRequest, ListMembersRequest
from cloudless.rpc.v1.common_pb2 import CONSISTENCY_STALE, ReadOptions
from cloudless.rpc.v1.event_pb2 import ListEventsRequest
from cloudless.rpc.v1.maintenance_pb2 import InspectCoordinatorRequest
from cloudless.rpc.v1.node_pb2 import ListNodesRequest

ENTRY_BYTES_MAX = 512 << 10
BUNDLE_BYTES_MAX = 16 << 20
LOG_BYTES = 256 << 10
ASK_S = 3.0
_CUT = "[cut: the beginning is left out]\n"
_DATADIR_TEXTS = ("member.json", "progress.json", "lock", "etcd.pid")
_DATADIR_LOGS = ("etcd.log", "etcd.log.1")


@dataclass(slots=True)
class Bundle:
    """Entries by name, redacted and bounded as they are put in."""

    entries: dict[str, bytes] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.entries.values()))

    def put(self, name: str, text: str) -> None:
        """Add an entry; of one that is too long the end is kept, and what finds no room is named instead."""
        content = redact(text).encode(errors="replace")
        if len(content) > ENTRY_BYTES_MAX:
            content = _CUT.encode() + content[-ENTRY_BYTES_MAX:]
        if self.size_bytes + len(content) > BUNDLE_BYTES_MAX:
            self.left_out.append(name)
        else:
            self.entries[name] = content

    def put_json(self, name: str, value: Any) -> None:
        self.put(name, json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")

    def write(self, path: Path) -> None:
        """Write the archive, readable by its owner only. Raises OSError."""
        now_s = int(time.time())
        with open(path, "xb", opener=_private) as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, content in self.entries.items():
                entry = tarfile.TarInfo(f"{path.name.removesuffix('.tar.gz')}/{name}")
                entry.size, entry.mtime, entry.mode = len(content), now_s, 0o600
                archive.addfile(entry, io.BytesIO(content))


def _private(path: str, flags: int) -> int:
    import os

    return os.open(path, flags, 0o600)


def collect(
    examined: Examined,
    environ: Mapping[str, str],
    data_dir: Path | None,
    timeout_s: float,
    credentials: Credentials | None = None,
) -> Bundle:
    """Return a bundle of what was examined and of what the coordinators say besides."""
    bundle = Bundle()
    facts, ask_s = examined.facts, min(ASK_S, timeout_s)
    bundle.put_json("doctor.json", plain_findings(diagnose(facts), examined.looked_at))
    bundle.put_json("facts.json", dataclasses.asdict(facts))
    bundle.put_json("versions.json", _versions())
    shown = {name: value for name, value in environ.items() if name.startswith("CLOUDLESS_")}
    bundle.put_json("environment.json", redact_mapping(shown))
    if facts.cluster:
        answering = facts.cluster.answering
        told = at_once(lambda one: list(_ask(one, ask_s, credentials)), answering)
        for one, entries in told.items():
            for name, text in entries:
                bundle.put(f"coordinators/{one.id or one.address}/{name}", text)
    if data_dir:
        for name, text in _read_datadir(data_dir):
            bundle.put(f"data-dir/{name}", text)
    bundle.put("README.txt", describe(bundle))
    return bundle


def describe(bundle: Bundle) -> str:
    """Return what the bundle holds, entry by entry."""
    lines = [f"{len(content):>9}  {name}" for name, content in sorted(bundle.entries.items())]
    lines += [f"{'left out':>9}  {name}" for name in bundle.left_out]
    return "bytes      entry (tokens, keys, PEM blocks and secret settings are redacted in all of them)\n" + "\n".join(
        lines
    )


def _versions() -> dict[str, str]:
    import grpc

    return {
        "cloudless": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "grpc": grpc.__version__,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _ask(one: CoordinatorFacts, timeout_s: float, credentials: Credentials | None) -> Iterator[tuple[str, str]]:
    """Yield what one coordinator says, call by call; a call that fails yields its error."""
    stale = ReadOptions(consistency=CONSISTENCY_STALE)
    calls: tuple[tuple[str, Method[Any, Any], Any], ...] = (
        ("inspect", INSPECT_COORDINATOR, InspectCoordinatorRequest()),
        ("status", GET_STATUS, GetStatusRequest()),
        ("members", LIST_MEMBERS, ListMembersRequest()),
        ("digest", GET_DIGEST, GetDigestRequest()),
        ("nodes", LIST_NODES, ListNodesRequest(read=stale)),
        ("events", LIST_EVENTS, ListEventsRequest(read=stale, limit=500)),
    )
    metrics_address = ""
    with Client((one.address,), timeout_s, credentials) as client:
        for name, method, request in calls:
            try:
                answer = client.call(method, request)
            except CloudlessError as error:
                yield f"{name}.error", f"{type(error).__name__}: {error}\n"
                continue
            if name == "status":
                records = (status.record for status in answer.coordinators if status.record.id == one.id)
                metrics_address = next((record.metrics_address for record in records), "")
            yield f"{name}.json", json.dumps(to_plain(answer), indent=1, ensure_ascii=False) + "\n"
    if metrics_address:
        yield _or_error(
            "metrics",
            ".txt",
            lambda: fetch_text(metrics_address, "/metrics", timeout_s, ENTRY_BYTES_MAX, credentials),
        )


def _or_error(name: str, suffix: str, read: Callable[[], str]) -> tuple[str, str]:
    try:
        return name + suffix, read()
    except (OSError, ValueError) as error:
        return f"{name}.error", f"{error}\n"


def _read_datadir(path: Path) -> Iterator[tuple[str, str]]:
    """Yield small files whole, the ends of logs, and a list of what lies there; never keys, never the store itself."""
    for name in _DATADIR_TEXTS:
        if (path / name).is_file():
            yield _or_error(name, "", lambda name=name: (path / name).read_text(errors="replace"))  # type: ignore[misc]
    for name in _DATADIR_LOGS:
        if (path / name).is_file():
            yield _or_error(name, "", lambda name=name: _tail(path / name))  # type: ignore[misc]
    yield _or_error("listing", ".txt", lambda: "\n".join(_listing(path)) + "\n")


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        size_bytes = file.seek(0, 2)
        file.seek(max(0, size_bytes - LOG_BYTES))
        return (_CUT if size_bytes > LOG_BYTES else "") + file.read().decode(errors="replace")


def _listing(path: Path) -> Iterator[str]:
    for entry in sorted(path.rglob("*"))[:2_000]:
        found = entry.lstat()
        yield f"{found.st_mode:06o} {found.st_uid:>6} {found.st_size:>12} {entry.relative_to(path)}"
