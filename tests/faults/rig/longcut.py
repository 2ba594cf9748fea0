"""How agents are cut off for long within a short test: the cluster's own times are made short.

`CLOUDLESS_FAULTS_CUT_S=900 scripts/faults --only 15` cuts them off for a quarter of an hour.
"""

from __future__ import annotations

import os

from tests.integration.cluster import LocalCluster

LONG_CUT_S = float(os.environ.get("CLOUDLESS_FAULTS_CUT_S", "45"))
"""By default 75 of a compressed node time-out, as many as pass in 5 minutes with the one of 4 s that users have."""


def compress_time(cluster: LocalCluster) -> None:
    """Let a cluster that is yet to start miss agents after 0.6 s."""
    for process in cluster.coordinators:
        process.settings |= {"HEARTBEAT_PERIOD": "0.2s", "NODE_TIMEOUT": "0.6s"}
