"""The Docker command line, each command with a deadline and noted in a log. Raises Unreachable with what it said."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.cluster.stack import Unreachable

COMMAND_S = 60.0


class Docker:
    """`docker …` against one engine (DOCKER_HOST of `environ`); `note` is told of every command."""

    def __init__(self, log: Path, environ: Mapping[str, str] = os.environ) -> None:
        self._log, self._environ = log, dict(environ)

    def run(self, *words: str, within_s: float = COMMAND_S, given: str = "") -> str:
        """Return what the command printed. Raises Unreachable if it fails or takes too long."""
        return run_command(["docker", *words], self._log, self._environ, within_s=within_s, given=given)

    def inspect(self, *names: str) -> list[dict[str, Any]]:
        return json.loads(self.run("inspect", *names)) if names else []

    def list_labelled(self, kind: str, label: str) -> list[str]:
        """Return the names of all containers, volumes or networks that carry a label."""
        words = {"container": ["ps", "--all", "--format", "{{.Names}}"]}.get(
            kind, [kind, "ls", "--format", "{{.Name}}"]
        )
        return self.run(*words, "--filter", f"label={label}").split()


def run_command(
    command: Sequence[str], log: Path, environ: Mapping[str, str], *, within_s: float, given: str = ""
) -> str:
    """Run a command, note it with its end in `log`, return its output. Raises Unreachable."""
    begun_s = time.monotonic()
    try:
        done = subprocess.run(
            command, env=environ, input=given, capture_output=True, text=True, errors="replace", timeout=within_s,
            check=False,
        )  # fmt: skip
        code, out, said = done.returncode, done.stdout, done.stderr.strip()
    except subprocess.TimeoutExpired:
        code, out, said = 124, "", f"no end within {within_s:g} s"
    except OSError as error:
        code, out, said = 127, "", str(error)
    with log.open("a", encoding="utf-8") as file:
        took = f"{time.monotonic() - begun_s:.2f} s, exit {code}"
        print(
            f"{time.strftime('%H:%M:%S')} {took}: {' '.join(command)}", *said.splitlines()[-5:], sep="\n  ", file=file
        )
    if code:
        raise Unreachable(f"`{' '.join(command[:6])}` failed: {said.splitlines()[-1] if said else f'exit {code}'}")
    return out
