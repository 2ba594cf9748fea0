"""Selectors (`zone=zone-a`), and changes of labels (`tier=web old-`) and of taints (`gpu=yes:NO_SCHEDULE old-`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cloudless.rpc.v1.objects_pb2 import Taint


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


def parse_taint_changes(words: tuple[str, ...]) -> tuple[list[Taint], list[Taint]]:
    """Return (taints to set, taints to remove) from `key=value:EFFECT`, `key:EFFECT`, `key:EFFECT-` and `key-`."""
    from cloudless.rpc.v1.objects_pb2 import Taint, TaintEffect

    effects = {name.removeprefix("TAINT_EFFECT_"): value for name, value in TaintEffect.items() if value}
    known = {_squeeze(name): name for name in effects}
    to_set: list[Taint] = []
    to_remove: list[Taint] = []
    for word in words:
        removes = word.endswith("-")
        named, colon, effect = word.removesuffix("-").partition(":")
        key, _, value = named.partition("=")
        wanted = known.get(_squeeze(effect), "")
        if not key or not (colon or removes) or (colon and not wanted):
            raise click.UsageError(
                f"{word!r} is neither key=value:EFFECT nor key:EFFECT- nor key-; EFFECT is one of {', '.join(effects)}"
            )
        taint = Taint(key=key, value=value)
        if colon:
            taint.effect = effects[wanted]
        (to_remove if removes else to_set).append(taint)
    return to_set, to_remove


def _squeeze(effect: str) -> str:
    """Return what NO_EXECUTE, no-execute and NoExecute have in common."""
    return effect.upper().replace("-", "").replace("_", "")
