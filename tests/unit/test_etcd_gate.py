"""The version gate, the search order and the reading of apt's sources."""

from __future__ import annotations

import hashlib
import random
import tarfile
from pathlib import Path

import pytest

from cloudless.errors import EtcdRefused
from etcd.apt_sources import debian_archive, parse_deb822, parse_line
from etcd.cache import cached
from etcd.fetch import FetchFailed, Offer, choose
from etcd.find import EtcdNotFound, Search, find
from etcd.gate import (
    Judgement,
    Verdict,
    Version,
    admit,
    check_against_last_writer,
    check_members_apart,
    judge,
    may_defragment,
)
from etcd.release import fetch_release

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("etcd Version: 3.5.30\nGit SHA: Not provided\nGo Version: go1.26.4\n", Version(3, 5, 30)),
        ("etcd Version: 3.6.0-rc.1\nGit SHA: abc", Version(3, 6, 0, "rc.1")),
        ("3.5.16-4", Version(3, 5, 16)),
        ("1:3.6.0~rc2-1", Version(3, 6, 0, "rc2")),
    ],
)
def test_a_version_is_read_from_what_etcd_and_debian_print(text: str, expected: Version) -> None:
    assert Version.parse(text) == expected


def test_text_without_a_version_is_an_error() -> None:
    with pytest.raises(ValueError, match="no etcd version"):
        Version.parse("command not found")


def test_versions_are_ordered_and_a_pre_release_comes_before_its_release() -> None:
    texts = ["3.4.9", "3.4.10", "3.6.0-alpha.0", "3.6.0-beta.1", "3.6.0-rc.2", "3.6.0-rc.10", "3.6.0", "3.6.1"]
    versions = [Version.parse(text) for text in texts]
    shuffled = random.Random(1).sample(versions, len(versions))
    assert sorted(shuffled) == versions
    assert [str(version) for version in versions] == texts


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("3.3.27", Verdict.REFUSED),
        ("3.4.21", Verdict.REFUSED),
        ("3.4.22", Verdict.DEGRADED),
        ("3.4.41", Verdict.DEGRADED),
        ("3.4.42", Verdict.WARN),
        ("3.4.45", Verdict.WARN),
        ("3.5.0", Verdict.REFUSED),
        ("3.5.5", Verdict.REFUSED),
        ("3.5.6", Verdict.DEGRADED),
        ("3.5.12", Verdict.DEGRADED),
        ("3.5.13", Verdict.WARN),
        ("3.5.27", Verdict.WARN),
        ("3.5.28", Verdict.OK),
        ("3.5.33", Verdict.OK),
        ("3.6.0-rc.1", Verdict.REFUSED),
        ("3.6.0", Verdict.WARN),
        ("3.6.8", Verdict.WARN),
        ("3.6.9", Verdict.OK),
        ("3.7.0", Verdict.OK),
        ("3.8.0", Verdict.WARN),
        ("4.0.0", Verdict.REFUSED),
    ],
)
def test_each_band_of_the_table_has_its_verdict_at_both_ends(text: str, verdict: Verdict) -> None:
    judgement = judge(Version.parse(text))
    assert judgement.verdict is verdict
    assert judgement.reason


@pytest.mark.parametrize(("text", "current"), [("3.5.32", False), ("3.5.33", True), ("3.6.14", True), ("3.7.1", True)])
def test_the_supported_releases_are_marked_current(text: str, current: bool) -> None:
    assert judge(Version.parse(text)).current is current


@pytest.mark.parametrize(
    ("verdict", "plain", "degraded_allowed", "sandbox"),
    [
        (Verdict.OK, True, True, True),
        (Verdict.WARN, True, True, True),
        (Verdict.DEGRADED, False, True, True),
        (Verdict.REFUSED, False, False, True),
    ],
)
def test_overrides_let_through_what_they_name(
    verdict: Verdict, plain: bool, degraded_allowed: bool, sandbox: bool
) -> None:
    judgement = Judgement(verdict, "because")
    assert admit(judgement, allow_degraded=False, sandbox=False) is plain
    assert admit(judgement, allow_degraded=True, sandbox=False) is degraded_allowed
    assert admit(judgement, allow_degraded=False, sandbox=True) is sandbox


