"""The small programs inside the image that can be tried without one: the founding file is made once, and whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT

IMAGE = ROOT / "compose/image"
CLOUDLESS = """\
#!/bin/sh
# `cluster found --out FILE`, which never writes over a file
[ "$1 $2 $3" = "cluster found --out" ] && [ ! -e "$4" ] || exit 2
echo half >"$4"
[ -z "${DIES:-}" ] || exit 1
echo whole >"$4"
"""


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    program = tmp_path / "bin/cloudless"
    program.parent.mkdir()
    program.write_text(CLOUDLESS)
    program.chmod(0o755)
    return program.parent


def found(bin_dir: Path, volume: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **more, "PATH": f"{bin_dir}:{os.environ['PATH']}"}
    command = [str(IMAGE / "cloudless-found"), str(volume)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=10)


def test_the_founding_file_is_made_once(bin_dir: Path, tmp_path: Path) -> None:
    assert found(bin_dir, tmp_path).returncode == 0
    file = tmp_path / "cloudless.founding"
    assert file.read_text() == "whole\n"
    file.write_text("the same to the end")
    assert "is there" in found(bin_dir, tmp_path).stdout
    assert file.read_text() == "the same to the end"


def test_a_cluster_that_was_founded_gets_no_second_founding_file(bin_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "founded").touch()
    assert "before" in found(bin_dir, tmp_path).stdout
    assert not (tmp_path / "cloudless.founding").exists()


def test_a_founding_cut_short_leaves_nothing_that_a_founder_could_read(bin_dir: Path, tmp_path: Path) -> None:
    assert found(bin_dir, tmp_path, DIES="yes").returncode != 0
    assert not (tmp_path / "cloudless.founding").exists()
    assert found(bin_dir, tmp_path).returncode == 0
    assert (tmp_path / "cloudless.founding").read_text() == "whole\n"


def test_a_container_that_runs_no_server_is_well() -> None:
    command = [sys.executable, "-IS", str(IMAGE / "cloudless-probe")]
    assert subprocess.run(command, capture_output=True, check=False, timeout=10).returncode == 0


@pytest.mark.parametrize("file", sorted(IMAGE.iterdir()), ids=lambda file: file.name)
def test_programs_of_the_image_may_be_run(file: Path) -> None:
    assert file.stat().st_mode & 0o111 == 0o111
    assert file.read_text().startswith("#!/")
