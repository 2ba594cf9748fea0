"""Every finding there is: its words, its severity, and its cure. The manual (`docs/doctor.md`) is written from here.

`says` is what a person reads first; `cure` names the exact command where there is one; `why` is what happens if it is
left alone. Names in braces are filled in by the rule that finds it (`cluster_rules`, `space`, `datadir`, `host`).
"""

from __future__ import annotations

from cloudless.core.diagnosis.finding import Finding, Kind, Severity

_T, _W, _N = Severity.TROUBLE, Severity.WARNING, Severity.NOTE

# fmt: off
_REACH = (
    Kind("no-coordinator", _T, "none of the coordinators asked answers",
        "start them (`cloudless coordinator run`), or name where they are with `--coordinator HOST:PORT`; if they run, "
        "`cloudless cluster doctor --data-dir DIR` on their hosts says what keeps them from answering",
        "without coordinators nothing can be changed; tasks that run go on running"),
    Kind("coordinator-silent", _T, "{subject} does not answer",
        "start that coordinator, or look on its host with `cloudless cluster doctor --data-dir DIR`; if it is gone for "
        "good: `cloudless cluster remove {subject}`",
        "a cluster of three survives one that is silent, not two"),
    Kind("address-unanswered", _W, "nobody answers at {subject}",
        "correct the address (`--coordinator`, CLOUDLESS_COORDINATORS), or start the coordinator that belongs there",
        "an address that is wrong here is probably wrong in the settings of agents and coordinators too"),
    Kind("denied", _T, "{subject} does not let you in",
        "`cloudless login`, or choose another context (`cloudless context list`): a cluster shows itself to viewers",
        "what it knows cannot be judged"),
    Kind("not-a-coordinator", _T, "what answers at {subject} is no coordinator",
        "give the API address (CLOUDLESS_BIND_ADDR, 8080 if not set), not that of HTTP, metrics or etcd",
        "another program has the port, the address is that of another service, or only one side speaks TLS (see "
        "`cloudless context list`)"),
    Kind("waiting-to-form", _T, "{subject} does not belong to a cluster yet",
        "it waits for what the evidence says: start the others, or correct CLOUDLESS_RAFT_JOIN_ADDR",
        "a coordinator that waits serves nothing and does not vote"),
    Kind("two-clusters", _T, "the coordinators asked belong to different clusters",
        "ask each alone (`cloudless -c ADDRESS cluster status`), decide which one is right, stop the others, empty "
        "their data directories and let them join with CLOUDLESS_RAFT_JOIN_ADDR",
        "clients and agents that know both lists would see two truths"),
    Kind("no-quorum", _T, "the store has no quorum: {living} of {voters} voters answer",
        "start the missing coordinators ({missing}); if a majority is lost for good: `cloudless cluster recover`",
        "without a majority nothing can be written and reads are stale; tasks that run go on running"),
    Kind("no-leader", _T, "no coordinator leads, although the store answers",
        "wait ten seconds; if it stays so, look for `nospace` among these findings and into the coordinators' logs",
        "nothing is scheduled, replaced or promoted without a leader"),
    Kind("leader-flapping", _W, "the leader changed {count} times in the last {minutes} minutes",
        "look for slow-fsync, clock and network findings here; on slow disks or far networks set "
        "CLOUDLESS_PROFILE=slow-disk or wan on all coordinators",
        "each change costs up to a second without decisions; often a disk or network that cannot keep the pace"),
    Kind("links-missing", _W, "{subject} has no link to {missing}",
        "open the API port between the coordinators, or correct CLOUDLESS_ADVERTISE_ADDR of {missing}",
        "without links a dead leader is noticed only when its lease ends"),
)
_MEMBERS = (
    Kind("member-down", _T, "{subject} is a voter, but its etcd does not take part",
        "start it again; if it is gone for good: `cloudless cluster remove {subject}`",
        "the cluster works, but the loss of one more may stop it"),
    Kind("member-unanswered", _T, "the member list names {subject} at {address}, where nobody answers",
        "start the coordinator that belongs there, correct the address with `cloudless cluster update-member "
        "{subject} --raft-address HOST:PORT`, or remove the member: `cloudless cluster remove {subject}`",
        "it counts for the quorum all the same"),
    Kind("member-unstarted", _W, "member {subject} was added and has never started",
        "start the coordinator that asked to join; else remove it: `cloudless cluster remove {subject}`",
        "etcd takes one learner at a time: it blocks all other joins"),
    Kind("learner-stuck", _W, "{subject} is still a learner, {behind} log entries behind",
        "give it time if the number falls; else empty its data directory and start it again, or remove it: "
        "`cloudless cluster remove {subject}`",
        "a learner has no vote and blocks other joins"),
    Kind("member-lagging", _W, "{subject} is {behind} log entries behind the others",
        "look for its disk (slow-fsync) and its network; it catches up by itself once these can keep the pace",
        "if another member is lost while it lags, writes wait for it"),
    Kind("member-removed", _T, "the cluster has removed the member of {subject}",
        "stop it for good; or empty its data directory and start it with CLOUDLESS_RAFT_JOIN_ADDR to join anew",
        "a removed member never takes part again"),
    Kind("few-voters", _W, "{voters} voter(s): the loss of one stops the cluster",
        "add coordinators until there are three: `cloudless cluster join` says how", "three survive the loss of one"),
    Kind("even-voters", _N, "{voters} voters survive no more losses than {fewer}",
        "add one or remove one", "an even number costs a write more answers and gains nothing"),
    Kind("etcd-restarts", _W, "the etcd of {subject} was started again {count} times",
        "read its last words above and the end of etcd.log in its data directory",
        "an etcd in a loop of crashes takes no part in the quorum most of the time"),
    Kind("profiles-differ", _W, "the coordinators run with different timing profiles",
        "set the same CLOUDLESS_PROFILE on all and restart them one after the other",
        "the quicker ones call elections that the slower ones do not expect"),
    Kind("ailing", _T, "{subject} {words}", "follow the other findings about {subject}; its log has the rest",
        "what a coordinator says of its own store"),
)
_SPACE = (
    Kind("nospace", _T, "the store's space is used up: it takes no writes (alarm NOSPACE)",
        "`cloudless cluster hygiene run` compacts, defragments and disarms the alarm; if it says that too much is in "
        "use, delete workloads or raise CLOUDLESS_ETCD_QUOTA_MB on all coordinators, restart them one by one, and run "
        "it again",
        "no lease is granted either: without one no new leader can be elected"),
    Kind("writes-refused", _T, "writes are refused to keep room for the cluster's own: {used} of {quota} in use",
        "delete what is not needed, then `cloudless cluster hygiene run`; or raise CLOUDLESS_ETCD_QUOTA_MB on all "
        "coordinators and restart them one by one",
        "leases and leader's work need the last tenth: a cluster that could not elect would be worse"),
    Kind("near-quota", _W, "the store of {subject} uses {percent} % of its quota",
        "`cloudless cluster hygiene run` frees what is only history; else delete workloads or raise "
        "CLOUDLESS_ETCD_QUOTA_MB on all coordinators",
        "at 90 % users' writes are refused, at 100 % etcd takes none at all"),
    Kind("quota-forecast", _W, "at this pace the store's quota is used up in {hours}",
        "find out what writes so much (`cloudless events`), or raise CLOUDLESS_ETCD_QUOTA_MB on all coordinators",
        "a forecast from how the store grew in the last hours"),
    Kind("fragmented", _N, "of {size} on the disk of {subject} only {used} are in use",
        "the leader defragments when it pays and all members are well; now: `cloudless cluster hygiene run`",
        "free pages are used again, but the file counts against the quota"),
    Kind("corrupt", _T, "etcd says that members' data differ (alarm CORRUPT)",
        "`cloudless cluster digest` shows who differs; stop that coordinator, empty its data directory and start it "
        "again: its member is replaced",
        "reads from the damaged member are wrong"),
)
_VERSIONS = (
    Kind("version-skew", _W, "coordinators of different versions run: {versions}",
        "finish the upgrade: `cloudless cluster upgrade --check` names the order",
        "fine for the time of an upgrade, not for good"),
    Kind("upgrade-unfinished", _N, "all coordinators run {version}, but the feature level is {level}",
        "`cloudless cluster upgrade --finish`, once you are sure not to go back to {level}",
        "what the new version brought is not used yet, and the version after it is refused"),
    Kind("etcd-skew", _T, "etcd versions more than one minor apart run: {versions}",
        "upgrade the oldest one minor at a time: `cloudless cluster upgrade --check`",
        "etcd promises nothing across two minors"),
    Kind("etcd-refused", _T, "{subject} runs etcd {version}: {reason}",
        "install another etcd and name it with CLOUDLESS_ETCD_BIN, then restart the coordinator",
        "releases that lost or mixed up data"),
    Kind("etcd-degraded", _W, "{subject} runs etcd {version}: {reason}",
        "install a current etcd and name it with CLOUDLESS_ETCD_BIN, then restart the coordinator",
        "releases with faults that a bad day brings out"),
    Kind("etcd-old", _N, "{subject} runs etcd {version}: {reason}",
        "plan an upgrade to a current release of its line", "works, with known faults that seldom matter"),
)
_STATE = (
    Kind("digest-differs", _T, "the coordinators' states differ at revision {revision}",
        "`cloudless cluster digest` shows who is alone; restart that one: its data are put aside and its member is "
        "replaced",
        "a database is damaged: reads differ by whom one asks"),
    Kind("quarantined", _W, "{count} stored value(s) cannot be read and are ignored",
        "write the objects again (`cloudless workload apply`), or delete the keys with etcdctl; after a newer version "
        "was tried, go back to it",
        "tasks whose record cannot be read are left running"),
    Kind("no-ready-node", _T, "no node is READY ({total} known), so nothing can be placed",
        "start agents (`cloudless agent run`), uncordon nodes (`cloudless node uncordon NODE`), or see why they are "
        "away: `cloudless node list`",
        "workloads wait until there is a node"),
    Kind("nodes-offline", _W, "{away} of {total} nodes are not READY",
        "`cloudless node list` names them; start their agents, or remove what is gone",
        "less room for tasks than it seems"),
    Kind("stale", _T, "the state of {subject} is {staleness} old",
        "its own etcd is cut off or slow: look at the findings about its member, disk and network",
        "reads there are old, and its agents go elsewhere"),
    Kind("clock-skew", _W, "the clock of {subject} is {offset} {direction} of this host's",
        "synchronise the clocks (chrony, systemd-timesyncd) on both",
        "elections do not depend on clocks; certificates, events and ages do"),
)
_DISK = (
    Kind("disk-full", _T, "the disk of {subject} is nearly full: {free} free of {total}",
        "make room on {path}, or move the data directory to a larger disk; put-aside directories (etcd.*-*) may be "
        "deleted",
        "etcd ends when it cannot write its log"),
    Kind("disk-low", _W, "the disk of {subject} has {free} free of {total}",
        "make room on {path} before it is full", "etcd ends when it cannot write its log"),
    Kind("inodes-low", _W, "the file system of {subject} has {free} free inodes of {total}",
        "delete small files on {path}", "no file can be made without one"),
    Kind("slow-fsync", _W, "durable writes on {subject} take {p50} ms (median; the slowest {p99} ms)",
        "use a disk of its own, or a faster one; until then set CLOUDLESS_PROFILE=slow-disk on all coordinators",
        "a disk slower than the heartbeat costs etcd its leadership again and again"),
    Kind("read-only", _T, "{path} cannot be written to", "mount it read-write, or set CLOUDLESS_DATA_DIR elsewhere",
        "neither coordinator nor agent can start"),
)
_DATADIR = (
    Kind("datadir-missing", _T, "there is no data directory at {path}",
        "name the right one with --data-dir (CLOUDLESS_DATA_DIR of that coordinator)", ""),
    Kind("datadir-unreadable", _T, "{path} cannot be read: {reason}",
        "run this as the user the coordinator runs as", ""),
    Kind("data-lost", _T, "{subject} once was a member, but etcd's data are gone",
        "put the data back if they were moved; else start it with CLOUDLESS_RAFT_JOIN_ADDR naming the others: it joins "
        "in place of the lost member. If most members lost theirs: `cloudless cluster recover` or a snapshot",
        "started as if it were new it could vote twice, so it waits or joins anew"),
    Kind("data-foreign", _T, "{path} holds etcd data without this node's marker (member.json)",
        "give the coordinator an empty directory (CLOUDLESS_DATA_DIR), or bring back the member.json that belongs here",
        "data of a member that this coordinator did not make"),
    Kind("data-of-another", _T, "{path} is the data directory of {subject}, not of {expected}",
        "set CLOUDLESS_NODE_ID={subject}, or give {expected} its own directory",
        "two nodes under one identity take each other's place for ever"),
    Kind("data-outdated", _T, "the data of {subject} are older than they must be: {reason}",
        "start the coordinator: it puts them aside and joins anew if the others have a quorum; or put newer data back",
        "a member that forgot what it acknowledged must not vote"),
    Kind("data-doubted", _T, "the data of {subject} are damaged: {reason}",
        "start the coordinator: the data are put aside and its member is replaced",
        "a majority contradicted its state"),
    Kind("marker-unreadable", _T, "the marker (member.json) in {path} cannot be understood: {reason}",
        "restore it from a copy, or remove the member (`cloudless cluster remove NODE`) and start with an empty "
        "directory",
        "without it nobody knows whose data these are"),
    Kind("permissions", _W, "{path} is open to others (mode {mode})", "`chmod {wanted} {path}`",
        "the store holds everything, secrets too"),
    Kind("wrong-owner", _T, "{path} belongs to {owner}, not to the user who asks",
        "`chown -R` it to the user the coordinator runs as, or run this as that user",
        "the coordinator cannot write there"),
    Kind("put-aside", _N, "{path} was put aside ({size})",
        "delete it when you no longer need it", "data of an earlier member, kept in case somebody wants them"),
    Kind("strays", _N, "{path} holds files that are not a coordinator's: {names}",
        "move them elsewhere: the directory belongs to one coordinator", ""),
    Kind("orphaned-etcd", _T, "an etcd (pid {pid}) runs on {path}, but no coordinator supervises it",
        "start the coordinator: it adopts that etcd; or end it with `kill {pid}`",
        "it votes and serves, but nobody restarts it, and its coordinator's API is away"),
    Kind("etcd-older-than-data", _T, "etcd {version} is older than {writer}, which last wrote {path}",
        "use etcd {writer} or newer: CLOUDLESS_ETCD_BIN", "an older etcd misreads the data or stops"),
    Kind("etcd-said", _W, "etcd's last words in {path}: {words}",
        "if they speak of damage (crc mismatch, panic): empty etcd/ in it and start again, the member is replaced",
        "why etcd ended last"),
    Kind("in-use", _N, "{path} is in use by {owner}", "nothing: its coordinator runs", ""),
)
_HOST = (
    Kind("settings-refused", _T, "the settings in this environment are refused: {problem}",
        "correct or unset that variable; the README lists all", "a coordinator or agent ends at once with them"),
    Kind("nobody-to-join", _T, "none of the coordinators that the new {role} is to join answers",
        "start them first, or correct {variable}", "it would wait for them for ever"),
    Kind("id-taken", _T, "a living coordinator has the id {subject} already", "give this one its own CLOUDLESS_NODE_ID",
        "two nodes under one identity take each other's place for ever"),
    Kind("version-apart", _T, "this host has {what} {version}, the cluster runs {others}",
        "install the cluster's version here, or upgrade the cluster first: `cloudless cluster upgrade --check`",
        "more than one minor version apart nothing is promised"),
    Kind("port-taken", _T, "port {address} for {purpose} is in use by {owner}",
        "stop that process, or choose another port", "the process would not start"),
    Kind("local-no-leader", _T, "the etcd on {path} runs but knows no leader",
        "start the other coordinators: it needs a majority; if that is lost for good: `cloudless cluster recover`",
        "it cannot serve without a majority of its cluster"),
    Kind("no-etcd", _T, "no etcd fit to run was found: {reason}",
        "install etcd 3.5.28 or newer, or name one with CLOUDLESS_ETCD_BIN; `python -m etcd --fetch` tries to fetch "
        "one",
        "a coordinator cannot start without"),
    Kind("memory-low", _W, "{free} of memory are free; a {role} wants {wanted}",
        "give this host more memory, or move something away", "the kernel ends processes when there is none left"),
    Kind("memory-limit", _W, "the control group allows {limit} of memory; a {role} wants {wanted}",
        "raise the limit (MemoryMax, --memory)", "the kernel ends processes at the limit"),
    Kind("swapping", _W, "{used} are swapped out", "give this host more memory, or turn swap off for the coordinators",
        "an etcd that waits for swap misses heartbeats"),
    Kind("open-files", _W, "a process of {subject} may open {limit} files only",
        "raise it to 65536 (`ulimit -n`, LimitNOFILE=)", "each agent and client takes one"),
    Kind("clock-unsynchronised", _W, "this host's clock is not synchronised",
        "run chrony or systemd-timesyncd", "certificates and events depend on it"),
    Kind("name-unresolved", _T, "{name} does not resolve on this host",
        "correct the name, DNS or /etc/hosts; or use an address", "others cannot reach what cannot be resolved"),
    Kind("advertises-loopback", _N, "{name} is told to the others, but only this host can reach it",
        "set CLOUDLESS_ADVERTISE_ADDR and CLOUDLESS_RAFT_ADDR to addresses of this host",
        "fine for a cluster on one host"),
)
# fmt: on

GROUPS: tuple[tuple[str, tuple[Kind, ...]], ...] = (
    ("Who answers, who leads", _REACH),
    ("Members", _MEMBERS),
    ("Space in the store", _SPACE),
    ("Versions", _VERSIONS),
    ("State, nodes and clocks", _STATE),
    ("Disks", _DISK),
    ("A data directory", _DATADIR),
    ("This host", _HOST),
)
KINDS: dict[str, Kind] = {kind.code: kind for _, kinds in GROUPS for kind in kinds}


def find(code: str, subject: str = "", *evidence: str, **names: object) -> Finding:
    """Return a finding of the kind `code`, its words filled in with `subject` and `names`."""
    kind = KINDS[code]
    filled = {**names, "subject": subject}
    return Finding(code, kind.severity, subject, kind.says.format(**filled), tuple(filter(None, evidence)),
                   kind.cure.format(**filled))  # fmt: skip
