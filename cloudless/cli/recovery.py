"""Recovery as the command line does it: look at this directory, ask the others, then stop, rebuild, say what next."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.cli.backups import peer_url_of
from cloudless.cli.client import Client
from cloudless.cli.methods import GET_BACKUP_SCHEDULE, GET_FORMATION
from cloudless.cli.options import Options
from cloudless.core.recovery import Neighbour, Outlook, Survivor, judge_recovery
from cloudless.errors import CloudlessError, DataDirInUse, DataDirLocked, InvalidSpec, Problem
from cloudless.offline.rebuild import find_ready, finish
from cloudless.offline.recover import Recovered, Survey, rebuild_from_survivor, survey
from cloudless.offline.restore import IDENTITY_DIR
from cloudless.ports import Credentials
from cloudless.rpc.v1.backup_pb2 import GetBackupScheduleRequest
from cloudless.rpc.v1.cluster_pb2 import GetFormationRequest
from cloudless.rpc.v1.common_pb2 import CONSISTENCY_LINEARIZABLE, ReadOptions
from cloudless.settings import read_coordinator_settings
from etcd.find import Found

_ASK_TIMEOUT_S = 3.0
_STOP_TIMEOUT_S = 20.0
_LOCK_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Prospect:
    """What was found, and what would be done about it. `silent` are those that did not answer, address by node id."""

    data_dir: Path
    found: Survey
    peer_url: str
    running_pid: int
    neighbours: tuple[Neighbour, ...]
    silent: Mapping[str, str]
    outlook: Outlook

    def steps(self) -> list[str]:
        """Return the plan in plain words."""
        found, steps = self.found, []
        if self.running_pid:
            steps.append(f"stop the coordinator {found.node_id} (pid {self.running_pid}), which has no quorum")
        steps.append("copy its data and commit everything that stands in the log")
        steps.append(f"make a new member from that, for a cluster of {found.node_id} alone at {self.peer_url}")
        steps.append(f"put the old data aside in {self.data_dir}, and the new member in their place")
        return steps


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done; `stopped_pid` is 0 if no coordinator ran."""

    recovered: Recovered
    stopped_pid: int


def look(
    data_dir: Path, raft_address: str | None, ask: tuple[str, ...], options: Options, identity_dir: Path | None = None
) -> Prospect:
    """Return what could be rebuilt here. Changes nothing. Raises RecoveryRefused, InvalidSpec."""
    if not data_dir.is_dir():
        raise DataDirInUse(f"there is no directory {data_dir}", hint="give the survivor's with --data-dir")
    datadir = DataDir(data_dir)
    found = survey(datadir)
    known = {address: node_id for node_id, address in found.addresses.items() if node_id != found.node_id}
    timeout_s, credentials = (
        min(_ASK_TIMEOUT_S, options.timeout_s),
        _credentials(identity_dir or data_dir / IDENTITY_DIR, options),
    )
    running_pid = _lock_owner(datadir)
    own_address = _address_of(running_pid)
    if own_address:  # what runs here knows best whether it lacks a quorum
        known[own_address] = found.node_id
    addresses = {**known, **{address: known.get(address, "") for address in ask}}
    with ThreadPoolExecutor(max_workers=8) as threads:
        asked = threads.map(lambda address: _ask(address, found, timeout_s, credentials), addresses)
        answers = dict(zip(addresses, asked, strict=True))
    own = next((answer for answer in answers.values() if answer and answer.node_id == found.node_id), None)
    neighbours = tuple(answer for answer in answers.values() if answer and answer.node_id != found.node_id)
    outlook = judge_recovery(found.survivor, found.voters, neighbours)
    if own is not None and own.has_leader:
        outlook = Outlook(refusal=f"{found.node_id} runs, and its cluster has a leader: nothing is lost")
    if not (raft_address or found.peer_url):
        raise InvalidSpec(
            [Problem("--raft-address", "is not known from the data")], hint="give what CLOUDLESS_RAFT_ADDR will be"
        )
    return Prospect(
        data_dir=datadir.path,
        found=found,
        peer_url=_peer_url(raft_address, found.peer_url),
        running_pid=running_pid,
        neighbours=neighbours,
        silent={
            addresses[address] or address: address
            for address, answer in answers.items()
            if answer is None and address != own_address
        },
        outlook=outlook,
    )


