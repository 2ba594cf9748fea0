"""A request ends within its caller's time, whatever it has to wait for, and its id is used up by its first answer."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cloudless.coordinator.api.access import (
    SELECTOR_LENGTH_MAX,
    SELECTOR_TERMS_MAX,
    Access,
    Decided,
    read_selector,
)
from cloudless.coordinator.leases import RecordLeases, RollingLease
from cloudless.core import keys
from cloudless.core.model import NodeSpec
from cloudless.core.plan import Change, PutRecord
from cloudless.errors import InvalidSpec, Unavailable
from cloudless.rpc.v1 import common_pb2
from cloudless.testing.faulty_store import REQUEST_LOST, always
from cloudless.testing.virtual_time import virtually
from tests.unit.leading import CLOCK, Cluster, leading


@pytest.mark.parametrize("selector", [{}, {"zone": "a"}, {str(n): "" for n in range(SELECTOR_TERMS_MAX)}])
def test_a_selector_is_read_whole(selector: dict[str, str]) -> None:
    assert read_selector(selector) == selector


@pytest.mark.parametrize(
    ("selector", "fields"),
    [
        ({str(n): "" for n in range(SELECTOR_TERMS_MAX + 1)}, ["selector"]),
        ({"a" * (SELECTOR_LENGTH_MAX + 1): "", "b": "x" * SELECTOR_LENGTH_MAX}, ["selector['" + "a" * 40 + "']"]),
        ({"b": "x" * (SELECTOR_LENGTH_MAX + 1)}, ["selector['b']"]),
    ],
)
def test_a_selector_longer_than_any_object_has_labels_is_refused(selector: dict[str, str], fields: list[str]) -> None:
    with pytest.raises(InvalidSpec) as refused:
        read_selector(selector)
    assert [problem.field for problem in refused.value.problems] == fields


def build_access(cluster: Cluster) -> Access:
    leases = RecordLeases(RollingLease(cluster.store, CLOCK), RollingLease(cluster.store, CLOCK))
    return Access("c1", cluster.replica, cluster.committer, leases, CLOCK, SimpleNamespace(new=lambda: "id"))


@virtually
async def test_a_write_that_waits_for_a_lease_ends_with_an_error_before_its_caller_gives_up() -> None:
    async with leading() as cluster:
        cluster.store.choose = always(REQUEST_LOST, ("grant",))
        access = build_access(cluster)
        began_s = CLOCK.monotonic_s()
        context = SimpleNamespace(time_remaining=lambda: began_s + 1.0 - CLOCK.monotonic_s())
        with pytest.raises(Unavailable):
            await access.write(common_pb2.WriteOptions(), b"", lambda view: Decided(None, {}), context)
        assert CLOCK.monotonic_s() - began_s < 1.0


@virtually
async def test_a_late_copy_of_a_request_that_found_it_so_already_does_nothing() -> None:
    async with leading() as cluster:
        access = build_access(cluster)
        options, key = common_pb2.WriteOptions(request_id="uncordon-1"), keys.node_spec("n1")
        cordon = Change(puts=(PutRecord(key, NodeSpec(cordoned=True)),), reason="another user cordons it")
        uncordon = Change(puts=(PutRecord(key, NodeSpec(cordoned=False)),), reason="the late copy would undo that")
        first = await access.write(options, b"uncordon", lambda view: Decided(None, {"was": "so"}), None)
        await access.write(common_pb2.WriteOptions(request_id="cordon-1"), b"", lambda view: Decided(cordon, {}), None)
        late = await access.write(options, b"uncordon", lambda view: Decided(uncordon, {}), None)
        assert (late.answer, late.revision) == (first.answer, first.revision)
        assert access.view.nodes["n1"].spec.cordoned


@virtually
async def test_what_is_so_already_costs_no_write_if_nobody_can_ask_again() -> None:
    async with leading() as cluster:
        access = build_access(cluster)
        before = cluster.committer.figures.changes_total
        await access.write(common_pb2.WriteOptions(), b"", lambda view: Decided(None, {}), None)
        assert cluster.committer.figures.changes_total == before