def test_a_binary_older_than_the_last_writer_is_refused() -> None:
    check_against_last_writer(Version(3, 5, 30), None)
    check_against_last_writer(Version(3, 5, 30), Version(3, 5, 30))
    check_against_last_writer(Version(3, 6, 14), Version(3, 5, 30))
    with pytest.raises(EtcdRefused, match=r"3\.5\.30 is older than 3\.6\.14"):
        check_against_last_writer(Version(3, 5, 30), Version(3, 6, 14))


def test_members_more_than_one_minor_apart_are_refused() -> None:
    check_members_apart(Version(3, 5, 30), [Version(3, 4, 45), Version(3, 6, 14)])
    with pytest.raises(EtcdRefused, match="more than one minor"):
        check_members_apart(Version(3, 7, 1), [Version(3, 6, 14), Version(3, 5, 33)])


# --- search ---------------------------------------------------------------------------------------


def fake_etcd(directory: Path, version: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "etcd"
    path.write_text(f"#!/bin/sh\necho 'etcd Version: {version}'\n")
    path.chmod(0o755)
    return path


def environ(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"PATH": str(tmp_path / "path"), "XDG_CACHE_HOME": str(tmp_path / "xdg"), **more}


def test_the_path_is_preferred_to_the_cache(tmp_path: Path) -> None:
    on_path = fake_etcd(tmp_path / "path", "3.5.30")
    fake_etcd(tmp_path / "xdg/cloudless/etcd/3.6.14/bin", "3.6.14")
    found = find(Search(may_fetch=False, environ=environ(tmp_path)))
    assert (found.path, found.version, found.refused) == (on_path, Version(3, 5, 30), ())


def test_a_degraded_binary_on_the_path_is_passed_over_with_its_reason(tmp_path: Path) -> None:
    fake_etcd(tmp_path / "path", "3.4.23")
    fake_etcd(tmp_path / "xdg/cloudless/etcd/3.5.9/bin", "3.5.9")
    newest = fake_etcd(tmp_path / "xdg/cloudless/etcd/3.5.30/bin", "3.5.30")
    found = find(Search(may_fetch=False, environ=environ(tmp_path)))
    assert found.path == newest
    assert [(r.version, "degraded" in r.reason) for r in found.refused] == [(Version(3, 4, 23), True)]


def test_an_explicit_path_that_is_refused_is_an_error_even_with_a_good_one_on_the_path(tmp_path: Path) -> None:
    fake_etcd(tmp_path / "path", "3.5.30")
    chosen = fake_etcd(tmp_path / "chosen", "3.5.3")
    with pytest.raises(EtcdNotFound, match="lost or diverge") as caught:
        find(Search(environ=environ(tmp_path, CLOUDLESS_ETCD_BIN=str(chosen))))
    assert len(caught.value.refused) == 1
    assert caught.value.hint


def test_a_file_that_is_no_etcd_is_named_as_such(tmp_path: Path) -> None:
    broken = tmp_path / "etcd"
    broken.write_text("#!/bin/sh\necho oops >&2; exit 3\n")
    broken.chmod(0o755)
    with pytest.raises(EtcdNotFound, match="failed with 3: oops"):
        find(Search(explicit=str(broken), environ=environ(tmp_path)))


def test_nothing_found_lists_every_place(tmp_path: Path) -> None:
    with pytest.raises(EtcdNotFound) as caught:
        find(Search(may_fetch=False, environ=environ(tmp_path)))
    assert [refusal.source for refusal in caught.value.refused] == ["PATH", "cache"]


def test_a_sound_suite_is_preferred_to_an_earlier_one_with_warnings() -> None:
    def offer(suite: str, text: str) -> Offer:
        return Offer(suite, text, Version.parse(text), judge(Version.parse(text)))

    warned, sound, refused = offer("trixie", "3.5.16-4"), offer("sid", "3.5.30-2"), offer("bookworm", "3.4.23-4")
    assert choose([warned, sound]) == sound
    assert choose([refused, warned]) == warned
    assert choose([refused]) is None


def test_a_release_is_taken_only_with_its_checksum(tmp_path: Path) -> None:
    archive = tmp_path / "release.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(fake_etcd(tmp_path / "etcd-v3.6.14", "3.6.14"), "etcd-v3.6.14-linux-amd64/etcd")
        tar.add(fake_etcd(tmp_path / "stranger", "3.6.14"), "../../outside/stranger")
    root = tmp_path / "cache"
    right = hashlib.sha256(archive.read_bytes()).hexdigest()
    for wrong in ("", right[::-1]):
        with pytest.raises(FetchFailed, match="sha256"):
            fetch_release(root, archive.as_uri(), wrong)
    assert not cached(root)
    path, version = fetch_release(root, archive.as_uri(), right)
    assert (path, version) == (root / "3.6.14/bin/etcd", Version(3, 6, 14))
    assert [entry.name for entry in path.parent.iterdir()] == ["etcd"]
    assert cached(root) == ((version, path),)


# --- apt sources ----------------------------------------------------------------------------------


def test_a_one_line_source_is_read_with_its_keyring_and_without_its_loosened_trust() -> None:
    archive = parse_line(f"deb [arch=amd64 trusted=yes signed-by={KEYRING}] http://mirror.test/debian bookworm main")
    assert archive is not None
    stanza = archive.stanza("trixie")
    assert f"Signed-By: {KEYRING}" in stanza
    assert "Suites: trixie" in stanza
    assert "trusted" not in stanza.lower()


@pytest.mark.parametrize("line", ["# deb http://mirror.test/debian b main", "deb-src http://m.test/debian b main", ""])
def test_comments_and_source_archives_are_no_archives(line: str) -> None:
    assert parse_line(line) is None


def test_a_deb822_source_keeps_a_key_block_and_skips_disabled_stanzas() -> None:
    text = """\
# mirror of the house
Types: deb deb-src
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----

Enabled: no
Types: deb
URIs: http://other.test/debian
Suites: bookworm
Components: main
"""
    (archive,) = parse_deb822(text)
    assert archive.uris == ("http://mirror.test/debian",)
    assert archive.signed_by.splitlines()[0] == "-----BEGIN PGP PUBLIC KEY BLOCK-----"
    assert archive.stanza("sid").count("\n ") == 4 - 1


def test_only_debians_own_main_archive_is_taken(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "deb [signed-by=/usr/share/keyrings/vendor.gpg] https://vendor.test/linux/debian bookworm main\n"
        f"deb [signed-by={KEYRING}] http://mirror.test/debian-security bookworm-security main\n"
        f"deb [signed-by={KEYRING}] http://mirror.test/debian bookworm-updates main\n"
    )
    assert debian_archive(tmp_path) is None
    (tmp_path / "sources.list.d/debian.sources").write_text(
        f"Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm\nComponents: main\nSigned-By: {KEYRING}\n"
    )
    archive = debian_archive(tmp_path)
    assert archive is not None
    assert archive.uris == ("http://mirror.test/debian",)


@pytest.mark.parametrize(
    ("version", "safe"),
    [("3.4.45", False), ("3.5.22", False), ("3.5.23", True), ("3.5.33", True), ("3.6.0", False), ("3.6.4", False),
     ("3.6.5", True), ("3.7.0", True)],
)  # fmt: skip
def test_only_versions_that_survive_it_are_defragmented_unasked(version: str, safe: bool) -> None:
    assert may_defragment(Version.parse(version)) is safe
