"""Taints as requests name them: checked, and put on a node or taken off it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cloudless.core.manifest.names import LABEL_LENGTH_MAX, is_label_name
from cloudless.core.model import Taint
from cloudless.errors import Problem
from cloudless.rpc import codec
from cloudless.rpc.v1 import objects_pb2


def check_taints(
    to_set: Sequence[objects_pb2.Taint], to_remove: Sequence[objects_pb2.Taint], count_max: int
) -> list[Problem]:
    """Return every fault; too many are said once."""
    problems: list[Problem] = []
    for field, taints in (("set_taints", to_set), ("remove_taints", to_remove)):
        if len(taints) > count_max:
            problems.append(Problem(field, f"at most {count_max} taints"))
            continue
        for index, taint in enumerate(taints):
            at = f"{field}[{index}]"
            if not is_label_name(taint.key):
                problems.append(Problem(f"{at}.key", "must be a label's name: letters, digits, '-', '_', '.' or '/'"))
            if len(taint.value) > LABEL_LENGTH_MAX:
                problems.append(Problem(f"{at}.value", f"must have at most {LABEL_LENGTH_MAX} characters"))
            known = objects_pb2.TaintEffect.values()
            if taint.effect not in known or (field == "set_taints" and not taint.effect):
                problems.append(Problem(f"{at}.effect", "must be NO_SCHEDULE, PREFER_NO_SCHEDULE or NO_EXECUTE"))
    return problems


def change_taints(
    held: Iterable[Taint], to_set: Iterable[objects_pb2.Taint], to_remove: Iterable[objects_pb2.Taint]
) -> tuple[Taint, ...]:
    """Return a node's taints after the change, by key and effect. The messages have passed `check_taints`."""
    kept = {(taint.key, taint.effect.value): taint for taint in held}
    for message in to_remove:
        named = objects_pb2.TaintEffect.Name(message.effect).removeprefix("TAINT_EFFECT_") if message.effect else ""
        for key, effect in list(kept):
            if key == message.key and named in ("", effect):
                del kept[key, effect]
    for message in to_set:
        taint = codec.from_message(message, Taint)
        kept[taint.key, taint.effect.value] = taint
    return tuple(taint for _, taint in sorted(kept.items()))
