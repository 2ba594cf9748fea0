"""What a diagnosis comes to: one finding per thing that is wrong, said so that a person can act on it.

A `Kind` is a row of the table in `kinds`: how severe, in which words, what to do. A `Finding` is that row filled in
with what was seen. Both are plain text; the doctor prints them, `-o json` hands them on, and the documentation is
written from the same table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """TROUBLE: it fails now, or data are at risk. WARNING: one more loss, or some time, and it will. NOTE: know it."""

    TROUBLE = "trouble"
    WARNING = "warning"
    NOTE = "note"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Kind:
    """One thing that can be wrong. `says` and `cure` hold `{names}` that a finding fills in; `why`: for the manual."""

    code: str
    severity: Severity
    says: str
    cure: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: `subject` is what it is about, `evidence` what was seen, `cure` what to do."""

    code: str
    severity: Severity
    subject: str
    says: str
    evidence: tuple[str, ...]
    cure: str
