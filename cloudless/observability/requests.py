"""Every finished API call in the metrics: counted by method and outcome, and how long it took by service."""

from __future__ import annotations

from cloudless.observability.metrics import OTHER, SERVICES
from cloudless.observability.registry import ProcessMetrics


class RequestMetrics:
    """Give `observe` to the server. Costs a few look-ups a call."""

    def __init__(self, metrics: ProcessMetrics) -> None:
        self._metrics = metrics
        self._services: dict[str, str] = {}

    def observe(self, method: str, outcome: str, took_s: float | None) -> None:
        """Take a finished call of `package.Service/Method`; `outcome` is "ok" or an error's code.

        `took_s` is None for a stream: it lasts as long as its caller wants.
        """
        self._metrics.count("requests", method, outcome)
        if took_s is not None:
            self._metrics.observe("request_seconds", took_s, self._service_of(method))

    def _service_of(self, method: str) -> str:
        service = self._services.get(method)
        if service is None:  # methods are those of the API, so this holds few
            named = method.partition("/")[0].rpartition(".")[2]
            service = self._services[method] = named if named in SERVICES else OTHER
        return service
