"""Tests run agents, and those that are root make control groups: none of them is left when the tests are done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import unquote

import pytest

from cloudless.adapters.subprocess.cgroups import look_for_hierarchies
from cloudless.settings import CGROUP_PARENT


@pytest.fixture(autouse=True, scope="session")
def _no_groups_are_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Remove the empty groups of this session's agents; one that is not empty has a process that a test forgot."""
    yield
    base = str(tmp_path_factory.getbasetemp())
    for hierarchy in look_for_hierarchies():
        parent = hierarchy.mount / CGROUP_PARENT
        for scope in parent.glob("%2F*"):
            if unquote(scope.name).startswith(base):
                for group in (*(path for path in scope.iterdir() if path.is_dir()), scope):
                    with suppress(OSError):
                        group.rmdir()
        with suppress(OSError):
            parent.rmdir()
