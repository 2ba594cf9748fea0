"""Whether there is room for what users write.

The last tenth of the quota is kept for what the cluster cannot do without: leases, the election, reports of tasks, and
the deletions that make room. At the quota itself etcd refuses leases too: a cluster whose leader then dies has none.
It would not even stop there by itself: etcd does not count what is put by nested transactions (server/storage/quota.go,
`costTxnReq`), and that is how group commit writes. So this is the limit that holds.
"""

from __future__ import annotations

from cloudless.core.diagnosis.amounts import size

USERS_SHARE = 0.9
TOO_MUCH_IN_USE = "delete workloads, or raise CLOUDLESS_ETCD_QUOTA_MB on all coordinators and restart them one by one"
CURE = "`cloudless cluster doctor` names the cure"


def find_shortage(in_use_bytes: int, quota_bytes: int, nospace: bool) -> str:
    """Return why users' writes must be refused now, "" if there is room. A `quota_bytes` of 0 is not known."""
    if nospace:
        return "the store's space is used up (alarm NOSPACE)"
    if quota_bytes and in_use_bytes >= USERS_SHARE * quota_bytes:
        return f"{size(in_use_bytes)} of the store's {size(quota_bytes)} are in use; the rest is kept for the cluster"
    return ""
