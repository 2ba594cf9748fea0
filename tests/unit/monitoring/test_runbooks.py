"""Every alert has its runbook, and every command that a runbook tells people to type is one that there is."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import yaml

from cloudless.cli.main import cli
from cloudless.observability.metrics import AGENT, AGENT_PREFIX, COORDINATOR, COORDINATOR_PREFIX
from cloudless.settings import find_unknown_settings
from tests.architecture.tree import ROOT
from tests.prometheus_tools import RULES

RUNBOOKS = ROOT / "docs" / "runbooks"
PAGES = sorted(page for page in RUNBOOKS.glob("*.md") if page.name != "README.md")
SECTIONS = ["What it means", "What to do", "What to expect", "How to tell that it is over"]
SERVED = {
    f"{prefix}{one.sample_name}"
    for prefix, declared in ((COORDINATOR_PREFIX, COORDINATOR), (AGENT_PREFIX, AGENT))
    for one in declared
}


def alerts() -> set[str]:
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return {rule["alert"] for group in rules["groups"] for rule in group["rules"]}


def commands_of(text: str) -> set[str]:
    """Return what is to be typed: lines of sh blocks, and `cloudless …` within a sentence, broken lines joined."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    typed = {line for block in blocks for line in block.splitlines()}
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return typed | {" ".join(found.split()) for found in re.findall(r"`(cloudless [^`]+)`", prose)}


def all_commands() -> list[str]:
    return sorted({command for page in PAGES for command in commands_of(page.read_text(encoding="utf-8"))})


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    assert {page.stem for page in PAGES} == alerts()
    listed = re.findall(r"\[(\w+)\]\((\w+)\.md\)", (RUNBOOKS / "README.md").read_text(encoding="utf-8"))
    assert {name for name, _ in listed} == alerts()
    assert all(name == file for name, file in listed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_runbook_says_all_of_it(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {page.stem}: ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    assert commands_of(text), "what does one type?"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_runbook_refers_to_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"\bcloudless_(?:coordinator|agent)_\w+", text))
    assert named <= SERVED
    assert set(re.findall(r"\bCloudless[A-Z]\w+", text)) <= alerts()
    settings = dict.fromkeys(re.findall(r"\bCLOUDLESS_\w+", text), "")
    assert not find_unknown_settings(settings)
    assert all((ROOT / path).exists() for path in re.findall(r"\bdocs/[\w./-]+\.md", text))


@pytest.mark.parametrize("command", all_commands())
def test_a_runbook_names_a_command_that_there_is(command: str) -> None:
    words = command.split()
    assert words[0] == "cloudless"
    # Options of the program itself take a value each; arguments are in capitals.
    found: click.Command = cli
    skip = False
    for word in words[1:]:
        if skip or not isinstance(found, click.Group):
            skip = False
            continue
        if word.startswith("-"):
            skip = True
            continue
        following = found.get_command(click.Context(found), word)
        assert following is not None, f"there is no {word}"
        found = following
    assert not isinstance(found, click.Group), "half a command"
    options = {word for word in words if word.startswith("-") and word != "-"}
    known = {name for parameter in (*found.params, *cli.params) for name in parameter.opts}
    assert options <= known
    taken = any(isinstance(parameter, click.Argument) for parameter in found.params)
    assert taken or not words[-1].isupper() or words[-2].startswith("-"), "takes no argument"
