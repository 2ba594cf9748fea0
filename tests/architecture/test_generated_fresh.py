"""The generated code is what `scripts/proto` makes of protos/ today, and the requirements fit it."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.architecture.tree import ROOT

GENERATED = sorted(path for path in (ROOT / "cloudless").rglob("*_pb2*.py*") if path.suffix in (".py", ".pyi"))


def requirements(section: str, option: str) -> dict[str, Requirement]:
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = [line.strip() for line in config[section][option].splitlines() if line.strip()]
    return {requirement.name: requirement for requirement in map(Requirement, lines)}


def lower_bound(requirement: Requirement) -> Version:
    return max(Version(bound.version) for bound in requirement.specifier if bound.operator in (">=", "=="))


def test_generated_code_is_fresh() -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", "scripts/proto", "--check"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_generated_file_has_its_proto(path: Path) -> None:
    stem = re.sub(r"_pb2(_grpc)?\.pyi?$", "", path.relative_to(ROOT).as_posix())
    assert (ROOT / "protos" / f"{stem}.proto").is_file(), "left over from a proto that is gone: delete it"


def test_lower_bounds_admit_no_runtime_older_than_the_generated_code() -> None:
    needed = requirements("options", "install_requires")
    sources = [path.read_text(encoding="utf-8") for path in GENERATED]
    grpc = {found for source in sources for found in re.findall(r"GRPC_GENERATED_VERSION = '(.+)'", source)}
    protobuf = {found for source in sources for found in re.findall(r"^# Protobuf Python Version: (.+)$", source, re.M)}
    assert {lower_bound(needed["grpcio"])} == {Version(version) for version in grpc}
    assert {lower_bound(needed["protobuf"])} == {Version(version) for version in protobuf}


def test_compilers_are_pinned_exactly() -> None:
    tools = requirements("options.extras_require", "dev")
    for name in ("grpcio-tools", "mypy-protobuf"):
        assert [bound.operator for bound in tools[name].specifier] == ["=="], name
    assert lower_bound(tools["grpcio-tools"]) == lower_bound(requirements("options", "install_requires")["grpcio"])
