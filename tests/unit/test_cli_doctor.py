"""`cluster doctor` and its like as a person types them, against coordinators whose answers a test sets."""

from __future__ import annotations

import json
import tarfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cloudless.cli import methods
from cloudless.cli.doctor import host
from cloudless.cli.main import cli
from cloudless.errors import Unavailable
from cloudless.rpc.v1 import cluster_pb2, event_pb2, maintenance_pb2, node_pb2, objects_pb2
from cloudless.rpc.v1.common_pb2 import ResponseHeader
from tests.unit.cli_coordinator import FakeCoordinator

IDS = ("c1", "c2", "c3")
MIB = 1 << 20
CLEAN_ENVIRONMENT = {"CLOUDLESS_COORDINATORS": ""}
SECRET = "Qw8" + "z" * 24 + "1"


class Cluster:
    """Three coordinators that answer as healthy ones do; `spoil` changes what one says."""

    def __init__(self) -> None:
        self.fakes = {id: FakeCoordinator() for id in IDS}
        self.inspections = {id: self._inspection(id) for id in IDS}
        self.statuses = {id: self._status(id) for id in IDS}
        for id, fake in self.fakes.items():
            fake.answer(methods.INSPECT_COORDINATOR, partial(self._now, id))
            fake.answer(methods.GET_STATUS, self.statuses[id])
            fake.answer(methods.GET_DIGEST, cluster_pb2.GetDigestResponse(revision=7, digest="ab" * 16))
            fake.answer(methods.LIST_EVENTS, event_pb2.ListEventsResponse())
            fake.answer(methods.LIST_MEMBERS, cluster_pb2.ListMembersResponse())
            fake.answer(methods.LIST_NODES, node_pb2.ListNodesResponse())

    def _now(self, id: str, _: object) -> maintenance_pb2.InspectCoordinatorResponse:
        said = maintenance_pb2.InspectCoordinatorResponse()
        said.CopyFrom(self.inspections[id])
        said.wall_ms += int(time.time() * 1000)
        return said

    def _inspection(self, id: str) -> maintenance_pb2.InspectCoordinatorResponse:
        number = IDS.index(id) + 1
        return maintenance_pb2.InspectCoordinatorResponse(
            coordinator_id=id,
            version="1.0.0",
            etcd_version="3.5.33",
            phase="member",
            profile="default",
            linked=[other for other in IDS if other != id],
            quota_hours_left=-1,
            open_files_max=65536,
            members=[
                cluster_pb2.Member(id=n, name=other, started=True, raft_leader=n == 2) for n, other in enumerate(IDS, 1)
            ],
            store=maintenance_pb2.StoreReport(
                member_id=number, cluster_id=9, version="3.5.33", size_bytes=20 * MIB, in_use_bytes=15 * MIB,
                quota_bytes=2048 * MIB, leader_id=2, raft_index=50, applied_index=50,
            ),
            settings={"etcd_quota_mb": "2048"},
        )  # fmt: skip

    def _status(self, id: str) -> cluster_pb2.GetStatusResponse:
        return cluster_pb2.GetStatusResponse(
            header=ResponseHeader(cluster_id="kl", coordinator_id=id, revision=7, leader_id="c1", term=3),
            health="ok",
            feature_level="1.0",
            etcd_cluster_id=9,
            coordinators=[
                cluster_pb2.CoordinatorStatus(record=objects_pb2.CoordinatorRecord(id=other, api_address=fake.address))
                for other, fake in self.fakes.items()
            ],
        )

    def run(self, *words: str, via: str = "c1", env: dict[str, str] | None = None) -> Result:
        arguments = ["--coordinator", self.fakes[via].address, "--timeout", "2", "cluster", *words]
        return CliRunner().invoke(cli, arguments, env=CLEAN_ENVIRONMENT | (env or {}))

    def codes(self, *words: str, env: dict[str, str] | None = None) -> set[str]:
        """Return what the doctor finds about the cluster; this host may have its own troubles."""
        found = json.loads(self.run("doctor", "-o", "json", *words, env=env).stdout)["findings"]
        return {finding["code"] for finding in found if finding["subject"] != "this host"}

    def stop(self) -> None:
        for fake in self.fakes.values():
            fake.stop()


