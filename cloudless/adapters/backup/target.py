"""Where backups lie: a directory, or a bucket of anything that speaks S3.

A target holds backups under their names and nothing else of ours; files with other names are left alone. Every call
blocks: run it in a thread. What goes wrong is a TargetFailed that names the place and the cure.

    target                     place                                            seen by
    ─────────────────────────  ───────────────────────────────────────────────  ───────────────────────────
    "" (nothing set)           <data dir>/backups of the coordinator             that coordinator
    /a/path                    that directory                                    all, if it is a shared one
    s3://bucket/prefix         the bucket; endpoint and credentials come from    all
                               the environment (AWS_ENDPOINT_URL_S3, AWS_…)
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cloudless.adapters.backup.container import sync_directory
from cloudless.core.backup import Named, parse_name
from cloudless.errors import NotFound, TargetFailed

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """One backup of a target."""

    named: Named
    size_bytes: int


class Target(Protocol):
    """A place for backups. `location` is for people; `shared`: every coordinator sees the same."""

    location: str
    shared: bool

    def list(self) -> list[Kept]:
        """Return the backups there, oldest first."""
        ...

    def put(self, path: Path) -> None:
        """Take the finished file at `path`, whole or not at all; it may be moved away."""
        ...

    def read(self, name: str) -> Iterator[bytes]: ...
    def delete(self, name: str) -> None: ...


def open_target(setting: str, data_dir: Path) -> Target:
    """Return the target that a setting names. Raises TargetFailed if a library is missing."""
    if setting.startswith("s3://"):
        bucket, _, prefix = setting.removeprefix("s3://").partition("/")
        return BucketTarget(bucket, prefix.strip("/"))
    if setting:
        return DirectoryTarget(Path(setting), shared=True)
    return DirectoryTarget(data_dir / "backups", shared=False)


class DirectoryTarget:
    """Backups as files of one directory, mode 0600."""

    def __init__(self, directory: Path, *, shared: bool) -> None:
        self._directory, self.shared = directory, shared
        self.location = str(directory)

    def list(self) -> list[Kept]:
        with self._explained():
            if not self._directory.exists():
                return []
            found = [
                Kept(named, entry.stat().st_size)
                for entry in os.scandir(self._directory)
                if (named := parse_name(entry.name)) is not None and entry.is_file()
            ]
        return sorted(found, key=lambda kept: (kept.named.created_at_ms, kept.named.name))

    def put(self, path: Path) -> None:
        with self._explained():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            final = self._directory / path.name
            try:
                path.replace(final)
            except OSError:  # another file system
                self._copy(path, final)
            sync_directory(self._directory)

    def _copy(self, path: Path, final: Path) -> None:
        temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with path.open("rb") as source, os.fdopen(handle, "wb") as target:
                shutil.copyfileobj(source, target, _PIECE_BYTES)
                target.flush()
                os.fsync(target.fileno())
            temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, name: str) -> Iterator[bytes]:
        with self._explained(), self._named(name).open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece

    def delete(self, name: str) -> None:
        with self._explained():
            self._named(name).unlink(missing_ok=True)

    def _named(self, name: str) -> Path:
        # Names come from callers: only those of backups lead to a file, so none leads out of the directory.
        path = self._directory / name
        if parse_name(name) is None or not path.is_file():
            raise NotFound(f"there is no backup {name} in {self.location}", hint="see cloudless cluster snapshot list")
        return path

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TargetFailed(
                f"the backup directory {self.location} cannot be used: {error.strerror or error}",
                hint="it must be writable and have room; `cloudless cluster snapshot schedule --target` sets another",
            ) from error


class BucketTarget:
    """Backups as objects of a bucket. The library is imported on first use."""

    shared = True

    def __init__(self, bucket: str, prefix: str, client: Any = None) -> None:
        self._bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""
        self.location = f"s3://{bucket}/{prefix}".rstrip("/")
        self._made = client

    def list(self) -> list[Kept]:
        found = []
        with self._explained():
            pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            for page in pages:
                for entry in page.get("Contents", ()):
                    named = parse_name(entry["Key"].removeprefix(self._prefix))
                    if named is not None:
                        found.append(Kept(named, int(entry["Size"])))
        return sorted(found, key=lambda kept: (kept.named.created_at_ms, kept.named.name))

    def put(self, path: Path) -> None:
        with self._explained():
            # An object appears when its upload is complete, never in part.
            self._client().upload_file(str(path), self._bucket, self._prefix + path.name)

    def read(self, name: str) -> Iterator[bytes]:
        if parse_name(name) is None:
            raise NotFound(f"{name} is no backup's name", hint="see cloudless cluster snapshot list")
        with self._explained():
            body = self._client().get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"]
            with contextlib.closing(body):
                while piece := body.read(_PIECE_BYTES):
                    yield piece

    def delete(self, name: str) -> None:
        with self._explained():
            self._client().delete_object(Bucket=self._bucket, Key=self._prefix + name)

    def _client(self) -> Any:
        if self._made is None:
            try:
                import boto3
                from botocore.config import Config
            except ImportError as error:
                raise TargetFailed(
                    f"{self.location} needs a library that is not installed",
                    hint="install cloudless with its extra: pip install 'cloudless[s3]'",
                ) from error
            limits = Config(connect_timeout=5, read_timeout=60, retries={"max_attempts": 3, "mode": "standard"})
            self._made = boto3.client("s3", config=limits)
        return self._made

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (TargetFailed, NotFound, GeneratorExit):
            raise
        except Exception as error:  # botocore makes its error classes at run time; all mean the same here
            code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
            if code in ("NoSuchKey", "404"):
                raise NotFound(f"there is no such backup in {self.location}") from error
            raise TargetFailed(
                f"{self.location} cannot be used: {error}",
                hint="check the bucket, AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the "
                "coordinators' environment",
            ) from error
