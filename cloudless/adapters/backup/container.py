"""One backup is one file: a header that anybody can read, then the parts, compressed and (with a key) encrypted.

    magic      8 bytes "CLBACKUP"
    length     4 bytes, big endian
    header     JSON: the manifest, and how the rest is sealed
    checksum   SHA-256 of all before
    chunks     4 bytes: top bit "the last one", then the length; that many bytes
               together: one zlib stream of the parts' bytes, one part after the other in the manifest's order

Written and read in one pass with bounded memory. A reader gives nothing away before it can be trusted: header by its
checksum, chunks by their seal, parts by size and SHA-256, the end by the mark on the last chunk and by the end of file.
Whoever reads must read to the end before using anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cloudless.adapters.backup.sealing import (
    Sealing,
    build_opener,
    build_sealer,
    new_sealing,
    open_sealing,
    parse_sealing,
)
from cloudless.core.backup import Manifest, Part, parse_manifest
from cloudless.errors import CorruptBackup

MAGIC = b"CLBACKUP"
CHUNK_BYTES = 256 * 1024
HEADER_BYTES_MAX = 1 << 20
_LAST = 1 << 31
# A seal adds 16 bytes; a compressor may give a little more than was asked of it.
_CHUNK_BYTES_MAX = CHUNK_BYTES + 1024
_COMPRESSION_LEVEL = 3
_ANOTHER = "use another backup; `cloudless cluster snapshot verify` tells which are good"


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself without its key."""

    manifest: Manifest
    sealing: Sealing
    sha256: bytes


