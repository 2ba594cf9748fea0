"""A digest of the whole state that is cheap to keep up to date.

Each entry has a fingerprint; the state's digest is their sum modulo 2**128. Order does not matter,
and replacing an entry costs one subtraction and one addition. Two coordinators at one revision must
have equal digests; so must a state rebuilt from a fresh range read.
"""

from __future__ import annotations

import hashlib

MODULUS = 1 << 128


def fingerprint(key: str, value: bytes, create_revision: int, mod_revision: int) -> int:
    """Return the 128-bit number that stands for one stored entry."""
    head = f"{key}\0{create_revision}\0{mod_revision}\0".encode()
    return int.from_bytes(hashlib.blake2b(head + value, digest_size=16).digest(), "big")
