"""A token's text is one string that survives copying; its verdict follows from the record alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.core.identity.tokens import (
    ID_PATTERN,
    Token,
    TokenVerdict,
    find_token,
    hash_secret,
    judge_token,
    token_id_from,
)
from cloudless.core.model import Role, TokenRecord
from tests.unit.identity.trust import NOW_MS, SECRET, build_token

TOKEN = Token("abcdefgh23", bytes(range(32)), "ab" * 32)
RIGHT = hash_secret("tokenaaaaa", SECRET)


@given(st.binary(min_size=7, max_size=7), st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_text_is_read_back(token_id: bytes, secret: bytes, pin: bytes) -> None:
    token = Token(token_id_from(token_id), secret, pin.hex())
    assert ID_PATTERN.fullmatch(token.id)
    assert find_token(token.text) == token
    assert find_token(f"  {token.text.upper()}\n") == token


@given(st.text(max_size=200))
def test_no_text_crashes_the_reader(text: str) -> None:
    find_token(text)
    find_token(f"cl1.abcdefgh23.{text}.{text}")


@pytest.mark.parametrize("part", range(4))
def test_a_character_lost_anywhere_makes_it_no_token(part: int) -> None:
    parts = TOKEN.text.split(".")
    parts[part] = parts[part][:-1]
    assert find_token(".".join(parts)) is None


def test_text_of_a_token_does_not_show_in_its_repr() -> None:
    assert TOKEN.text.split(".")[2] not in repr(TOKEN)
    assert "secret" not in repr(TOKEN)


def test_hashes_of_one_secret_differ_between_tokens() -> None:
    assert hash_secret("a", SECRET) != hash_secret("b", SECRET)


@pytest.mark.parametrize(
    ("fields", "role", "name", "now_ms", "expected"),
    [
        ({}, Role.AGENT, "a1", NOW_MS, TokenVerdict.GOOD),
        ({}, None, "a1", NOW_MS, TokenVerdict.GOOD),
        ({}, Role.COORDINATOR, "a1", NOW_MS, TokenVerdict.WRONG_ROLE),
        ({}, Role.ADMIN, "a1", NOW_MS, TokenVerdict.WRONG_ROLE),
        ({}, Role.AGENT, "a1", NOW_MS + 3_599_999, TokenVerdict.GOOD),
        ({}, Role.AGENT, "a1", NOW_MS + 3_600_000, TokenVerdict.EXPIRED),
        ({"uses_left": 0}, Role.AGENT, "a1", NOW_MS, TokenVerdict.SPENT),
        ({"revoked_at_ms": 1}, Role.AGENT, "a1", NOW_MS, TokenVerdict.REVOKED),
        ({"names": ("a1",)}, Role.AGENT, "a1", NOW_MS, TokenVerdict.GOOD),
        ({"names": ("a1",)}, Role.AGENT, "a11", NOW_MS, TokenVerdict.WRONG_NAME),
        ({"names": ("b", "a*")}, Role.AGENT, "a11", NOW_MS, TokenVerdict.GOOD),
        ({"names": ("b*",)}, Role.AGENT, "a11", NOW_MS, TokenVerdict.WRONG_NAME),
        ({"secret_hash": hash_secret("other", SECRET)}, Role.AGENT, "a1", NOW_MS, TokenVerdict.UNKNOWN),
        ({"secret_hash": "", "revoked_at_ms": 1}, Role.AGENT, "a1", NOW_MS, TokenVerdict.UNKNOWN),
    ],
)
def test_verdict(fields: dict[str, Any], role: Role, name: str, now_ms: int, expected: TokenVerdict) -> None:
    assert judge_token(build_token(**fields), RIGHT, role, name, now_ms) is expected


@pytest.mark.parametrize("presented", ["", "x", "é" * 64, hash_secret("tokenaaaaa", b"t" * 32), "-" * 64])
@pytest.mark.parametrize("record", [None, build_token()])
def test_whoever_lacks_the_secret_learns_nothing(record: TokenRecord | None, presented: str) -> None:
    assert judge_token(record, presented, Role.AGENT, "a1", NOW_MS) is TokenVerdict.UNKNOWN
