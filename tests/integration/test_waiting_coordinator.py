"""A coordinator that waits for its cluster, maybe for longer than its certificates live, stays reachable."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudless.adapters.pki.certificate import read_peer
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.adapters.pki.vault import found, to_founding_file
from etcd.find import Found
from tests.integration.cluster import LocalCluster

LIFETIME_S = 20

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture
def cluster(tmp_path: Path, binary: Found) -> Iterator[LocalCluster]:
    made = LocalCluster(tmp_path, binary.path)
    try:
        yield made
    finally:
        made.close()


def test_a_coordinator_that_waits_for_the_other_founders_renews_its_certificates(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    file = tmp_path / "founding.json"
    file.touch(mode=0o600)
    file.write_bytes(to_founding_file(found("waiting", time.time_ns() // 1_000_000, leaf_lifetime_s=LIFETIME_S)))
    cluster.add_coordinators()
    cluster.found_together()
    alone = cluster.processes["coordinator-1"]
    alone.settings |= {"TLS_ENABLED": "true", "FOUNDING_FILE": str(file)}
    cluster.start("coordinator-1")
    identity = IdentityDir(alone.data_dir / "identity")

    def serial() -> str:
        held = identity.load()
        return read_peer(held.chain_pem).serial if held is not None else ""

    first = cluster.until(serial, "it has a certificate")
    cluster.until(lambda: serial() != first, "it has another one", timeout_s=LIFETIME_S)
    assert not cluster.has_formed("coordinator-1")