@pytest.fixture(autouse=True)
def no_other_etcd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the etcd of whatever else runs on this machine."""
    monkeypatch.setattr(host, "_local_stores", lambda: iter(()))


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.stop()


def test_a_healthy_cluster_is_found_by_one_address_and_nothing_is_said_of_it(cluster: Cluster) -> None:
    result = cluster.run("doctor")
    assert "looked at 3 of 3 coordinators, this host" in result.stderr
    assert cluster.codes() == set()


def test_a_silent_coordinator_is_named_with_its_cure_and_the_exit_code_says_so(cluster: Cluster) -> None:
    cluster.fakes["c3"].stop()
    result = cluster.run("doctor", "-o", "json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["healthy"] is False
    (found,) = [finding for finding in document["findings"] if finding["code"] == "coordinator-silent"]
    assert found["subject"] == "c3"
    assert "cloudless cluster remove c3" in found["cure"]
    assert cluster.fakes["c3"].address in found["evidence"][0]


def test_a_full_store_is_named_with_the_command_that_cures_it(cluster: Cluster) -> None:
    for said in cluster.inspections.values():
        said.store.alarms.append("NOSPACE of 1")
    result = cluster.run("doctor")
    assert result.exit_code == 1
    assert "alarm NOSPACE" in result.stdout
    assert "`cloudless cluster hygiene run`" in result.stdout


def test_clocks_versions_and_alarms_are_judged_from_what_each_says(cluster: Cluster) -> None:
    cluster.inspections["c2"].wall_ms = -3_600_000
    cluster.inspections["c3"].etcd_version = "3.5.2"
    cluster.inspections["c3"].version = "1.1.0"
    assert cluster.codes() == {"clock-skew", "etcd-refused", "version-skew"}


def test_an_older_coordinator_without_inspection_is_no_stranger() -> None:
    old = FakeCoordinator()
    old.answer(methods.GET_STATUS, cluster_pb2.GetStatusResponse(header=ResponseHeader(coordinator_id="old")))
    try:
        result = CliRunner().invoke(cli, ["-c", old.address, "cluster", "doctor", "-o", "json"], env=CLEAN_ENVIRONMENT)
        codes = {finding["code"] for finding in json.loads(result.stdout)["findings"]}
        assert not codes & {"not-a-coordinator", "no-coordinator"}
    finally:
        old.stop()


def test_something_else_at_the_address_is_no_coordinator(cluster: Cluster) -> None:
    stranger = FakeCoordinator()
    try:
        words = ["-c", stranger.address, "-c", cluster.fakes["c1"].address, "cluster", "doctor", "-o", "name"]
        result = CliRunner().invoke(cli, words, env=CLEAN_ENVIRONMENT)
        assert "finding/not-a-coordinator" in result.stdout.splitlines()
    finally:
        stranger.stop()


def test_a_coordinator_that_waits_says_for_what(cluster: Cluster) -> None:
    said = cluster.inspections["c3"]
    said.phase, said.waiting_for = "fresh", "waiting to join (c1: no)"
    said.ClearField("store")
    cluster.fakes["c3"].answer(methods.GET_STATUS, Unavailable("does not belong to a cluster yet"))
    found = json.loads(cluster.run("doctor", "-o", "json").stdout)["findings"]
    (waiting,) = [finding for finding in found if finding["code"] == "waiting-to-form"]
    assert waiting["evidence"] == ["waiting to join (c1: no)"]


def test_a_misspelt_setting_is_found_without_a_cluster() -> None:
    env = CLEAN_ENVIRONMENT | {"CLOUDLESS_NODEID": "c1"}
    result = CliRunner().invoke(cli, ["cluster", "doctor", "-o", "json"], env=env)
    assert result.exit_code == 1
    (found,) = [f for f in json.loads(result.stdout)["findings"] if f["code"] == "settings-refused"]
    assert "did you mean CLOUDLESS_NODE_ID?" in found["says"]


# --- hygiene and upgrade ---


def test_hygiene_says_each_step_and_what_is_still_missing(cluster: Cluster) -> None:
    answer = maintenance_pb2.MakeRoomResponse(
        coordinator_id="c1", steps=["compact (ordered)", "defragment (c2: 3 MiB)"]
    )
    cluster.fakes["c1"].answer(methods.MAKE_ROOM, lambda _: answer)
    done = cluster.run("hygiene", "run")
    assert (done.exit_code, done.stdout) == (0, "compact (ordered)\ndefragment (c2: 3 MiB)\n")
    answer.short_of = "1.9 GiB in use: delete workloads"
    short = cluster.run("hygiene", "run")
    assert short.exit_code == 1
    assert "not enough room yet: 1.9 GiB in use" in short.stderr


def test_hygiene_status_shows_every_members_file(cluster: Cluster) -> None:
    result = cluster.run("hygiene", "status")
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["COORDINATOR", *IDS]
    assert "15.0 MiB" in result.stdout


def test_an_upgrade_is_allowed_with_its_order_or_refused_with_reasons(cluster: Cluster) -> None:
    allowed = cluster.run("upgrade", "--check", "--to", "1.1.0")
    assert allowed.exit_code == 0, allowed.output
    assert "restart c3, then c2, then c1" in allowed.stdout
    refused = cluster.run("upgrade", "--check", "--to", "1.2.0", "--etcd", "3.5.1", "-o", "json")
    assert refused.exit_code == 1
    refusals = json.loads(refused.stdout)["refusals"]
    assert any("one minor version at a time" in refusal for refusal in refusals)
    assert any("etcd 3.5.1 is refused" in refusal for refusal in refusals)
    cluster.fakes["c2"].stop()
    assert "c2 does not answer" in cluster.run("upgrade", "--check", "--to", "1.1.0").stdout


def test_a_mixed_cluster_is_told_how_to_go_on_and_how_to_go_back(cluster: Cluster) -> None:
    cluster.inspections["c3"].version = "1.1.0"
    on = cluster.run("upgrade", "--check", "--to", "1.1.0")
    assert on.exit_code == 0, on.output
    lines = on.stdout.splitlines()
    assert "c3: cloudless 1.1.0, etcd 3.5.33" in lines
    assert "feature level: 1.0" in lines
    assert "to cloudless 1.1.0: restart c2, then c1" in lines
    assert "  under way: 1 of 3 coordinators run it" in lines
    back = cluster.run("upgrade", "--check", "--to", "1.0.0")
    assert "to cloudless 1.0.0: restart c3" in back.stdout.splitlines()
    too_far = cluster.run("upgrade", "--check", "--to", "1.2.0", "-o", "json")
    assert too_far.exit_code == 1
    assert json.loads(too_far.stdout)["featureLevel"] == "1.0"


def test_an_upgrade_is_finished_when_a_person_says_so_twice(cluster: Cluster) -> None:
    answer = cluster_pb2.FinishUpgradeResponse(feature_level_before="1.0", feature_level="1.1")
    cluster.fakes["c1"].answer(methods.FINISH_UPGRADE, answer)
    asked = cluster.run("upgrade", "--finish")
    assert asked.exit_code != 0
    assert "no coordinator can go back" in asked.output
    assert not cluster.fakes["c1"].requests
    done = cluster.run("upgrade", "--finish", "--yes")
    assert done.stdout == "the feature level is 1.1 (it was 1.0): the upgrade is finished\n"
    told = cluster.run("upgrade", "--finish", "--yes", "-o", "json")
    assert json.loads(told.stdout) == {"featureLevel": "1.1", "before": "1.0"}
    answer.feature_level_before = "1.1"
    assert "nothing to finish" in cluster.run("upgrade", "--finish", "--yes").stdout


@pytest.mark.parametrize("words", [(), ("--check", "--finish")])
def test_an_upgrade_is_either_judged_or_finished(cluster: Cluster, words: tuple[str, ...]) -> None:
    assert cluster.run("upgrade", *words).exit_code == 2


# --- the bundle ---


def test_a_bundle_says_what_it_holds_and_holds_no_secret(cluster: Cluster, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "etcd.log").write_text("started\n" * 50_000 + f"authorization: Bearer {SECRET}\n")
    cluster.inspections["c1"].etcd_last_words = f"password={SECRET}"
    target, env = tmp_path / "out.tar.gz", {"CLOUDLESS_JOIN_TOKEN": SECRET}
    result = cluster.run("debug", "--data-dir", str(data), "--to", str(target), env=env)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{target}\n"
    with tarfile.open(target) as archive:
        contents = {name: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]
    for wanted in ("doctor.json", "facts.json", "environment.json", "coordinators/c2/status.json", "data-dir/etcd.log"):
        assert f"out/{wanted}" in contents
        assert wanted in result.stderr, "said before it is written"
    assert not [name for name, content in contents.items() if SECRET.encode() in content]
    assert max(map(len, contents.values())) < 600_000
    assert target.stat().st_mode & 0o077 == 0
    again = cluster.run("debug", "--to", str(target))
    assert again.exit_code == 8, "an existing file is never replaced"


def test_a_dry_run_writes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    target = tmp_path / "out.tar.gz"
    result = cluster.run("debug", "--dry-run", "--to", str(target))
    assert (result.exit_code, result.stdout) == (0, "")
    assert not target.exists()
