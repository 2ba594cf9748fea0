"""The shim's code as a bare interpreter takes it: compiled once by the agent, sent through standard input."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

_SOURCES = tuple(Path(__file__).with_name(name) for name in ("shim_output.py", "shim.py"))

BOOT = """
import marshal
codes, order = marshal.loads(open(0, "rb", closefd=False).read())
scope = {"__name__": "cloudless_shim"}
for code in codes:
    exec(code, scope)
del codes, code
scope["main"](order)
""".strip()
"""What the interpreter is given by -c: runs the codes it reads (`shim_code`), then the order that comes with them."""


@functools.cache
def shim_code() -> tuple[Any, ...]:
    """Return the code objects of the shim's modules, in the order they are run in one scope."""
    return tuple(compile(path.read_text(encoding="utf-8"), str(path), "exec", optimize=2) for path in _SOURCES)
