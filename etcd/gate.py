"""Decide whether a build of etcd may hold this cluster's data. Pure.

etcd has published releases that lose acknowledged writes, let members diverge, or revoke every lease
at once. A version is judged before anything is started, from one table; the caller decides with `admit`
what an operator's override may let through. Two more rules depend on the data and on the peers: a binary
older than the last writer of a data directory, and members more than one minor version apart, are refused.

What it does not do: run anything. A version comes from `etcd --version` or from a package's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import total_ordering

from cloudless.errors import EtcdRefused

_VERSION = re.compile(r"(?P<major>\d+)\.(?P<minor>\d+)\.(?P<patch>\d+)(?:[-~](?P<pre>(?:alpha|beta|rc)[\w.]*))?")


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A version of etcd. A pre-release sorts before its release; `pre` is "" for a release."""

    major: int
    minor: int
    patch: int
    pre: str = ""

    @classmethod
    def parse(cls, text: str) -> Version:
        """Return the first version in `text`: `etcd --version` output, "3.5.30", or Debian's "3.5.30-2".

        Raises ValueError when there is none.
        """
        match = _VERSION.search(text)
        if match is None:
            raise ValueError(f"no etcd version in {text[:80]!r}")
        return cls(int(match["major"]), int(match["minor"]), int(match["patch"]), match["pre"] or "")

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Version):
            return NotImplemented
        return self._key() < other._key()

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}" + (f"-{self.pre}" if self.pre else "")

    def _key(self) -> tuple[tuple[int, int, int], bool, tuple[tuple[int, str], ...]]:
        # "rc.10" is newer than "rc.9": numbers inside the pre-release compare as numbers.
        parts = tuple((int(p), "") if p.isdigit() else (-1, p) for p in re.findall(r"\d+|[a-z]+", self.pre))
        return (self.major, self.minor, self.patch), not self.pre, parts


class Verdict(Enum):
    OK = "ok"
    WARN = "warn"
    DEGRADED = "degraded"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gate says of a version. `current` marks a release with every known fix of its line."""

    verdict: Verdict
    reason: str
    current: bool = False

    @property
    def rank(self) -> int:
        """Return 0 for the best choice, growing with the trouble to expect."""
        order = [Verdict.OK, Verdict.WARN, Verdict.DEGRADED, Verdict.REFUSED]
        return 0 if self.current else 1 + order.index(self.verdict)


_OLD = "before 3.4.22: data can be lost or diverge after a crash, and no fix is published for this line"
_DEGRADED_34 = "3.4.22 to 3.4.41: under a slow disk an old leader revokes all leases; watch events can be lost"
_ENDED = "the 3.4 line ended with 3.4.45 and gets no more fixes"
_LOSSY = "3.5.0 to 3.5.5: data can be lost or diverge after a crash"
_DEGRADED_35 = "3.5.6 to 3.5.12: under a slow disk an old leader revokes all leases; watch events can be lost"
_STALE_35 = "3.5.13 to 3.5.27: a linearizable read can be stale after a pause of the process (etcd issue 20418)"
_STALE_36 = "3.6.0 to 3.6.8: a linearizable read can be stale after a pause of the process (etcd issue 20418)"
_SOUND = "no known fault that matters here"
_CURRENT = "a current release of its line"
_UNKNOWN = "newer than the lines this gate knows; the flags of the 3.7 line are used"
_ALIEN = "another major version: its flags and its API are not known here"

#   from           verdict           reason          current     (each row reaches to the next one)
_TABLE: tuple[tuple[Version, Judgement], ...] = (
    (Version(0, 0, 0), Judgement(Verdict.REFUSED, _OLD)),
    (Version(3, 4, 22), Judgement(Verdict.DEGRADED, _DEGRADED_34)),
    (Version(3, 4, 42), Judgement(Verdict.WARN, _ENDED)),
    (Version(3, 5, 0), Judgement(Verdict.REFUSED, _LOSSY)),
    (Version(3, 5, 6), Judgement(Verdict.DEGRADED, _DEGRADED_35)),
    (Version(3, 5, 13), Judgement(Verdict.WARN, _STALE_35)),
    (Version(3, 5, 28), Judgement(Verdict.OK, _SOUND)),
    (Version(3, 5, 33), Judgement(Verdict.OK, _CURRENT, current=True)),
    (Version(3, 6, 0), Judgement(Verdict.WARN, _STALE_36)),
    (Version(3, 6, 9), Judgement(Verdict.OK, _SOUND)),
    (Version(3, 6, 14), Judgement(Verdict.OK, _CURRENT, current=True)),
    (Version(3, 7, 0), Judgement(Verdict.OK, _SOUND)),
    (Version(3, 7, 1), Judgement(Verdict.OK, _CURRENT, current=True)),
    (Version(3, 8, 0), Judgement(Verdict.WARN, _UNKNOWN)),
    (Version(4, 0, 0), Judgement(Verdict.REFUSED, _ALIEN)),
)


def judge(version: Version) -> Judgement:
    """Return the verdict on `version`. Sources: etcd's changelogs and Jepsen's report of 3.4.3."""
    if version.pre:
        return Judgement(Verdict.REFUSED, "a pre-release: its data format and its flags may still change")
    return max((row for row in _TABLE if row[0] <= version), key=lambda row: row[0])[1]


def admit(judgement: Judgement, allow_degraded: bool, sandbox: bool) -> bool:
    """Return whether a binary so judged may be used.

    `allow_degraded` lets DEGRADED through; `sandbox` (a single node whose data may be lost) lets everything through.
    """
    if judgement.verdict is Verdict.REFUSED:
        return sandbox
    if judgement.verdict is Verdict.DEGRADED:
        return allow_degraded or sandbox
    return True


def check_against_last_writer(version: Version, last_written_version: Version | None) -> None:
    """Raise EtcdRefused if `version` is older than the etcd that last wrote the data directory.

    etcd may have migrated the data since; an older binary misreads it or stops. None means: never written.
    """
    if last_written_version is not None and version < last_written_version:
        raise EtcdRefused(
            f"etcd {version} is older than {last_written_version}, which last wrote this data directory",
            hint=f"use etcd {last_written_version} or newer (CLOUDLESS_ETCD_BIN)",
        )


def check_members_apart(version: Version, others: Iterable[Version]) -> None:
    """Raise EtcdRefused if any member's version is more than one minor away from `version`."""
    for other in sorted(others):
        if other.major != version.major or abs(other.minor - version.minor) > 1:
            raise EtcdRefused(
                f"etcd {version} and a member's {other} are more than one minor version apart",
                hint="upgrade the members one minor version at a time",
            )


def may_defragment(version: Version) -> bool:
    """Return whether a member of this version may be defragmented without a person looking on.

    Before 3.5.23 and 3.6.5 a crash in the middle, or requests that arrive meanwhile, can cost more than space.
    """
    return Version(3, 5, 23) <= version < Version(3, 6, 0) or version >= Version(3, 6, 5)