async def carry_out(prospect: Prospect, binary: Found) -> Outcome:
    """Stop the coordinator if one runs, and rebuild. Raises BackupError, DataDirLocked; the old data are kept."""
    datadir = DataDir(prospect.data_dir)
    stopped = await _lock(datadir, prospect.running_pid)
    try:
        # Surveyed anew: the coordinator may have written until it was stopped.
        recovered = await rebuild_from_survivor(datadir, survey(datadir), prospect.peer_url, binary)
        return Outcome(recovered, prospect.running_pid if stopped else 0)
    finally:
        datadir.unlock()


def finish_interrupted(data_dir: Path) -> bool:
    """Finish a recovery that was cut off after the new member was ready; return whether there was one."""
    if not data_dir.is_dir() or find_ready(DataDir(data_dir)) is None:
        return False
    datadir = DataDir(data_dir)
    datadir.lock()
    try:
        ready = find_ready(datadir)
        if ready is not None:
            finish(datadir, ready)
        return ready is not None
    finally:
        datadir.unlock()


def _credentials(identity_dir: Path, options: Options) -> Credentials | None:
    """Return what to ask the others with: this host's coordinator's own identity, else the person's."""
    own = IdentityDir(identity_dir).load() if identity_dir.is_dir() else None
    return own or options.credentials()


def _peer_url(raft_address: str | None, noted: str) -> str:
    """Return where the new member is reached: as before, or at an address given, by TLS if it was by TLS."""
    return peer_url_of(raft_address, "--raft-address", noted.partition("://")[0] or "https") if raft_address else noted


def _ask(address: str, own: Survey, timeout_s: float, credentials: Credentials | None) -> Neighbour | None:
    """Return what a coordinator says of itself, None if it does not answer."""
    with Client((address,), timeout_s, credentials) as client:
        try:
            said = client.call(GET_FORMATION, GetFormationRequest(with_log=True))
        except CloudlessError:
            return None
        has_leader = _has_quorum(client)
    has_data = said.phase == "member" and said.etcd_cluster_id == own.cluster_id
    return Neighbour(
        node_id=said.node_id,
        address=address,
        has_leader=has_leader,
        has_data=has_data,
        supersedes=own.cluster_id in said.supersedes,
        survivor=Survivor(said.log_term, said.log_index, said.node_id) if has_data and said.log_index else None,
    )


def _has_quorum(client: Client) -> bool:
    """Return whether a coordinator can read what only a quorum can vouch for: its own word of a leader may be old."""
    linearizable = ReadOptions(consistency=CONSISTENCY_LINEARIZABLE)
    try:
        client.call(GET_BACKUP_SCHEDULE, GetBackupScheduleRequest(read=linearizable))
    except CloudlessError:
        return False
    return True


def _lock_owner(datadir: DataDir) -> int:
    """Return the pid of the coordinator that runs on the directory, 0 if none does."""
    try:
        datadir.lock()
    except DataDirLocked:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            owner = json.loads(datadir.lock_file.read_bytes())
            if owner["host"] == socket.gethostname():  # a pid of another host or container is not ours to end
                return int(owner["pid"])
        raise
    datadir.unlock()
    return 0


def _address_of(pid: int) -> str:
    """Return the API address of the coordinator that runs as `pid`, "" if that is not to be found out."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes() if pid else b""
        environ = dict(entry.split("=", 1) for entry in os.fsdecode(raw).split("\0") if "=" in entry)
        return read_coordinator_settings(environ).advertise_address if environ else ""
    except (OSError, CloudlessError):
        return ""


async def _lock(datadir: DataDir, pid: int) -> bool:
    """Take the directory, ending the coordinator that has it; return whether that was needed.

    What supervises it may start it again at once, so the lock is tried for in quick succession.
    """
    ends_s = time.monotonic() + _STOP_TIMEOUT_S
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    while True:
        try:
            datadir.lock()
            return bool(pid)
        except DataDirLocked:
            if not pid or time.monotonic() > ends_s:
                raise
        await asyncio.sleep(_LOCK_POLL_S)
