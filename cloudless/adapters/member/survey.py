"""Look over one data directory from outside, without owning it: whose it is, how far it goes, what else lies there.

Nothing is changed, made or locked: the directory may be in use, belong to somebody else, or be a copy on a broken disk.
Whoever holds the lock is read from the kernel's table of locks, for trying to take it would keep a coordinator out that
starts at this moment.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import stat
from dataclasses import replace
from pathlib import Path

from cloudless.adapters.member import logfile
from cloudless.adapters.member.datadir import DataDir
from cloudless.adapters.member.marker import DataState, Marker, judge_data
from cloudless.adapters.member.pidfile import find_orphan
from cloudless.adapters.member.progress import Progress, find_shortfall
from cloudless.core.diagnosis import DataDirFacts
from cloudless.errors import DataLost

_ASIDE = re.compile(r"etcd\.[a-z-]+-[0-9a-f]+")
_OWN = re.compile(
    r"lock|etcd|etcd\.environment|etcd\.log(\.1)?|etcd\.pid|[\w.-]+\.json|[\w.-]+\.(pem|crt|key|csr)|\..*\.tmp"
    r"|pki|identity|backups?|snapshots?|addresses|discovery"
)
_SECRET = re.compile(r".*(\.key|-key\.pem|\.secret|token.*)")
_FILES_MAX = 20_000
_END_BYTES = 4_096


def survey_datadir(path: Path, expected_id: str = "", etcd_version: str = "") -> DataDirFacts:
    """Return the facts of a coordinator's data directory. Never raises for what it finds there."""
    path = path.resolve()
    if not path.is_dir():
        return DataDirFacts(path=str(path), exists=False)
    facts = DataDirFacts(path=str(path), expected_id=expected_id, etcd_version=etcd_version)
    try:
        facts = _with_rights(facts, path)
        datadir = DataDir(path)
        facts = _with_contents(facts, datadir)
        return _with_member(facts, datadir)
    except OSError as error:
        return replace(facts, error=f"{error.filename or path}: {error.strerror}")


def _with_rights(facts: DataDirFacts, path: Path) -> DataDirFacts:
    found = path.stat()
    foreign = found.st_uid != os.geteuid() and not os.access(path, os.W_OK)
    return replace(facts, mode=stat.S_IMODE(found.st_mode), owned_by=_user(found.st_uid) if foreign else "")


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _with_contents(facts: DataDirFacts, datadir: DataDir) -> DataDirFacts:
    entries = sorted(datadir.path.iterdir())
    member = datadir.etcd_dir / "member"
    loose = []
    for file in _files(datadir.path):
        mode = stat.S_IMODE(file.lstat().st_mode)
        if _SECRET.fullmatch(file.name) and mode & 0o077:
            loose.append(f"{file} {mode:04o}")
    return replace(
        facts,
        asides=tuple((str(entry), _size_bytes(entry)) for entry in entries if _ASIDE.fullmatch(entry.name)),
        strays=tuple(
            entry.name for entry in entries if not (_ASIDE.fullmatch(entry.name) or _OWN.fullmatch(entry.name))
        ),
        loose=tuple(loose),
        db_bytes=_size_bytes(member / "snap" / "db") if member.exists() else -1,
        wal_bytes=_size_bytes(member / "wal") if member.exists() else -1,
    )


def _with_member(facts: DataDirFacts, datadir: DataDir) -> DataDirFacts:
    words = logfile.last_words(datadir.log_file, 0)
    orphan = find_orphan(datadir.pidfile, str(datadir.etcd_dir))
    owner = lock_owner(datadir.lock_file)
    facts = replace(
        facts,
        owner=owner,
        orphan_pid=orphan.pid if orphan else 0,
        log_last_words=words,
        # Only at the end of the log: one that joined anew wrote on.
        removed=not owner
        and logfile.says_removed(datadir.log_file, max(0, _size_bytes(datadir.log_file) - _END_BYTES)),
    )
    try:
        marker, state = Marker.read(datadir.marker), judge_data(datadir)
    except DataLost as error:
        return replace(facts, marker_error=error.message)
    judged = state in (DataState.PRESENT, DataState.FORMING) and not facts.owner and not orphan
    return replace(
        facts,
        state=state.value,
        node_id=marker.node_id,
        member_id=marker.member_id,
        cluster_id=marker.cluster_id,
        last_etcd_version=marker.last_etcd_version,
        # Of a running member the log grows as one reads: its coordinator judges that itself.
        shortfall=find_shortfall(datadir) if judged else "",
        doubt=Progress.read(datadir.progress).doubt,
    )


def lock_owner(lock_file: Path) -> str:
    """Return who holds the lock on a data directory ("pid 12 on host"), "" if nobody does."""
    try:
        found = lock_file.stat()
        table = Path("/proc/locks").read_text(encoding="ascii")
        content = lock_file.read_bytes()
    except OSError:
        return ""
    name = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    if not any(fields[1:2] == ["FLOCK"] and name in fields for fields in map(str.split, table.splitlines())):
        return ""
    try:
        owner = json.loads(content)
        return f"pid {owner['pid']} on {owner['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _size_bytes(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size if path.exists() else -1
    return sum(file.lstat().st_size for file in _files(path))


def _files(path: Path) -> list[Path]:
    """Return the files below `path`, a bounded number of them."""
    found: list[Path] = []
    for folder, _, names in os.walk(path):
        found += [Path(folder, name) for name in names]
        if len(found) > _FILES_MAX:
            break
    return found
