"""Write a secret so that a crash leaves either the old content or the new one, and nobody else can read it."""

from __future__ import annotations

import os
from pathlib import Path

from cloudless.errors import BadCredentials


def write_private(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, mode 0600, on disk before returning: file sync, rename, directory sync."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)  # left by a crash, perhaps with another mode
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def remove_durably(path: Path) -> None:
    """Remove `path` if it is there, on disk before returning."""
    path.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def make_private_directory(path: Path) -> None:
    """Make `path` mode 0700. Raises BadCredentials if it cannot be, or belongs to somebody else."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_uid not in (os.getuid(), 0):
            raise BadCredentials(f"{path} belongs to another user", hint="give this process a directory of its own")
        path.chmod(0o700)
    except OSError as error:
        raise BadCredentials(f"cannot keep secrets in {path}: {error.strerror}") from error


def read_private(path: Path) -> bytes | None:
    """Return a file's content, None if there is none. Raises BadCredentials if others may read it, or it cannot be."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if mode & 0o077:
                raise BadCredentials(
                    f"{path} can be read by others (mode {mode:04o})", hint=f"if nobody has: chmod 600 {path}"
                )
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadCredentials(f"cannot read {path}: {error.strerror}") from error
