"""A small disk of a process's own: a file system on a loop device, that can be full, or take nothing for a while.

Frozen (`fsfreeze`) it lets every write and every sync of its users wait, as a disk does that hangs: reading what is
cached goes on, nothing fails, and a process that waits cannot even be killed. So a test thaws in `finally`.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BALLAST = "ballast"


class Disk:
    """One disk, mounted at `path`, which must be an empty directory or none yet."""

    def __init__(self, path: Path, size_mb: int) -> None:
        self.path, self._image = path, path.with_name(f"{path.name}.image")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._image.open("wb") as file:
            file.truncate(size_mb * 1024**2)
        # Without a journal a sync is one write, as on the disks that tests run on otherwise; and nothing is reserved.
        _run("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(self._image))
        _run("mount", "-o", "loop", str(self._image), str(path))
        path.chmod(0o700)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let all writes wait until the end of the block."""
        _run("fsfreeze", "-f", str(self.path))
        try:
            yield
        finally:
            _run("fsfreeze", "-u", str(self.path))

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Let nothing new be opened for writing until the end of the block; what is open stays so."""
        _run("mount", "--bind", str(self.path), str(self.path))
        try:
            _run("mount", "-o", "remount,bind,ro", str(self.path))
            yield
        finally:
            # Lazily: what was opened there meanwhile, a lock for one, is kept open.
            _run("umount", "-l", str(self.path))

    @contextmanager
    def full(self) -> Iterator[None]:
        """Leave no free block until the end of the block."""
        self.fill()
        try:
            yield
        finally:
            self.free()

    def fill(self) -> None:
        """Leave no free block."""
        with (self.path / _BALLAST).open("ab") as file:
            for size in (1024**2, 4096):
                try:
                    while True:
                        os.write(file.fileno(), b"\1" * size)
                except OSError:
                    continue

    def free(self) -> None:
        (self.path / _BALLAST).unlink()

    def close(self) -> None:
        """Take the disk away; nobody may use it any more."""
        _run("umount", str(self.path))
        self._image.unlink()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
