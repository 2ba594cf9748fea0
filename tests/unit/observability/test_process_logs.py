"""What a process writes to its log: documented fields, no secrets, one line an entry, whoever has something to say."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import threading
import warnings
from typing import Any

import pytest
from loguru import logger

from cloudless.errors import NotFound
from cloudless.observability.fields import FIELDS, bind, look_up
from cloudless.observability.flood import SAME_MAX
from cloudless.observability.lines import VALUE_LENGTH_MAX
from cloudless.observability.logs import LogSettings, configure_logs, tell_end
from cloudless.observability.secrets import keep_secret, keep_secrets_of
from cloudless.observability.uncaught import watch_loop

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d")
Capture = pytest.CaptureFixture[str]


def configure(form: str = "json", level: str = "INFO") -> None:
    configure_logs(LogSettings(level=level, form=form, process="coordinator", node_id="c1"))


def written(capsys: Capture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_json_line_says_when_who_and_what(capsys: Capture) -> None:
    configure()
    logger.info("node {node} enrolled (zone {})", "a", node="n1")
    (line,) = written(capsys)
    assert RFC_3339.fullmatch(line.pop("time"))
    assert line == {
        "level": "INFO",
        "message": "node n1 enrolled (zone a)",
        "process": "coordinator",
        "node_id": "c1",
        "node": "n1",
    }


def test_people_read_time_level_and_words(capsys: Capture) -> None:
    configure("human")
    logger.warning("the disk is slow")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} WARNING the disk is slow\n", capsys.readouterr().err)


def test_words_from_outside_cannot_forge_a_line(capsys: Capture) -> None:
    configure("human")
    logger.info("refused: {}", "x\n2026-01-01 00:00:00.000 INFO    all is well\x1b[2J")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("refused: x")
    assert second == "    2026-01-01 00:00:00.000 INFO    all is well [2J"


async def test_fields_are_bound_to_a_task_and_those_it_starts(capsys: Capture) -> None:
    configure()

    async def call(request_id: str) -> None:
        bind(request_id=request_id, method="Apply")
        await asyncio.sleep(0)
        await asyncio.create_task(say())

    async def say() -> None:
        logger.info("done")

    await asyncio.gather(asyncio.create_task(call("r1")), asyncio.create_task(call("r2")))
    logger.info("outside")
    lines = written(capsys)
    assert [(line.get("request_id"), line.get("method")) for line in lines] == [
        ("r1", "Apply"), ("r2", "Apply"), (None, None),
    ]  # fmt: skip


def test_a_field_that_is_looked_up_is_asked_for_only_by_lines_that_are_written(capsys: Capture) -> None:
    asked: list[str] = []

    def find() -> str:
        asked.append("once")
        return "person/ada"

    configure()
    look_up("caller", find)
    logger.debug("nobody reads this")
    assert not asked
    logger.info("read")
    assert written(capsys)[0]["caller"] == "person/ada"


def test_only_documented_fields_are_written(capsys: Capture) -> None:
    configure()
    logger.bind(**dict.fromkeys(FIELDS, "x"), invented="y").info("{other}", other="z")
    (line,) = written(capsys)
    assert line.keys() == {"time", "level", "message", "process", "node_id", *FIELDS}


@pytest.mark.parametrize("form", ["human", "json"])
def test_secrets_are_taken_out_of_words_fields_and_stacks(capsys: Capture, form: str) -> None:
    configure(form)
    keep_secret("correct horse battery")
    keep_secrets_of({"DB_PASSWORD": "hunter2!", "COLOUR": "turquoise"})
    logger.info("given {} and {}", "correct horse battery", "turquoise", caller="hunter2!")
    logger.info("Authorization: Bearer abcdefgh12345678")
    try:
        raise ValueError("it was hunter2!")
    except ValueError:
        logger.exception("failed")
    said = capsys.readouterr().err
    assert not [secret for secret in ("hunter2!", "correct horse", "abcdefgh1234") if secret in said]
    assert "turquoise" in said
    assert "ValueError: it was [redacted]" in said


def test_no_part_of_a_secret_is_left_where_a_value_is_shortened(capsys: Capture) -> None:
    keep_secret("sesame-open-yourself")
    configure()
    logger.bind(task="x" * (VALUE_LENGTH_MAX - 8) + "sesame-open-yourself").info("started")
    assert "sesame" not in capsys.readouterr().err


def test_an_exception_is_one_entry(capsys: Capture) -> None:
    configure()
    try:
        raise KeyError("missing")
    except KeyError:
        logger.exception("no")
    (line,) = written(capsys)
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("KeyError: 'missing'")


def test_what_is_repeated_is_summed_up(capsys: Capture) -> None:
    configure()
    for _ in range(5_000):
        logger.warning("the store is slow")
    logger.info("something else")
    for handler in logger._core.handlers.values():  # type: ignore[attr-defined]
        handler._sink._function.flush()
    lines = written(capsys)
    assert [line["message"] for line in lines[:SAME_MAX]] == ["the store is slow"] * SAME_MAX
    assert lines[SAME_MAX]["message"] == "something else"
    (summed,) = lines[SAME_MAX + 1 :]
    assert summed["repeated"] == 5_000 - SAME_MAX
    assert summed["message"].endswith("the store is slow")
    assert summed["level"] == "WARNING"


def test_debug_lines_are_all_written(capsys: Capture) -> None:
    configure(level="DEBUG")
    for _ in range(500):
        logger.debug("step")
    assert len(written(capsys)) == 500


def test_libraries_and_python_warn_in_the_same_form(capsys: Capture) -> None:
    configure()
    logging.getLogger("urllib3").warning("retrying %s", "now")
    logging.getLogger("urllib3").info("too quiet to be heard")
    warnings.warn("old", DeprecationWarning, stacklevel=1)
    first, second = written(capsys)
    assert (first["level"], first["message"]) == ("WARNING", "urllib3: retrying now")
    assert "DeprecationWarning: old" in second["message"]


async def test_errors_that_nobody_caught_are_logged(capsys: Capture) -> None:
    configure()
    watch_loop(asyncio.get_running_loop())

    def fail() -> None:
        raise RuntimeError("in a thread")

    thread = threading.Thread(target=fail, name="worker")
    thread.start()
    thread.join()
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    error = ValueError("at the end")
    sys.excepthook(ValueError, error, None)
    lines = written(capsys)
    assert [line["level"] for line in lines] == ["ERROR", "ERROR", "CRITICAL"]
    assert ["in a thread" in lines[0]["exception"], "ZeroDivision" in lines[1]["exception"]] == [True, True]
    assert "the thread worker ended" in lines[0]["message"]
    assert lines[2]["exception"].endswith("ValueError: at the end")


def test_the_reason_for_an_end_is_told_in_the_form_of_the_log(capsys: Capture) -> None:
    configure()
    tell_end(NotFound("no data", hint="restore it"))
    (line,) = written(capsys)
    assert (line["level"], line["message"]) == ("CRITICAL", "no data; restore it")
    configure("human")
    tell_end(NotFound("no data", hint="restore it"))
    assert capsys.readouterr().err == "error: no data\nhint: restore it\n"
