"""A place of its own for one run: networks, mounts and processes that vanish with it, whatever happens.

`python -m tests.faults.rig.sandbox COMMAND…` runs the command in new network, mount and pid namespaces. Named network
namespaces made in there live on a private mount; when the command ends, or this process is killed, the kernel ends
every process inside, and with the last one every namespace, bridge and rule. Nothing has to be cleaned up, so nothing
can be forgotten. Without the right to do so `lack` says why; such a run goes without a sandbox.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

_INSIDE = "CLOUDLESS_FAULTS_SANDBOX"
_NAMESPACES = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
NETNS_DIR = "/run/netns"


def is_inside() -> bool:
    return os.environ.get(_INSIDE) == "1"


def lack() -> str:
    """Return why there can be no sandbox here, "" if there can."""
    for tool in ("unshare", "nsenter", "ip", "mount"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    tried = subprocess.run(["unshare", *_NAMESPACES, "true"], capture_output=True, text=True)
    return tried.stderr.strip() if tried.returncode else ""


def wrap(command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` in a sandbox."""
    return ["unshare", *_NAMESPACES, sys.executable, "-m", __name__, *command]


def _run(command: Sequence[str]) -> int:
    """Be the first process of the sandbox: prepare it, start the command, reap orphans until it ends."""
    for step in (
        ["ip", "link", "set", "lo", "up"],
        ["mkdir", "-p", NETNS_DIR],
        ["mount", "-t", "tmpfs", "netns", NETNS_DIR],
    ):
        subprocess.run(step, check=True)
    child = subprocess.Popen(command, env={**os.environ, _INSIDE: "1"})
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    code = _run(sys.argv[1:])
    sys.exit(code if code >= 0 else 128 - code)
