"""`scripts/test-ha-cluster.sh`: deploy the HA stack, take its parts away one after the other, and judge what happens.

Whatever happens, the report and the logs are written and the stack is removed (`--keep` leaves it). Exits with 0 only
if every check ran and passed, with 1 if one did not, with 8 if there is nothing to run it on.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.architecture.tree import ROOT
from tests.cluster.checks import CHECKS, REMOVAL, CheckFailed, Trial
from tests.cluster.compose import ComposeStack, Placing
from tests.cluster.docker_cli import run_command
from tests.cluster.report import Outcome, Result, has_passed, to_line, to_text, write_report
from tests.cluster.stack import Stack, Unreachable

RESULTS = Path("/tmp/cloudless-ha-test-results.txt")
LOGS = Path("/tmp/cloudless-ha-test-logs.txt")
CANNOT_START = 8
ENGINE_S = 15.0
Check = tuple[str, Callable[[Trial], str]]


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parse(arguments)
    # So that the stack is removed and the report written when we are told to end, too.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    work = Path(tempfile.mkdtemp(prefix="cloudless-ha-"))
    try:
        if asked.private_engine:
            return _on_private_engine(asked, work)
        return _run(asked, work, dict(os.environ))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/test-ha-cluster.sh", description="Deploy the HA stack and break it, part by part."
    )
    parser.add_argument("--keep", action="store_true", help="leave the stack running at the end")
    parser.add_argument("--no-build", action="store_true", help="use the image that is there instead of building it")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help=f"the report; beside it as .json, .xml ({RESULTS})"
    )
    parser.add_argument("--logs", type=Path, default=LOGS, help=f"commands, and the containers' logs ({LOGS})")
    parser.add_argument("--patience", type=float, default=1.0, help="deadlines so many times as long (busy machines)")
    parser.add_argument(
        "--override", type=Path, action="append", default=[], metavar="FILE",
        help="a compose file laid over the stack's, as with `docker compose -f`; several are taken in order",
    )  # fmt: skip
    parser.add_argument(
        "--private-engine", type=Path, metavar="DIR",
        help="start a Docker engine for this alone, with its data in DIR (as root; where no engine runs)",
    )  # fmt: skip
    parser.add_argument(
        "--base-from-archive", action="store_true", help="make the base image with mmdebstrap instead of pulling it"
    )
    return parser.parse_args(arguments)


def _on_private_engine(asked: argparse.Namespace, work: Path) -> int:
    from tests.cluster.private_engine import EngineMissing, private_engine

    try:
        with private_engine(asked.private_engine, work) as environ:
            return _run(asked, work, environ)
    except EngineMissing as error:
        print(f"error: {error}", file=sys.stderr)
        return CANNOT_START


def _run(asked: argparse.Namespace, work: Path, environ: dict[str, str]) -> int:
    asked.logs.parent.mkdir(parents=True, exist_ok=True)
    asked.logs.write_text("", encoding="utf-8")
    if lack := find_lack(asked.logs, environ):
        write_report([Result("an engine to run on", Outcome.FAILED, words=lack)], asked.results)
        print(f"error: {lack}", file=sys.stderr)
        return CANNOT_START
    placing = Placing(
        work=work, log=asked.logs, net=environ.get("NET", "172.28"),
        overrides=tuple(file.absolute() for file in asked.override),
    )  # fmt: skip
    stack = ComposeStack(placing, environ)
    checks = CHECKS if asked.no_build else (("the image is built", _builder(asked, environ)), *CHECKS)
    results: list[Result] = []
    try:
        run_checks(Trial(stack, patience=asked.patience), checks, results, tell=_print)
    finally:
        _finish(stack, asked, results)
    print(to_text(results).splitlines()[-1])
    print(f"report: {asked.results} (also .json and .xml); logs: {asked.logs}")
    return 0 if has_passed(results) else 1


def run_checks(trial: Trial, checks: Sequence[Check], results: list[Result], tell: Callable[[str], None]) -> None:
    """Run the checks in order, append what each came to. After the first failure the others are not run.

    One that is broken off, by a signal or a fault in it, counts as failed before that is raised.
    """
    broken = ""
    for name, check in checks:
        begun_s = trial.clock()
        if broken:
            result = Result(name, Outcome.NOT_RUN, words=f"after the failure of: {broken}")
        else:
            try:
                result = _run_one(trial, name, check, begun_s)
            except BaseException as error:
                results.append(_broken_off(name, error))
                raise
            broken = name if result.outcome is Outcome.FAILED else ""
        results.append(result)
        tell(to_line(result))


def _run_one(trial: Trial, name: str, check: Callable[[Trial], str], begun_s: float) -> Result:
    try:
        outcome, words = Outcome.PASSED, check(trial)
    except (CheckFailed, Unreachable) as error:
        outcome, words = Outcome.FAILED, str(error)
    return Result(name, outcome, trial.clock() - begun_s, words)


def _broken_off(name: str, error: BaseException) -> Result:
    return Result(name, Outcome.FAILED, words=f"broken off by {type(error).__name__} {error}".rstrip())


def _finish(stack: Stack, asked: argparse.Namespace, results: list[Result]) -> None:
    """Keep the logs, remove the stack, write the report: each, whatever became of the others."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    containers = asked.logs.with_name(f"{asked.logs.name}.part")
    try:
        stack.collect_logs(containers)
        with asked.logs.open("a", encoding="utf-8") as file, containers.open(encoding="utf-8") as part:
            shutil.copyfileobj(part, file)
    except (Unreachable, OSError) as error:
        _print(f"the logs could not be collected: {error}")
    containers.unlink(missing_ok=True)
    if not asked.keep:
        run_checks(Trial(stack), [REMOVAL], results, tell=_print)
    write_report(results, asked.results)


def _builder(asked: argparse.Namespace, environ: dict[str, str]) -> Callable[[Trial], str]:
    def build(trial: Trial) -> str:
        command = [str(ROOT / "scripts/image"), *(["--base-from-archive"] if asked.base_from_archive else [])]
        done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
        with asked.logs.open("a", encoding="utf-8") as file:
            print(done.stdout, done.stderr, file=file)
        last = (done.stderr.strip().splitlines() or [""])[-1]
        if done.returncode:
            raise CheckFailed(f"scripts/image failed: {last}")
        return last.removeprefix("image: ")

    return build


def find_lack(log: Path, environ: dict[str, str]) -> str:
    """Return why nothing can be deployed here, "" if it can."""
    try:
        run_command(["docker", "version"], log, environ, within_s=ENGINE_S)
    except Unreachable as error:
        return (
            f"no Docker engine answers ({error}). Start one, name it with DOCKER_HOST, or, as root with Debian's "
            "docker.io installed, let this start its own: --private-engine DIR --base-from-archive"
        )
    try:
        told = run_command(["docker", "compose", "version", "--short"], log, environ, within_s=ENGINE_S).strip()
    except Unreachable:
        return "`docker compose` is missing: install Docker's compose plugin, 2.20 or newer (Debian 13: docker-compose)"
    return "" if _is_new_enough(told) else f"`docker compose` is {told}: 2.20 or newer is needed"


def _is_new_enough(version: str) -> bool:
    numbers = version.removeprefix("v").split(".")
    return [int("".join(filter(str.isdigit, number)) or 0) for number in numbers[:2]] >= [2, 20]


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
