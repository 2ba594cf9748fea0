"""Read the names in a manifest: of workloads, labels, ports and volumes."""

from __future__ import annotations

import re

from cloudless.core.fields import Fields, describe, quote
from cloudless.core.keys import NAME_PATTERN

NAME_WORDS = "1 to 63 lower-case letters, digits, '-' or '.', beginning and ending with a letter or digit"
LABEL_LENGTH_MAX = 253
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,251}[A-Za-z0-9])?")
_LABEL_WORDS = "1 to 253 letters, digits, '-', '_', '.' or '/', beginning and ending with a letter or digit"
_PART_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_PART_WORDS = "1 to 32 lower-case letters, digits or '-', beginning and ending with a letter or digit"


def read_name(fields: Fields, name: str, default: str) -> str:
    """Return the name of an object; without `default` it must be given."""
    path = fields.at(name)
    value = fields.take(name)
    if value is None:
        if not default:
            fields.problems.add(path, "is missing")
        return default
    if not isinstance(value, str):
        fields.problems.add(path, f"must be text, not {describe(value)}; write it in quotes")
    elif not NAME_PATTERN.fullmatch(value):
        fields.problems.add(path, f"must be {NAME_WORDS}, not {quote(value)}")
    else:
        return value
    return ""


def read_part_name(fields: Fields, taken: set[str], kind: str) -> str:
    """Return the `name` of one port or volume (`kind`) among those whose names are `taken`, and add it to them."""
    name = fields.text("name")
    if not _PART_NAME.fullmatch(name):
        fields.problems.add(fields.at("name"), f"must be {_PART_WORDS}")
    if name in taken:
        fields.problems.add(fields.at("name"), f"{quote(name)} is the name of another {kind}")
    taken.add(name)
    return name


def is_label_name(text: str) -> bool:
    """Return whether the text may be the name of a label, or of a taint."""
    return _LABEL_NAME.fullmatch(text) is not None


def read_label_name(fields: Fields, name: str, *, required: bool) -> str:
    """Return the name of a label, or of a taint; empty if it may be left out and is."""
    value = fields.text(name, length_max=LABEL_LENGTH_MAX)
    if (value or required) and not _LABEL_NAME.fullmatch(value):
        fields.problems.add(fields.at(name), f"must be {_LABEL_WORDS}, not {describe(value)}")
    return value


def read_labels(fields: Fields, name: str, *, count_max: int, length_max: int = LABEL_LENGTH_MAX) -> dict[str, str]:
    """Return a mapping of label names to values of at most `length_max` characters."""
    return fields.text_map(name, _LABEL_NAME, _LABEL_WORDS, count_max=count_max, length_max=length_max, convert=False)
