"""How a member is, in one word: for people, and for what `cluster members` and `autopilot get` show.

::

    voters     healthy      its coordinator answers and its etcd works
               ailing       it answers, and says that its etcd does not
               silent       it does not answer the coordinator asked, but holds its lease in the store
               dead         nothing speaks for it
    learners   catching-up  not yet within the lag allowed
               standby      ready to vote when it is wanted
               silent       it does not answer
    either     starting     added, and not started yet
"""

from __future__ import annotations

from cloudless.core.membership.observed import MemberView


def describe_health(member: MemberView, lag: int | None, lag_max: int) -> str:
    """Return the word for a member; `lag` in raft entries, None if it is not known."""
    if not member.started:
        return "starting"
    if member.learner:
        if not member.linked:
            return "silent"
        return "standby" if lag is not None and lag <= lag_max else "catching-up"
    if member.ailment and (member.linked or member.registered):
        return "ailing"
    if member.linked:
        return "healthy"
    return "silent" if member.registered else "dead"
