"""Every key builder's key is taken apart again into the same kind and parts, and no two builders share a key."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.core import keys
from cloudless.core.keys import Kind

BUILDERS: dict[str, Callable[..., str]] = {
    name: function
    for name, function in inspect.getmembers(keys, inspect.isfunction)
    if function.__module__ == keys.__name__ and not name.startswith("_") and name != "parse"
}
SINGLE = (Kind.CLUSTER, Kind.AUTOPILOT, Kind.AUTOPILOT_STATUS, Kind.SCHEDULER, Kind.KEY_ROTATION)
NAMES = st.from_regex(keys.NAME_PATTERN, fullmatch=True).filter(str.isascii)
REQUEST_IDS = st.from_regex(keys.REQUEST_ID_PATTERN, fullmatch=True)
NUMBERS = st.integers(1, 2**63 - 1)


def arguments_of(builder: Callable[..., str]) -> st.SearchStrategy[tuple[Any, ...]]:
    kinds = {"str": REQUEST_IDS if builder is keys.request else NAMES, "int": NUMBERS}
    return st.tuples(*(kinds[p.annotation] for p in inspect.signature(builder).parameters.values()))


def expected_parts(arguments: tuple[Any, ...], parts: tuple[str, ...]) -> bool:
    """Whether `parts` are `arguments` in order; numbers may be written in either notation."""
    return len(parts) == len(arguments) and all(
        part == argument if isinstance(argument, str) else argument in (_number(part, 10), _number(part, 16))
        for part, argument in zip(parts, arguments, strict=True)
    )


def _number(text: str, notation: int) -> int | None:
    try:
        return int(text, notation)
    except ValueError:
        return None


@pytest.mark.parametrize("name", BUILDERS)
def test_key_is_taken_apart_into_what_it_was_built_from(name: str) -> None:
    builder = BUILDERS[name]

    @given(arguments=arguments_of(builder))
    def parses_back(arguments: tuple[Any, ...]) -> None:
        key = builder(*arguments)
        parsed = keys.parse(key)
        assert parsed is not None
        assert key.startswith(keys.REQUESTS if builder is keys.request else keys.PREFIX)
        assert parsed.kind.name == name.upper()
        assert expected_parts(arguments, parsed.parts)

    parses_back()


def test_every_kind_has_its_builder() -> None:
    assert {name.upper() for name in BUILDERS} | {kind.name for kind in SINGLE} == {kind.name for kind in Kind}


@pytest.mark.parametrize("kind", SINGLE)
def test_what_there_is_one_of_has_one_key(kind: Kind) -> None:
    assert keys.parse(getattr(keys, kind.name)) == keys.Key(kind, ())


@given(left=st.data(), right=st.data())
def test_different_objects_have_different_keys(left: st.DataObject, right: st.DataObject) -> None:
    builders = st.sampled_from(sorted(BUILDERS))
    made = {}
    for data in (left, right):
        name = data.draw(builders)
        arguments = data.draw(arguments_of(BUILDERS[name]))
        made[name, arguments] = BUILDERS[name](*arguments)
    assert len(set(made.values())) == len(made)


@pytest.mark.parametrize("key", ["", "/cloudless/v2/cluster", "/cloudless/v1/", "/cloudless/v1/nodes/a", "cluster"])
def test_key_of_another_make_is_not_ours(key: str) -> None:
    assert keys.parse(key) is None


@given(key=st.text())
def test_no_text_crashes_the_parser(key: str) -> None:
    keys.parse(keys.PREFIX + key)
