"""Gather what there is to know of this host and of a data directory on it."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from pathlib import Path

from cloudless import __version__
from cloudless.adapters.etcd.admin import EtcdAdmin
from cloudless.adapters.host.disk import FsyncTimes, measure_fsync, measure_room
from cloudless.adapters.host.machine import look_at_machine
from cloudless.adapters.member import procfs
from cloudless.adapters.member.ports import require_free
from cloudless.adapters.member.survey import lock_owner, survey_datadir
from cloudless.adapters.pki.etcd_files import EtcdFiles
from cloudless.cli.seeds import find_addresses
from cloudless.core.diagnosis import DataDirFacts, DiskFacts, HostFacts, PortFacts, StoreFacts
from cloudless.errors import BadSettings, CloudlessError, PortInUse, StartupError
from cloudless.settings import (
    AgentSettings,
    CoordinatorSettings,
    find_unknown_settings,
    read_agent_settings,
    read_coordinator_settings,
)
from etcd.find import EtcdNotFound, Search, find
from etcd.flags import TlsFiles

DISK_S = 8.0
RESOLVE_S = 3.0
COORDINATOR, AGENT = "coordinator", "agent"
ETCD_ASK_S = 2.0


def gather_host(role: str, environ: Mapping[str, str]) -> HostFacts:
    """Return the facts of this host; with a `role` also whether that could run here with these settings."""
    machine = look_at_machine()
    facts = HostFacts(
        role=role,
        memory_bytes=machine.memory_bytes,
        memory_free_bytes=machine.memory_free_bytes,
        memory_limit_bytes=machine.memory_limit_bytes,
        cpus=machine.cpus,
        swap_used_bytes=machine.swap_used_bytes,
        open_files_max=machine.open_files_max,
        clock_synchronised=machine.clock_synchronised,
        settings_problems=tuple(map(str, find_unknown_settings(environ))),
    )
    if role:
        return _for_role(facts, role, environ)
    stores = tuple(_local_stores())
    orphans = tuple((pid, path) for pid, path, _ in stores if not _has_owner(path))
    return replace(facts, orphans=orphans, stores=tuple((path, store) for _, path, store in stores if store))


def gather_datadir(path: Path, environ: Mapping[str, str]) -> DataDirFacts:
    """Return the facts of a coordinator's data directory; what is written to measure the disk is removed again."""
    version = _etcd_version(environ)
    data = survey_datadir(path, environ.get("CLOUDLESS_NODE_ID", ""), version)
    return replace(data, disk=look_at_disk(path)) if data.exists else data


def look_at_disk(path: Path) -> DiskFacts:
    """Return the room and the speed of the disk under `path`; a disk that hangs costs `DISK_S`."""
    folder = path
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    facts = DiskFacts(path=str(folder))
    try:
        room = measure_room(folder)
        facts = replace(
            facts,
            free_bytes=room.free_bytes,
            total_bytes=room.total_bytes,
            free_inodes=room.free_inodes,
            total_inodes=room.total_inodes,
        )
    except OSError:
        return facts
    try:
        times = _within(DISK_S, lambda: measure_fsync(folder))
    except OSError:
        return replace(facts, writable=False)
    except FutureTimeout:
        times = FsyncTimes(1000 * DISK_S, 1000 * DISK_S, 0)
    return replace(facts, writable=True, fsync_p50_ms=times.median_ms, fsync_p99_ms=times.worst_ms)


def _within(timeout_s: float, call):  # type: ignore[no-untyped-def]
    """Return what `call` returns within `timeout_s`. A thread that hangs is left behind: it cannot be ended."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(call).result(timeout_s)
    finally:
        pool.shutdown(wait=False)


# --- what is to run here ---


def _for_role(facts: HostFacts, role: str, environ: Mapping[str, str]) -> HostFacts:
    settings: CoordinatorSettings | AgentSettings
    try:
        settings = (read_coordinator_settings if role == COORDINATOR else read_agent_settings)(environ)
    except BadSettings as error:
        facts = replace(facts, settings_problems=tuple(map(str, error.problems)))
        return _with_etcd(facts, environ) if role == COORDINATOR else facts
    facts = replace(
        facts,
        disk=look_at_disk(settings.data_dir),
        ports=tuple(_ports(settings)),
        node_id=settings.node_id,
        version=__version__,
        founds=isinstance(settings, CoordinatorSettings) and bool(settings.bootstrap or settings.bootstrap_expect),
    )
    facts = _with_names(facts, settings, environ)
    return (
        _with_etcd(facts, environ, settings.allow_degraded_etcd) if isinstance(settings, CoordinatorSettings) else facts
    )


def find_addresses_to_join(role: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the coordinators that a new node with these settings would ask, without itself."""
    try:
        if role == AGENT:
            return _looked_up(read_agent_settings(environ).coordinators, environ)
        settings = read_coordinator_settings(environ)
    except BadSettings:
        return ()
    return tuple(seed for seed in _looked_up(settings.join_addresses, environ) if seed != settings.advertise_address)


