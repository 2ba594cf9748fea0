"""What bounds and confines real processes: control groups, users, mounts, limits. Most of it needs root."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from cloudless.adapters.subprocess import ProcessExecutor
from cloudless.adapters.subprocess.attempt import Attempt
from cloudless.adapters.subprocess.cgroups import (
    ControlGroups,
    Hierarchy,
    TaskGroup,
    build_settings,
    find_hierarchies,
    look_for_hierarchies,
)
from cloudless.adapters.yaml_documents import load_documents
from cloudless.agent.datadir import lock_data_dir
from cloudless.core.manifest import parse_manifests
from cloudless.core.model import Instance, Limits, Resources, Rlimit, SecurityContext, TaskSpec, Volume
from cloudless.core.template import build_task_spec
from cloudless.errors import Permanent
from cloudless.ports import LogQuery, StartRequest

DEADLINE_S = 15.0
BOUNDED = """
apiVersion: cloudless/v1
kind: Workload
metadata:
  name: bounded
spec:
  command: ["sh", "-c"]
  args: ["echo I am $(id -u), my /tmp has $(ls -A /tmp | wc -l) files; exec sleep 86400"]
  replicas: 1
  resources:
    requests:
      cpu: 100m
      memory: 16Mi
    limits:
      cpu: 500m
      memory: 64Mi
      pids: 32
  securityContext:
    runAsUser: 65534
    privateTmp: true
    readOnlyRoot: true
    capabilities:
      drop: [ALL]
    rlimits:
      nofile: 1024
