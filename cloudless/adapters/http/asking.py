"""Ask a server whether it works: one connection, or one GET; nothing is followed, little is read, nothing waits.

Plain asyncio streams: a question costs one connection and no thread, however many are asked at once.
"""

from __future__ import annotations

import asyncio
import errno
import os

HEAD_BYTES_MAX = 16 * 1024
BODY_BYTES_MAX = 64 * 1024
DRAIN_S = 0.5
STATUS_GOOD = range(200, 400)


async def ask_tcp(host: str, port: int) -> str:
    """Open a connection and close it; return what was wrong, "" if nothing was. `host` is an IP address."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return f"no connection to port {port}: {_words(error)}"
    writer.close()
    return ""


async def ask_http(host: str, port: int, path: str) -> str:
    """GET `path`; return what was wrong, "" if the status was from 200 to 399. Redirects are not followed.

    The status alone counts. Of the rest a little is read, so that the server is not cut off while it answers.
    """
    try:
        reader, writer = await asyncio.open_connection(host, port, limit=HEAD_BYTES_MAX)
    except OSError as error:
        return f"no connection to port {port}: {_words(error)}"
    try:
        name = f"[{host}]" if ":" in host else host
        head = f"GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nUser-Agent: cloudless-probe\r\nAccept: */*\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode("ascii"))
        line = await reader.readline()
        status = _read_status(line)
        if status is None:
            return f"GET {path}: " + ("the connection was closed" if not line else "the answer is not HTTP")
        await _drain(reader)
        return "" if status in STATUS_GOOD else f"GET {path} answered {status}"
    except OSError as error:
        return f"GET {path}: {_words(error)}"
    except ValueError:  # a line longer than is read
        return f"GET {path}: the answer is not HTTP"
    finally:
        writer.close()


def _read_status(line: bytes) -> int | None:
    protocol, _, rest = line.partition(b" ")
    digits = rest[:3]
    return int(digits) if protocol.startswith(b"HTTP/1.") and len(digits) == 3 and digits.isdigit() else None


async def _drain(reader: asyncio.StreamReader) -> None:
    left = BODY_BYTES_MAX
    try:
        async with asyncio.timeout(DRAIN_S):
            while left > 0 and (data := await reader.read(left)):
                left -= len(data)
    except (TimeoutError, OSError):
        return


def _words(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    number = error.errno
    return os.strerror(number) if number and number in errno.errorcode else str(error)