def write_backup(path: Path, manifest: Manifest, content: Iterable[bytes], secret: bytes | None) -> int:
    """Write a backup to `path`, durably and whole or not at all, mode 0600; return its size in bytes.

    `content` is the parts' bytes in the manifest's order, cut anywhere. Raises CorruptBackup if they are not what the
    manifest says, OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            _write(file, manifest, content, secret)
            file.flush()
            os.fsync(file.fileno())
            size_bytes = file.tell()
        temporary.replace(path)
        sync_directory(path.parent)
        return size_bytes
    finally:
        temporary.unlink(missing_ok=True)


def read_header(file: BinaryIO) -> Header:
    """Return the header at the beginning of `file`. Raises CorruptBackup, InvalidSpec (a newer format)."""
    start = file.read(len(MAGIC) + 4)
    if start[: len(MAGIC)] != MAGIC:
        raise CorruptBackup(
            "this file is no backup of cloudless", hint="give a file that `cluster snapshot save` wrote"
        )
    length = int.from_bytes(start[len(MAGIC) :], "big")
    if len(start) < len(MAGIC) + 4 or length > HEADER_BYTES_MAX:
        raise CorruptBackup("the backup's header is cut off or damaged", hint=_ANOTHER)
    raw, checksum = file.read(length), file.read(32)
    sha256 = hashlib.sha256(start + raw).digest()
    if len(raw) < length or checksum != sha256:
        raise CorruptBackup("the backup's header is cut off or damaged", hint=_ANOTHER)
    try:
        document = json.loads(raw)
        return Header(parse_manifest(document["manifest"]), parse_sealing(document["sealing"]), sha256)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptBackup(f"the backup's header cannot be understood: {error!r}", hint=_ANOTHER) from error


def read_parts(file: BinaryIO, header: Header, secret: bytes | None) -> Iterator[tuple[Part, bytes]]:
    """Yield the content piece by piece with the part it belongs to; `file` stands behind its header.

    Raises WrongKey at once; CorruptBackup at the latest at the end, so read to the end before using anything.
    """
    key = open_sealing(header.sealing, secret)
    yield from _cut(_inflate(_chunks(file, header, key), header.manifest), header.manifest)
    if file.read(1):
        raise CorruptBackup("something follows the end of the backup", hint=_ANOTHER)


def extract(path: Path, secret: bytes | None, directory: Path) -> tuple[Manifest, dict[str, Path]]:
    """Write each part to a file of its name in `directory`, mode 0600; return the manifest and the paths.

    Raises what reading raises; then nothing stays behind.
    """
    made: dict[str, Path] = {}
    try:
        with path.open("rb") as file:
            header = read_header(file)
            for part in header.manifest.parts:
                made[part.name] = directory / f"part-{len(made)}"
                made[part.name].touch(mode=0o600)
            for part, piece in read_parts(file, header, secret):
                with made[part.name].open("ab") as target:
                    target.write(piece)
        return header.manifest, made
    except BaseException:
        for target_path in made.values():
            target_path.unlink(missing_ok=True)
        raise


def check_file(path: Path, secret: bytes | None) -> Header:
    """Read a backup to its end and return its header. Raises CorruptBackup, WrongKey, InvalidSpec, OSError."""
    with path.open("rb") as file:
        header = read_header(file)
        for _ in read_parts(file, header, secret):
            pass
    return header


def sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- writing ------------------------------------------------------------------------------------


def _write(file: BinaryIO, manifest: Manifest, content: Iterable[bytes], secret: bytes | None) -> None:
    sealing, key = new_sealing(secret)
    raw = json.dumps({"manifest": manifest.to_document(), "sealing": sealing.to_document()}, sort_keys=True).encode()
    start = MAGIC + len(raw).to_bytes(4, "big") + raw
    sha256 = hashlib.sha256(start).digest()
    file.write(start + sha256)
    seal = build_sealer(sealing, key, sha256)
    whole = (piece for _, piece in _cut(content, manifest))
    held = b""
    for chunk in _even(_deflate(whole)):
        if held:
            _put(file, seal(held, last=False), last=False)
        held = chunk
    _put(file, seal(held, last=True), last=True)


def _put(file: BinaryIO, chunk: bytes, *, last: bool) -> None:
    file.write((len(chunk) | (_LAST if last else 0)).to_bytes(4, "big"))
    file.write(chunk)


def _deflate(pieces: Iterable[bytes]) -> Iterator[bytes]:
    compressor = zlib.compressobj(_COMPRESSION_LEVEL)
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()


def _even(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Cut a stream into chunks of CHUNK_BYTES and a rest."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= CHUNK_BYTES:
            yield bytes(held[:CHUNK_BYTES])
            del held[:CHUNK_BYTES]
    if held:
        yield bytes(held)


# --- reading ------------------------------------------------------------------------------------


def _chunks(file: BinaryIO, header: Header, key: bytes) -> Iterator[bytes]:
    unseal = build_opener(header.sealing, key, header.sha256)
    last = False
    while not last:
        head = file.read(4)
        number = int.from_bytes(head, "big")
        last, length = bool(number & _LAST), number & (_LAST - 1)
        if len(head) < 4 or length > _CHUNK_BYTES_MAX:
            raise CorruptBackup("the backup is cut off or damaged", hint=_ANOTHER)
        chunk = file.read(length)
        if len(chunk) < length:
            raise CorruptBackup("the backup is cut off", hint=_ANOTHER)
        yield unseal(chunk, last=last)


def _inflate(chunks: Iterable[bytes], manifest: Manifest) -> Iterator[bytes]:
    """Decompress; what is longer than the manifest says ends it before it fills anything."""
    decompressor = zlib.decompressobj()
    left = sum(part.size_bytes for part in manifest.parts)
    try:
        for chunk in chunks:
            waiting = chunk
            while waiting:
                piece = decompressor.decompress(waiting, CHUNK_BYTES)
                waiting = decompressor.unconsumed_tail
                left -= len(piece)
                if left < 0 or decompressor.unused_data:
                    raise CorruptBackup("the backup holds more than its manifest says", hint=_ANOTHER)
                yield piece
        rest = decompressor.flush()
    except zlib.error as error:
        raise CorruptBackup(f"the backup is damaged: {error}", hint=_ANOTHER) from error
    if not decompressor.eof or len(rest) > left:
        raise CorruptBackup("the backup is cut off or damaged", hint=_ANOTHER)
    yield rest


def _cut(pieces: Iterable[bytes], manifest: Manifest) -> Iterator[tuple[Part, bytes]]:
    """Cut a stream where the manifest's parts end, and check each part's size and hash. Raises CorruptBackup."""
    stream = iter(pieces)
    waiting = b""
    for part in manifest.parts:
        digest, left = hashlib.sha256(), part.size_bytes
        while left:
            if not waiting:
                waiting = _next_filled(stream)
                if not waiting:
                    raise CorruptBackup(f"part {part.name} of the backup is cut off", hint=_ANOTHER)
            piece, waiting = waiting[:left], waiting[left:]
            left -= len(piece)
            digest.update(piece)
            yield part, piece
        if digest.hexdigest() != part.sha256:
            raise CorruptBackup(f"part {part.name} of the backup is damaged: its hash is wrong", hint=_ANOTHER)
    if waiting or _next_filled(stream):
        raise CorruptBackup("the backup holds more than its manifest says", hint=_ANOTHER)


def _next_filled(stream: Iterator[bytes]) -> bytes:
    """Return the next piece that is not empty, b"" at the end."""
    return next((piece for piece in stream if piece), b"")
