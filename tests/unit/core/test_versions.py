"""Which versions run together, and when an upgrade is finished."""

from __future__ import annotations

import pytest

from cloudless.core.versions import decide_finishing, find_misfit, has_reached, level_of


@pytest.mark.parametrize("version", ["1.4.0", "1.4.9", "1.5.0", "1.5.3-rc1", "", "unknown"])
def test_the_level_and_the_minor_after_it_may_run(version: str) -> None:
    assert find_misfit(version, "1.4") is None


@pytest.mark.parametrize(
    ("version", "said", "cure"),
    [
        ("1.3.9", "is older than the cluster", "start 1.4 or 1.5"),
        ("1.6.0", "more than one minor version ahead", "start 1.4 or 1.5"),
        ("2.4.0", "more than one minor version ahead", "start 1.4 or 1.5"),
        ("0.9.9", "is older than the cluster", "start 1.4 or 1.5"),
    ],
)
def test_every_other_version_is_told_what_to_start_instead(version: str, said: str, cure: str) -> None:
    misfit = find_misfit(version, "1.4")
    assert misfit is not None
    assert version in misfit.reason
    assert said in misfit.reason
    assert cure in misfit.cure


def test_a_cluster_that_has_no_level_yet_refuses_nobody() -> None:
    assert find_misfit("7.7.7", "") is None


def test_levels_compare_as_numbers() -> None:
    assert level_of("v1.10.3") == "1.10"
    assert level_of("soon") == ""
    assert has_reached("1.10", "1.9")
    assert has_reached("1.9", "1.9")
    assert not has_reached("1.9", "1.10")
    assert not has_reached("", "0.1")


def test_the_level_becomes_the_minor_that_all_members_run() -> None:
    assert decide_finishing("1.4", {"c1": "1.5.0", "c2": "1.5.2"}).level == "1.5"
    assert decide_finishing("1.5", {"c1": "1.5.0"}).level == "1.5"
    assert decide_finishing("", {"c1": "1.5.0"}).level == "1.5"


def test_the_level_never_falls() -> None:
    assert decide_finishing("1.5", {"c1": "1.4.0", "c2": "1.4.0"}).level == "1.5"


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"c1": "1.5.0", "c2": "1.4.7"}, "c2 still runs 1.4.7"),
        ({"c1": "1.5.0", "c2": ""}, "c2 does not run"),
        ({}, "no member is known"),
    ],
)
def test_an_upgrade_is_not_finished_while_one_is_behind_or_away(versions: dict[str, str], said: str) -> None:
    finishing = decide_finishing("1.4", versions)
    assert finishing.level == "1.4"
    assert said in " ".join(finishing.refusals)
