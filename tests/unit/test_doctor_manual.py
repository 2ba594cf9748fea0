"""The doctor's manual is what the table of findings says today."""

from __future__ import annotations

import re

import click
import pytest

from cloudless.cli.doctor.manual import write_manual
from cloudless.cli.main import cli
from cloudless.core.diagnosis import KINDS
from tests.architecture.tree import ROOT


def test_the_manual_is_fresh() -> None:
    written = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert written == write_manual(), "write it anew: python -m cloudless.cli.doctor.manual > docs/doctor.md"


def test_every_finding_has_its_place() -> None:
    manual = write_manual()
    assert all(f"(`{code}`, " in manual for code in KINDS)
    assert "{" not in manual


def named_commands() -> list[str]:
    """Return every `cloudless …` that a cure tells people to type, once."""
    texts = [text for kind in KINDS.values() for text in (kind.cure, kind.why)]
    return sorted({command for text in texts for command in re.findall(r"`(cloudless [^`]+)`", text)})


@pytest.mark.parametrize("command", named_commands())
def test_a_cure_names_a_command_that_there_is(command: str) -> None:
    found: click.Command = cli
    for word in command.split()[1:]:
        if not isinstance(found, click.Group) or word.startswith("-"):
            break
        following = found.get_command(click.Context(found), word)
        if following is None:
            assert word.isupper(), f"{command}: there is no {word}"
            break
        found = following
    options = {word for word in command.split() if word.startswith("--")}
    known = {name for parameter in (*found.params, *cli.params) for name in parameter.opts}
    assert options <= known, command
