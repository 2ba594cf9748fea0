"""Logs: one line per meaningful change, to stderr, for people or as JSON (docs/logging.md).

Whatever a process has to say goes this way: its own lines, warnings of libraries and of Python, errors that nobody
caught. A place that writes the same over and over is summed up (`flood`), and no secret gets through (`secrets`).
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from loguru import logger

from cloudless.errors import CloudlessError
from cloudless.observability import tracing, uncaught
from cloudless.observability.fields import look_up
from cloudless.observability.flood import WINDOW_S, Flood, Held
from cloudless.observability.lines import human_line, json_line

if TYPE_CHECKING:
    from loguru import Message

JSON = "json"
_UNBOUNDED_LEVELS = ("TRACE", "DEBUG")
"""Who asks for these wants all of them."""
_SUM = "flood_sum"
_PLACE = "place"
KIND = "kind"
"""What a line that is passed on for others says of itself, besides its source: which ones are like it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """`level` and above is written; `form` is human or json. `process` and `node_id` say whose lines these are."""

    level: str = "INFO"
    form: str = "human"
    process: str = ""
    node_id: str = ""


_configured = LogSettings()


def configure_logs(settings: LogSettings) -> None:
    """Send all logs of this process to stderr, from now on."""
    global _configured
    _configured = settings
    sink = _Sink(settings)
    logger.remove()
    # Formatted by the sink itself; loguru would add the exception with the values of local variables.
    logger.add(sink, level=settings.level, format="{message}", backtrace=False, diagnose=False, catch=True)
    atexit.register(sink.flush)
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    look_up("trace_id", lambda: tracing.current_ids()[0])
    look_up("span_id", lambda: tracing.current_ids()[1])
    uncaught.catch_all()


def tell_end(error: CloudlessError, plain_prefix: str = "error") -> None:
    """Say why this process ends: on lines of its own for people, as one line of the log for machines."""
    if _configured.form == JSON:
        logger.critical("{}{}", error.message, f"; {error.hint}" if error.hint else "")
        return
    print(f"{plain_prefix}: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


class _Sink:
    """Writes lines. Called by one thread at a time: loguru sees to that."""

    def __init__(self, settings: LogSettings) -> None:
        self._settings = settings
        self._flood = Flood()
        self._due: threading.Timer | None = None

    def __call__(self, message: Message) -> None:
        record: Any = message.record
        extra = record["extra"]
        if record["level"].name not in _UNBOUNDED_LEVELS and not extra.get(_SUM):
            place = extra.get("source") or extra.get(_PLACE) or (record["name"], record["line"])
            level, text = record["level"].name, record["message"]
            if not self._flood.admit(place, level, text, time.monotonic(), extra.get(KIND, "")):
                self._tell_later()
                return
        stream: TextIO = sys.stderr
        stream.write(self._form(record))
        stream.flush()

    def flush(self) -> None:
        """Tell of all that is held back, at the end of the process."""
        self._tell(self._flood.take_held(time.monotonic(), all_of_them=True))

    def _form(self, record: Any) -> str:
        if self._settings.form == JSON:
            return json_line(record, self._settings.process, self._settings.node_id)
        return human_line(record)

    def _tell_later(self) -> None:
        if self._due is None:
            self._due = threading.Timer(WINDOW_S, self._tell_due)
            self._due.daemon = True
            self._due.start()

    def _tell_due(self) -> None:
        self._due = None
        self._tell(self._flood.take_held(time.monotonic()))

    def _tell(self, held: list[Held]) -> None:
        for sum_ in held:
            source = sum_.place if isinstance(sum_.place, str) else ""  # other places are two words
            logger.bind(**{_SUM: True, "repeated": sum_.count, "source": source}).log(
                sum_.level, "{} more lines like this in {:.0f} s: {}", sum_.count, sum_.over_s, sum_.text
            )


class _ToLoguru(logging.Handler):
    """Lines of libraries, which know `logging` only."""

    def emit(self, record: logging.LogRecord) -> None:
        # Where the library logs, for the flood to tell places apart: to loguru it is all this one line.
        place = (record.name, record.lineno)
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        logger.bind(**{_PLACE: place}).opt(exception=record.exc_info).log(
            level, "{}: {}", record.name, record.getMessage()
        )
