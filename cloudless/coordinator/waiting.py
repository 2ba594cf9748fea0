"""What a coordinator without a cluster waits for, in its log: when that changes, and again now and then."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from loguru import logger

SAY_WAITING_EVERY_S = 10.0


@dataclass(slots=True)
class Waiting:
    """What was said last, and when."""

    said: str = ""
    said_s: float = 0.0

    def say(self, reason: str) -> None:
        now_s = asyncio.get_running_loop().time()
        if reason != self.said or now_s - self.said_s > SAY_WAITING_EVERY_S:
            logger.info("forming: {}", reason)
            self.said, self.said_s = reason, now_s
