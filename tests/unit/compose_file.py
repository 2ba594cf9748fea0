"""A compose file as Docker reads it, as far as ours need that: anchors, `extends`, `${NAME:-default}`.

What Docker itself makes of them is asked by `docker compose config` wherever it is installed.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import yaml

from tests.architecture.tree import ROOT

COMPOSE = ROOT / "compose"
_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


@functools.cache
def read_services(name: str) -> dict[str, dict[str, Any]]:
    """Return the services of compose/`name`, each with what it extends merged in and variables at their defaults."""
    return {service: resolve(COMPOSE / name, service) for service in read(COMPOSE / name)["services"]}


@functools.cache
def read(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = _with_defaults(yaml.safe_load(file.read_text(encoding="utf-8")))
    return document


def resolve(file: Path, service: str) -> dict[str, Any]:
    own = dict(read(file)["services"][service])
    extended = own.pop("extends", None)
    if extended is None:
        return own
    if isinstance(extended, str):
        extended = {"service": extended}
    base = resolve(file.parent / extended["file"] if "file" in extended else file, extended["service"])
    merged: dict[str, Any] = _merge(base, own)
    return merged


def _merge(base: Any, own: Any) -> Any:
    if isinstance(base, dict) and isinstance(own, dict):
        return {**base, **{key: _merge(base[key], value) if key in base else value for key, value in own.items()}}
    return [*base, *own] if isinstance(base, list) and isinstance(own, list) else own


def _with_defaults(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_defaults(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_defaults(item) for item in value]
    return _VARIABLE.sub(r"\2", value) if isinstance(value, str) else value
