"""A Docker engine of the tests' own, never the host's. Needs root, dockerd and a static busybox, else it is skipped.

Everything it makes lies under one temporary directory: its data, its containerd, its socket, its pid file. Its network
is a bridge of its own without any packet filter rules, its control groups have a parent of their own.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import os
import secrets
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

IMAGE = "cloudless-test/busybox:1"
SHARE = 9
"""How many of the host's processes all containers together count as, for the CPU: those of the largest stack."""
START_S = 60.0
STOP_S = 30.0


def find_lack() -> str:
    """Return why no engine can be started here, "" if one can."""
    if os.geteuid() != 0:
        return "needs root to start a Docker engine of its own"
    lacking = [name for name in ("dockerd", "containerd", "ip") if shutil.which(name) is None]
    if lacking:
        return f"needs {', '.join(lacking)} (Debian: apt-get install docker.io iproute2)"
    if find_busybox() is None:
        return "needs a static busybox (Debian: apt-get install busybox-static)"
    return ""


def find_busybox() -> str | None:
    """Return the path of a busybox that runs without any library."""
    path = shutil.which("busybox")
    if path is None:
        return None
    told = subprocess.run(["ldd", path], capture_output=True, text=True, check=False)
    return path if "not a dynamic executable" in told.stdout + told.stderr else None


