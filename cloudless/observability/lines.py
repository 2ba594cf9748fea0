"""A log line's form: for people, or one JSON object a line for machines. Secrets are taken out of both here."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cloudless.observability.fields import fields_of
from cloudless.observability.secrets import clean

MESSAGE_LENGTH_MAX = 8_000
EXCEPTION_LENGTH_MAX = 16_000
VALUE_LENGTH_MAX = 500
# Control characters could move the cursor, or make one line look like two.
_UNSEEN = {code: " " for code in (*range(9), *range(11, 32), 127) if code != 10}


def human_line(record: Mapping[str, Any]) -> str:
    """Return `time level message`; what follows a line break is indented, so that nobody can forge a line."""
    time: datetime = record["time"]
    text = _shorten(_words(record), MESSAGE_LENGTH_MAX)
    if trace := _exception(record):
        text = f"{text}\n{trace}"
    text = text.translate(_UNSEEN).rstrip().replace("\n", "\n    ")
    return f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond // 1000:03} {record['level'].name: <7} {text}\n"


def json_line(record: Mapping[str, Any], process: str, node_id: str) -> str:
    """Return the line as a JSON object with the fields of docs/logging.md."""
    line: dict[str, object] = {
        "time": record["time"].isoformat(timespec="milliseconds"),
        "level": record["level"].name,
        "message": _shorten(_message(record), MESSAGE_LENGTH_MAX),
        "process": process,
        "node_id": node_id,
    }
    line.update((name, _value(value)) for name, value in fields_of(record["extra"]).items())
    if trace := _exception(record):
        line["exception"] = trace
    return json.dumps(line, ensure_ascii=False) + "\n"


def _message(record: Mapping[str, Any]) -> str:
    return clean(str(record["message"]))


def _words(record: Mapping[str, Any]) -> str:
    source = record["extra"].get("source")
    return f"{source}: {_message(record)}" if source else _message(record)


def _exception(record: Mapping[str, Any]) -> str:
    failed = record["exception"]
    if failed is None or failed.type is None:
        return ""
    text = "".join(traceback.format_exception(failed.type, failed.value, failed.traceback))
    return _shorten(clean(text), EXCEPTION_LENGTH_MAX).rstrip()


def _value(value: object) -> object:
    if isinstance(value, bool | int | float):
        return value
    return _shorten(clean(str(value)), VALUE_LENGTH_MAX)


def _shorten(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most} more characters)"
