"""Equality selectors (`zone=zone-a,phase=READY`) and label changes (`tier=web old-`)."""

from __future__ import annotations

import click


def parse_selector(texts: tuple[str, ...]) -> dict[str, str]:
    """Return the pairs of one or several comma-separated selectors."""
    pairs = {}
    for part in (part.strip() for text in texts for part in text.split(",") if part.strip()):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise click.UsageError(f"selector {part!r} is not key=value")
        pairs[key] = value.removeprefix("=")
    return pairs


def parse_label_changes(words: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """Return (labels to set, labels to remove) from words like `key=value` and `key-`."""
    to_set, to_remove = {}, []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key:
            to_set[key] = value
        elif word.endswith("-") and len(word) > 1:
            to_remove.append(word[:-1])
        else:
            raise click.UsageError(f"{word!r} is neither key=value nor key-")
    return to_set, to_remove
