"""Every finished API call in the metrics: counted by method and outcome, and how long it took by service."""

from __future__ import annotations

from collections.abc import Callable

from cloudless.observability.metrics import OTHER, SERVICES
from cloudless.observability.registry import ProcessMetrics


class RequestMetrics:
    """Give `observe` to the server. What it counts with is looked up once for each method and outcome."""

    def __init__(self, metrics: ProcessMetrics) -> None:
        self._metrics = metrics
        self._counters: dict[tuple[str, str], Callable[[float], None]] = {}
        self._observers: dict[str, Callable[[float], None]] = {}

    def observe(self, method: str, outcome: str, took_s: float | None) -> None:
        """Take a finished call of `package.Service/Method`; `outcome` is "ok" or an error's code.

        `took_s` is None for a stream: it lasts as long as its caller wants.
        """
        counter = self._counters.get((method, outcome))
        if counter is None:  # methods and codes are those of the API: they stay few
            counter = self._counters[method, outcome] = self._metrics.counter("requests", method, outcome)
        counter(1)
        if took_s is not None:
            observer = self._observers.get(method)
            if observer is None:
                service = method.partition("/")[0].rpartition(".")[2]
                named = service if service in SERVICES else OTHER
                observer = self._observers[method] = self._metrics.observer("request_seconds", named)
            observer(took_s)
