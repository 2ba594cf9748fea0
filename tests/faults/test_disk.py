"""What happens when a disk hangs, is full, or gives back something else than was written."""

from __future__ import annotations

import random
import re
import secrets
import shutil
import time
from functools import partial
from pathlib import Path

from cloudless.adapters.member.progress import Progress
from cloudless.adapters.member.wal import last_index
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.cli.client import Client
from cloudless.cli.methods import Method
from cloudless.errors import DataLost, MemberFailed, outcome_of
from cloudless.rpc.v1.cluster_pb2 import GetFormationRequest, GetFormationResponse
from tests.faults.rig.disk import Disk
from tests.faults.rig.leading import leader_and_term, others_than, pass_time, tells_of, wait_led
from tests.faults.rig.members import assert_replaced, member_ids, raft_leader
from tests.faults.rig.scenario import Need, scenario
from tests.faults.rig.trial import Trial
from tests.integration.cluster import LocalCluster, manifest_of
from tests.integration.trusted import identity_dir

LOOP = (Need.ROOT, Need.LOOP)
STALLS_S = (6.0, 20.0)
DISK_MB = 400
MOVED_S = 10.0
TOLD_S = 40.0
REFUSED_S = 90.0
FULL = "has no etcd: .*[Nn]o space left on device"
GET_FORMATION = Method("/cloudless.rpc.v1.ClusterService/GetFormation", GetFormationRequest, GetFormationResponse)


@scenario(20, needs=LOOP, rounds=2)
def test_a_disk_that_hangs_under_etcds_leader_costs_it_the_leadership(trial: Trial) -> None:
    cluster, disks = start_on_disks(trial)
    for number in trial.rounds():
        victim = raft_leader(cluster)
        trial.load_up()
        with disks[victim].frozen():
            began_s = trial.note(f"the disk of {victim}, where etcd leads, hangs")
            cluster.until(partial(leads_elsewhere, cluster, victim), "etcd leads elsewhere", MOVED_S)
            trial.figure("moved_s", time.monotonic() - began_s)
            trial.load_up()
            trial.figure("gap_s", trial.load.longest_gap_s(began_s))
            pass_time(cluster, STALLS_S[number % 2] - (time.monotonic() - began_s))
        trial.settle()


@scenario(20, needs=LOOP, rounds=2)
def test_a_disk_that_hangs_under_the_coordinators_leader_costs_it_the_leadership(trial: Trial) -> None:
    cluster, disks = start_on_disks(trial)
    for number in trial.rounds():
        victim, term = leader_and_term(trial)
        trial.load_up()
        with disks[victim].frozen():
            began_s = trial.note(f"the disk of {victim}, that leads, hangs")
            trial.figure("new_leader_s", wait_led(trial, began_s, term, *others_than(cluster, victim)))
            cluster.wait_http(victim, "/readyz", 503, MOVED_S)
            assert cluster.http(victim, "/leader") == 503
            assert any(victim in problem for problem in cluster.status(*others_than(cluster, victim)).problems)
            pass_time(cluster, STALLS_S[number % 2] - (time.monotonic() - began_s))
            trial.load_up()
            trial.figure("gap_s", trial.load.longest_gap_s(began_s))
        trial.settle()


@scenario(21, needs=LOOP, rounds=2)
def test_a_full_disk_stops_one_member_and_is_told_until_there_is_space(trial: Trial) -> None:
    """Once under the leader, once under a follower."""
    cluster, disks = start_on_disks(trial)
    for number in trial.rounds():
        leader, _ = leader_and_term(trial)
        victim = leader if number % 2 else others_than(cluster, leader)[0]
        trial.load_up()
        began_s = trial.note(f"the disk of {victim} is full")
        disks[victim].fill()
        try:
            via = others_than(cluster, victim)[0]
            cluster.until(partial(grown_and_told, cluster, via, victim), "it is told", TOLD_S)
            trial.figure("told_s", time.monotonic() - began_s)
            assert tells_of(cluster, victim, victim, FULL)
            trial.load_up()
            trial.figure("gap_s", trial.load.longest_gap_s(began_s))
            assert cluster.processes[victim].lives
        finally:
            disks[victim].free()
        trial.settle()


# --- data that are not what they were ---


