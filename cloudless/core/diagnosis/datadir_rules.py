"""Rules about one data directory, looked at without its coordinator: whose it is, whether it is whole and its own."""

from __future__ import annotations

from collections.abc import Iterator

from cloudless.core.diagnosis.amounts import size
from cloudless.core.diagnosis.facts import DataDirFacts
from cloudless.core.diagnosis.finding import Finding
from cloudless.core.diagnosis.kinds import find
from cloudless.core.diagnosis.space_rules import judge_disk
from cloudless.core.versions import parse_version

OTHERS = 0o077
ALARMING = ("panic", "crc mismatch", "no space left", "fatal", "corrupt", "conflict with committed entry")


def judge_datadir(data: DataDirFacts) -> Iterator[Finding]:
    """Return everything that is wrong with a data directory."""
    if not data.exists:
        yield find("datadir-missing", data.node_id, path=data.path)
        return
    if data.error:
        yield find("datadir-unreadable", data.node_id, path=data.path, reason=data.error)
    yield from _judge_identity(data)
    yield from _judge_wholeness(data)
    yield from _judge_rights(data)
    yield from _judge_processes(data)
    for path, count_bytes in data.asides:
        yield find("put-aside", data.node_id, path=path, size=size(count_bytes))
    if data.strays:
        yield find("strays", data.node_id, path=data.path, names=", ".join(data.strays[:8]))
    yield from judge_disk(data.node_id or data.path, data.disk)


def _judge_identity(data: DataDirFacts) -> Iterator[Finding]:
    if data.marker_error:
        yield find("marker-unreadable", data.node_id, path=data.path, reason=data.marker_error)
    elif data.state == "foreign":
        yield find("data-foreign", data.node_id, f"write-ahead log of {size(max(0, data.wal_bytes))}", path=data.path)
    elif data.expected_id and data.node_id and data.expected_id != data.node_id:
        yield find("data-of-another", data.node_id, f"member {data.member_id} of cluster {data.cluster_id}",
                   path=data.path, expected=data.expected_id)  # fmt: skip


def _judge_wholeness(data: DataDirFacts) -> Iterator[Finding]:
    name = data.node_id or "this node"
    if data.removed:
        yield find("member-removed", name, data.log_last_words)
    if data.state == "lost":
        yield find("data-lost", name, f"member {data.member_id} of cluster {data.cluster_id}")
    elif data.doubt:
        yield find("data-doubted", name, reason=data.doubt)
    elif data.shortfall:
        yield find("data-outdated", name, reason=data.shortfall)
    if data.log_last_words and not data.removed and any(word in data.log_last_words.lower() for word in ALARMING):
        yield find("etcd-said", name, path=data.path, words=data.log_last_words)
    mine, writer = parse_version(data.etcd_version), parse_version(data.last_etcd_version)
    if mine and writer and mine < writer:
        yield find("etcd-older-than-data", name, version=data.etcd_version, writer=data.last_etcd_version,
                   path=data.path)  # fmt: skip


def _judge_rights(data: DataDirFacts) -> Iterator[Finding]:
    if data.mode & OTHERS:
        yield find("permissions", data.node_id, path=data.path, mode=f"{data.mode:04o}", wanted="700")
    for entry in data.loose:
        path, _, mode = entry.rpartition(" ")
        yield find("permissions", data.node_id, path=path, mode=mode, wanted="go=")
    if data.owned_by:
        yield find("wrong-owner", data.node_id, path=data.path, owner=data.owned_by)


def _judge_processes(data: DataDirFacts) -> Iterator[Finding]:
    if data.owner:
        yield find("in-use", data.node_id, path=data.path, owner=data.owner)
    elif data.orphan_pid:
        yield find("orphaned-etcd", data.node_id, path=data.path, pid=data.orphan_pid)
