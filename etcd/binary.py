"""Ask a binary which etcd it is. A file that does not run or names no version is not an etcd."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from etcd.gate import Version

_TIMEOUT_S = 10.0


class NotEtcd(Exception):
    """The file is no etcd that runs on this machine; the message says why."""


def ask_version(path: Path) -> Version:
    """Return the version that `path --version` prints. Raises NotEtcd."""
    # ETCD_* variables are flags to etcd and would be read even here.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}
    try:
        done = subprocess.run(
            [str(path), "--version"],
            capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False, env=environment,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise NotEtcd(f"`--version` gave no answer in {_TIMEOUT_S:g} s") from error
    except OSError as error:
        raise NotEtcd(f"does not run: {error.strerror or error}") from error
    if done.returncode != 0 or "etcd Version" not in done.stdout:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NotEtcd(f"`--version` failed with {done.returncode}: {said[-1] if said else 'no output'}")
    return Version.parse(done.stdout)