"""
OFF = "control groups are turned off (CLOUDLESS_CGROUP_PARENT)"
USER = 65_534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@dataclass
class Rig:
    """An executor on a directory that other users may get to."""

    root: Path
    parent: str = "cloudless"
    executor: ProcessExecutor = field(init=False)

    def __post_init__(self) -> None:
        self.executor = ProcessExecutor(self.root, cgroup_parent=self.parent)

    def restart(self) -> None:
        self.executor.close()
        self.executor = ProcessExecutor(self.root, cgroup_parent=self.parent)

    async def start(self, script: str, attempt: int = 1, task_id: str = "t1", **spec: Any) -> Instance:
        task = TaskSpec(command=("sh", "-c", script), stop_grace_s=0.3, **spec)
        return await self.executor.start(StartRequest(task_id=task_id, attempt=attempt, spec=task))

    async def run(self, script: str, attempt: int = 1, **spec: Any) -> list[str]:
        """Run a script to its end and return the lines it wrote."""
        await self.start(script, attempt, **spec)
        ended = await self.wait(attempt)
        lines = await self.read()
        assert (ended.exit_code, ended.signal) == (0, 0), (ended, lines)
        return lines

    async def wait(self, attempt: int = 1) -> Instance:
        async with asyncio.timeout(DEADLINE_S):
            return await self.executor.wait("t1", attempt)

    async def read(self) -> list[str]:
        chunks = [chunk async for chunk in self.executor.read_logs("t1", LogQuery())]
        return b"".join(chunk.data for chunk in chunks).decode().splitlines()

    @property
    def home(self) -> Path:
        return self.root / "t1" / "home"

    @property
    def group(self) -> TaskGroup:
        return self.executor._groups.find("t1")

    def shim(self) -> int:
        state = Attempt(self.root / "t1" / "1", "t1", 1).read_state()
        assert state
        return state.shim_pid


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="confined-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture
async def rig(directory: Path) -> AsyncIterator[Rig]:
    rig = Rig(directory / "tasks")
    yield rig
    for instance in await rig.executor.adopt():
        if instance.running:
            await rig.executor.stop(instance.task_id, instance.attempt, grace_s=0)
            await rig.executor.wait(instance.task_id, instance.attempt)
        await rig.executor.remove(instance.task_id)
    rig.executor.close()


@pytest.fixture
def limiting(rig: Rig) -> Rig:
    if why_not := rig.executor.abilities["limit-memory"]:
        pytest.skip(f"control groups cannot be used here: {why_not}")
    return rig


# --- limits -------------------------------------------------------------------------------------


async def test_the_death_of_a_child_for_want_of_memory_is_named(limiting: Rig) -> None:
    await limiting.start("tail /dev/zero; exit 7", limits=Limits(memory_mb=16))
    ended = await limiting.wait()
    if "memory" in limiting.group.unified:  # there all of it ends together
        assert ended.message == "killed: out of memory (limit 16 MB)"
        return
    assert (ended.exit_code, ended.signal) == (7, 0)
    assert ended.message == "ended after a process of it was killed: out of memory (limit 16 MB)"


async def test_an_end_after_an_earlier_death_for_want_of_memory_does_not_blame_that(limiting: Rig) -> None:
    await limiting.start("tail /dev/zero", limits=Limits(memory_mb=16))
    assert "out of memory" in (await limiting.wait()).message
    await limiting.start("exit 3", 2, limits=Limits(memory_mb=16))
    ended = await limiting.wait(2)
    assert (ended.exit_code, ended.message) == (3, "")


async def test_no_more_processes_than_allowed_are_forked(limiting: Rig) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 600 & done; wait"
    await limiting.start(script, limits=Limits(pids=5))
    errors = limiting.root / "t1" / "1" / "stderr.log"
    await until(lambda: "fork" in errors.read_text().lower())
    assert len(limiting.group.members()) <= 5


async def test_no_more_processor_time_is_used_than_allowed(limiting: Rig) -> None:
    await limiting.start("while :; do :; done", limits=Limits(cpu_millicores=200))
    began_s, used_s = time.monotonic(), limiting.group.read_usage().cpu_s
    await until(lambda: limiting.group.read_usage().cpu_s - used_s >= 0.3)
    # 0.3 s at a fifth of a core take 1.5 s, less what one period may be early at either end.
    assert time.monotonic() - began_s >= 1.2


async def test_usage_is_of_all_processes_together(limiting: Rig) -> None:
    await limiting.start("head -c 30000000 /dev/zero | tail & while :; do :; done")
    await until(lambda: limiting.group.read_usage().cpu_s > 0.2)
    await until(lambda: limiting.group.read_usage().memory_bytes > 100_000)
    assert len(limiting.group.members()) >= 1


async def test_without_a_group_the_usage_is_summed_over_the_processes(directory: Path) -> None:
    rig = Rig(directory / "tasks", parent="none")
    await rig.start("sh -c 'while :; do :; done' & sleep 600")
    try:
        async with asyncio.timeout(DEADLINE_S):
            while (used := (await rig.executor.measure(["t1"]))["t1"]).cpu_s < 0.2:
                await asyncio.sleep(0.05)
        assert used.memory_bytes > 500_000
    finally:
        await rig.executor.stop("t1", 1, grace_s=0)
        await rig.wait()
        rig.executor.close()


async def test_what_hides_from_its_killed_supervisor_is_found_in_the_group(limiting: Rig) -> None:
    await limiting.start("setsid env -i sh -c 'echo $$ > left; exec sleep 600' & exec sleep 600")
    left = limiting.home / "left"
    await until(lambda: left.exists() and left.read_text().strip())
    hidden = psutil.Process(int(left.read_text()))
    os.kill(limiting.shim(), signal.SIGKILL)
    assert "supervising process was killed" in (await limiting.wait()).message
    await until(lambda: not hidden.is_running() or hidden.status() == psutil.STATUS_ZOMBIE)
    assert not limiting.group.members()


async def test_a_group_is_kept_over_the_agents_lives_and_goes_with_its_task(limiting: Rig) -> None:
    await limiting.start("exec sleep 600", limits=Limits(pids=7))
    group = limiting.group
    limiting.restart()
    (adopted,) = await limiting.executor.adopt()
    assert adopted.running
    assert limiting.group == group
    assert adopted.pid in limiting.group.members()
    assert (group.places["pids"] / "pids.max").read_text() == "7\n"
    await limiting.executor.stop("t1", 1, grace_s=1)
    await limiting.wait()
    await limiting.executor.remove("t1")
    assert not [path for path in group.directories if path.exists()]


async def test_groups_of_tasks_that_are_no_more_are_collected_with_what_is_in_them(limiting: Rig) -> None:
    group = limiting.executor._groups.prepare("gone", Limits(), Resources())
    stray = subprocess.Popen(["sleep", "600"])
    for entrance in group.entrances:
        Path(entrance).write_text(str(stray.pid))
    limiting.restart()
    assert await limiting.executor.adopt() == ()
    assert await asyncio.to_thread(stray.wait, DEADLINE_S) == -signal.SIGKILL
    assert not [path for path in group.directories if path.exists()]


async def test_groups_of_agents_whose_directory_is_gone_are_collected(limiting: Rig, directory: Path) -> None:
    (directory / "other").mkdir()
    other = ControlGroups(look_for_hierarchies(), directory / "other", "cloudless")
    group = other.prepare("t9", Limits(), Resources())
    limiting.executor._groups.collect(())
    assert all(path.exists() for path in group.directories), "that agent may be there still"
    (directory / "other").rmdir()
    limiting.executor._groups.collect(())
    assert not any(path.parent.exists() for path in group.directories)


async def test_without_control_groups_a_limit_is_refused_and_all_else_runs(directory: Path) -> None:
    rig = Rig(directory / "tasks", parent="none")
    told = {name: why_not for name, why_not in rig.executor.abilities.items() if name.startswith("limit-")}
    assert told == dict.fromkeys(("limit-cpu", "limit-memory", "limit-pids"), OFF)
    with pytest.raises(Permanent, match="this node cannot limit memory: control groups are turned off"):
        await rig.start("true", limits=Limits(memory_mb=16))
    assert await rig.executor.adopt() == ()
    assert await rig.run("echo fine") == ["fine"]
    rig.executor.close()


_MOUNTS = Path("/proc/self/mountinfo").read_text().splitlines()
UNIFIED = next((Path(line.split()[4]) for line in _MOUNTS if " - cgroup2 " in line), None)


@as_root
@pytest.mark.skipif(UNIFIED is None, reason="no hierarchy of version 2")
async def test_groups_of_version_2_pass_controllers_down_and_kill_what_is_in_them(directory: Path) -> None:
    assert UNIFIED
    here = frozenset((UNIFIED / "cgroup.controllers").read_text().split())
    controller = next((name for name in ("hugetlb", "pids", "memory") if name in here), "")
    if not controller:
        pytest.skip("version 2 has no controller here")
    hierarchy = Hierarchy(UNIFIED, frozenset({controller}), unified=True)
    before = (UNIFIED / "cgroup.subtree_control").read_text().split()
    groups = ControlGroups([hierarchy], directory, "cloudless-test", (controller,))
    try:
        assert groups.missing == {}
        group = groups.prepare("t1", Limits(), Resources())
        assert controller in (group.places[controller] / "cgroup.controllers").read_text().split()
        forking = subprocess.Popen(["sh", "-c", "while :; do sleep 600 & sleep 0.01; done"])
        Path(group.entrances[0]).write_text(str(forking.pid))
        await until(lambda: len(group.members()) > 3)
        group.remove()
        assert await asyncio.to_thread(forking.wait, DEADLINE_S) == -signal.SIGKILL
        assert not group.places[controller].exists()
    finally:
        groups.close()
        if controller not in before:
            (UNIFIED / "cgroup.subtree_control").write_text(f"-{controller}")
    assert not (UNIFIED / "cloudless-test").exists()


MIXED = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/abc /sys/fs/cgroup/memory\\040here rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""


def test_hierarchies_of_both_versions_are_told_from_the_mounts() -> None:
    assert find_hierarchies(MIXED, {Path("/sys/fs/cgroup/unified"): "hugetlb pids\n"}) == (
        Hierarchy(Path("/sys/fs/cgroup/cpu,cpuacct"), frozenset({"cpu", "cpuacct"}), unified=False),
        Hierarchy(Path("/sys/fs/cgroup/memory here"), frozenset({"memory"}), unified=False),
        Hierarchy(Path("/sys/fs/cgroup/unified"), frozenset({"pids"}), unified=True),
    )


@pytest.mark.parametrize(
    ("name", "unified", "written"),
    [
        ("cpu", True, {"cpu.weight": "39", "cpu.max": "25000 100000"}),
        ("cpu", False, {"cpu.shares": "1024", "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "25000"}),
        ("memory", True, {"memory.max": "67108864", "memory.swap.max": "0", "memory.oom.group": "1"}),
        ("memory", False, {"memory.limit_in_bytes": "67108864", "memory.memsw.limit_in_bytes": "67108864"}),
        ("pids", True, {"pids.max": "9"}),
        ("cpuacct", False, {}),
    ],
)
def test_limits_in_the_kernels_own_terms(name: str, unified: bool, written: dict[str, str]) -> None:
    limits = Limits(cpu_millicores=250, memory_mb=64, pids=9)
    settings = build_settings(name, unified, limits, Resources(cpu_millicores=1000))
    assert {setting.file: setting.value for setting in settings} == written


def test_no_limit_is_written_as_such_because_a_group_may_have_had_one() -> None:
    free = {setting.file: setting.value for setting in build_settings("cpu", True, Limits(), Resources())}
    assert free["cpu.max"] == "max 100000"
    assert [setting.value for setting in build_settings("pids", False, Limits(), Resources())] == ["max"]


# --- security context ---------------------------------------------------------------------------


@as_root
async def test_a_task_runs_as_its_user_without_the_agents_groups_and_owns_its_directories(rig: Rig) -> None:
    security = SecurityContext(run_as_user=USER, run_as_group=4711)
    script = (
        'id -u; id -g; id -G; touch "$HOME/a" "$TMPDIR/b" c; stat -c %u "$HOME/c"; grep NoNewPrivs /proc/self/status'
    )
    assert await rig.run(script, security_context=security) == [
        str(USER), "4711", "4711", str(USER), "NoNewPrivs:\t1",
    ]  # fmt: skip
    assert (rig.root / "t1" / "1").stat().st_mode & 0o777 == 0o700, "logs are nobody else's business"


@as_root
async def test_a_user_without_a_group_has_that_of_the_nodes_database(rig: Rig) -> None:
    assert await rig.run("id -g", security_context=SecurityContext(run_as_user=1)) == ["1"]
    assert await rig.run("id -g", 2, security_context=SecurityContext(run_as_user=54321)) == ["54321"]


@as_root
async def test_a_task_of_another_user_dies_with_its_supervisor_all_the_same(rig: Rig) -> None:
    started = await rig.start("exec sleep 600", security_context=SecurityContext(run_as_user=USER))
    os.kill(rig.shim(), signal.SIGKILL)
    await rig.wait()
    await until(lambda: not psutil.pid_exists(started.pid))


@as_root
async def test_a_user_who_cannot_get_to_its_directory_is_refused(rig: Rig, directory: Path) -> None:
    directory.chmod(0o700)
    with pytest.raises(Permanent, match=f"user {USER} cannot get to its directory: {directory} lets nobody else"):
        await rig.start("true", security_context=SecurityContext(run_as_user=USER))
    assert await rig.executor.adopt() == ()


async def test_limits_of_a_process_are_set(rig: Rig) -> None:
    rlimits = (Rlimit(name="core", soft=0, hard=0), Rlimit(name="nofile", soft=50, hard=60))
    security = SecurityContext(rlimits=rlimits)
    assert await rig.run("ulimit -c; ulimit -Sn; ulimit -Hn", security_context=security) == ["0", "50", "60"]


async def test_a_limit_too_low_to_begin_with_ends_the_attempt(rig: Rig) -> None:
    security = SecurityContext(rlimits=(Rlimit(name="as", soft=4096, hard=4096),))
    await rig.start("true", security_context=security)
    assert (await rig.wait()).signal in (signal.SIGKILL, signal.SIGSEGV)


@as_root
async def test_a_private_tmp_is_seen_by_nobody_else_and_stays_over_attempts(rig: Rig) -> None:
    name = f"private-{os.getpid()}"
    security = SecurityContext(private_tmp=True)
    script = f"touch /tmp/{name} $HOME/here; echo $TMPDIR; pwd; ls -A $HOME"
    assert await rig.run(script, security_context=security) == ["/tmp", str(rig.home), "here"]
    assert not Path("/tmp", name).exists()
    assert (rig.root / "t1" / "tmp" / name).exists()
    assert (rig.home / "here").exists(), "its own directory is there, though that is below /tmp"
    assert name in await rig.run("ls /tmp", 2, security_context=security)


@as_root
async def test_a_read_only_root_leaves_home_and_tmp_to_write_to(rig: Rig, directory: Path) -> None:
    script = f"touch {directory}/x 2>&1; touch $HOME/a $TMPDIR/b here && echo > /dev/null && ls $HOME"
    lines = await rig.run(script, security_context=SecurityContext(read_only_root=True))
    assert "Read-only file system" in lines[0]
    assert lines[1:] == ["a", "here"]
    (directory / "y").touch()  # nothing has changed outside


@as_root
async def test_capabilities_are_taken_and_given(rig: Rig) -> None:
    script = "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status"
    none, bind = "0000000000000000", "0000000000000400"
    dropped = SecurityContext(drop_capabilities=("ALL",))
    assert await rig.run(script, security_context=dropped) == [f"Cap{name}:\t{none}" for name in ("Prm", "Eff", "Bnd")]
    one = SecurityContext(drop_capabilities=("ALL",), add_capabilities=("NET_BIND_SERVICE",))
    assert await rig.run(script, 2, security_context=one) == [f"Cap{name}:\t{bind}" for name in ("Prm", "Eff", "Bnd")]
    other = SecurityContext(
        run_as_user=USER, drop_capabilities=("ALL",), add_capabilities=("NET_BIND_SERVICE",), private_tmp=True
    )
    assert await rig.run(script, 3, security_context=other) == [f"Cap{name}:\t{bind}" for name in ("Prm", "Eff", "Bnd")]


@as_root
async def test_volumes_are_where_the_task_wants_them(rig: Rig, directory: Path) -> None:
    for name in ("source", "data", "own"):
        (directory / name).mkdir()
    (directory / "source" / "file").write_text("of the node")
    volumes = (
        Volume(name="data", mount_path=str(directory / "data"), host_path=str(directory / "source"), read_only=True),
        Volume(name="own", mount_path=str(directory / "own")),
    )
    security = SecurityContext(run_as_user=USER)
    script = f"cat {directory}/data/file; touch {directory}/own/kept; touch {directory}/data/x 2>&1 | grep -c Read-only"
    lines = await rig.run(script, volumes=volumes, security_context=security)
    assert lines == ["of the node1"]
    assert not list((directory / "own").iterdir()), "the node's own directory is not written to"
    assert await rig.run(f"ls {directory}/own", 2, volumes=volumes, security_context=security) == ["kept"]
    missing = (Volume(name="v", mount_path=str(directory / "nowhere")),)
    with pytest.raises(Permanent, match=r"volume v: mountPath .*nowhere is not a directory of this node"):
        await rig.start("true", 3, volumes=missing)


@as_root
async def test_a_bounded_task_runs_as_its_manifest_says(limiting: Rig, stack: ExitStack) -> None:
    # Not below /tmp, where its own directory would be one more file.
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="confined-", dir="/var/tmp")))
    directory.chmod(0o711)
    data_dir = directory / "data"
    os.close(lock_data_dir(data_dir))
    rig = Rig(data_dir / "tasks")
    (found,) = parse_manifests(load_documents(BOUNDED))
    try:
        await rig.executor.start(StartRequest(task_id="t1", attempt=1, spec=build_task_spec(found.spec)))
        output = rig.root / "t1" / "1" / "stdout.log"
        await until(lambda: output.read_text().endswith("files\n"))
        assert output.read_text() == "I am 65534, my /tmp has 0 files\n"
        others = {data_dir / "tasks" / "t1" / "1", data_dir / "lock"}
        assert all(path.stat().st_mode & 0o077 == 0 for path in others), "what is the agent's stays the agent's"
    finally:
        await rig.executor.stop("t1", 1, grace_s=0)
        await rig.wait()
        await rig.executor.remove("t1")
        rig.executor.close()


_UNPRIVILEGED = """
import asyncio, sys
from pathlib import Path
from cloudless.adapters.subprocess import ProcessExecutor
from cloudless.core.model import SecurityContext, TaskSpec
from cloudless.errors import Permanent
from cloudless.ports import LogQuery, StartRequest

