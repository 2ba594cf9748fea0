"""The image and the engine for tests of the compose stack: the engine of the container tests; the image is built once.

Never the host's own engine: the script removes the stack that it finds, data included.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT
from tests.cluster import private_engine
from tests.cluster.compose import API_PORT, ENROL_PORT, METRICS_PORT
from tests.cluster.private_engine import EngineMissing
from tests.docker_engine import DockerDaemon

PORTS = (*API_PORT.values(), *METRICS_PORT.values(), *ENROL_PORT.values(), 8081, 8083, 8085, 3010, 3011, 3012)


def find_lack() -> str:
    """Return why the stack cannot be run here, "" if it can."""
    if lack := private_engine.find_lack():
        return lack
    if shutil.which("mmdebstrap") is None:
        return "needs mmdebstrap for the image (Debian: apt-get install mmdebstrap)"
    taken = [port for port in PORTS if _is_taken(port)]
    return f"the stack's ports are in use: {', '.join(map(str, taken))}" if taken else ""


def _is_taken(port: int) -> bool:
    with contextlib.closing(socket.socket()) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


@pytest.fixture(scope="session")
def _compose_environ(_docker_daemon: DockerDaemon, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    try:
        return private_engine.reach(_docker_daemon, tmp_path_factory.mktemp("plugin"))
    except EngineMissing as error:
        pytest.skip(str(error))


@pytest.fixture
def engine_environ(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment in which the script finds the tests' own engine, and no other."""
    if lack := find_lack():
        pytest.skip(f"the HA stack is not tested: {lack}")
    request.getfixturevalue("docker_daemon")
    environ: dict[str, str] = request.getfixturevalue("_compose_environ")
    return environ


def run_script(environ: dict[str, str], directory: Path, *words: str, within_s: float) -> tuple[int, str]:
    """Run scripts/test-ha-cluster.sh with its files in `directory`; return its exit code and all it printed."""
    command = [str(ROOT / "scripts/test-ha-cluster.sh"), "--results", str(directory / "results.txt")]
    command += ["--logs", str(directory / "logs.txt"), *words]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=within_s, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def stack_environ(engine_environ: dict[str, str]) -> dict[str, str]:
    """The same, with the image in that engine."""
    command = ["docker", "image", "inspect", "cloudless:local"]
    if subprocess.run(command, env=engine_environ, capture_output=True, check=False).returncode:
        subprocess.run([str(ROOT / "scripts/image"), "--base-from-archive"], cwd=ROOT, env=engine_environ, check=True)
    return engine_environ
