"""Every fault this software promises something about: its number, and the promise in one sentence.

The list is the contract; the tests that carry a number (see `rig.scenario`) are the proof. A row that waits names the
feature without which its fault cannot happen here: it has no test, and turns red when somebody writes one and forgets
to take the word "waiting" away.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One row. `group` is a heading of the table; `waiting_for` is empty if the fault is tested."""

    number: int
    group: str
    promise: str
    waiting_for: str = ""


_ROWS: tuple[tuple[str, tuple[tuple[int, str, str], ...]], ...] = (
    (
        "Process",
        (
            (1, "kill -9 the leader, with its etcd or alone: a new leader inside the bound, tasks untouched", ""),
            (2, "freeze the leader past its lease: its first write is fenced, it steps down before it commands", ""),
            (3, "kill -9 the etcd of the leader's host: restarted with back-off, nothing acknowledged is lost", ""),
            (4, "freeze an etcd: detected by time-out, not reported healthy, clients move", ""),
            (5, "etcd in a crash loop: capped back-off, a clear state, no spinning", ""),
            (6, "kill -9 an agent: tasks run on and are adopted by id and start time, none restarted", ""),
            (7, "freeze an agent past its limit: marked lost and replaced; thawed, it reconciles", ""),
            (8, "kill -9 a task: restarted with back-off, its end reported once", ""),
            (9, "a crash at each write of every multi-write operation: the next run completes or undoes it", ""),
            (10, "a pid given away after a reboot: a stranger is neither adopted nor killed", ""),
        ),
    ),
    (
        "Network",
        (
            (11, "the leader's host isolated: it stops leading in time, the majority elects, its late writes fail", ""),
            (12, "one-way loss, either direction: at most one effective leader, no endless flapping", ""),
            (13, "only etcd's peer traffic cut: the minority coordinator says it is stale and sheds its agents", ""),
            (14, "a leader cut from every etcd: it steps down, another takes over", ""),
            (15, "agents cut from all coordinators: tasks run on, then resync from the revision they had", ""),
            (16, "an agent that reaches only a lagging coordinator is never served below what it has seen", ""),
            (17, "loss, 200 ms delay, reordering: slower, never wrong", ""),
            (18, "half-open TCP: detected inside keep-alive and time-out, on both sides", ""),
            (19, "a partition that flaps every 2 s: bounded elections, and it converges", ""),
        ),
    ),
    (
        "Disk and time",
        (
            (20, "fsync stalls on etcd's leader: leadership moves", ""),
            (21, "disk full on one member: the others serve, it is shown, it recovers with space", ""),
            (22, "quota used up everywhere: reads work, writes get a typed error, the named cure works", ""),
            (23, "a bit flip or a truncated log on one member: it refuses to start or is replaced", ""),
            (24, "a corrupt backup: restore refuses", ""),
            (25, "the data of one member deleted: removed and added anew, never started as new", ""),
            (26, "two of three deleted: no empty cluster is formed, a restore is asked for", ""),
            (27, "an old copy of a data directory put back: detected, the member is replaced", ""),
            (28, "the wall clock off by an hour or a day: elections and time-outs unaffected", ""),
            (29, "an agent's disk full or read-only: reported, nothing claimed to be started, no crash loop", ""),
        ),
    ),
    (
        "Life of a cluster",
        (
            (30, "everything killed at once under load, started in any order: all acknowledged data is there", ""),
            (31, "two of three down: reads marked stale or refused, writes fail fast, recovery by itself", ""),
            (32, "two of three lost for good: one guided `recover`, agents resync, no mass kill of tasks", ""),
            (33, "a member replaced under load: learner, then voter; a healthy quorum is never lowered", ""),
            (34, "a removed member started again: it ends with a clear message", ""),
            (35, "addresses change: a documented flow without loss of quorum", ""),
            (36, "rolling upgrade with mixed versions under load: no downtime", ""),
            (37, "1, then 3, then 5, then 3 members, under load", ""),
        ),
    ),
    (
        "Clients and load",
        (
            (38, "compaction while partitioned longer than the history: full resync, deletions included", ""),
            (39, "a slow watcher or agent: bounded memory, ended with a resync code, catches up", ""),
            (40, "every agent reconnects at once after a leader's death: jitter and admission, no lease lost", ""),
            (41, "the same request twice, reordered, or across a failover: one effect, the same answer", ""),
            (42, "an answer lost after the commit: a retry returns it", ""),
            (43, "oversized, malformed, deep or bomb-like input: a typed error, constant memory", ""),
            (44, "more keys than a transaction takes, or more than 1.5 MiB: split safely or refused up front", ""),
            (45, "1,000 status changes a second from one task: conflated, others' latency inside the bound", ""),
            (46, "a corrupt value written by hand: that object set aside and shown, the coordinator runs on", ""),
        ),
    ),
    (
        "Security",
        (
            (47, "a certificate expires while connected or down: renewed, or a clear error and a way back", ""),
            (48, "rotation of the certificate authority under load: no task dropped, the old one refused", ""),
            (49, "an expired, revoked, wrong-role or replayed token: at most one join", ""),
            (50, "an agent's certificate used for a coordinator's call or another node: denied, audited", ""),
            (51, "a wrong authority hash when joining: stops before the secret is sent", ""),
            (52, "1,000 idle or slow TLS handshakes: agents unaffected", ""),
        ),
    ),
    (
        "Runtime",
        (
            (53, "the docker daemon restarted: listed anew by label, no duplicates", ""),
            (54, "docker hangs: a time-out per call, only its own tasks are unknown", ""),
            (55, "a port taken: a named error at the start, never shared in silence", ""),
            (56, "a task that ignores SIGTERM or leaves grandchildren: the whole group ends after the grace", ""),
            (57, "two coordinators with one data directory or one id: the second refuses", ""),
        ),
    ),
)

FAULTS: tuple[Fault, ...] = tuple(
    Fault(number, group, promise, waiting_for) for group, rows in _ROWS for number, promise, waiting_for in rows
)
BY_NUMBER = {fault.number: fault for fault in FAULTS}
