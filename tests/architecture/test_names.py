"""Names and sizes: modules are named for what they hold, and stay small enough to be read in one go."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.architecture.tree import name_of, parsed, python_files

EVERYTHING = python_files("cloudless", "etcd", "tests")
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "base", "misc"}
FILE_LINES_MAX = 450
# A suite of many small independent tests reads differently from code.
TEST_FILE_LINES_MAX = 700
FUNCTION_LINES_MAX = 70


@pytest.mark.parametrize("path", EVERYTHING, ids=name_of)
def test_module_is_named_for_what_it_holds(path: Path) -> None:
    assert not VAGUE_NAMES.intersection(path.with_suffix("").parts[-3:])


@pytest.mark.parametrize("path", EVERYTHING, ids=name_of)
def test_file_can_be_read_in_one_go(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    allowed = TEST_FILE_LINES_MAX if "tests" in path.parts else FILE_LINES_MAX
    assert lines <= allowed, f"{lines} lines: which second idea lives here?"


@pytest.mark.parametrize("path", EVERYTHING, ids=name_of)
def test_functions_can_be_read_in_one_go(path: Path) -> None:
    functions = [n for n in ast.walk(parsed(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {f.name: (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions}
    assert not {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES_MAX}


@pytest.mark.parametrize("path", EVERYTHING, ids=name_of)
def test_module_says_what_it_is_for(path: Path) -> None:
    if path.name == "__init__.py" and not path.read_text(encoding="utf-8").strip():
        return
    assert ast.get_docstring(parsed(path)), "needs a docstring: what it decides or does, from what, and why"
