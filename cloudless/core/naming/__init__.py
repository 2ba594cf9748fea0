"""Where a workload's ready endpoints are, and how they are named. Derived from the state alone."""

from cloudless.core.naming.changes import EndpointChanges, compare_endpoints
from cloudless.core.naming.endpoints import Asker, Distance, Endpoint, find_endpoints, usable_endpoints
from cloudless.core.naming.zone import Outcome, Question, Record, RecordType, Reply, ServiceAddress, Zone, answer

__all__ = [
    "Asker",
    "Distance",
    "Endpoint",
    "EndpointChanges",
    "Outcome",
    "Question",
    "Record",
    "RecordType",
    "Reply",
    "ServiceAddress",
    "Zone",
    "answer",
    "compare_endpoints",
    "find_endpoints",
    "usable_endpoints",
]
