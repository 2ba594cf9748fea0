"""Planted: one of the metrics that operators were promised is not there."""

import re

from cloudless.observability.registry import ProcessMetrics

render = ProcessMetrics.render


def leave_out(self: ProcessMetrics) -> str:
    return re.sub(r"(?m)^(# \w+ )?cloudless_coordinator_raft_commit_index .*\n", "", render(self))


ProcessMetrics.render = leave_out  # type: ignore[method-assign]
