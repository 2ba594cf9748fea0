"""The doctor's manual is what the table of findings says today."""

from __future__ import annotations

from cloudless.cli.doctor.manual import write_manual
from cloudless.core.diagnosis import KINDS
from tests.architecture.tree import ROOT


def test_the_manual_is_fresh() -> None:
    written = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert written == write_manual(), "write it anew: python -m cloudless.cli.doctor.manual > docs/doctor.md"


def test_every_finding_has_its_place() -> None:
    manual = write_manual()
    assert all(f"(`{code}`, " in manual for code in KINDS)
    assert "{" not in manual
