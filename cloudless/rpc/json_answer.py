"""Answers as JSON, in protobuf's own mapping: camelCase, 64-bit numbers as text, enum values by name, every field that
can always be told present.

A list of thousands takes seconds to write so. It is written entry by entry, and the loop has its turn in between.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from cloudless.rpc.json_request import is_map
from cloudless.rpc.packed import Packed

TURN_S = 0.004
"""How long others wait at most, beside one entry."""


def to_values(message: Message) -> dict[str, Any]:
    """Return a message as JSON values; for small ones."""
    values: dict[str, Any] = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    return values


def to_text(message: Message) -> str:
    """Return a message as JSON in one line; for small ones."""
    return _dump(to_values(message))


async def write_answer(answer: Message | Packed) -> str:
    """Return a whole answer as JSON, in one line."""
    message = answer.whole() if isinstance(answer, Packed) else answer
    parts: dict[str, str] = {}
    rest, turn_ends_s = type(message)(), time.monotonic() + TURN_S
    rest.CopyFrom(message)
    for field in message.DESCRIPTOR.fields:
        if not field.is_repeated or field.message_type is None or is_map(field):
            continue
        rest.ClearField(field.name)
        entries = []
        for entry in getattr(message, field.name):
            entries.append(to_text(entry))
            if time.monotonic() > turn_ends_s:
                await asyncio.sleep(0)
                turn_ends_s = time.monotonic() + TURN_S
        parts[field.json_name] = f"[{','.join(entries)}]"
    others = to_values(rest)
    named = {name: parts.get(name) or _dump(value) for name, value in others.items()}
    return "{" + ",".join(f'"{name}":{text}' for name, text in named.items()) + "}"


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
