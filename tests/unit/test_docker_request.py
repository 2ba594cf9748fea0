"""What the engine is asked to create, what is read from its answers, and what its refusals mean: no engine needed."""

from __future__ import annotations

from typing import Any

import pytest

from cloudless.adapters.docker.faults import Refused, explain_pull, explain_start
from cloudless.adapters.docker.instance import read_container
from cloudless.adapters.docker.request import build_create, container_name
from cloudless.core.model import Limits, Port, PortProtocol, Resources, Rlimit, SecurityContext, TaskSpec, Volume
from cloudless.errors import ImageMissing, Permanent, PortTaken, Temporary
from cloudless.ports import StartRequest


def create(**spec: Any) -> dict[str, Any]:
    request = {name: spec.pop(name) for name in ("ports_given", "env_given", "labels") if name in spec}
    return build_create(
        StartRequest(
            task_id="t1",
            attempt=2,
            spec=TaskSpec(image="web:1", **spec),
            env=request.get("env_given", {}),
            ports=request.get("ports_given", {}),
            labels=request.get("labels", {}),
        ),
        "agent-1",
    )


def test_a_container_carries_whose_it_is() -> None:
    labels = create(labels={"workload": "web", "namespace": "default"}, ports_given={"http": 20_001})["Labels"]
    assert labels == {
        "cloudless.task": "t1",
        "cloudless.attempt": "2",
        "cloudless.agent_id": "agent-1",
        "cloudless.ports": '{"http": 20001}',
        "cloudless.workload": "web",
        "cloudless.namespace": "default",
    }
    assert container_name("t1", 2) == "cloudless-t1-2"


def test_a_label_cannot_pretend_another_task() -> None:
    assert create(labels={"task": "t9", "agent_id": "other"})["Labels"]["cloudless.task"] == "t1"


def test_without_command_and_arguments_the_image_decides() -> None:
    document = create()
    assert document["Image"] == "web:1"
    assert "Entrypoint" not in document
    assert "Cmd" not in document
    assert "User" not in document


def test_ports_are_published_and_told_to_the_task_as_it_sees_them() -> None:
    document = create(
        command=("serve", "--port=$(CLOUDLESS_PORT_HTTP)"),
        args=("$(CLOUDLESS_PORT_DNS)",),
        env={"AT": ":$(CLOUDLESS_PORT_HTTP)", "CLOUDLESS_NODE_ID": "forged"},
        env_given={"CLOUDLESS_NODE_ID": "n1"},
        ports=(Port(name="http", container_port=80), Port(name="dns", protocol=PortProtocol.UDP)),
        ports_given={"http": 20_001, "dns": 20_002},
    )
    assert document["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostPort": "20001"}],
        "20002/udp": [{"HostPort": "20002"}],
    }
    assert document["ExposedPorts"] == {"80/tcp": {}, "20002/udp": {}}
    assert document["Entrypoint"] == ["serve", "--port=80"]
    assert document["Cmd"] == ["20002"]
    assert {"AT=:80", "CLOUDLESS_PORT_HTTP=80", "CLOUDLESS_NODE_ID=n1", "CLOUDLESS_TASK_ID=t1"} <= {*document["Env"]}


def test_limits_volumes_and_bounds_become_the_engines() -> None:
    config = create(
        requests=Resources(cpu_millicores=500),
        limits=Limits(cpu_millicores=1500, memory_mb=64, pids=20),
        volumes=(
            Volume(name="data", mount_path="/data", host_path="/srv/data", read_only=True),
            Volume(name="scratch", mount_path="/scratch"),
            Volume(name="fast", mount_path="/fast", size_mb=8),
        ),
        security_context=SecurityContext(
            read_only_root=True,
            add_capabilities=("NET_ADMIN",),
            drop_capabilities=("ALL",),
            private_tmp=True,
            rlimits=(Rlimit(name="nofile", soft=10, hard=20),),
        ),
    )["HostConfig"]
    assert config["NanoCpus"] == 1_500_000_000
    assert config["Memory"] == config["MemorySwap"] == 64 * 1024 * 1024
    assert (config["PidsLimit"], config["CpuShares"]) == (20, 512)
    assert (config["ReadonlyRootfs"], config["CapAdd"], config["CapDrop"]) == (True, ["NET_ADMIN"], ["ALL"])
    assert config["Ulimits"] == [{"Name": "nofile", "Soft": 10, "Hard": 20}]
    assert config["Tmpfs"] == {"/tmp": "mode=1777"}
    bind, own, bounded = config["Mounts"]
    assert bind == {"Target": "/data", "ReadOnly": True, "Type": "bind", "Source": "/srv/data"}
    assert (own["Type"], own["Source"], own["ReadOnly"]) == ("volume", "cloudless-t1-scratch", False)
    assert own["VolumeOptions"]["Labels"]["cloudless.task"] == "t1"
    assert "size=8m" in bounded["VolumeOptions"]["DriverConfig"]["Options"]["o"]
    assert config["RestartPolicy"] == {"Name": "no"}


@pytest.mark.parametrize(
    ("security", "user"),
    [(SecurityContext(run_as_user=7), "7"), (SecurityContext(run_as_user=0, run_as_group=9), "0:9")],
)
def test_the_user_is_given_by_numbers(security: SecurityContext, user: str) -> None:
    assert create(security_context=security)["User"] == user


