"""Check what an agent says of its node: nothing it says may be too large to be kept by all, or hold what cannot be."""

from __future__ import annotations

import dataclasses

from cloudless.core import keys
from cloudless.core.model import NodeInfo
from cloudless.errors import InvalidSpec, Problem

LABELS_MAX = 64
LABEL_LENGTH_MAX = 253
TEXT_LENGTH_MAX = 1_024
"""Of any text that an agent says of its machine; the record of each is held by every coordinator."""
WORDS_MAX = 128


def check_info(info: NodeInfo) -> None:
    """Raise InvalidSpec with all that is wrong."""
    problems = []
    if not keys.NAME_PATTERN.fullmatch(info.id):
        problems.append(Problem("info.id", "must be 1 to 63 of a-z, 0-9, '-' and '.'"))
    amounts = info.capacity
    if min(amounts.cpu_millicores, amounts.memory_mb, amounts.storage_mb, amounts.bandwidth_mbps, amounts.gpus) < 0:
        problems.append(Problem("info.capacity", "must not be negative"))
    if len(info.labels) > LABELS_MAX:
        problems.append(Problem("info.labels", f"has {len(info.labels)} labels; at most {LABELS_MAX}"))
    elif any(max(len(name), len(value)) > LABEL_LENGTH_MAX for name, value in info.labels.items()):
        problems.append(Problem("info.labels", f"name and value have at most {LABEL_LENGTH_MAX} characters"))
    for field in dataclasses.fields(info):
        value = getattr(info, field.name)
        if isinstance(value, str) and len(value) > TEXT_LENGTH_MAX:
            problems.append(Problem(f"info.{field.name}", f"at most {TEXT_LENGTH_MAX} characters"))
    words = (*info.executors, *info.capabilities, *info.unable, *info.unable.values())
    if len(words) > WORDS_MAX or any(len(word) > TEXT_LENGTH_MAX for word in words):
        problem = f"executors and abilities: at most {WORDS_MAX}, of {TEXT_LENGTH_MAX} characters each"
        problems.append(Problem("info.capabilities", problem))
    if problems:
        raise InvalidSpec(problems)
