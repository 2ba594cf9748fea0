"""Rules about room: in the store (quota, alarms, forecast) and on the disks beneath it.

A store has two sizes: of its file, which the quota counts, and of what is in use in it. The file shrinks only by
defragmentation, what is in use by compaction and by deleting.
"""

from __future__ import annotations

from collections.abc import Iterator

from cloudless.core.diagnosis.amounts import duration, size
from cloudless.core.diagnosis.facts import ClusterFacts, CoordinatorFacts, DiskFacts, StoreFacts
from cloudless.core.diagnosis.finding import Finding
from cloudless.core.diagnosis.kinds import find

NEAR_QUOTA = 0.7
FRAGMENTED = 0.5
FRAGMENTED_MIN_BYTES = 64 << 20
FORECAST_MAX_H = 72.0
DISK_FULL = 0.03
DISK_FULL_BYTES = 512 << 20
DISK_LOW = 0.10
DISK_LOW_BYTES = 5 << 30
"""Percentages say nothing of large disks, bytes nothing of small ones: a disk is low when both say so."""
INODES_LOW = 0.05
FSYNC_SLOW_MS = 25.0
FSYNC_STALL_MS = 250.0
"""Half a heartbeat, and half an election time-out, of the default profile: more holds up each heartbeat behind it, or
costs the leadership once in a while. A single write of 60 ms on a busy disk is neither."""


def judge_store_space(cluster: ClusterFacts) -> Iterator[Finding]:
    alarms = sorted({alarm for one in cluster.answering if one.store for alarm in one.store.alarms})
    for kind, code in (("NOSPACE", "nospace"), ("CORRUPT", "corrupt")):
        raised = [alarm for alarm in alarms if alarm.startswith(kind)]
        if raised:
            yield find(code, "", *raised, *_sizes(cluster))
    refusing = [one for one in cluster.answering if one.refuses_writes and one.store]
    if refusing and not any(alarm.startswith("NOSPACE") for alarm in alarms):
        fullest = max((one.store for one in refusing if one.store), key=lambda store: store.in_use_bytes)
        yield find("writes-refused", "", *(f"{one.id}: {one.refuses_writes}" for one in refusing),
                   used=size(fullest.in_use_bytes), quota=size(fullest.quota_bytes))  # fmt: skip
    for one in cluster.answering:
        if one.store and not refusing and not alarms:
            yield from _judge_one(one.id, one.store)
    yield from _judge_forecast(cluster)


def _sizes(cluster: ClusterFacts) -> Iterator[str]:
    for one in cluster.answering:
        if one.store:
            quota = size(one.store.quota_bytes) if one.store.quota_bytes else "unknown"
            yield (f"{one.id}: file {size(one.store.size_bytes)}, in use {size(one.store.in_use_bytes)}, quota {quota}")


def _judge_one(subject: str, store: StoreFacts) -> Iterator[Finding]:
    fullness = store.size_bytes / store.quota_bytes if store.quota_bytes else 0.0
    words = f"file {size(store.size_bytes)}, in use {size(store.in_use_bytes)}, quota {size(store.quota_bytes)}"
    if fullness >= NEAR_QUOTA:
        yield find("near-quota", subject, words, percent=round(100 * fullness))
    elif store.size_bytes >= FRAGMENTED_MIN_BYTES and store.in_use_bytes < FRAGMENTED * store.size_bytes:
        yield find("fragmented", subject, words, size=size(store.size_bytes), used=size(store.in_use_bytes))


def _judge_forecast(cluster: ClusterFacts) -> Iterator[Finding]:
    growing = [
        one for one in cluster.answering if 0 <= one.quota_hours_left <= FORECAST_MAX_H and not one.refuses_writes
    ]
    if growing:
        soonest = min(growing, key=lambda one: one.quota_hours_left)
        yield find("quota-forecast", "", *_sizes(cluster), hours=duration(soonest.quota_hours_left * 3600))


def judge_disks(cluster: ClusterFacts) -> Iterator[Finding]:
    for one in cluster.answering:
        if one.disk:
            yield from judge_disk(_name(one), one.disk)


def _name(one: CoordinatorFacts) -> str:
    return one.id or one.address


def judge_disk(subject: str, disk: DiskFacts) -> Iterator[Finding]:
    """Return what is wrong with one disk: room, inodes, speed."""
    if disk.writable is False:
        yield find("read-only", subject, path=disk.path)
    if disk.total_bytes > 0:
        share = disk.free_bytes / disk.total_bytes
        words = {"free": size(disk.free_bytes), "total": size(disk.total_bytes), "path": disk.path or "it"}
        if share < DISK_FULL and disk.free_bytes < DISK_FULL_BYTES:
            yield find("disk-full", subject, f"{100 * share:.1f} % free", **words)
        elif share < DISK_LOW and disk.free_bytes < DISK_LOW_BYTES:
            yield find("disk-low", subject, f"{100 * share:.1f} % free", **words)
    if disk.total_inodes > 0 and disk.free_inodes < INODES_LOW * disk.total_inodes:
        yield find("inodes-low", subject, free=disk.free_inodes, total=disk.total_inodes, path=disk.path or "it")
    if disk.fsync_p50_ms > FSYNC_SLOW_MS or disk.fsync_p99_ms > FSYNC_STALL_MS:
        yield find("slow-fsync", subject, p50=round(disk.fsync_p50_ms, 1), p99=round(disk.fsync_p99_ms, 1))
