"""The parts of a backup beside the state: which files of a coordinator's identity directory make up which part.

A part is one line in `FILE_PARTS`: its name and its files. Without the cluster key nobody could open the authorities'
keys that the state holds sealed, and all nodes would have to enrol anew; so it goes along. A part none of whose files
is there is left out; on restoring, each file comes back before the coordinator is first started.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cloudless.core.backup import IDENTITY
from cloudless.errors import CorruptBackup, DataDirInUse

_FILE_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """One part: `files` are relative to the identity directory."""

    name: str
    files: tuple[str, ...]


FILE_PARTS: tuple[FilePart, ...] = (FilePart(name=IDENTITY, files=("cluster.key", "authorities.json")),)


def collect_parts(directory: Path, kinds: Iterable[FilePart] = FILE_PARTS) -> dict[str, bytes]:
    """Return the parts' bytes by name. Raises OSError."""
    found = {}
    for kind in kinds:
        files = {
            name: {"mode": path.stat().st_mode & 0o777, "content": base64.b64encode(path.read_bytes()).decode()}
            for name in kind.files
            if (path := directory / name).is_file() and path.stat().st_size <= _FILE_BYTES_MAX
        }
        if files:
            found[kind.name] = json.dumps({"format": 1, "files": files}, sort_keys=True).encode()
    return found


def install_part(directory: Path, name: str, content: bytes, kinds: Iterable[FilePart] = FILE_PARTS) -> list[str]:
    """Write the files of a part into `directory`; return their names. A part or file not known here is left out.

    Raises CorruptBackup, DataDirInUse if another one is there, OSError.
    """
    known = {file for kind in kinds if kind.name == name for file in kind.files}
    try:
        document = json.loads(content)
        files = {
            str(file): (int(entry["mode"]) & 0o700, base64.b64decode(entry["content"], validate=True))
            for file, entry in document["files"].items()
            if file in known
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptBackup(f"part {name} of the backup cannot be understood: {error!r}") from error
    for file, (_, raw) in files.items():
        if (directory / file).exists() and (directory / file).read_bytes() != raw:
            raise DataDirInUse(
                f"{directory / file} is of another cluster", hint="restore with an empty identity directory"
            )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file, (mode, raw) in sorted(files.items()):
        path = directory / file
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode | 0o600)
        with os.fdopen(handle, "wb") as target:
            target.write(raw)
            target.flush()
            os.fsync(target.fileno())
    return sorted(files)
