"""How a task's command is found on its node."""

from pathlib import Path

import pytest

from cloudless.adapters.subprocess.command import find_executable
from cloudless.errors import Permanent

UNREADABLE = "/" + "x" * 300
"""A directory nothing can be asked of, even by root (its name is too long), as another user's is for everyone else."""


def test_a_directory_of_path_that_may_not_be_read_is_passed_over(tmp_path: Path) -> None:
    assert find_executable("sh", path=f"{UNREADABLE}:/usr/bin:/bin", work=tmp_path) in ("/usr/bin/sh", "/bin/sh")


def test_a_command_that_is_nowhere_is_named_though_a_directory_may_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="command not found: no-such-command"):
        find_executable("no-such-command", path=f"{UNREADABLE}:/usr/bin", work=tmp_path)


def test_a_full_path_under_an_unreadable_directory_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="command not found"):
        find_executable(f"{UNREADABLE}/run", path="", work=tmp_path)
