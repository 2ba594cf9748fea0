"""One promise after the other broken on the real stack: the script must fail, and name that promise.

What is planted is a compose file laid over the stack's, and where that is not enough a few lines of Python that it
brings into a container. The product has no switch for any of it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.conftest import run_script

pytestmark = [pytest.mark.cluster, pytest.mark.docker, pytest.mark.timeout(960)]

PLANTED = Path(__file__).parent / "planted"
HOLDER = "cloudless-planted-holder"
RUN_S = 600
slow = pytest.mark.slow


@dataclass(frozen=True)
class Promise:
    """The check that has to fail, what it has to say, and how long it waits, in shares of the usual time."""

    check: str
    words: str
    patience: float = 1.0


PROMISES = {
    "never-green": Promise("the stack is deployed and well", "coordinator-2"),
    "agent-never-green": Promise("the stack is deployed and well", "agent-2 is running unhealthy", 0.25),
    "own-cluster": Promise("one cluster of three members", "several etcd clusters", 0.5),
    "two-leaders": Promise("exactly one leader", "say that they lead", 0.3),
    "metric-missing": Promise("metrics are served", "coordinator-3 has no cloudless_coordinator_raft_commit_index"),
    "write-missed": Promise("state is replicated", "all that was written, on coordinator-3", 0.5),
    "agent-absent": Promise("agents are enrolled", "agent-3 is not known", 0.5),
    "task-restarted": Promise("the leader is stopped", "was restarted"),
    "write-lost": Promise("the leader is stopped", "is None instead of 2", 0.5),
    "no-way-back": Promise("the leader is stopped", "is back", 0.5),
    "volume-left": Promise("nothing is left", "volume cloudless-ha_agent-3"),
}
QUICK = ("never-green", "two-leaders")


@pytest.fixture
def without_holder(stack_environ: dict[str, str]) -> Iterator[None]:
    yield
    for words in (["rm", "--force", HOLDER], ["volume", "rm", "--force", "cloudless-ha_agent-3"]):
        subprocess.run(["docker", *words], env=stack_environ, capture_output=True, check=False)


@pytest.mark.usefixtures("without_holder")
@pytest.mark.parametrize("fault", [name if name in QUICK else pytest.param(name, marks=slow) for name in PROMISES])
def test_a_broken_promise_fails_the_script_by_its_name(
    fault: str, stack_environ: dict[str, str], tmp_path: Path
) -> None:
    promise = PROMISES[fault]
    words = ["--no-build", "--override", str(PLANTED / f"{fault}.yml"), "--patience", f"{promise.patience:g}"]
    code, said = run_script(stack_environ, tmp_path, *words, within_s=RUN_S)
    print(said)
    assert code == 1, said
    told = json.loads((tmp_path / "results.json").read_text())
    assert told["passed"] is False
    failed = {row["name"]: row["words"] for row in told["checks"] if row["outcome"] == "failed"}
    assert list(failed) == [promise.check], said
    assert promise.words in failed[promise.check]


def test_every_planted_file_is_planted() -> None:
    assert set(PROMISES) == {file.stem for file in PLANTED.glob("*.yml")}
