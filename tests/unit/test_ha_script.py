"""What `scripts/test-ha-cluster.sh` does around its checks, with a `docker` in its way that is none.

Whatever happens: a report, a verdict by exit code, and the stack removed again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT

DEADLINE_S = 30.0
DOCKER = """\
#!/bin/sh
echo "$*" >>"$FAKE_LOG"
case "$*" in
  version) exit "${FAKE_ENGINE:-0}" ;;
  "compose version --short") echo "${FAKE_VERSION:-2.26.1}" ;;
  *" up "*) echo "no such image" >&2; [ -z "${FAKE_HANG:-}" ] || exec sleep 600; exit 1 ;;
  *" logs "*) echo "coordinator-1  | a line of its log" ;;
  *" down "*) exit "${FAKE_DOWN:-0}" ;;
  ps*) [ -z "${FAKE_LEFT:-}" ] || { grep -q ' up ' "$FAKE_LOG" && echo left-behind; } || : ;;
esac
"""


class Run:
    """One run of the script, with the fake first on its PATH."""

    def __init__(self, tmp_path: Path) -> None:
        self.results, self.logs, self.said = (tmp_path / name for name in ("results.txt", "logs.txt", "docker.txt"))
        program = tmp_path / "bin" / "docker"
        program.parent.mkdir()
        program.write_text(DOCKER)
        program.chmod(0o755)
        self.environ = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "FAKE_LOG": str(self.said)}

    def start(self, *words: str, **fake: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.cluster.run", "--no-build", *words]
        command += ["--results", str(self.results), "--logs", str(self.logs)]
        environ = {**self.environ, **{f"FAKE_{name.upper()}": value for name, value in fake.items()}}
        return subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def wait(self, *words: str, **fake: str) -> tuple[int, str]:
        """Return the exit code, and all that was printed."""
        process = self.start(*words, **fake)
        out, err = process.communicate(timeout=DEADLINE_S)
        return process.returncode, out + err

    def commands(self) -> list[str]:
        return self.said.read_text().splitlines() if self.said.exists() else []

    def outcomes(self) -> dict[str, str]:
        told = json.loads(self.results.with_suffix(".json").read_text())
        assert told["passed"] is False
        return {row["name"]: row["outcome"] for row in told["checks"]}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_without_an_engine_it_says_what_to_do_and_reports_a_failure(run: Run) -> None:
    code, said = run.wait(engine="1")
    assert code == 8
    assert "no Docker engine answers" in said
    assert "--private-engine" in said
    assert run.outcomes() == {"an engine to run on": "failed"}
    assert not any(" down " in command for command in run.commands())


def test_a_compose_plugin_that_is_too_old_is_named(run: Run) -> None:
    code, said = run.wait(version="v2.17.3-desktop")
    assert code == 8
    assert "v2.17.3-desktop: 2.20 or newer is needed" in said


def test_a_stack_that_does_not_start_fails_is_logged_and_removed(run: Run) -> None:
    code, said = run.wait()
    assert code == 1
    assert "no such image" in said
    outcomes = run.outcomes()
    assert outcomes["the stack is deployed and well"] == "failed"
    assert outcomes["one cluster of three members"] == "not run"
    assert outcomes["nothing is left"] == "passed"
    assert "a line of its log" in run.logs.read_text()
    started = next(n for n, command in enumerate(run.commands()) if " up " in command)
    assert any("down --volumes" in command for command in run.commands()[started:])


def test_kept_is_what_one_asks_to_keep(run: Run) -> None:
    assert run.wait("--keep")[0] == 1
    started = next(n for n, command in enumerate(run.commands()) if " up " in command)
    assert not any(" down " in command for command in run.commands()[started:])
    assert "nothing is left" not in run.outcomes()


def test_what_is_left_after_the_removal_is_a_failure_of_its_own(run: Run) -> None:
    assert run.wait(left="yes")[0] == 1
    assert run.outcomes()["nothing is left"] == "failed"
    assert "container left-behind" in run.results.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_told_to_end_it_removes_the_stack_and_reports_before_it_goes(run: Run, number: signal.Signals) -> None:
    process = run.start(hang="yes")
    deadline_s = time.monotonic() + DEADLINE_S
    while not any(" up " in command for command in run.commands()):
        assert process.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode not in (0, None)
    started = next(n for n, command in enumerate(run.commands()) if " up " in command)
    assert any("down --volumes" in command for command in run.commands()[started:])
    assert run.results.exists()
    outcomes = run.outcomes()
    assert outcomes["the stack is deployed and well"] == "failed"
    assert outcomes["nothing is left"] == "passed"
