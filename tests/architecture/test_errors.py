"""Every typed error has a code of its own and looks the same whichever door it leaves by."""

from __future__ import annotations

import re
from collections import Counter

import grpc
import pytest

from cloudless.errors import OUTCOMES, CloudlessError, all_errors, error_with_code, outcome_of
from tests.architecture.tree import PACKAGES, import_everything

MODULES = import_everything()
ERRORS = [error for error in dict.fromkeys(all_errors()) if error.__module__.split(".")[0] in PACKAGES]


def class_name(error: type[CloudlessError]) -> str:
    return error.__name__


def test_the_whole_project_was_looked_at() -> None:
    assert "cloudless.errors" in MODULES
    assert len(ERRORS) > 20


@pytest.mark.parametrize("module", MODULES)
def test_module_can_be_imported(module: str) -> None:
    assert MODULES[module] is None


def test_no_two_errors_share_a_code() -> None:
    shared = {code: count for code, count in Counter(error.code for error in ERRORS).items() if count > 1}
    assert not shared


@pytest.mark.parametrize("error", ERRORS, ids=class_name)
def test_error_has_a_code_of_its_own(error: type[CloudlessError]) -> None:
    assert "code" in vars(error), "inherits its parent's code: clients could not tell the two apart"
    assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", error.code)


@pytest.mark.parametrize("error", ERRORS, ids=class_name)
def test_error_is_found_by_its_code(error: type[CloudlessError]) -> None:
    assert error_with_code(error.code) is error


@pytest.mark.parametrize("error", ERRORS, ids=class_name)
def test_error_has_an_outcome_at_every_door(error: type[CloudlessError]) -> None:
    outcome = outcome_of(error)
    assert outcome.grpc_status in grpc.StatusCode.__members__
    assert outcome.grpc_status != "OK"
    assert 400 <= outcome.http_status <= 599
    assert 1 < outcome.exit_code < 126


def test_what_may_be_retried_is_not_called_the_callers_fault() -> None:
    for error in ERRORS:
        if error.retryable:
            assert outcome_of(error).http_status not in (400, 401, 403, 404, 413), error


def test_table_lists_no_class_twice_by_inheritance_alone() -> None:
    for error, outcome in OUTCOMES.items():
        parents = [base for base in error.__mro__[1:] if base in OUTCOMES]
        if parents and OUTCOMES[parents[0]] == outcome:
            assert error.__name__ in {"InvalidSpec", "InvariantBroken"}, "says what its parent says already"


def test_unknown_code_of_a_newer_version_is_still_an_error() -> None:
    assert error_with_code("invented-tomorrow") is CloudlessError
