"""Read a container's output: the engine's frames, each of one stream, as chunks of bounded size."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from cloudless.adapters.docker.stream import ask_stream
from cloudless.ports import LogChunk

CHUNK_BYTES_MAX = 64 * 1024
_HEADER = struct.Struct(">BxxxL")
_STREAMS = {1: "stdout", 2: "stderr"}


def ask_logs(client: Any, container_id: str, *, tail_lines: int, follow: bool) -> Any:
    """Return the response with a container's last `tail_lines` lines (-1: all), which goes on with `follow`."""
    return ask_stream(
        client,
        "GET",
        f"/containers/{container_id}/logs",
        params={
            "stdout": 1,
            "stderr": 1,
            "follow": int(follow),
            "tail": "all" if tail_lines < 0 else str(tail_lines),
        },
        # A task may be silent for days; an engine that is asked for what it has may not.
        silence_s=None if follow else client.timeout,
    )


def read_frames(response: Any) -> Iterator[LogChunk]:
    """Yield what the response holds. A cut connection ends it: the rest is not lost, it can be asked for again."""
    while len(header := response.raw.read(_HEADER.size)) == _HEADER.size:
        number, left = _HEADER.unpack(header)
        while left:
            data = response.raw.read(min(left, CHUNK_BYTES_MAX))
            if not data:
                return
            left -= len(data)
            yield LogChunk(_STREAMS.get(number, "stdout"), data)
