"""Read a container's output: the engine's frames, each of one stream, as chunks of bounded size.

Asked for times, the engine begins each frame with one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from cloudless.adapters.docker.stream import ask_stream
from cloudless.ports import LogChunk, LogQuery

CHUNK_BYTES_MAX = 64 * 1024
TIME_BYTES_MAX = 40
_HEADER = struct.Struct(">BxxxL")
_STREAMS = {1: "stdout", 2: "stderr"}


def ask_logs(client: Any, container_id: str, query: LogQuery) -> Any:
    """Return the response with a container's output, which goes on if it is followed."""
    return ask_stream(
        client,
        "GET",
        f"/containers/{container_id}/logs",
        params={
            "stdout": 1,
            "stderr": 1,
            "follow": int(query.follow),
            "tail": "all" if query.tail_lines < 0 else str(query.tail_lines),
            "since": f"{query.since_ms / 1000:.3f}" if query.since_ms else "0",
            "timestamps": int(query.timestamps),
        },
        # A task may be silent for days; an engine that is asked for what it has may not.
        silence_s=None if query.follow else client.timeout,
    )


def read_frames(response: Any, attempt: int, *, timestamps: bool = False) -> Iterator[LogChunk]:
    """Yield what the response holds. A cut connection ends it: the rest is not lost, it can be asked for again."""
    while len(header := response.raw.read(_HEADER.size)) == _HEADER.size:
        number, left = _HEADER.unpack(header)
        at_ms = 0
        if timestamps:
            time, left = _read_time(response, left)
            at_ms = _to_ms(time)
        while left:
            data = response.raw.read(min(left, CHUNK_BYTES_MAX))
            if not data:
                return
            left -= len(data)
            yield LogChunk(_STREAMS.get(number, "stdout"), data, attempt, at_ms)


def _read_time(response: Any, left: int) -> tuple[bytes, int]:
    """Return the time a frame begins with, and how much of the frame is left."""
    time = b""
    while left and len(time) < TIME_BYTES_MAX:
        byte = response.raw.read(1)
        left -= len(byte)
        if byte in (b" ", b""):
            break
        time += byte
    return time, left


def _to_ms(time: bytes) -> int:
    # Nanoseconds are more than Python reads.
    text = time.decode("ascii", "replace").removesuffix("Z")
    try:
        return round(datetime.fromisoformat(text[:26] + "+00:00").timestamp() * 1000)
    except ValueError:
        return 0
