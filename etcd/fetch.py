"""Fetch etcd from a newer suite of the machine's own Debian archive, without installing it and without root.

Debian's builds of etcd run on older suites. A private apt configuration in a temporary directory asks the same
mirror, under the same keys, for a newer suite; the first suite whose version the gate finds sound is
downloaded, unpacked and copied into the cache. apt checks the signatures as always; nothing of the machine's
apt state is read or changed but its configuration (proxies, credentials of mirrors).

    debian entry of /etc/apt  -> suite by suite: update, version, verdict -> download -> dpkg -x -> cache
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from etcd import cache
from etcd.apt_sources import Archive, debian_archive
from etcd.binary import NotEtcd
from etcd.gate import Judgement, Verdict, Version, judge

# Newest stable first: it changes least. One line to add per Debian release.
SUITES = ("trixie", "forky", "sid")
_UPDATE_TIMEOUT_S = 180.0
_DOWNLOAD_TIMEOUT_S = 300.0
_LOCAL_TIMEOUT_S = 60.0

# The machine's hooks would clean or index *its* caches on our update, and fail without root.
_APT_CONF = """\
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{root}/sources.d";
Dir::State::lists "{root}/lists";
Dir::Cache "{root}/cache";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
"""


class FetchFailed(Exception):
    """Nothing fit could be fetched; the message says what was tried and what stopped it."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What one suite offers: the package's version, the etcd inside, and the gate's word on it."""

    suite: str
    package_version: str
    version: Version
    judgement: Judgement


def fetch_by_apt(cache_root: Path, etc_apt: Path = Path("/etc/apt")) -> tuple[Path, Version]:
    """Fetch the best etcd that the machine's Debian archive has into the cache; return its path and version.

    Takes seconds to minutes: one package list per suite asked, then 18 MB. Raises FetchFailed.
    """
    missing = [program for program in ("apt-get", "apt-cache", "dpkg") if shutil.which(program) is None]
    if missing:
        raise FetchFailed(f"{', '.join(missing)} not found: this is no Debian system")
    archive = debian_archive(etc_apt)
    if archive is None:
        raise FetchFailed("the apt sources of this machine have no entry of Debian's main archive")
    before = cache.cached(cache_root)
    with cache.locked(cache_root), tempfile.TemporaryDirectory(prefix="cloudless-etcd-") as root:
        # Someone else fetched while this process waited for the lock.
        for version, path in cache.cached(cache_root):
            if (version, path) not in before:
                return path, version
        # apt's download user must be able to pass; nothing in here is secret.
        Path(root).chmod(0o755)
        return _fetch(Path(root), archive, cache_root)


def choose(offers: list[Offer]) -> Offer | None:
    """Return the offer to take: a sound one before one with warnings, earlier suites first."""
    usable = [offer for offer in offers if offer.judgement.verdict in (Verdict.OK, Verdict.WARN)]
    return min(usable, key=lambda offer: offer.judgement.verdict is Verdict.WARN, default=None)


def _fetch(root: Path, archive: Archive, cache_root: Path) -> tuple[Path, Version]:
    offers, troubles = _ask_suites(root, archive)
    offer = choose(offers)
    if offer is None:
        seen = [f"{offer.suite} has {offer.version}: {offer.judgement.reason}" for offer in offers]
        raise FetchFailed("; ".join([*seen, *troubles]) or "no suite has etcd")
    unpacked = _download(root / offer.suite, offer)
    programs = {name: path for name in cache.PROGRAMS if (path := unpacked / "usr" / "bin" / name).is_file()}
    if "etcd" not in programs:
        raise FetchFailed(f"etcd-server {offer.package_version} of {offer.suite} holds no etcd binary")
    try:
        return cache.install(cache_root, offer.version, programs), offer.version
    except NotEtcd as error:
        raise FetchFailed(f"etcd-server {offer.package_version} of {offer.suite}: {error}") from error
    except OSError as error:
        raise FetchFailed(f"{cache_root} cannot be written: {error.strerror}") from error


def _ask_suites(root: Path, archive: Archive) -> tuple[list[Offer], list[str]]:
    """Ask suite after suite until one offers a sound version; each has its own lists, so one failing harms none."""
    offers: list[Offer] = []
    troubles: list[str] = []
    for suite in SUITES:
        try:
            offer = _ask_suite(root / suite, archive, suite)
        except FetchFailed as error:
            troubles.append(f"{suite}: {error}")
            continue
        offers.append(offer)
        if offer.judgement.verdict is Verdict.OK:
            break
    return offers, troubles


def _ask_suite(root: Path, archive: Archive, suite: str) -> Offer:
    for directory in ("sources.d", "lists/partial", "cache/archives/partial"):
        (root / directory).mkdir(parents=True)
    (root / "sources.d" / "archive.sources").write_text(archive.stanza(suite), encoding="utf-8")
    (root / "apt.conf").write_text(_APT_CONF.format(root=root), encoding="utf-8")
    _run(root, ["apt-get", "-qq", "-c", f"{root}/apt.conf", "update"], _UPDATE_TIMEOUT_S)
    listing = _run(root, ["apt-cache", "-c", f"{root}/apt.conf", "madison", "etcd-server"], _LOCAL_TIMEOUT_S)
    # etcd-server | 3.5.30-2 | <where>; an installed package adds no line of its own.
    columns = [[column.strip() for column in line.split("|")] for line in listing.splitlines()]
    versions = [column[1] for column in columns if len(column) == 3]
    if not versions:
        raise FetchFailed("has no etcd-server package")
    version = Version.parse(versions[0])
    return Offer(suite, versions[0], version, judge(version))


def _download(root: Path, offer: Offer) -> Path:
    packages = [f"{name}={offer.package_version}" for name in ("etcd-server", "etcd-client")]
    _run(root, ["apt-get", "-qq", "-c", f"{root}/apt.conf", "download", *packages], _DOWNLOAD_TIMEOUT_S)
    unpacked = root / "unpacked"
    for package in sorted(root.glob("*.deb")):
        _run(root, ["dpkg", "-x", str(package), str(unpacked)], _LOCAL_TIMEOUT_S)
    return unpacked


def _run(cwd: Path, argv: list[str], timeout_s: float) -> str:
    """Run one command and return what it printed. Raises FetchFailed with its last words."""
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            argv, cwd=cwd, env=environment, capture_output=True, text=True, errors="replace",
            timeout=timeout_s, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise FetchFailed(f"`{argv[0]}` took longer than {timeout_s:g} s") from error
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()
        raise FetchFailed(f"`{argv[0]}` failed: {said[0] if said else f'exit code {done.returncode}'}")
    return done.stdout
