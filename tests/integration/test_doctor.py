"""The doctor before real patients: faults planted in real clusters, directories and hosts, each named rightly.

    finding                  planted here by
    ───────────────────────  ─────────────────────────────────────────────────────────────────────────────────────
    quarantined              bytes that are no record, written past cloudless
    no-ready-node            a workload, and no agent
    member-unstarted         a member added that nobody starts
    fragmented               a large file whose content was deleted (and hygiene cures it, followers first)
    coordinator-silent       kill -9 of a coordinator and its etcd
    member-unanswered        the same: nobody listens at its raft address
    orphaned-etcd            kill -9 of a coordinator only
    in-use                   a coordinator that runs
    no-quorum                two of three killed
    no-coordinator           all killed
    data-lost                etcd's directory deleted
    data-foreign             the marker deleted
    data-of-another          a directory put in another node's place
    data-outdated            the end of the log cut off
    etcd-said                etcd's own complaint about a damaged log
    put-aside                what a replaced member left
    two-clusters             two clusters asked as if they were one
    not-a-coordinator        another server at the address
    waiting-to-form          a coordinator that waits for others
    member-removed           a member removed while its coordinator was away
    port-taken, id-taken     preflight beside a running coordinator
    nobody-to-join           preflight with an address where nobody is
    settings-refused         a misspelt variable
    no-etcd                  an etcd of a version that loses data
    name-unresolved          a name that nobody knows

`nospace` and `writes-refused` have their own fault scenario (tests/faults/test_space.py); clocks, versions, digests,
disks and the rest, which one host cannot have for real, are planted in tests/unit/core/test_diagnosis.py.
"""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudless.adapters.etcd.admin import EtcdAdmin
from cloudless.adapters.host.disk import measure_fsync
from cloudless.adapters.member.progress import Progress
from cloudless.adapters.member.wal import last_index
from cloudless.cli.dev.table import send
from cloudless.cli.doctor import host
from cloudless.cli.doctor.coordinators import gather_cluster
from cloudless.cli.doctor.examine import examine
from cloudless.cli.methods import INSPECT_COORDINATOR, MAKE_ROOM, REMOVE_MEMBER
from cloudless.core import keys
from cloudless.core.diagnosis import Facts, Finding, diagnose
from cloudless.ports import Delete, Put
from cloudless.rpc.v1.cluster_pb2 import RemoveMemberRequest
from cloudless.rpc.v1.maintenance_pb2 import InspectCoordinatorRequest, MakeRoomRequest
from etcd.find import Found
from tests.integration.cloudless_cli import run_cli
from tests.integration.cluster import LocalCluster, free_ports, manifest_of
from tests.integration.etcd_fixture import binary
from tests.integration.trusted import Trusted

