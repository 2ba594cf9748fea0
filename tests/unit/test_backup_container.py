"""A backup's file gives back exactly what was put in, or says why not: for every damage, and for every other key."""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from cloudless.adapters.backup import container, sealing
from cloudless.adapters.backup.container import check_file, extract, read_header, read_parts, write_backup
from cloudless.adapters.backup.parts import FilePart, collect_parts, install_part
from cloudless.adapters.backup.sealing import clean_secret
from cloudless.core.backup import IDENTITY, STATE, BackupMember, Manifest, Part, parse_manifest
from cloudless.errors import CorruptBackup, DataDirInUse, InvalidSpec, WrongKey

SECRET = b"a long enough passphrase"
CONTENTS = {STATE: random.Random(1).randbytes(700_000) + bytes(300_000), IDENTITY: b"keys"}


def manifest_of(contents: dict[str, bytes]) -> Manifest:
    parts = tuple(
        Part(name=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
    )
    return Manifest(
        cluster_id="c1", etcd_cluster_id="beef", revision=7, state_digest="0" * 32, created_at_ms=1_700_000_000_000,
        created_by="coordinator-1", cloudless_version="0.1.0", etcd_version="3.5.30", parts=parts,
        members=(BackupMember(name="coordinator-1", peer_urls=("http://h:1",)),),
    )  # fmt: skip


def pieces_of(contents: dict[str, bytes], size: int = 10_007) -> Iterable[bytes]:
    whole = b"".join(contents.values())
    return (whole[at : at + size] for at in range(0, len(whole), size))


@pytest.fixture(autouse=True)
def cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guessing may be cheap here; the cost that a real key has is looked at by a test of its own."""
    monkeypatch.setattr(sealing, "_SCRYPT_N", 16)


@pytest.fixture(params=[None, SECRET], ids=["plain", "encrypted"])
def secret(request: pytest.FixtureRequest) -> bytes | None:
    key: bytes | None = request.param
    return key


@pytest.fixture
def backup(tmp_path: Path, secret: bytes | None) -> Path:
    path = tmp_path / "one.backup"
    write_backup(path, manifest_of(CONTENTS), pieces_of(CONTENTS), secret)
    return path


def test_what_was_put_in_comes_out(tmp_path: Path, backup: Path, secret: bytes | None) -> None:
    manifest, parts = extract(backup, secret, tmp_path)
    assert manifest == manifest_of(CONTENTS)
    assert {name: path.read_bytes() for name, path in parts.items()} == CONTENTS
    assert {path.stat().st_mode & 0o777 for path in (backup, *parts.values())} == {0o600}


def test_the_manifest_is_read_without_the_key(backup: Path, secret: bytes | None) -> None:
    with backup.open("rb") as file:
        header = read_header(file)
    assert header.manifest == manifest_of(CONTENTS)
    assert header.sealing.encrypted is (secret is not None)


def test_it_is_smaller_than_its_content(backup: Path) -> None:
    assert backup.stat().st_size < 0.8 * sum(map(len, CONTENTS.values()))


@pytest.mark.parametrize("damage", range(60))
def test_any_flipped_bit_is_noticed(tmp_path: Path, backup: Path, secret: bytes | None, damage: int) -> None:
    content = bytearray(backup.read_bytes())
    place = random.Random(damage).randrange(len(content)) if damage > 20 else damage * 16
    content[place] ^= 1 << damage % 8
    backup.write_bytes(content)
    with pytest.raises(CorruptBackup):
        extract(backup, secret, tmp_path)
    assert [path for path in tmp_path.iterdir() if path != backup] == []


@pytest.mark.parametrize("left", [0, 1, 8, 11, 12, 300, 2_000, -40, -17, -5, -1])
def test_any_truncation_is_noticed(backup: Path, secret: bytes | None, left: int) -> None:
    backup.write_bytes(backup.read_bytes()[:left])
    with pytest.raises(CorruptBackup):
        check_file(backup, secret)


def test_bytes_after_the_end_are_noticed(backup: Path, secret: bytes | None) -> None:
    backup.write_bytes(backup.read_bytes() + b"\0")
    with pytest.raises(CorruptBackup, match="follows"):
        check_file(backup, secret)


def test_chunks_cannot_change_places_or_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "one.backup"
    noise = {STATE: random.Random(2).randbytes(1_000_000)}
    write_backup(path, manifest_of(noise), pieces_of(noise), SECRET)
    content = path.read_bytes()
    begin = 12 + int.from_bytes(content[8:12], "big") + 32
    length = 4 + int.from_bytes(content[begin : begin + 4], "big")
    first, second, rest = (
        content[begin : begin + length],
        content[begin + length : begin + 2 * length],
        begin + 2 * length,
    )
    for changed in (second + first + content[rest:], second + content[rest:], first + first + content[rest:]):
        path.write_bytes(content[:begin] + changed)
        with pytest.raises(CorruptBackup):
            check_file(path, SECRET)


def test_a_changed_manifest_with_a_new_checksum_opens_nothing(tmp_path: Path) -> None:
    path = tmp_path / "one.backup"
    write_backup(path, manifest_of(CONTENTS), pieces_of(CONTENTS), SECRET)
    content = path.read_bytes()
    end = 12 + int.from_bytes(content[8:12], "big")
    head = content[:end].replace(b'"revision": 7', b'"revision": 9')
    assert head != content[:end]
    path.write_bytes(head + hashlib.sha256(head).digest() + content[end + 32 :])
    with pytest.raises(CorruptBackup):
        check_file(path, SECRET)


@pytest.mark.parametrize("given", [None, b"another passphrase"])
def test_another_key_is_told_from_damage(tmp_path: Path, given: bytes | None) -> None:
    path = tmp_path / "one.backup"
    write_backup(path, manifest_of(CONTENTS), pieces_of(CONTENTS), SECRET)
    with pytest.raises(WrongKey):
        check_file(path, given)


def test_two_backups_of_the_same_share_no_bytes_of_content(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        path = tmp_path / name
        write_backup(path, manifest_of(CONTENTS), pieces_of(CONTENTS), SECRET)
        made.append(path.read_bytes()[-200:])
    assert made[0] != made[1]


def test_content_that_is_not_what_the_manifest_says_is_never_written(tmp_path: Path) -> None:
    path = tmp_path / "one.backup"
    for wrong in ([b"other"], [b"".join(CONTENTS.values()), b"more"], []):
        with pytest.raises(CorruptBackup):
            write_backup(path, manifest_of(CONTENTS), wrong, None)
    assert list(tmp_path.iterdir()) == []


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """A file whose manifest is small and whose content is not: read in pieces, refused when it goes on."""
    path, large = tmp_path / "bomb", {STATE: bytes(50_000_000)}
    write_backup(path, manifest_of(large), pieces_of(large, 1_000_000), None)
    assert path.stat().st_size < 400_000
    with path.open("rb") as file:
        header = read_header(file)
        small = container.Header(manifest_of({STATE: b"x"}), header.sealing, header.sha256)
        with pytest.raises(CorruptBackup, match="more than"):
            for _ in read_parts(file, small, None):
                pass


@pytest.mark.parametrize("text", [b"", b"hello", b"SQLite format 3\0" * 10, bytes(100)])
def test_a_strange_file_is_called_so(text: bytes) -> None:
    with pytest.raises(CorruptBackup, match="no backup"):
        read_header(io.BytesIO(text))


def test_short_secrets_are_refused_and_newlines_forgiven() -> None:
    assert clean_secret(SECRET + b"\n") == SECRET
    with pytest.raises(InvalidSpec, match="12 characters"):
        clean_secret(b"short\n")


def test_a_key_costs_32_mib_to_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    made, _ = sealing.new_sealing(SECRET)
    assert 128 * made.n * made.r == 32 << 20
    assert sealing.parse_sealing(made.to_document()) == made


@pytest.mark.parametrize("change", [{"n": 1 << 30}, {"r": 1 << 20}, {"name": "none"}, {"salt": ""}, {"n": "x"}])
def test_a_header_cannot_ask_for_what_would_exhaust_the_reader(change: dict[str, object]) -> None:
    document = sealing.new_sealing(SECRET)[0].to_document()
    with pytest.raises(CorruptBackup):
        sealing.parse_sealing({**document, "kdf": {**document["kdf"], **change}})


def test_a_newer_format_names_the_cure() -> None:
    document = manifest_of(CONTENTS).to_document() | {"format": 2}
    with pytest.raises(InvalidSpec, match="newer"):
        parse_manifest(document)


@pytest.mark.parametrize("field", ["cluster_id", "revision", "parts", "members", "proven", "state_digest"])
def test_a_manifest_without_a_field_names_it(field: str) -> None:
    document = manifest_of(CONTENTS).to_document()
    del document[field]
    with pytest.raises(InvalidSpec, match=field):
        parse_manifest(document)


def test_files_of_a_part_come_back_as_they_were(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "cluster.key").write_bytes(b"\0secret\xff")
    (old / "cluster.key").chmod(0o600)
    (old / "node.key").write_bytes(b"stays where it is")
    assert collect_parts(tmp_path / "nowhere") == {}
    parts = collect_parts(old)
    for _ in range(2):
        assert install_part(new, IDENTITY, parts[IDENTITY]) == ["cluster.key"]
    assert (new / "cluster.key").read_bytes() == b"\0secret\xff"
    assert (new / "cluster.key").stat().st_mode & 0o777 == 0o600
    (new / "cluster.key").write_bytes(b"of another cluster")
    with pytest.raises(DataDirInUse):
        install_part(new, IDENTITY, parts[IDENTITY])
    assert (new / "cluster.key").read_bytes() == b"of another cluster"


def test_a_part_writes_no_file_it_was_not_made_for(tmp_path: Path) -> None:
    kinds = (FilePart(name=IDENTITY, files=("cluster.key",)),)
    entry = {"mode": 0o600, "content": "eA=="}
    outside = json.dumps({"files": {"../escaped": entry, "cluster.key": entry}}).encode()
    assert install_part(tmp_path, IDENTITY, outside, kinds) == ["cluster.key"]
    with pytest.raises(CorruptBackup):
        install_part(tmp_path, IDENTITY, b'{"files": {"cluster.key": 3}}', kinds)
