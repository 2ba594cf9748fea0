"""The files of the console: what a browser loads, from a coordinator or from `cloudless console`.

They hold nothing of any cluster, so anybody may read them. All are read once and known by name: a path that names
none of them leads nowhere, however it is written. They are sent with a policy that lets the page load and call its
own origin only, run no text as code, and be framed by nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cloudless.adapters.http.exchange import Answer, Asked

BASE = "/console/"
DIRECTORY = Path(__file__).parent / "console"
FILES_MAX = 200
FILE_BYTES_MAX = 256 * 1024
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    content_type: str
    etag: str


class Assets:
    """The files in one directory, read when they are first asked for."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._directory = directory

    @property
    def names(self) -> tuple[str, ...]:
        """Return every file by its path below BASE."""
        return tuple(self._files)

    def find(self, asked: Asked) -> Answer | None:
        """Return what is at a path: a file, or where the page is; None where there is nothing of the console."""
        if asked.path in ("/", BASE.rstrip("/")):
            return Answer(307, "", headers={**HEADERS, "Location": BASE, "Cache-Control": "no-cache"})
        if not asked.path.startswith(BASE):
            return None
        file = self._files.get(asked.path.removeprefix(BASE) or "index.html")
        if file is None:
            return None
        # Asked again each time: the page and its parts are always of one version.
        headers = {**HEADERS, "ETag": file.etag, "Cache-Control": "no-cache"}
        if file.etag in _tags(asked.headers.get("if-none-match", "")):
            return Answer(304, "", file.content_type, headers)
        return Answer(200, file.content, file.content_type, headers)

    @cached_property
    def _files(self) -> Mapping[str, _File]:
        found = {}
        for path in sorted(self._directory.rglob("*"))[:FILES_MAX]:
            if path.suffix in TYPES and path.is_file() and path.stat().st_size <= FILE_BYTES_MAX:
                content = path.read_bytes()
                etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
                found[path.relative_to(self._directory).as_posix()] = _File(content, TYPES[path.suffix], etag)
        return found


def _tags(if_none_match: str) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