def test_a_group_without_a_user_is_refused() -> None:
    with pytest.raises(Permanent, match="runAsUser"):
        create(security_context=SecurityContext(run_as_group=9))


def test_a_task_without_an_image_can_never_start() -> None:
    with pytest.raises(Permanent, match="no image"):
        build_create(StartRequest(task_id="t1", attempt=1, spec=TaskSpec()), "agent-1")


@pytest.mark.parametrize("task_id", ["", "..", "a/b", "x" * 200])
def test_a_task_id_cannot_name_another_container(task_id: str) -> None:
    with pytest.raises(Permanent):
        container_name(task_id, 1)


# --- what the engine tells ----------------------------------------------------------------------


def document(memory: int = 0, **state: Any) -> dict[str, Any]:
    return {
        "Id": "c1",
        "Config": {
            "Labels": {
                "cloudless.task": "t1",
                "cloudless.attempt": "2",
                "cloudless.agent_id": "agent-1",
                "cloudless.ports": '{"http": 20001}',
            }
        },
        "HostConfig": {"Memory": memory},
        "State": {
            "Running": False,
            "StartedAt": "2026-01-01T00:00:00.123456789Z",
            "FinishedAt": "2026-01-01T00:00:02.123456789Z",
            "ExitCode": 0,
            **state,
        },
    }


def test_a_living_container_is_read() -> None:
    container = read_container(document(Running=True, Pid=77, FinishedAt="0001-01-01T00:00:00Z"), 1_767_225_605_123)
    assert container is not None
    instance = container.instance
    assert (instance.task_id, instance.attempt, instance.running, instance.pid) == ("t1", 2, True, 77)
    assert (instance.started_at_ms, instance.ran_s) == (1_767_225_600_123, 5.0)
    assert instance.ports == {"http": 20_001}
    assert (container.owner, container.begun, container.stop_signal) == ("agent-1", True, "SIGTERM")


@pytest.mark.parametrize(
    ("told", "code", "number"),
    [(0, 0, 0), (3, 3, 0), (143, -1, 15), (137, -1, 9), (128, 128, 0), (160, 160, 0), (255, 255, 0)],
)
def test_exit_codes_above_128_are_signals(told: int, code: int, number: int) -> None:
    container = read_container(document(ExitCode=told), 0)
    assert container is not None
    assert (container.instance.exit_code, container.instance.signal) == (code, number)
    assert container.instance.ran_s == 2.0


def test_a_lack_of_memory_is_named_with_its_limit() -> None:
    killed = read_container(document(64 * 1024 * 1024, ExitCode=137, OOMKilled=True), 0)
    survived = read_container(document(64 * 1024 * 1024, ExitCode=1, OOMKilled=True), 0)
    assert killed is not None
    assert killed.instance.message == "killed: out of memory (limit 64 MB)"
    assert survived is not None
    assert "a process of it was killed: out of memory (limit 64 MB)" in survived.instance.message


def test_a_container_that_never_ran_is_told_apart() -> None:
    container = read_container(document(StartedAt="0001-01-01T00:00:00Z", FinishedAt="0001-01-01T00:00:00Z"), 0)
    assert container is not None
    assert not container.begun


@pytest.mark.parametrize("labels", [{}, {"cloudless.task": "t1"}, {"cloudless.task": "t1", "cloudless.attempt": "x"}])
def test_what_has_other_labels_is_no_attempt(labels: dict[str, str]) -> None:
    assert read_container({"Config": {"Labels": labels}, "State": {}}, 0) is None


# --- what refusals mean -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message", "exit_code", "error"),
    [
        (500, "driver failed: Bind for 0.0.0.0:80 failed: port is already allocated", 128, PortTaken),
        (500, "listen tcp4 0.0.0.0:80: bind: address already in use", 128, PortTaken),
        (400, 'exec: "nope": executable file not found in $PATH: unknown', 127, Permanent),
        (404, "runc create failed: no such file or directory", 127, Permanent),
        (400, "bind source path does not exist: /nowhere", 0, Permanent),
        (404, "No such image: web:1", 0, Temporary),
        (500, "context deadline exceeded", 0, Temporary),
    ],
)
def test_a_refused_start_is_typed(status: int, message: str, exit_code: int, error: type[Exception]) -> None:
    assert type(explain_start(Refused(status, message), exit_code, "nope")) is error


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("manifest for web:1 not found: manifest unknown: manifest unknown", ImageMissing),
        ("pull access denied for web, repository does not exist or may require 'docker login'", ImageMissing),
        ("Get https://registry/v2/: unauthorized: authentication required", ImageMissing),
        ("toomanyrequests: You have reached your pull rate limit", Temporary),
        ("dial tcp: lookup registry.example on 127.0.0.53:53: no such host", Temporary),
        ("net/http: request canceled while waiting for connection", Temporary),
    ],
)
def test_a_failed_pull_is_missing_or_temporary(message: str, error: type[Exception]) -> None:
    found = explain_pull("web:1", message)
    assert type(found) is error
    assert "web:1" in str(found)
