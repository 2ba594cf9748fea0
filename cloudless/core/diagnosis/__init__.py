"""What is wrong with a cluster, a data directory or a host, from facts alone; see `kinds` for all there is to find."""

from cloudless.core.diagnosis.diagnose import diagnose, is_sick
from cloudless.core.diagnosis.facts import (
    ClusterFacts,
    CoordinatorFacts,
    DataDirFacts,
    DiskFacts,
    Facts,
    HostFacts,
    MemberFacts,
    PortFacts,
    StoreFacts,
)
from cloudless.core.diagnosis.finding import Finding, Kind, Severity
from cloudless.core.diagnosis.kinds import GROUPS, KINDS

__all__ = [
    "GROUPS",
    "KINDS",
    "ClusterFacts",
    "CoordinatorFacts",
    "DataDirFacts",
    "DiskFacts",
    "Facts",
    "Finding",
    "HostFacts",
    "Kind",
    "MemberFacts",
    "PortFacts",
    "Severity",
    "StoreFacts",
    "diagnose",
    "is_sick",
]