async def main():
    executor = ProcessExecutor(Path(sys.argv[1]))
    asked = {
        "user": dict(security_context=SecurityContext(run_as_user=1)),
        "tmp": dict(security_context=SecurityContext(private_tmp=True)),
        "capability": dict(security_context=SecurityContext(add_capabilities=("NET_ADMIN",))),
        "dropped": dict(security_context=SecurityContext(drop_capabilities=("ALL",))),
    }
    for name, spec in asked.items():
        try:
            await executor.start(StartRequest(task_id=name, attempt=1, spec=TaskSpec(command=("true",), **spec)))
            print(name, "ran")
        except Permanent as error:
            print(name, "refused:", error.message)
    executor.close()

asyncio.run(main())
"""


@as_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_what_an_agent_without_privileges_cannot_do_is_refused_by_name(directory: Path) -> None:
    without = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    done = subprocess.run(
        [*without, sys.executable, "-c", _UNPRIVILEGED, str(directory / "tasks")], cwd=Path(__file__).parents[2],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert dict(line.split(" ", 1) for line in done.stdout.splitlines()) == {
        "user": "refused: cannot set runAsUser: Operation not permitted",
        "tmp": "refused: this node cannot set mounts: Operation not permitted",
        "capability": "refused: this node's agent cannot give the capability NET_ADMIN: it does not have it",
        "dropped": "ran",
    }
