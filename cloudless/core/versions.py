"""Which versions of cloudless may run together, and which features a cluster of several versions may use.

A cluster has a *feature level*: a minor version, "1.4". What 1.5 adds to stored values or to the meaning of a field is
used only from level 1.5 on. The level is raised by a person's word (`cloudless cluster upgrade --finish`) once every
member runs the next minor version, and never lowered. Until then each may go back.

Invariant: every coordinator's minor version is the level or one above it, so any two are at most one apart. It is asked
for when a coordinator joins, when it starts, and when the level is raised under it.

Versions are numbers that compare: only major, minor and patch decide, what follows is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")
_LEVEL = re.compile(r"(\d+)\.(\d+)")

Level = tuple[int, int]


def parse_version(text: str) -> tuple[int, int, int] | None:
    """Return (major, minor, patch), None if there is no version at the start of `text`."""
    match = _VERSION.match(text.strip())
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def parse_level(text: str) -> Level | None:
    """Return (major, minor), None for "" (a cluster that has no name yet) and for what is no level."""
    match = _LEVEL.fullmatch(text)
    return (int(match[1]), int(match[2])) if match else None


def write_level(level: Level) -> str:
    return f"{level[0]}.{level[1]}"


def level_of(version: str) -> str:
    """Return the level of a version, "1.4" for "1.4.2"; "" for what is no version."""
    parsed = parse_version(version)
    return write_level(parsed[:2]) if parsed else ""


def has_reached(level: str, wanted: str) -> bool:
    """Return whether a cluster of `level` may use what `wanted` ("1.5") brought."""
    held, needed = parse_level(level), parse_level(wanted)
    return bool(held and needed and held >= needed)


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a version may not run in a cluster, and the cure."""

    reason: str
    cure: str


def find_misfit(version: str, level: str) -> Misfit | None:
    """Return why a coordinator of `version` may not run in a cluster of `level`; None if it may.

    An unknown version, or a cluster without a level, is not judged.
    """
    own, held = parse_version(version), parse_level(level)
    if own is None or held is None:
        return None
    following = (held[0], held[1] + 1)
    if own[:2] in (held, following):
        return None
    either = f"{write_level(held)} or {write_level(following)}"
    if own[:2] < held:
        return Misfit(
            f"cloudless {version} is older than the cluster, whose feature level is {level}",
            f"start {either}: the upgrade to {level} was finished, so there is no way back but a snapshot from before",
        )
    return Misfit(
        f"cloudless {version} is more than one minor version ahead of the cluster, whose feature level is {level}",
        f"start {either}; when all run {write_level(following)} and `cloudless cluster upgrade --finish` was said, "
        "take the next step",
    )


@dataclass(frozen=True, slots=True)
class Finishing:
    """What a wish to finish an upgrade comes to: `refusals` say why not, else `level` is the cluster's from now on."""

    level: str
    refusals: tuple[str, ...] = ()


def decide_finishing(level: str, versions: Mapping[str, str]) -> Finishing:
    """Decide from every member's version ("": not known) to which level the cluster goes: the lowest minor of all.

    Never below the level it has.
    """
    refusals = tuple(_find_unfinished(level, versions))
    known = [parsed[:2] for version in versions.values() if (parsed := parse_version(version))]
    if refusals or not known:
        return Finishing(level, refusals or ("no member is known",))
    return Finishing(write_level(max(min(known), parse_level(level) or min(known))))


def _find_unfinished(level: str, versions: Mapping[str, str]) -> Iterator[str]:
    newest = max((parsed[:2] for version in versions.values() if (parsed := parse_version(version))), default=None)
    for member, version in sorted(versions.items()):
        parsed = parse_version(version)
        if parsed is None:
            yield f"{member} does not run, so nobody knows with which version it comes back: start it, or remove it"
        elif parsed[:2] != newest:
            yield f"{member} still runs {version}"
