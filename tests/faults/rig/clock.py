"""Wall clocks that a test sets, one for each process, while it runs.

Python's `time.time` and `time.time_ns` are replaced at the start of every process of the cluster by ones that add an
offset, read from a small file that is mapped into its memory, if cloudless' own code asks: all of it takes the wall
clock from there. Not covered: etcd (a static binary: no preloaded library reaches it), and gRPC, half of which is C
and would be told another time than its Python half, as no real step of a clock does.
"""

from __future__ import annotations

import struct
from pathlib import Path

from tests.integration.cluster import Place

_REPLACEMENT = """\
import mmap, os, struct, sys, time

def _replace():
    with open(os.environ["FAULTS_CLOCK"], "rb") as file:
        offset = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)
    real, real_ns = time.time, time.time_ns

    def offset_s(asker):
        ours = asker.f_globals.get("__name__", "").startswith("cloudless")
        return struct.unpack("d", offset)[0] if ours else 0.0

    time.time = lambda: real() + offset_s(sys._getframe(1))
    time.time_ns = lambda: real_ns() + int(offset_s(sys._getframe(1)) * 1e9)

_replace()
"""


class Clocks:
    """A `Place` inside another one, in which every process has a wall clock of its own."""

    def __init__(self, place: Place, home: Path) -> None:
        self._place, self._home = place, home
        self._site = home / "site"
        self._site.mkdir(parents=True)
        (self._site / "sitecustomize.py").write_text(_REPLACEMENT)

    def set(self, name: str, offset_s: float) -> None:
        """Step the wall clock of a process, running or not."""
        path = self._home / name
        if not path.exists():
            path.write_bytes(bytes(8))
        with path.open("r+b") as file:  # in place: processes have this very file mapped
            file.write(struct.pack("d", offset_s))

    def host_of(self, name: str) -> str:
        return self._place.host_of(name)

    def ports_of(self, name: str, *uses: str) -> dict[str, int]:
        return self._place.ports_of(name, *uses)

    def command_at(self, name: str, argv: list[str]) -> list[str]:
        if not (self._home / name).exists():
            self.set(name, 0.0)
        clock = ["env", f"PYTHONPATH={self._site}", f"FAULTS_CLOCK={self._home / name}"]
        return self._place.command_at(name, [*clock, *argv])
