"""The page, the catalogue and the tests say the same."""

from __future__ import annotations

from tests.architecture.tree import ROOT
from tests.faults.catalogue import FAULTS
from tests.faults.rig import docs
from tests.faults.rig.collection import find_proofs
from tests.faults.rig.results import read_results


def test_the_page_is_what_the_results_give() -> None:
    page = docs.render(find_proofs(), read_results(ROOT / docs.RESULTS))
    assert (ROOT / docs.PAGE).read_text() == page, "scripts/faults --write-docs"


def test_every_fault_has_a_row_of_its_own() -> None:
    assert [fault.number for fault in FAULTS] == list(range(1, 58))
    page = (ROOT / docs.PAGE).read_text()
    for fault in FAULTS:
        assert f"| {fault.number} | {fault.promise} |" in page


def test_results_are_of_tests_that_exist() -> None:
    tests = {proof.test for proof in find_proofs()}
    assert {result["test"] for result in read_results(ROOT / docs.RESULTS)} <= tests
