"""Planted bugs are found: a few of them in every run, all of them when slow tests are asked for."""

from __future__ import annotations

import pytest

from tests.simulation.mutation import Mutation
from tests.simulation.mutations import MASKED, MUTATIONS, QUICK, find_source, hunt_all

BY_NAME = {mutation.name: mutation for mutation in MUTATIONS}


def test_the_quickly_found_bugs_are_found() -> None:
    outcomes = list(hunt_all(tuple(BY_NAME[name] for name in QUICK)))
    assert [outcome.mutation for outcome in outcomes if not outcome.seed] == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_planted_bug_is_found_within_the_seeds_it_says(mutation: Mutation) -> None:
    (outcome,) = hunt_all((mutation,))
    assert outcome.seed, f"not found in {outcome.seeds_run} seeds"


def test_every_piece_that_a_mutation_replaces_is_still_in_the_code() -> None:
    """Who changed that code changes the mutation too, so that it plants the same bug in it."""
    for mutation in (*MUTATIONS, *MASKED):
        for patch in mutation.patches:
            find_source(patch)
