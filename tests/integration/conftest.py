"""A failed test's report shows the end of the log of every process its cluster had."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from tests.integration.cluster import LocalCluster


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, LocalCluster):
                report.sections += [(f"end of {name}'s log", tail) for name, tail in value.tails()]
    return report