class DockerDaemon:
    """One dockerd over several lives on one data directory. `host` is its address.

    Its storage driver is the first that works here: overlay2, or at last vfs, which copies every layer.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.host = f"unix://{root}/docker.sock"
        # Not by pid: that is not unique where tests run in namespaces of their own.
        self.bridge = f"cl{secrets.token_hex(4)}"
        self.process: subprocess.Popen[bytes] | None = None
        self._network = ipaddress.ip_network(f"172.30.{secrets.randbelow(256)}.0/24")

    # --- its life ---

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._add_bridge()
        self._add_cgroup()
        with (self.root / "dockerd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    "dockerd", f"--data-root={self.root}/data", f"--exec-root={self.root}/exec",
                    f"--pidfile={self.root}/docker.pid", f"--host={self.host}", f"--bridge={self.bridge}",
                    f"--fixed-cidr={self._network}", "--iptables=false", "--ip-masq=false", "--ip-forward=false",
                    f"--cgroup-parent=/cloudless-{self.bridge}", "--shutdown-timeout=2",
                ],
                stdout=log, stderr=log, cwd=self.root, start_new_session=True,
            )  # fmt: skip
        deadline_s = time.monotonic() + START_S
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"dockerd did not start:\n{self.log_tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it in order; its containers end with it."""
        if self.process is not None and self.process.poll() is None:
            self.thaw()
            self.process.terminate()
            self.process.wait(STOP_S)

    def kill(self) -> None:
        """End it as a crash would: its containers run on, until it is back."""
        assert self.process
        self.process.kill()
        self.process.wait(STOP_S)
        self._bury_containerd()

    def freeze(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def discard(self) -> None:
        """End it and everything it started, and remove all it made."""
        self.stop()
        self._end_leftovers()
        subprocess.run(["ip", "link", "delete", self.bridge], check=False, capture_output=True)
        for mount in sorted(self._mounts(), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
        for directory in sorted(self._cgroups(), reverse=True):
            with contextlib.suppress(OSError):
                directory.rmdir()
        shutil.rmtree(self.root, ignore_errors=True)

    # --- what is in it ---

    def answers(self) -> bool:
        try:
            with contextlib.closing(self.client()) as client:
                client.ping()
        except Exception:  # whatever it is, it is no answer
            return False
        return True

    def client(self) -> Any:
        import docker

        return docker.APIClient(base_url=self.host, version="auto", timeout=10)

    def containers(self) -> list[dict[str, Any]]:
        with contextlib.closing(self.client()) as client:
            found: list[dict[str, Any]] = client.containers(all=True)
        return found

    def load_image(self) -> None:
        """Import the one image that tests use: a static busybox."""
        with contextlib.closing(self.client()) as client:
            repository, _, tag = IMAGE.rpartition(":")
            client.import_image_from_data(image_layer(), repository=repository, tag=tag)

    def clear(self) -> None:
        """Remove all containers and volumes."""
        from docker.errors import NotFound

        with contextlib.closing(self.client()) as client:
            for row in client.containers(all=True):
                with contextlib.suppress(NotFound):  # one that was listed while it was being removed
                    client.remove_container(row["Id"], v=True, force=True)
            for volume in client.volumes()["Volumes"] or ():
                client.remove_volume(volume["Name"])

    def log_tail(self) -> str:
        return "\n".join((self.root / "dockerd.log").read_text(errors="replace").splitlines()[-20:])

    # --- small things ---

    def _add_bridge(self) -> None:
        if subprocess.run(["ip", "link", "show", self.bridge], check=False, capture_output=True).returncode == 0:
            return
        first = f"{self._network[1]}/{self._network.prefixlen}"
        for words in (
            ("link", "add", "name", self.bridge, "type", "bridge"),
            ("addr", "add", first, "dev", self.bridge),
            ("link", "set", self.bridge, "up"),
        ):
            subprocess.run(["ip", *words], check=True, capture_output=True)

    def _add_cgroup(self) -> None:
        """Make the containers' parent, or together they would get no more CPU than one other process of the host."""
        top, name = Path("/sys/fs/cgroup"), f"cloudless-{self.bridge}"
        with contextlib.suppress(OSError):  # where it cannot be set, they share one process's part
            if (top / "cgroup.controllers").exists():
                (top / name).mkdir(exist_ok=True)
                (top / name / "cpu.weight").write_text(str(SHARE * 100))
            else:
                (top / "cpu" / name).mkdir(exist_ok=True)
                (top / "cpu" / name / "cpu.shares").write_text(str(SHARE * 1024))

    def _bury_containerd(self) -> None:
        """See that the engine's containerd, which dies with it, is not taken for a living one while nobody reaps it."""
        pidfile = self.root / "exec/containerd/containerd.pid"
        with contextlib.suppress(psutil.NoSuchProcess, OSError, ValueError):
            containerd = psutil.Process(int(pidfile.read_text()))
            deadline_s = time.monotonic() + STOP_S
            while containerd.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline_s:
                time.sleep(0.01)
        pidfile.unlink(missing_ok=True)

    def _end_leftovers(self) -> None:
        """Kill, by pid, what a killed engine left: its own name our directory, containers are in our control groups."""
        ours = [process for process in psutil.process_iter() if _serves(process, str(self.root))]
        for directory in self._cgroups():
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                ours += [psutil.Process(int(pid)) for pid in (directory / "cgroup.procs").read_text().split()]
        for process in ours:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(ours, timeout=STOP_S)

    def _cgroups(self) -> list[Path]:
        """Return the control groups of the engine's containers, in each hierarchy there is."""
        top = Path("/sys/fs/cgroup")
        return [
            directory
            for pattern in (f"cloudless-{self.bridge}", f"*/cloudless-{self.bridge}")
            for parent in top.glob(pattern)
            for directory in (parent, *(path for path in parent.rglob("*") if path.is_dir()))
        ]

    def _mounts(self) -> list[str]:
        lines = Path("/proc/self/mounts").read_text().splitlines()
        return [line.split()[1] for line in lines if line.split()[1].startswith(f"{self.root}/")]


def _serves(process: psutil.Process, root: str) -> bool:
    """Return whether a process is an engine, or a part of one, on `root`."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return bool(words) and Path(words[0]).name.startswith(("dockerd", "containerd")) and any(root in w for w in words)


def image_layer(mark: str = "") -> bytes:
    """Return a file system with busybox under all its names, as a tar archive; `mark` makes it differ from others."""
    busybox = find_busybox()
    assert busybox
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for directory in ("bin", "tmp", "etc", "data"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            archive.addfile(entry)
        marked = tarfile.TarInfo("etc/mark")
        marked.size = len(mark)
        archive.addfile(marked, io.BytesIO(mark.encode()))
        archive.add(os.path.realpath(busybox), "bin/busybox")
        for name in names:
            if name != "busybox":
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(link)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def _docker_daemon() -> Iterator[DockerDaemon]:
    # Not pytest's own directory: sockets below it would have paths that are too long.
    daemon = DockerDaemon(Path(tempfile.mkdtemp(prefix="cldocker-")))
    try:
        daemon.start()
        daemon.load_image()
        yield daemon
    finally:
        daemon.discard()


@pytest.fixture
def docker_daemon(request: pytest.FixtureRequest) -> Iterator[DockerDaemon]:
    """An engine with IMAGE in it and no container; whatever a test does to it is undone."""
    if lack := find_lack():
        pytest.skip(lack)
    daemon: DockerDaemon = request.getfixturevalue("_docker_daemon")
    yield daemon
    daemon.thaw()
    if daemon.process is None or daemon.process.poll() is not None:
        daemon.start()
    daemon.clear()
