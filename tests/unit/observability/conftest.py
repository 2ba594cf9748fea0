"""Logs and traces are of the whole process: each test gets them fresh and leaves them as they were."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator

import pytest
from loguru import logger

from cloudless.observability import fields, secrets, tracing


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    logger.enable("cloudless")  # a simulation, or the command line, may have silenced it in this process
    held = (sys.excepthook, threading.excepthook, root.handlers[:], root.level)
    yield
    sys.excepthook, threading.excepthook = held[:2]
    root.handlers[:], root.level = held[2:]
    logging.captureWarnings(False)
    logger.remove()
    logger.add(sys.stderr)
    tracing.set_tracer(None)
    fields._LOOKED_UP.clear()
    secrets._kept.clear()
    secrets._longest_first = ()
