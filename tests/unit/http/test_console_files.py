"""The console's files at a coordinator's port: public, cached by content, under a strict policy, and no others."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path

import pytest

from cloudless.adapters.http.assets import DIRECTORY, FILE_BYTES_MAX, TYPES, Assets
from cloudless.adapters.http.exchange import Answer, Asked, Caller
from cloudless.errors import Denied
from tests.architecture.tree import ROOT
from tests.unit.http.serving import Served, serving

LINES_MAX = 300
CONTRAST_MIN = 4.5
SCRIPTS = sorted(DIRECTORY.rglob("*.js"))


class ClosedDoor:
    """Lets nobody in: as with TLS and without a certificate."""

    def enter(self, method: str, context: object) -> None:
        raise Denied("nobody may")

    def check(self, method: str, message: object, context: object) -> None:
        raise Denied("nobody may")


async def test_the_root_leads_to_the_page_and_its_parts_have_their_types() -> None:
    async with serving(ClosedDoor()) as served:
        async with served.session.get(served.base + "/", allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (307, "/console/")
        for path, kind in (
            ("/console/", "text/html"),
            ("/console/main.js", "text/javascript"),
            ("/console/views/topology.js", "text/javascript"),
            ("/console/style.css", "text/css"),
            ("/console/icon.svg", "image/svg+xml"),
        ):
            async with served.session.get(served.base + path) as answer:
                assert (answer.status, answer.content_type) == (200, kind)
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "script-src 'self';" in policy
                assert "frame-ancestors 'none'" in policy
                assert "unsafe" not in policy


async def test_a_file_is_sent_again_only_if_it_is_another() -> None:
    async with serving(ClosedDoor()) as served:
        async with served.session.get(served.base + "/console/main.js") as answer:
            etag = answer.headers["ETag"]
            assert answer.headers["Cache-Control"] == "no-cache"
        for tags, status in ((etag, 304), (f'"other", W/{etag}', 304), ('"other"', 200)):
            async with served.session.get(served.base + "/console/main.js", headers={"If-None-Match": tags}) as answer:
                assert answer.status == status
                assert bool(await answer.read()) == (status == 200)
        async with served.session.head(served.base + "/console/main.js") as answer:
            assert (answer.status, answer.headers["ETag"], await answer.read()) == (200, etag, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/console/../assets.py", "/console/%2e%2e/assets.py", "/console/..%2fassets.py", "/console//main.js",
        "/console/views/../../server.py", "/console/views", "/console/nothing.js", "/console/%00", "/console/main.js/",
        "/console/\\..\\assets.py", "/consolex",
    ],
)  # fmt: skip
async def test_a_path_that_is_no_file_of_the_page_leads_nowhere(path: str) -> None:
    async with serving() as served:
        assert await asyncio.to_thread(raw, served, f"GET {path} HTTP/1.1") == 404


async def test_files_are_read_only_and_only_for_pages_of_here() -> None:
    async with serving() as served:
        assert await asyncio.to_thread(raw, served, "POST /console/main.js HTTP/1.1") == 405
        assert await asyncio.to_thread(raw, served, "OPTIONS /console/main.js HTTP/1.1") == 204
        assert await asyncio.to_thread(raw, served, "GET /console/ HTTP/1.1", "Origin: http://evil.example") == 403


@pytest.mark.parametrize(
    "verb_and_path",
    ["DELETE /v1/workloads/default/web", "POST /v1/nodes/n1/drain", "PUT /v1/workloads/default/web/scale"],
)
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
async def test_no_page_of_elsewhere_changes_anything(verb_and_path: str, origin: str) -> None:
    async with serving() as served:
        kind = "Content-Type: text/plain"  # what a browser sends without asking first
        assert await asyncio.to_thread(raw, served, f"{verb_and_path} HTTP/1.1", f"Origin: {origin}", kind) == 403
        assert served.door.entered == []


def raw(served: Served, line: str, *headers: str) -> int:
    """Return the status of a request that is sent as it is: clients tidy paths up."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=5.0) as connection:
        lines = [line, f"Host: 127.0.0.1:{served.port}", "Content-Length: 0", "Connection: close", *headers, "", ""]
        connection.sendall("\r\n".join(lines).encode())
        return int(connection.recv(4096).split()[1])


def test_every_file_is_of_a_known_type_and_size() -> None:
    files = [path for path in DIRECTORY.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= TYPES.keys()
    assert len(Assets().names) == len(files)
    assert all(path.stat().st_size < FILE_BYTES_MAX for path in files)


async def test_a_file_beyond_the_bound_is_not_served(tmp_path: Path) -> None:
    (tmp_path / "large.js").write_bytes(b" " * (FILE_BYTES_MAX + 1))
    (tmp_path / "small.js").write_text("1")
    (tmp_path / "secret.pem").write_text("no")
    assets = Assets(tmp_path)
    assert assets.names == ("small.js",)
    assert isinstance(assets.find(asked("/console/small.js")), Answer)
    assert assets.find(asked("/console/secret.pem")) is None


def asked(path: str) -> Asked:
    async def read() -> bytes:
        return b""

    return Asked("GET", path, "", {}, Caller("127.0.0.1", b""), read)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(DIRECTORY).as_posix())
def test_a_script_is_short_says_what_it_is_and_makes_no_markup_of_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("// ")
    assert len(text.splitlines()) <= LINES_MAX
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setTimeout\(['\"`]|javascript:"
    )
    assert re.findall(forbidden, text) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(DIRECTORY).as_posix())
def test_what_a_script_imports_is_there(path: Path) -> None:
    for name in re.findall(r'from "(\.[^"]+)"', path.read_text(encoding="utf-8")):
        assert (path.parent / name).is_file(), name


def test_the_page_loads_nothing_of_elsewhere_and_runs_nothing_inline() -> None:
    page = (DIRECTORY / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="(https?:|//)', page) == []
    assert re.findall(r"<script(?![^>]*src=)|\son\w+=|\sstyle=", page) == []


INKS = ("ink", "dim", "link", "accent", "good", "busy", "odd", "bad", "idle")
GROUNDS = ("page", "sheet", "sunk")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_can_be_read_on_every_ground(dark: bool) -> None:
    style = (DIRECTORY / "style.css").read_text(encoding="utf-8")
    found = re.findall(r"--([a-z-]+): light-dark\(#([0-9a-f]{6}), #([0-9a-f]{6})\)", style)
    colours = {name: pair[dark] for name, *pair in found}
    pairs = [(ink, ground) for ink in INKS for ground in GROUNDS]
    pairs += [
        ("on-accent", "accent"),
        *((ink, f"{wash}-wash") for wash in ("bad", "odd") for ink in (wash, "ink", "link")),
    ]
    weak = {pair: round(contrast(*(colours[name] for name in pair)), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in weak.items() if ratio < CONTRAST_MIN} == {}


def contrast(one: str, other: str) -> float:
    """Return the ratio of two colours as WCAG 2 counts it."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_page_is_part_of_the_package() -> None:
    assert "cloudless.adapters.http = console/*, console/**/*" in (ROOT / "setup.cfg").read_text(encoding="utf-8")
