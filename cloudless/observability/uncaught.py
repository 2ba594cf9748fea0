"""Errors that nobody caught, in whichever thread or task: each is one entry of the log."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import TracebackType
from typing import Any

from loguru import logger


def catch_all() -> None:
    """Have uncaught errors of every thread logged."""
    sys.excepthook = _tell
    threading.excepthook = _tell_of_thread


def watch_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Have errors logged that reach the loop because nobody awaited the task, or a callback failed."""
    loop.set_exception_handler(_tell_of_loop)


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logger.opt(exception=(kind, error, trace)).critical("this process ends by an error that nobody caught")


def _tell_of_thread(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_type is SystemExit:
        return
    error = failed.exc_value or failed.exc_type()
    name = failed.thread.name if failed.thread else "?"
    logger.opt(exception=(failed.exc_type, error, failed.exc_traceback)).error(
        "the thread {} ended by an error that nobody caught", name
    )


def _tell_of_loop(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    whose = context.get("future") or context.get("handle")
    logger.opt(exception=error).error("{}{}", context.get("message", "asyncio"), f": {whose!r}" if whose else "")
