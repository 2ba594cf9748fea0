"""Find an etcd binary that the gate admits, and say why each other one was passed over.

    1 explicit path (argument, then CLOUDLESS_ETCD_BIN)   refused -> error; an operator's choice is never replaced
    2 PATH                                               refused -> next
    3 cache of binaries fetched before, newest first     refused -> next
    4 apt: a newer suite of this machine's archive       failed  -> next
    5 official release, if address and checksum are set  failed  -> EtcdNotFound, with all of the above

Guarantees: what is returned ran here just now and named its version. Does not know the data directory: the
supervisor checks the version against the last writer.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cloudless.errors import EtcdRefused
from etcd import cache
from etcd.binary import NotEtcd, ask_version
from etcd.fetch import FetchFailed, fetch_by_apt
from etcd.gate import Judgement, Verdict, Version, admit, judge
from etcd.release import fetch_release

_CURE = (
    "install etcd 3.5.28 or newer, or name one with CLOUDLESS_ETCD_BIN; `python -m etcd --fetch` tries to fetch one; "
    "the setting allow_degraded_etcd admits the builds called degraded"
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """One place that was passed over. `version` is None where no etcd was found."""

    source: str
    version: Version | None
    reason: str

    def __str__(self) -> str:
        return f"{self.source}{f' ({self.version})' if self.version else ''}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Found:
    """The binary to run; `source` names the place it came from, `refused` those before it."""

    path: Path
    version: Version
    judgement: Judgement
    source: str = "given"
    refused: tuple[Refusal, ...] = ()


class EtcdNotFound(EtcdRefused):
    """No binary is fit; `refused` lists every place in the order it was tried."""

    code = "etcd-not-found"

    def __init__(self, refused: tuple[Refusal, ...], hint: str = _CURE) -> None:
        self.refused = refused
        super().__init__("no fit etcd binary: " + "; ".join(map(str, refused)), hint=hint)


@dataclass(frozen=True, slots=True)
class Search:
    """Where to look and what to let through.

    `force_fetch` skips PATH and cache; `may_fetch` False keeps the network out of it.
    """

    explicit: str | None = None
    allow_degraded: bool = False
    sandbox: bool = False
    may_fetch: bool = True
    force_fetch: bool = False
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A place to look: `bring` returns the path of a binary there, or raises NotEtcd or FetchFailed."""

    source: str
    bring: Callable[[], Path]


def find(search: Search | None = None) -> Found:
    """Return the first binary that is admitted. Raises EtcdNotFound. Blocks: seconds, minutes when it fetches."""
    search = search or Search()
    refused: list[Refusal] = []
    for candidate in _candidates(search):
        found = _try(candidate, search, refused)
        if found:
            return found
    raise EtcdNotFound(tuple(refused))


def _candidates(search: Search) -> Iterator[_Candidate]:
    explicit = search.explicit or search.environ.get("CLOUDLESS_ETCD_BIN")
    if explicit:
        yield _Candidate(f"explicit path {explicit}", lambda: Path(explicit))
        return
    if not search.force_fetch:
        yield from _local_candidates(search)
    if search.may_fetch or search.force_fetch:
        yield from _fetch_candidates(search)


def _local_candidates(search: Search) -> Iterator[_Candidate]:
    on_path = shutil.which("etcd", path=search.environ.get("PATH"))
    yield _Candidate(f"PATH {on_path}", lambda: Path(on_path)) if on_path else _absent("PATH", "has no etcd")
    try:
        entries = cache.cached(cache.default_root(search.environ))
    except cache.CacheUnavailable as error:
        yield _absent("cache", str(error))
        return
    for _, path in entries:
        yield _Candidate(f"cache {path}", lambda path=path: path)  # type: ignore[misc]
    if not entries:
        yield _absent("cache", "empty")


def _fetch_candidates(search: Search) -> Iterator[_Candidate]:
    environ = search.environ
    yield _Candidate("apt", lambda: fetch_by_apt(cache.default_root(environ))[0])
    url, sha256 = environ.get("CLOUDLESS_ETCD_RELEASE_URL", ""), environ.get("CLOUDLESS_ETCD_RELEASE_SHA256", "")
    if url:
        yield _Candidate("release", lambda: fetch_release(cache.default_root(environ), url, sha256)[0])
    else:
        yield _absent("release", "no address in CLOUDLESS_ETCD_RELEASE_URL")


def _absent(source: str, reason: str) -> _Candidate:
    def bring() -> Path:
        raise NotEtcd(reason)

    return _Candidate(source, bring)


def _try(candidate: _Candidate, search: Search, refused: list[Refusal]) -> Found | None:
    try:
        path = candidate.bring()
        version = ask_version(path)
    except (NotEtcd, FetchFailed, cache.CacheUnavailable) as error:
        refused.append(Refusal(candidate.source, None, str(error)))
        return None
    judgement = judge(version)
    if admit(judgement, search.allow_degraded, search.sandbox):
        return Found(path.absolute(), version, judgement, candidate.source, tuple(refused))
    word = "refused" if judgement.verdict is Verdict.REFUSED else judgement.verdict.value
    refused.append(Refusal(candidate.source, version, f"{word}: {judgement.reason}"))
    return None
