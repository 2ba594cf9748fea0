"""What is wrong with this coordinator's own store, in words: shown in its status, and told to the others on each beat.

Without that, two coordinators that are well would call a cluster well whose third member is down.
"""

from __future__ import annotations

from cloudless.adapters.member.supervisor import MemberState, Phase

STALE_S = 3.0
_WORDS_LENGTH_MAX = 200


def describe_ailment(member: MemberState, staleness_s: float) -> str:
    """Return what goes after "coordinator-1 …", "" if nothing is wrong.

    `staleness_s`: since the coordinator's state was last known to be complete.
    """
    if member.phase is Phase.BACKOFF:
        words = f": {member.last_words[:_WORDS_LENGTH_MAX]}" if member.last_words else ""
        return f"has no etcd: {member.last_exit}, {member.restarts} restarts{words}"
    return f"is cut off from the store for {staleness_s:.0f} s" if staleness_s > STALE_S else ""