def _looked_up(seeds: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the addresses behind seeds, the seeds themselves where DNS knows none."""
    try:
        return find_addresses(seeds, environ)
    except CloudlessError:
        return seeds


def _ports(settings: CoordinatorSettings | AgentSettings) -> Iterator[PortFacts]:
    if isinstance(settings, CoordinatorSettings):
        wanted = {
            "the API": settings.bind_address,
            "HTTP": settings.http_address,
            "metrics": settings.metrics_address,
            "etcd peers": settings.raft_bind_address,
            "etcd clients": settings.etcd_client_address,
        }
    else:
        wanted = {"the agent": settings.listen_address, "metrics": settings.metrics_address}
    for purpose, address in wanted.items():
        yield PortFacts(purpose=purpose, address=address, taken_by=_taken_by(purpose, address))


def _taken_by(purpose: str, address: str) -> str:
    try:
        require_free(f"tcp://{address}", purpose)
    except PortInUse:
        pid = procfs.listener_of(int(address.rpartition(":")[2]))
        return f"pid {pid} ({' '.join(procfs.argv_of(pid))[:90]})" if pid else "a process that cannot be seen from here"
    except StartupError as error:
        return f"nobody, but it cannot be listened on: {error.message}"
    return ""


def _with_names(
    facts: HostFacts, settings: CoordinatorSettings | AgentSettings, environ: Mapping[str, str]
) -> HostFacts:
    own: tuple[str, ...] = (settings.advertise_address,)
    if isinstance(settings, CoordinatorSettings):
        own, others = (*own, settings.raft_address), settings.join_addresses
    else:
        others = settings.coordinators
    others = _looked_up(others, environ)
    found = {address: _resolve(address.rpartition(":")[0]) for address in (*own, *others)}
    shared = any(ips and not all(map(_is_loopback, ips)) for address, ips in found.items() if address in others)
    return replace(
        facts,
        names_unresolved=tuple(address for address, ips in found.items() if not ips),
        advertises_loopback=tuple(a for a in own if shared and found[a] and all(map(_is_loopback, found[a]))),
    )


def _resolve(host: str) -> tuple[str, ...]:
    try:
        answers = _within(RESOLVE_S, lambda: socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM))
    except (OSError, FutureTimeout):
        return ()
    return tuple(sorted({str(answer[4][0]) for answer in answers}))


def _is_loopback(ip: str) -> bool:
    return ipaddress.ip_address(ip.partition("%")[0]).is_loopback


def _with_etcd(facts: HostFacts, environ: Mapping[str, str], allow_degraded: bool = False) -> HostFacts:
    try:
        found = find(Search(environ=environ, may_fetch=False, allow_degraded=allow_degraded))
    except EtcdNotFound as error:
        return replace(facts, etcd_missing="; ".join(map(str, error.refused)))
    return replace(
        facts,
        etcd_path=str(found.path),
        etcd_version=str(found.version),
        etcd_verdict=found.judgement.verdict.value,
        etcd_reason=found.judgement.reason,
    )


def _etcd_version(environ: Mapping[str, str]) -> str:
    try:
        return str(find(Search(environ=environ, may_fetch=False, sandbox=True)).version)
    except EtcdNotFound:
        return ""


# --- the etcd members that run here ---


def _local_stores() -> Iterator[tuple[int, str, StoreFacts | None]]:
    """Yield the coordinators' etcd members on this host: pid, data directory, what it says if it answers."""
    for pid in procfs.pids():
        flags = dict(word.lstrip("-").split("=", 1) for word in procfs.argv_of(pid)[1:] if "=" in word)
        if {"data-dir", "listen-client-urls", "initial-cluster-token"} <= flags.keys():
            url = flags.get("listen-client-http-urls") or flags["listen-client-urls"]
            quota = flags.get("quota-backend-bytes", "0")
            yield pid, flags["data-dir"], ask_member(url, int(quota) if quota.isdigit() else 0, _tls_of(flags))


def _tls_of(flags: Mapping[str, str]) -> TlsFiles | None:
    """Return what a member's own coordinator speaks to it with, where this user may read it."""
    if "cert-file" not in flags:
        return None
    files = EtcdFiles(Path(flags["cert-file"]).parent)
    return TlsFiles(cert_file=str(files.client), key_file=str(files.key), ca_file=str(files.client_roots))


def ask_member(url: str, quota_bytes: int, tls: TlsFiles | None = None) -> StoreFacts | None:
    """Return what the member at `url` says of itself, None if it does not answer."""
    admin = EtcdAdmin(url, tls, read_timeout_s=ETCD_ASK_S)
    try:
        said = asyncio.run(admin.status())
    except CloudlessError:
        return None
    finally:
        admin.close()
    return StoreFacts(
        member_id=said.member_id,
        cluster_id=said.cluster_id,
        version=said.version,
        size_bytes=said.db_size_bytes,
        in_use_bytes=said.db_in_use_bytes,
        quota_bytes=quota_bytes,
        leader_id=said.leader_id,
        raft_term=said.raft_term,
        raft_index=said.raft_index,
        applied_index=said.raft_applied_index,
        learner=said.is_learner,
        alarms=tuple(f"{alarm.kind} of {alarm.member_id:x}" for alarm in said.alarms),
    )


def _has_owner(etcd_dir: str) -> bool:
    """Whether a coordinator supervises it; a directory that is not a coordinator's is nobody's business."""
    lock = Path(etcd_dir).parent / "lock"
    return not lock.exists() or bool(lock_owner(lock))