@scenario(23, rounds=2)
def test_a_log_cut_short_is_put_aside_and_its_member_replaced(trial: Trial) -> None:
    cluster = trial.start()
    for _ in trial.rounds():
        victim, before = random.choice(cluster.coordinators).name, member_ids(cluster)
        trial.load_up()
        segment = newest_segment(cluster, victim)
        content = segment.read_bytes().rstrip(b"\0")
        wait_witnessed(cluster, victim, last_index(cluster.datadir(victim).etcd_dir))
        trial.note(f"kill {victim} with its etcd and cut its log")
        cluster.kill(victim, etcd=True)
        segment.write_bytes(content[: 9 * len(content) // 10])
        trial.load_up()
        cluster.start(victim)
        trial.settle()
        assert_replaced(cluster, victim, before, "outdated")


@scenario(23)
def test_a_flipped_bit_in_the_log_is_refused_and_an_emptied_directory_is_the_cure(trial: Trial) -> None:
    cluster = trial.start()
    for _ in trial.rounds():
        victim, before = killed_follower(trial)
        flip_bit(newest_segment(cluster, victim), victim.encode())
        cluster.start(victim)
        code, said = cluster.exit_of(victim, REFUSED_S)
        assert code == outcome_of(MemberFailed).exit_code, said
        assert "crc mismatch" in said
        assert f"empty {cluster.datadir(victim).etcd_dir}" in said, "the cure is named"
        trial.load_up()
        cluster.empty(victim, only_etcd=True)
        cluster.start(victim)
        trial.settle()
        assert_replaced(cluster, victim, before)


@scenario(23)
def test_a_flipped_bit_in_the_database_is_found_out_and_the_member_replaced(trial: Trial) -> None:
    """etcd itself would go on with it; the coordinators compare their states."""
    cluster = trial.start()
    for _ in trial.rounds():
        victim, before = killed_follower(trial)
        flip_bit(cluster.datadir(victim).etcd_dir / "member" / "snap" / "db", trial.run_id.encode())
        began_s = trial.note("started with a flipped bit")
        cluster.start(victim)
        code, said = cluster.exit_of(victim, REFUSED_S)
        trial.figure("found_out_s", time.monotonic() - began_s)
        assert code == outcome_of(DataLost).exit_code, said
        assert f"the data of {victim} are damaged" in said
        trial.load_up()
        cluster.start(victim)
        trial.settle()
        assert_replaced(cluster, victim, before, "outdated")


@scenario(25, rounds=2)
def test_a_member_whose_data_were_deleted_comes_back_as_a_new_one(trial: Trial) -> None:
    """Once only etcd's directory, once all of it."""
    cluster = trial.start()
    for number in trial.rounds():
        victim, before = random.choice(cluster.coordinators).name, member_ids(cluster)
        trial.load_up()
        began_s = trial.note(f"kill {victim} with its etcd and delete its data")
        cluster.kill(victim, etcd=True)
        cluster.empty(victim, only_etcd=bool(number % 2))
        trial.load_up()
        trial.figure("gap_s", trial.load.longest_gap_s(began_s))
        cluster.start(victim)
        trial.settle()
        assert_replaced(cluster, victim, before)


@scenario(26)
def test_two_emptied_members_wait_for_their_data_instead_of_forming_an_empty_cluster(trial: Trial) -> None:
    """What they prove themselves by lies elsewhere than the data that are lost."""
    cluster = trial.start(prepare=keep_identities_apart)
    for _ in trial.rounds():
        before = member_ids(cluster)
        survivor, *victims = random.sample([process.name for process in cluster.coordinators], 3)
        trial.load_up()
        trial.note(f"all killed; the data of {victims} are gone")
        cluster.kill(survivor, *victims, etcd=True)
        for name in victims:
            cluster.processes[name].data_dir.rename(kept(cluster, name))
        cluster.start(survivor, *victims)
        for name in victims:
            cluster.until(lambda name=name: "waiting to join" in cluster.tail(name, 1000), f"{name} waits")  # type: ignore[misc]
            assert not cluster.has_formed(name)
            assert phase_of(cluster, name, survivor) == "fresh"
        trial.note("the data are put back")
        cluster.stop(*victims)
        for name in victims:
            cluster.empty(name)
            kept(cluster, name).rename(cluster.processes[name].data_dir)
        cluster.start(*victims)
        trial.settle()
        assert member_ids(cluster) == before


@scenario(27, rounds=2)
def test_an_old_copy_put_back_is_noticed_and_its_member_replaced(trial: Trial) -> None:
    cluster = trial.start()
    for _ in trial.rounds():
        victim, before = random.choice(cluster.coordinators).name, member_ids(cluster)
        data, copy = cluster.processes[victim].data_dir, kept(cluster, victim)
        trial.load_up()
        trial.note(f"copy the data of {victim} while it is down")
        cluster.stop(victim)
        shutil.copytree(data, copy)
        cluster.start(victim)
        cluster.wait_ready()
        assert member_ids(cluster) == before, "its own data are good"
        trial.load_up()
        wait_witnessed(cluster, victim, last_index(copy / "etcd") + 1)
        trial.note(f"kill {victim} with its etcd and put the old copy back")
        cluster.kill(victim, etcd=True)
        shutil.rmtree(data)
        copy.rename(data)
        cluster.start(victim)
        trial.settle()
        assert_replaced(cluster, victim, before, "outdated")


# --- what the scenarios do ---


def start_on_disks(trial: Trial) -> tuple[LocalCluster, dict[str, Disk]]:
    """Start a cluster each of whose coordinators has a disk of its own."""
    disks: dict[str, Disk] = {}

    def give(cluster: LocalCluster) -> None:
        for process in cluster.coordinators:
            disks[process.name] = Disk(process.data_dir, DISK_MB)
            trial.close_last(disks[process.name].close)

    return trial.start(prepare=give), disks


def grown_and_told(cluster: LocalCluster, via: str, victim: str) -> bool:
    """Write enough that the databases must grow; return whether it is told that one cannot."""
    grown = manifest_of("grown", replicas=0, env={"FILLING": secrets.token_hex(16_000)})
    cluster.apply(grown, *others_than(cluster, victim))
    return tells_of(cluster, via, victim, FULL)


def leads_elsewhere(cluster: LocalCluster, victim: str) -> bool:
    return raft_leader(cluster, *others_than(cluster, victim)) not in ("", victim)


def phase_of(cluster: LocalCluster, name: str, asker: str) -> str:
    """Return where a coordinator stands, asked as another one: without state it cannot tell who people are."""
    own = IdentityDir(identity_dir(cluster.processes[asker])).load()
    with Client([cluster.processes[name].address()], credentials=own) as client:
        return client.call(GET_FORMATION, GetFormationRequest()).phase


def keep_identities_apart(cluster: LocalCluster) -> None:
    for process in cluster.coordinators:
        process.settings["IDENTITY_DIR"] = str(cluster.root / process.name / "identity")


def kept(cluster: LocalCluster, name: str) -> Path:
    return cluster.root / f"{name}.kept"


def newest_segment(cluster: LocalCluster, name: str) -> Path:
    return max((cluster.datadir(name).etcd_dir / "member" / "wal").glob("*.wal"))


def wait_witnessed(cluster: LocalCluster, name: str, index: int = 1) -> None:
    """Wait until all coordinators have on disk that a member's log goes at least so far."""

    def noted(by: str) -> int:
        progress = Progress.read(cluster.datadir(by).progress)
        reached = progress.reached if by == name else progress.heard.get(name)
        return reached.raft_index if reached else 0

    cluster.until(lambda: all(noted(one.name) >= index for one in cluster.coordinators), f"{name} is witnessed")


def flip_bit(path: Path, text: bytes) -> None:
    """Change one bit in the last place where a file holds this text, and in every copy of it."""
    content = bytearray(path.read_bytes())
    places = [match.start() for match in re.finditer(re.escape(text), content)]
    assert places
    for place in places:
        content[place] ^= 1
    with path.open("r+b") as file:
        file.write(content)


def killed_follower(trial: Trial) -> tuple[str, dict[str, int]]:
    """Kill a follower with its etcd under load; return its name and the members' ids."""
    leader, _ = leader_and_term(trial)
    victim, before = random.choice(others_than(trial.cluster, leader)), member_ids(trial.cluster)
    trial.load_up()
    trial.note(f"kill {victim} with its etcd and flip a bit")
    trial.cluster.kill(victim, etcd=True)
    return victim, before
