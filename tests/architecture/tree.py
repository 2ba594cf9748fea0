"""The source tree as the architecture tests see it: which files are written by hand, which are generated."""

from __future__ import annotations

import ast
import functools
import importlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("cloudless", "etcd")

OPTIONAL_LIBRARIES = {"docker"}
"""Top-level modules that only an extra installs; a module that needs one may be left out of an import walk."""


def is_generated(path: Path) -> bool:
    return "_pb2" in path.name


def python_files(*folders: str) -> list[Path]:
    """Return the hand-written Python files below `folders` (of the root), sorted."""
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in found if not is_generated(path))


def name_of(path: Path) -> str:
    """Return the path as a person writes it, for test ids and messages."""
    return path.relative_to(ROOT).as_posix()


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def import_everything() -> dict[str, ImportError | None]:
    """Import every hand-written module, so that all subclasses exist; return their names with what went wrong."""
    outcome: dict[str, ImportError | None] = {}
    for path in python_files(*PACKAGES):
        if path.name == "__main__.py":
            continue
        try:
            importlib.import_module(module_of(path))
            outcome[module_of(path)] = None
        except ImportError as error:
            if not (isinstance(error, ModuleNotFoundError) and error.name in OPTIONAL_LIBRARIES):
                outcome[module_of(path)] = error
    return outcome
