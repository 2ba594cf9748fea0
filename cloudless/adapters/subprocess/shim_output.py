"""Copy the output of an attempt's command to its log files: the part of the shim that writes.

As bare as the rest of it (`shim`): it is run in the shim's own scope, before the rest. A full disk costs output, never
progress: what cannot be written is dropped.
"""

from __future__ import annotations

import os
import time

CHUNK_BYTES = 65536
NOTE_BYTES = 16
NOTE_GAP_S = 0.1
NOTES_FREE_MAX = 65_536


def write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def write_at(handle: int, data: bytes, offset: int) -> int:
    try:
        return os.pwrite(handle, data, offset)
    except OSError:
        return 0


def rename(path: str, new: str) -> None:
    try:
        os.rename(path, new)
    except OSError:
        return


class Output:
    """One of the command's streams: a pipe, and the log file it is copied to, with one file of history.

    A file beside it (`.times`) has records of 16 bytes: milliseconds since 1970, and the size that the output had then.
    """

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
        self.notes, self.noted_s, self.noted_size = 0, -NOTE_GAP_S, -NOTE_BYTES

    def note(self) -> None:
        """Note when what comes now was written, ten times a second at most; past a megabyte of notes, no more of them
        than of output. What comes without a note counts as written with what was before it.
        """
        now_s = time.monotonic()
        crumb = self.size - self.noted_size < NOTE_BYTES and self.notes > NOTES_FREE_MAX
        if now_s - self.noted_s < NOTE_GAP_S or crumb:
            return
        self.noted_s, self.noted_size = now_s, self.size
        record = (time.time_ns() // 1_000_000).to_bytes(8, "big") + self.size.to_bytes(8, "big")
        anew = 0 if self.notes else os.O_TRUNC
        try:
            file = os.open(self.path + ".times", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | anew, 0o600)
        except OSError:
            return
        # One that was torn by a full disk is written over.
        self.notes += write_at(file, record, self.notes * NOTE_BYTES) == NOTE_BYTES
        os.close(file)

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
        self.note()
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
        rename(self.path + ".times", self.path + ".1.times")
        os.close(self.handle)
        self.open()
