"""What is wrong with one coordinator's store is told by all of them."""

from __future__ import annotations

import pytest

from cloudless.adapters.member.supervisor import MemberState, Phase
from cloudless.coordinator.ailment import describe_ailment
from cloudless.coordinator.hearing import HeardTable
from cloudless.coordinator.peers import News
from cloudless.coordinator.progress import ProgressTable
from cloudless.core.membership.returning import Reached
from cloudless.rpc.v1.peer_pb2 import PeerBeat, PeerBeatAck
from cloudless.testing.virtual_time import VirtualClock, virtually

DOWN = MemberState(phase=Phase.BACKOFF, last_exit="exit code 2", restarts=3, last_words="no space left on device")


@pytest.mark.parametrize(
    ("member", "staleness_s", "said"),
    [
        (MemberState(phase=Phase.RUNNING), 2.9, ""),
        (MemberState(phase=Phase.RUNNING), 7.2, "is cut off from the store for 7 s"),
        (DOWN, 0.0, "has no etcd: exit code 2, 3 restarts: no space left on device"),
    ],
)
def test_an_ailment_is_told_in_words(member: MemberState, staleness_s: float, said: str) -> None:
    assert describe_ailment(member, staleness_s) == said


def build_news(own_id: str, clock: VirtualClock, said: list[str]) -> News:
    return News(own_id, HeardTable(clock), ProgressTable(), lambda: said[0], clock, 2.0)


@virtually
async def test_an_ailment_is_told_to_the_others_until_it_is_over_or_nothing_is_heard() -> None:
    clock, said = VirtualClock(), ["is ill"]
    ill, well = build_news("c1", clock, said), build_news("c2", clock, [""])
    well.take(ill.fill(PeerBeat(), 1, "well"))
    assert well.ailments() == ill.ailments() == {"c1": "is ill"}
    said[0] = ""
    well.take(ill.fill(PeerBeatAck(), 2, "well"))
    assert well.ailments() == ill.ailments() == {}
    said[0] = "is ill again"
    well.take(ill.fill(PeerBeat(), 3, "well"))
    await clock.sleep(2.5)
    assert well.ailments() == {}


@virtually
async def test_a_beat_tells_how_far_the_senders_member_has_got() -> None:
    clock = VirtualClock()
    one, other = build_news("c1", clock, [""]), build_news("c2", clock, [""])
    other.take(one.fill(PeerBeat(), 1, "other"))
    assert other.progress.heard == {}, "not known yet"
    one.progress.own = Reached("a1", 7)
    other.take(one.fill(PeerBeat(), 2, "other"))
    assert other.progress.heard == {"c1": Reached("a1", 7)}


@virtually
async def test_callers_that_make_names_up_fill_no_memory() -> None:
    clock = VirtualClock()
    news = build_news("c1", clock, [""])
    for number in range(1000):
        beat = PeerBeat(coordinator_id=f"made-up-{number}", ailment="is ill")
        beat.progress.member_id = 1
        news.take(beat)
    assert len(news.told) <= 16
    assert len(news.progress.heard) <= 16
