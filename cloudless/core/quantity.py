"""Amounts with units, as people write them: `500m`, `1Gi`, `1m30s`.

Parsing gives whole units (millicores, MiB) or seconds, rounding amounts up, so that nobody gets less
than was asked. A memory or storage amount without a unit is MiB; `M` and `MB` are 10**6 bytes, `Mi` is
2**20, as elsewhere in the trade. Every parser raises ValueError with a message that says what would be right.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

CPU_MILLICORES_MAX = 1_024_000
MEMORY_MB_MAX = 64 * 1024 * 1024
STORAGE_MB_MAX = 1024 * 1024 * 1024
DURATION_MAX_S = 10**12

_TEXT_LENGTH_MAX = 32
_NUMBER = r"(\d{1,15}(?:\.\d{1,9})?)"
_CPU = re.compile(_NUMBER + r"(m?)")
_BYTES = re.compile(_NUMBER + r" ?([A-Za-z]{0,2})")
_DURATION = re.compile(r"(?:\d{1,12}(?:\.\d{1,9})?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(_NUMBER + r"(ms|s|m|h|d)")

_UNIT_BYTES: dict[str, int] = {
    "": 1 << 20,
    "B": 1,
    "k": 10**3,
    "K": 10**3,
    "KB": 10**3,
    "Ki": 1 << 10,
    "M": 10**6,
    "MB": 10**6,
    "Mi": 1 << 20,
    "G": 10**9,
    "GB": 10**9,
    "Gi": 1 << 30,
    "T": 10**12,
    "TB": 10**12,
    "Ti": 1 << 40,
}
_UNIT_SECONDS: dict[str, Fraction] = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86400),
}


def parse_cpu_millicores(value: object) -> int:
    """Return millicores of `500m`, `1`, `0.5` or `"0.5"`."""
    wanted = 'must be cores, like 0.5 or 2, or millicores, like "500m"'
    if isinstance(value, str):
        match = _CPU.fullmatch(value) if len(value) <= _TEXT_LENGTH_MAX else None
        if match is None:
            raise ValueError(wanted)
        cores = Fraction(match[1]) * (1 if match[2] else 1000)
    else:
        cores = _number(value, wanted) * 1000
    return _bounded(cores, CPU_MILLICORES_MAX, f"{CPU_MILLICORES_MAX // 1000} cores")


def parse_memory_mb(value: object) -> int:
    """Return MiB of `128Mi`, `1Gi`, `512M` or a whole number of MiB."""
    return _parse_bytes(value, MEMORY_MB_MAX)


def parse_storage_mb(value: object) -> int:
    """Return MiB of `10Gi` or a whole number of MiB."""
    return _parse_bytes(value, STORAGE_MB_MAX)


def parse_duration_s(value: object) -> float:
    """Return seconds of `1s`, `500ms`, `1m30s`, or a plain number of seconds."""
    wanted = 'must be a duration, like "1s", "500ms", "1m30s", or a number of seconds'
    if not isinstance(value, str):
        seconds = _number(value, wanted)
        if seconds > DURATION_MAX_S:
            raise ValueError(f"must be at most {DURATION_MAX_S} seconds")
        return float(seconds)
    if len(value) > _TEXT_LENGTH_MAX or not _DURATION.fullmatch(value):
        raise ValueError(wanted)
    return float(sum(Fraction(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(value)))


def format_cpu(millicores: int) -> str:
    """Return `500m` for 500 millicores."""
    return f"{millicores}m"


def format_mb(mb: int) -> str:
    """Return the amount in the largest unit that keeps it whole: `1Gi`, `1536Mi`."""
    if mb and mb % (1024 * 1024) == 0:
        return f"{mb // (1024 * 1024)}Ti"
    return f"{mb // 1024}Gi" if mb and mb % 1024 == 0 else f"{mb}Mi"


def _parse_bytes(value: object, mb_max: int) -> int:
    wanted = 'must be an amount, like "128Mi", "1Gi", "512M", or a whole number of MiB'
    if isinstance(value, str):
        match = _BYTES.fullmatch(value) if len(value) <= _TEXT_LENGTH_MAX else None
        if match is None or match[2] not in _UNIT_BYTES:
            raise ValueError(wanted)
        amount = Fraction(match[1]) * _UNIT_BYTES[match[2]] / (1 << 20)
    elif isinstance(value, int) and not isinstance(value, bool):
        amount = Fraction(value)
    else:
        raise ValueError(wanted)
    return _bounded(amount, mb_max, format_mb(mb_max))


def _number(value: object, wanted: str) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(wanted)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    if value < 0:
        raise ValueError("must not be negative")
    # Through the shortest decimal form: 0.1 means a tenth, not the nearest binary fraction rounded up.
    return Fraction(value) if isinstance(value, int) else Fraction(repr(value))


def _bounded(amount: Fraction, most: int, most_text: str) -> int:
    if amount < 0:
        raise ValueError("must not be negative")
    if amount > most:
        raise ValueError(f"must be at most {most_text}")
    return math.ceil(amount)
