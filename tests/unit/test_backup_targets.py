"""A directory and a bucket keep backups alike; only what bears a backup's name is listed, read or deleted.

The bucket is a small server of this test that speaks as much S3 as backups need; what is sent to it is boto3's own.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import pytest

from cloudless.adapters.backup.target import BucketTarget, DirectoryTarget, Target, open_target
from cloudless.core.backup import build_name
from cloudless.errors import NotFound, TargetFailed

NAMES = [build_name("c1", 1_700_000_000_000 + hour * 3_600_000, hour) for hour in range(3)]


class _Bucket(BaseHTTPRequestHandler):
    """PUT, GET, DELETE of objects and the listing of a prefix, without signatures or pages."""

    objects: dict[str, bytes]

    def log_message(self, format: str, *args: Any) -> None:
        return

    def _answer(self, status: int, content: bytes = b"", kind: str = "application/xml") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(content)

    def _key(self) -> str:
        return urlsplit(self.path).path.removeprefix("/bucket/")

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            head, rest = content.split(b"\r\n", 1)
            content = rest[: int(head.split(b";")[0], 16)]
        self.objects[self._key()] = content
        self._answer(200)

    def do_DELETE(self) -> None:
        self.objects.pop(self._key(), None)
        self._answer(204)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if not re.fullmatch("/bucket/?", parts.path):
            content = self.objects.get(self._key())
            if content is None:
                return self._answer(404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>")
            return self._answer(200, content, "application/octet-stream")
        prefix = parse_qs(parts.query).get("prefix", [""])[0]
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key, content in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        self._answer(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode())


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """Serve a bucket on loopback, named as an operator would: by the environment."""
    pytest.importorskip("boto3", reason="needs the extra `s3`")
    _Bucket.objects = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Bucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "of a test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    yield _Bucket.objects
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["directory", "bucket"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    if request.param == "directory":
        return open_target(str(tmp_path / "there"), tmp_path)
    request.getfixturevalue("bucket")
    return open_target("s3://bucket/some/prefix", tmp_path)


def file_of(tmp_path: Path, name: str, content: bytes = b"content") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def test_backups_are_put_listed_read_and_deleted(target: Target, tmp_path: Path) -> None:
    assert target.list() == []
    for name in reversed(NAMES):
        target.put(file_of(tmp_path, name, name.encode() * 1000))
    assert [kept.named.name for kept in target.list()] == NAMES
    assert {kept.size_bytes for kept in target.list()} == {1000 * len(NAMES[0])}
    assert b"".join(target.read(NAMES[1])) == NAMES[1].encode() * 1000
    target.delete(NAMES[1])
    assert [kept.named.name for kept in target.list()] == [NAMES[0], NAMES[2]]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", NAMES[0]])
def test_what_is_not_there_or_no_backup_is_not_found(target: Target, name: str) -> None:
    with pytest.raises(NotFound):
        list(target.read(name))


def test_strange_objects_are_left_alone(bucket: dict[str, bytes], tmp_path: Path) -> None:
    bucket.update({"some/prefix/notes.txt": b"x", f"other/{NAMES[0]}": b"x"})
    assert open_target("s3://bucket/some/prefix", tmp_path).list() == []


def test_strange_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("notes.txt", f".{NAMES[0]}.1.tmp", f"{NAMES[0]}.part"):
        file_of(tmp_path, name)
    (tmp_path / NAMES[1]).mkdir()
    assert DirectoryTarget(tmp_path, shared=True).list() == []


def test_a_file_from_another_file_system_arrives_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> Path:
        if self.suffix == ".tmp":
            return replace(self, target)
        raise OSError(18, "Invalid cross-device link")

    replace = Path.replace
    monkeypatch.setattr(Path, "replace", refuse)
    target = DirectoryTarget(tmp_path / "there", shared=True)
    target.put(file_of(tmp_path, NAMES[0]))
    assert b"".join(target.read(NAMES[0])) == b"content"
    assert (tmp_path / "there" / NAMES[0]).stat().st_mode & 0o777 == 0o600


def test_a_place_that_cannot_be_used_is_named_with_the_cure(tmp_path: Path) -> None:
    file = file_of(tmp_path, NAMES[0])
    with pytest.raises(TargetFailed, match="cannot be used") as failed:
        DirectoryTarget(file / "below", shared=True).put(file)
    assert failed.value.hint


def test_a_bucket_that_refuses_is_named_with_the_cure(tmp_path: Path) -> None:
    class Refusing:
        def upload_file(self, *_: object) -> None:
            raise RuntimeError("access denied")

    with pytest.raises(TargetFailed, match=r"s3://b/p cannot be used: access denied") as failed:
        BucketTarget("b", "p", Refusing()).put(file_of(tmp_path, NAMES[0]))
    assert "AWS_ENDPOINT_URL_S3" in failed.value.hint


def test_nothing_set_is_a_directory_of_each_coordinator(tmp_path: Path) -> None:
    target = open_target("", tmp_path)
    assert (target.location, target.shared) == (str(tmp_path / "backups"), False)
