"""Authorities for a cluster over plain channels, which founds none by itself: every coordinator can sign."""

from __future__ import annotations

import time

from cloudless.adapters.pki.vault import Holdings, Vault, found
from cloudless.core import keys
from cloudless.ports import Put
from cloudless.rpc.codec import encode_record
from tests.integration.cluster import LocalCluster

CLUSTER_ID = "feedbeeffeedbeef"


def vault_of(cluster: LocalCluster, name: str) -> Vault:
    return Vault(cluster.datadir(name).path / "identity")


def share_keys(cluster: LocalCluster) -> Holdings:
    """Give all coordinators the same cluster key and authorities, before they start."""
    holdings = found(CLUSTER_ID, int(time.time() * 1000))
    for process in cluster.coordinators:
        vault_of(cluster, process.name).keep(holdings)
    return holdings


def found_authorities(cluster: LocalCluster, holdings: Holdings) -> None:
    """Write the authorities into the state of a cluster that runs."""
    for record in holdings.records:
        cluster.write_raw(cluster.coordinators[0].name, Put(keys.authority(record.id), encode_record(record)))