__all__ = ["binary"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

ASK_S = 0.6
BIG_BYTES = 1_000_000
BIG_KEYS = 40
OF_THIS_MACHINE = {"slow-fsync", "disk-low", "disk-full", "open-files"}
"""What a machine that runs tests may have for real."""


@pytest.fixture(autouse=True)
def brief_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few writes tell as much here as many."""
    monkeypatch.setattr(host, "measure_fsync", lambda folder: measure_fsync(folder, writes=3))


@pytest.fixture
def cluster(tmp_path: Path, binary: Found) -> Iterator[LocalCluster]:
    made = LocalCluster(tmp_path, binary.path)
    yield made
    made.close()


def found(*addresses: str) -> dict[str, Finding]:
    """Return what is found about the coordinators at these addresses, by code."""
    return {f.code: f for f in diagnose(Facts(cluster=gather_cluster(addresses, ASK_S)))}


def found_in(cluster: LocalCluster, name: str, path: Path | None = None) -> dict[str, Finding]:
    """Return what is found about a coordinator's directory alone."""
    environ = {"CLOUDLESS_NODE_ID": name, "CLOUDLESS_ETCD_BIN": str(cluster.etcd_binary)}
    path = path or cluster.processes[name].data_dir
    examined = examine((), ASK_S, environ, data_dir=path, named=False)
    assert examined.facts.cluster is None, "a directory alone asks nobody"
    return {f.code: f for f in diagnose(examined.facts)}


def preflight(cluster: LocalCluster, name: str, **changed: str) -> dict[str, Finding]:
    settings = cluster.processes[name].settings | changed
    environ = {f"CLOUDLESS_{key}": value for key, value in settings.items()} | {"PATH": os.environ["PATH"]}
    examined = examine((), ASK_S, environ, preflight="coordinator", named=False)
    return {f.code: f for f in diagnose(examined.facts)}


def test_a_cluster_from_health_to_ruin(cluster: LocalCluster) -> None:
    cluster.add_coordinators()
    cluster.found_together()
    cluster.start(*cluster.processes)
    cluster.wait_ready()
    all_of_them = cluster.api_addresses()
    one, two, three = (process.name for process in cluster.coordinators)

    cluster.until(lambda: found(all_of_them[0]).keys() <= OF_THIS_MACHINE, "a healthy cluster has nothing wrong")
    assert found_in(cluster, one).keys() - OF_THIS_MACHINE == {"in-use"}
    assert {"port-taken", "id-taken"} <= set(preflight(cluster, one))

    cluster.write_raw(one, Put(keys.workload("default", "broken"), b"\xff\xfe"))
    cluster.apply(manifest_of("waits"))
    cluster.until(lambda: {"quarantined", "no-ready-node"} <= set(found(all_of_them[0])), "both are named")
    cluster.write_raw(one, Delete(keys.workload("default", "broken")))

    make_room_in_a_fragmented_store(cluster)
    log_ends = last_index(cluster.datadir(three).etcd_dir)
    an_unstarted_member(cluster)
    cluster.until(lambda: has_noted(cluster, three, log_ends), "it is noted how far the log goes")

    cluster.kill(three, etcd=True)
    seen = cluster.until(lambda: on_silence(found(*all_of_them)), "the silent one is named")
    assert {seen["coordinator-silent"].subject, seen["member-unanswered"].subject} == {three}
    assert f"cloudless cluster remove {three}" in seen["coordinator-silent"].cure
    its_directory_in_every_state(cluster, three, other=one)

    cluster.kill(two)
    orphan = cluster.etcd_of(two)
    assert orphan is not None
    assert found_in(cluster, two)["orphaned-etcd"].says.endswith("no coordinator supervises it")
    send(orphan, signal.SIGKILL)
    lost = cluster.until(lambda: found(*all_of_them).get("no-quorum"), "the lost quorum is named")
    assert "1 of 3 voters answer" in lost.says
    assert two in lost.cure
    assert "cloudless cluster recover" in lost.cure

    cluster.kill(one, etcd=True)
    assert set(found(*all_of_them)) == {"no-coordinator"}
    assert "put-aside" not in found_in(cluster, one)
    assert not {f.severity.value for f in found_in(cluster, one).values()} & {"trouble"}


def has_noted(cluster: LocalCluster, name: str, index: int) -> bool:
    reached = Progress.read(cluster.datadir(name).progress).reached
    return reached is not None and reached.raft_index >= index


def on_silence(seen: dict[str, Finding]) -> dict[str, Finding] | None:
    return seen if {"coordinator-silent", "member-unanswered"} <= seen.keys() else None


def make_room_in_a_fragmented_store(cluster: LocalCluster) -> None:
    """Fill and empty the store; it is found fragmented, and made small: followers first, the raft leader last."""
    one = cluster.coordinators[0].name
    for number in range(BIG_KEYS):
        cluster.write_raw(one, Put(f"/big/{number}", os.urandom(BIG_BYTES)))
    for number in range(BIG_KEYS):
        cluster.write_raw(one, Delete(f"/big/{number}"))
    leader = cluster.leader()
    leads = cluster.until(lambda: raft_leader(cluster, leader), "etcd is led from elsewhere")
    (other,) = {process.name for process in cluster.coordinators} - {leader, leads}
    answer = cluster.call(MAKE_ROOM, MakeRoomRequest(), one, timeout_s=60.0)
    assert answer.short_of == ""
    done = [(step.partition(" (")[0], step.partition(" (")[2].partition(":")[0]) for step in answer.steps]
    assert done == [
        ("compact the history", "ordered)"),
        ("defragment", other),
        ("move etcd's leadership", f"etcd's leader goes from {leads} to {other}"),
        ("defragment", leads),
        ("defragment", leader),
    ]
    cluster.until(lambda: cluster.leader() != leader, "who pauses for long leaves office first")
    for process in cluster.coordinators:
        assert inspect(cluster, process.name).store.size_bytes < BIG_KEYS * BIG_BYTES / 2
    assert cluster.call(MAKE_ROOM, MakeRoomRequest(), one, timeout_s=60.0).steps[0].startswith("compact")
    cluster.assert_equal_states()


def inspect(cluster: LocalCluster, name: str):  # type: ignore[no-untyped-def]
    return cluster.call(INSPECT_COORDINATOR, InspectCoordinatorRequest(), name)


def raft_leader(cluster: LocalCluster, but: str) -> str:
    """Return whose member leads etcd, "" if it is that of `but`."""
    leads = next((member.name for member in inspect(cluster, but).members if member.raft_leader), "")
    return "" if leads == but else leads


def an_unstarted_member(cluster: LocalCluster) -> None:
    """Add a member that nobody starts; it is named, and goes away by the cure."""
    (port,) = free_ports(1)
    admin = EtcdAdmin(f"http://{cluster.coordinators[0].address('etcd')}")
    try:
        url = f"http://127.0.0.1:{port}"
        member = cluster.until(lambda: asyncio.run(admin.add_learner([url])), "etcd takes a learner")
    finally:
        admin.close()
    name = f"{member.id:x}"
    seen = cluster.until(lambda: found(*cluster.api_addresses()).get("member-unstarted"), "it is named")
    assert f"cloudless cluster remove {name}" in seen.cure
    cluster.call(REMOVE_MEMBER, RemoveMemberRequest(coordinator_id=name))


def its_directory_in_every_state(cluster: LocalCluster, name: str, other: str) -> None:
    """Plant, in copies of a dead member's directory, what a bad day leaves."""
    original = cluster.processes[name].data_dir

    def copy(label: str) -> Path:
        target = cluster.root / f"planted-{label}"
        shutil.copytree(original, target)
        target.chmod(0o700)
        return target

    whole = found_in(cluster, name)
    assert not {f.severity.value for f in whole.values()} & {"trouble"}, whole
    lost = copy("lost")
    shutil.rmtree(lost / "etcd")
    assert found_in(cluster, name, lost).keys() - OF_THIS_MACHINE == {"data-lost"}
    foreign = copy("foreign")
    (foreign / "member.json").unlink()
    assert "data-foreign" in found_in(cluster, name, foreign)
    assert found_in(cluster, other, copy("another"))["data-of-another"].subject == name
    cut = copy("cut")
    segment = max((cut / "etcd" / "member" / "wal").glob("*.wal"))
    content = segment.read_bytes().rstrip(b"\0")
    segment.write_bytes(content[: len(content) // 2])
    assert "data-outdated" in found_in(cluster, name, cut)
    shutil.move(cut / "etcd", cut / "etcd.outdated-0a1b2c3d")
    assert {"data-lost", "put-aside"} <= set(found_in(cluster, name, cut))
    loud = copy("loud")
    (loud / "etcd.log").write_text('{"level":"fatal","msg":"wal: crc mismatch"}\n')
    assert "etcd-said" in found_in(cluster, name, loud)


def test_strangers_waiters_and_second_clusters(cluster: LocalCluster, tmp_path: Path) -> None:
    cluster.add_coordinators(["alone", "apart", "waits"])
    for name in ("alone", "apart"):
        cluster.processes[name].settings["BOOTSTRAP"] = "true"
    (nowhere,) = free_ports(1)
    cluster.processes["waits"].settings["RAFT_JOIN_ADDR"] = f"127.0.0.1:{nowhere}"
    cluster.start("alone", "apart")
    cluster.start_listening("waits")
    alone, apart, waits = (process.address() for process in cluster.coordinators)
    cluster.until(lambda: cluster.status("alone").header.leader_id and cluster.status("apart").header.leader_id, "both")

    seen = cluster.until(lambda: found(alone, apart).get("two-clusters"), "two clusters are named")
    assert len(seen.evidence) == 2
    assert "few-voters" in found(alone)
    waiting = cluster.until(lambda: on_waiting(found(alone, waits)), "it is said for what it waits")
    assert "waiting to join" in waiting.evidence[0]

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        assert "not-a-coordinator" in found(alone, f"127.0.0.1:{stranger.server_port}")
        stranger.shutdown()

    assert "nobody-to-join" in preflight(cluster, "waits")
    lossy = tmp_path / "etcd-lossy"
    lossy.write_text("#!/bin/sh\necho etcd Version: 3.5.2\n")
    lossy.chmod(0o755)
    seen_here = preflight(cluster, "alone", ETCD_BIN=str(lossy), RAFT_JOIN_ADDR="no-such-host.invalid:8080")
    assert "3.5.0 to 3.5.5" in seen_here["no-etcd"].says
    assert {"name-unresolved", "port-taken"} <= seen_here.keys()
    assert "did you mean CLOUDLESS_RAFT_ADDR" in preflight(cluster, "alone", RAFT_ADR="x")["settings-refused"].says


def on_waiting(seen: dict[str, Finding]) -> Finding | None:
    finding = seen.get("waiting-to-form")
    return finding if finding and "waiting to join" in finding.evidence[0] else None


def test_one_that_starts_without_a_quorum_is_told_from_a_stranger_over_tls(tmp_path: Path, binary: Found) -> None:
    """It holds no state, so it cannot look up who asks; a person's certificate must be enough to be told that."""
    cluster = LocalCluster(tmp_path, binary.path, trust=Trusted(tmp_path))
    try:
        cluster.add_coordinators()
        cluster.found_together()
        cluster.start(*cluster.processes)
        cluster.wait_ready()
        all_of_them = [process.name for process in cluster.coordinators]
        cluster.kill(*all_of_them, etcd=True)
        cluster.start_listening(all_of_them[0])

        def told() -> dict[str, str] | None:
            said = run_cli(cluster, "cluster", "doctor", "-o", "json")
            found = {one["code"]: one["says"] for one in json.loads(said.text)["findings"]}
            return found if "no-quorum" in found else None

        assert {"no-coordinator", "not-a-coordinator"}.isdisjoint(cluster.until(told, "the doctor names the quorum"))
    finally:
        cluster.close()
