"""A Docker engine for one run of the test, where none is: dockerd as installed, and the compose plugin with it.

Everything it makes lies in the directory given. The plugin is taken from the engine's own installation; if there is
none, from the package that Debian's archive has in a newer suite, fetched as `etcd/` fetches etcd: signatures checked,
nothing installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from etcd.apt_sources import debian_archive
from tests.docker_engine import DockerDaemon

SUITE = "trixie"
PACKAGE = "docker-compose"
PLUGIN = "docker-compose"
APT_S = 300.0
_APT_CONF = """\
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{root}/sources.d";
Dir::State::lists "{root}/lists";
Dir::Cache "{root}/cache";
Acquire::Languages "none";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
"""


class EngineMissing(Exception):
    """No engine can be had here; the message says what is missing and how to get it."""


def find_lack() -> str:
    """Return why no engine of one's own can be started here, "" if one can."""
    if os.geteuid() != 0:
        return "an engine of one's own needs root"
    lacking = [name for name in ("docker", "dockerd", "containerd", "ip") if shutil.which(name) is None]
    return f"needs {', '.join(lacking)} (Debian: apt-get install docker.io iproute2)" if lacking else ""


@contextmanager
def private_engine(directory: Path, work: Path) -> Iterator[dict[str, str]]:
    """Start an engine; yield the environment in which `docker` and `docker compose` use it; remove it with its data.

    `directory` is made; it may exist, but must be empty. Raises EngineMissing.
    """
    if lack := find_lack():
        raise EngineMissing(lack)
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise EngineMissing(f"{directory} is not empty: name a directory that may be deleted")
    daemon = DockerDaemon(directory.resolve())
    try:
        daemon.start()
        yield reach(daemon, work)
    finally:
        daemon.discard()


def reach(daemon: DockerDaemon, work: Path) -> dict[str, str]:
    """Return the environment in which `docker` and `docker compose` use that engine. Raises EngineMissing."""
    return with_plugin({**os.environ, "DOCKER_HOST": daemon.host, "DOCKER_SOCK": f"{daemon.root}/docker.sock"}, work)


def with_plugin(environ: Mapping[str, str], work: Path) -> dict[str, str]:
    """Return an environment in which `docker compose` is there. Raises EngineMissing."""
    told = subprocess.run(["docker", "compose", "version"], env=environ, capture_output=True, check=False)
    if told.returncode == 0:
        return dict(environ)
    plugins = work / "docker/cli-plugins"
    plugins.mkdir(parents=True)
    shutil.copy(fetch_plugin(work / "apt"), plugins / PLUGIN)
    return {**environ, "DOCKER_CONFIG": str(plugins.parent)}


def fetch_plugin(root: Path) -> Path:
    """Return the path of the compose plugin, unpacked from Debian's package. Raises EngineMissing."""
    archive = debian_archive()
    if archive is None:
        raise EngineMissing("`docker compose` is missing: install Docker's compose plugin, version 2.20 or newer")
    for directory in ("sources.d", "lists/partial", "cache/archives/partial"):
        (root / directory).mkdir(parents=True)
    (root / "sources.d/archive.sources").write_text(archive.stanza(SUITE), encoding="utf-8")
    (root / "apt.conf").write_text(_APT_CONF.format(root=root), encoding="utf-8")
    try:
        for words in (["update"], ["download", PACKAGE]):
            _run(["apt-get", "-qq", "-c", f"{root}/apt.conf", *words], root)
        (package,) = root.glob("*.deb")
        _run(["dpkg", "-x", str(package), str(root / "unpacked")], root)
        return next(path for path in (root / "unpacked").rglob(PLUGIN) if path.is_file() and os.access(path, os.X_OK))
    except (OSError, ValueError, StopIteration, subprocess.SubprocessError) as error:
        raise EngineMissing(f"`docker compose` is missing and Debian's {PACKAGE} cannot be fetched: {error}") from error


def _run(command: list[str], cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, timeout=APT_S)
