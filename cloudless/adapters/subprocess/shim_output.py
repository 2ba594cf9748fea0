"""The command's output, copied by the shim to log files. Its code is sent to the shim along with that of `shim.py`."""

from __future__ import annotations

import os

CHUNK_BYTES = 65536


def write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


class Output:
    """One of the command's streams: a pipe, and the log file it is copied to, with one file of history."""

    def __init__(self, pipe: int, write_end: int, path: str, bytes_max: int) -> None:
        self.pipe = pipe
        self.write_end = write_end
        self.path = path
        self.bytes_max = bytes_max
        self.handle = -1
        self.size = 0
        os.set_blocking(pipe, False)
        self.open()

    def open(self) -> None:
        try:
            self.handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self.size = os.fstat(self.handle).st_size
        except OSError:
            self.handle = -1

    def copy(self) -> bool:
        """Copy one chunk; return False if there is none now."""
        try:
            data = os.read(self.pipe, CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            os.close(self.pipe)
            self.pipe = -1
            return False
        self.write(data)
        return True

    def write(self, data: bytes) -> None:
        if self.size and self.size + len(data) > self.bytes_max:
            self.rotate()
        if self.handle < 0:
            self.open()
        try:
            write_all(self.handle, data)
            self.size += len(data)
        except OSError:
            # Disk full: the output is lost, the command goes on.
            pass

    def rotate(self) -> None:
        try:
            os.rename(self.path, self.path + ".1")
        except OSError:
            return
        os.close(self.handle)
        self.open()
