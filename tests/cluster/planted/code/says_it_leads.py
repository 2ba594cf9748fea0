"""Planted: the metrics say that this coordinator leads, whatever it does."""

import re

from cloudless.observability.registry import ProcessMetrics

render = ProcessMetrics.render


def lie(self: ProcessMetrics) -> str:
    return re.sub(r"(?m)^(cloudless_coordinator_is_leader) .*", r"\1 1.0", render(self))


ProcessMetrics.render = lie  # type: ignore[method-assign]
