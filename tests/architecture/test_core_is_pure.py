"""Law 1: `cloudless.core` reads no clock, draws no random number, does no IO, waits for nothing, iterates no set.

Coordinators fold the same events into the same state and must come to the same result, today and on replay.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.architecture.purity import offences
from tests.architecture.tree import name_of, parsed, python_files

CORE = python_files("cloudless/core")

IMPURE = {
    "import time": "imports time",
    "from os import path": "imports from os",
    "import concurrent.futures": "imports concurrent.futures",
    "from uuid import uuid4": "imports uuid.uuid4",
    "open('x')": "calls open()",
    "print('x')": "calls print()",
    "seed = hash('x')": "calls hash()",
    "at = datetime.now()": "uses datetime.now",
    "at = datetime.datetime.utcnow()": "uses datetime.utcnow",
    "id = uuid.uuid4()": "uses uuid.uuid4",
    "async def wait(): pass": "is asynchronous",
    "for x in {1, 2}: pass": "iterates a set in no order: {1, 2}",
    "xs = [x for x in set(ys)]": "iterates a set in no order: set(ys)",
    "xs = list(frozenset(ys))": "iterates a set in no order: frozenset(ys)",
    "names = {1}\nxs = tuple(names)": "iterates a set in no order: names",
    "def f(names: set[str]):\n  return {n: 1 for n in names}": "iterates a set in no order: names",
    "for key in a.keys() - b.keys(): pass": "iterates a set in no order: a.keys() - b.keys()",
    "class C:\n  ids: frozenset[str]\ndef f(c):\n  return [*c.ids]": "iterates a set in no order: c.ids",
    "def f() -> set[int]: ...\nfor x in f(): pass": "iterates a set in no order: f()",
    "text = ', '.join({'a', 'b'})": "iterates a set in no order: {'a', 'b'}",
    "first = max({'a', 'b'}, key=len)": "iterates a set in no order: {'a', 'b'}",
}

PURE = [
    "for x in sorted({1, 2}): pass",
    "found = any(x > 1 for x in {1, 2})",
    "names = {x + 1 for x in {1, 2}}",
    "xs = sorted(x + 1 for x in {1, 2})",
    "for key in a.keys(): pass",
    "def f(names: list[str]):\n  return [n for n in names]",
    "names = {1}\nnames_in_order = sorted(names)\nfor n in names_in_order: pass",
    "latest = max({1, 2})",
    "later = now + 5",
]


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_core_module_is_pure(path: Path) -> None:
    found = [f"{name_of(path)}:{offence.line} {offence.what}" for offence in offences(parsed(path))]
    assert not found, "\n".join(found)


def test_there_is_a_core_to_judge() -> None:
    assert len(CORE) > 10


@pytest.mark.parametrize(("source", "what"), IMPURE.items())
def test_impure_code_is_found(source: str, what: str) -> None:
    assert what in [offence.what for offence in offences(ast.parse(source))]


@pytest.mark.parametrize("source", PURE)
def test_pure_code_is_left_alone(source: str) -> None:
    assert offences(ast.parse(source)) == []
