"""What every field of a manifest means, for people: form, unit and default.

A test compares the paths with what `text` writes, so that no field is without an entry and no entry without a field.
`[]` stands for each item of a list. The default of a field that stands alone comes from the model.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One field below `spec`. `form` says what may be written; `default` is given for fields of list items only."""

    path: str
    form: str
    meaning: str
    default: str = ""


DURATION = "duration"

GROUPS: tuple[tuple[str, tuple[Entry, ...]], ...] = (
    (
        "What runs",
        (
            Entry("executor", "`process` or `docker`", "What runs the task. With an image, and no executor: `docker`."),
            Entry("image", "text", "The container image. For the docker executor, which requires it."),
            Entry(
                "imagePullPolicy",
                "`ALWAYS`, `IF_NOT_PRESENT` or `NEVER`",
                "When a node fetches the image: before each attempt, if it has none, or never. Docker executor only.",
            ),
            Entry("command", "list of texts", "The program and its arguments. The process executor requires it."),
            Entry("args", "list of texts", "More arguments, after those of `command`."),
            Entry("env", "mapping", "Environment variables; numbers and true or false may be written without quotes."),
            Entry("ports", "list, at most 64", "The ports the task listens on."),
            Entry(
                "ports[].name",
                "name, at most 32 characters",
                "`$(CLOUDLESS_PORT_<NAME>)` in command, args and env becomes its number, as the variable of that name.",
                "required",
            ),
            Entry("ports[].hostPort", "0 to 65535", "The number on the node; 0: the agent chooses a free one.", "0"),
            Entry(
                "ports[].containerPort",
                "0 to 65535",
                "The number inside the container; 0: the same as on the node. Docker executor only.",
                "0",
            ),
            Entry("ports[].protocol", "`tcp` or `udp`", "A udp port cannot be probed.", "tcp"),
            Entry("volumes", "list, at most 64", "Directories the task finds under paths of its own."),
            Entry("volumes[].name", "name, at most 32 characters", "Unique among the volumes.", "required"),
            Entry("volumes[].mountPath", "absolute path", "Where the task sees it.", "required"),
            Entry(
                "volumes[].hostPath",
                "absolute path",
                "A directory of the node. Without: an empty one of the task's own, which goes with the task.",
                "none",
            ),
            Entry("volumes[].readOnly", "true or false", "The task cannot write to it. With `hostPath` only.", "false"),
            Entry(
                "volumes[].size",
                "amount",
                "What a directory of the task's own may hold; 0: unbounded. Without `hostPath` only.",
                "0",
            ),
        ),
    ),
    (
        "Resources",
        (
            Entry(
                "resources.requests.cpu",
                "cores or millicores",
                "What a task is sure to get; where it is placed, this is free.",
            ),
            Entry("resources.requests.memory", "amount", "As above. Left out, it is no more than the limit."),
            Entry("resources.requests.storage", "amount", "Room on the node's disk."),
            Entry("resources.requests.bandwidth", "Mbit/s, whole number", "Share of the node's network."),
            Entry("resources.requests.gpu", "0 to 64", "Graphics processors."),
            Entry(
                "resources.limits.cpu", "cores or millicores", "A task gets no more; 0: no limit. At least the request."
            ),
            Entry(
                "resources.limits.memory",
                "amount",
                "A task that takes more is ended; 0: no limit. At least the request.",
            ),
            Entry("resources.limits.pids", "0 to 4194304", "Processes and threads of a task; 0: no limit."),
        ),
    ),
    (
        "How many",
        (
            Entry(
                "mode",
                "`REPLICATED` or `PER_NODE`",
                "`replicas` tasks, or one on each node that fits: then without `replicas` and `spreadTopology`.",
            ),
            Entry("replicas", "0 to 10000", "How many tasks."),
            Entry("priority", "-1000 to 1000", "Where room is short, tasks of higher priority are placed first."),
        ),
    ),
    (
        "Where",
        (
            Entry("placement.regions", "list of texts", "Only nodes of these regions; none: all."),
            Entry("placement.zones", "list of texts", "Only nodes of these zones; none: all."),
            Entry("placement.nodeSelector", "mapping", "Only nodes with all these labels."),
            Entry(
                "placement.spreadTopology",
                "`none`, `node`, `zone` or `region`",
                "Over what tasks are spread evenly, before anything else; `none` packs them tightly.",
            ),
            Entry("placement.tolerations", "list, at most 32", "Taints of nodes that the tasks put up with."),
            Entry(
                "placement.tolerations[].key",
                "label name",
                "The taint's key; without, `EXISTS` holds for every taint.",
                "none",
            ),
            Entry(
                "placement.tolerations[].operator",
                "`EQUAL` or `EXISTS`",
                "`EQUAL`: key and value are the taint's. `EXISTS`: the key is.",
                "EQUAL",
            ),
            Entry("placement.tolerations[].value", "text", "With `EQUAL` only.", "empty"),
            Entry(
                "placement.tolerations[].effect",
                "`NO_SCHEDULE`, `PREFER_NO_SCHEDULE` or `NO_EXECUTE`",
                "Only taints of this effect; without: of every effect.",
                "none",
            ),
            Entry(
                "placement.affinity.nodes.required", "list, at most 32", "Only nodes for which all these terms hold."
            ),
            Entry("placement.affinity.nodes.required[].key", "label name", "A label of the node.", "required"),
            Entry(
                "placement.affinity.nodes.required[].operator",
                "`IN`, `NOT_IN`, `EXISTS` or `DOES_NOT_EXIST`",
                "How the label compares; `NOT_IN` also holds for a node without it.",
                "IN",
            ),
            Entry(
                "placement.affinity.nodes.required[].values", "list of texts", "With `IN` and `NOT_IN` only.", "none"
            ),
            Entry(
                "placement.affinity.nodes.preferred",
                "list, at most 32",
                "Rather nodes for which these terms hold; fields as above, and:",
            ),
            Entry("placement.affinity.nodes.preferred[].weight", "1 to 100", "How much it counts.", "1"),
            Entry(
                "placement.affinity.workloads.required",
                "list, at most 32",
                "Only near a task of each of these workloads of the same namespace.",
            ),
            Entry(
                "placement.affinity.workloads.required[].workload",
                "name",
                "The workload; or else `labels`, never both.",
                "none",
            ),
            Entry(
                "placement.affinity.workloads.required[].labels", "mapping", "All workloads with these labels.", "none"
            ),
            Entry(
                "placement.affinity.workloads.required[].topology",
                "`node`, `zone` or `region`",
                "How near: the same node, zone or region.",
                "node",
            ),
            Entry(
                "placement.affinity.workloads.preferred",
                "list, at most 32",
                "Rather near tasks of these workloads; fields as above, and `weight`.",
            ),
            Entry(
                "placement.antiAffinity.workloads.required",
                "list, at most 32",
                "Not near any task of these workloads; fields as above. The task's own workload may be named.",
            ),
            Entry(
                "placement.antiAffinity.workloads.preferred",
                "list, at most 32",
                "Rather not near tasks of these workloads; fields as above, and `weight`.",
            ),
        ),
    ),
    (
        "How it is watched and ended",
        (
            Entry(
                "livenessProbe", "probe", "A task for which it fails is ended; the restart policy decides what follows."
            ),
            Entry("readinessProbe", "probe", "A task for which it fails runs on, but is not available."),
            Entry(
                "restartPolicy.policy",
                "`ALWAYS`, `ON_FAILURE` or `NEVER`",
                "When a task that ended by itself is started again. `restartPolicy: NEVER` says the same.",
            ),
            Entry(
                "restartPolicy.maxRetries",
                "0 to 1000",
                "Restarts in a row without a stable minute between them; 0: no limit.",
            ),
            Entry(
                "restartPolicy.backoff",
                DURATION,
                "Wait before the first restart; doubled for each further one, at most 60 s.",
            ),
            Entry("stopGrace", DURATION, "Time between the polite signal and the final one."),
            Entry("lostAfter", DURATION, "How long a task of an unreachable node stays unknown before it is replaced."),
            Entry(
                "reconcile",
                "`KEEP_ORIGINAL`, `KEEP_REPLACEMENT` or `BEST`",
                "Which task stays when a node returns whose task was replaced meanwhile.",
            ),
            Entry(
                "stopAfter",
                DURATION,
                "How long a task whose agent reaches no coordinator goes on before the agent stops it; 0: for ever.",
            ),
        ),
    ),
    (
        "A probe (`livenessProbe` has the same fields)",
        (
            Entry(
                "readinessProbe.http",
                "mapping",
                "GET; a status from 200 to 399 is success. One of `http`, `tcp`, `exec`.",
                "none",
            ),
            Entry("readinessProbe.http.port", "name of a declared port", "Where to ask.", "required"),
            Entry("readinessProbe.http.path", "path", "What to ask for.", "/"),
            Entry("readinessProbe.tcp", "mapping", "A connection that opens is success.", "none"),
            Entry("readinessProbe.tcp.port", "name of a declared port", "Where to connect.", "required"),
            Entry("readinessProbe.exec", "mapping", "A program that ends with exit code 0 is success.", "none"),
            Entry("readinessProbe.exec.command", "list of texts", "The program and its arguments.", "required"),
            Entry("readinessProbe.initialDelay", DURATION, "From the start of the attempt to the first try.", "0"),
            Entry("readinessProbe.period", DURATION, "Between two tries; at least 0.1 s.", "10"),
            Entry("readinessProbe.timeout", DURATION, "A try that takes longer failed; at least 0.05 s.", "1"),
            Entry(
                "readinessProbe.successThreshold",
                "1 to 100",
                "Successes in a row to pass; 1 for a liveness probe.",
                "1",
            ),
            Entry("readinessProbe.failureThreshold", "1 to 100", "Failures in a row to fail.", "3"),
        ),
    ),
    (
        "How it changes",
        (
            Entry(
                "rollout.strategy",
                "`ROLLING_UPDATE`, `RECREATE`, `BLUE_GREEN` or `CANARY`",
                "A few at a time; all old ones end first; all new ones beside all old ones; some new ones first.",
            ),
            Entry(
                "rollout.maxSurge",
                "number or percentage",
                "Tasks that may exist beyond `replicas`; a percentage of them is rounded up.",
            ),
            Entry(
                "rollout.maxUnavailable",
                "number or percentage",
                "Tasks that may be missing; a percentage is rounded down.",
            ),
            Entry(
                "rollout.minAvailable",
                "number or percentage",
                "Tasks that must stay available, instead of `maxUnavailable`; a percentage is rounded up.",
            ),
            Entry("rollout.batchSize", "0 to 10000", "Tasks changed at a time; 0: as many as the bounds above allow."),
            Entry("rollout.pauseDuration", DURATION, "Between two batches."),
            Entry("rollout.minReady", DURATION, "How long a new task must be ready before it counts."),
            Entry(
                "rollout.progressDeadline",
                DURATION,
                "A rollout that comes no further for so long has failed; 0: never.",
            ),
            Entry("rollout.autoRollback", "true or false", "What was before is put back when a rollout failed."),
            Entry("rollout.canary", "0 to 10000", "How many new tasks `CANARY` tries first; required by it."),
            Entry(
                "rollout.autoPromote",
                "true or false",
                "`CANARY` and `BLUE_GREEN` go on once the new tasks are ready, and wait for nobody.",
            ),
        ),
    ),
    (
        "What it may do",
        (
            Entry(
                "securityContext.runAsUser",
                "0 to 2147483647",
                "Numeric user id. Without: what the executor or the image says.",
            ),
            Entry(
                "securityContext.runAsGroup",
                "0 to 2147483647",
                "Numeric group id. Without, a process has the group that its user has on the node.",
            ),
            Entry(
                "securityContext.readOnlyRoot",
                "true or false",
                "The task can write to its volumes, and a process to its home and tmp, only.",
            ),
            Entry(
                "securityContext.capabilities.add", "list", "As in capabilities(7), with or without `CAP_`, or `ALL`."
            ),
            Entry("securityContext.capabilities.drop", "list", "As above; those dropped go before those added come."),
            Entry("securityContext.privateTmp", "true or false", "The task has a /tmp of its own."),
            Entry(
                "securityContext.rlimits",
                "mapping",
                "Limits per process by their names in setrlimit(2), like `nofile: 1024`, with the units there.",
            ),
            Entry(
                "securityContext.rlimits.*.soft",
                'number or "unlimited"',
                "The limit in force, where it differs from `hard`.",
                "required",
            ),
            Entry(
                "securityContext.rlimits.*.hard", 'number or "unlimited"', "How far the task may raise it.", "required"
            ),
        ),
    ),
)

ENTRIES: tuple[Entry, ...] = tuple(entry for _, entries in GROUPS for entry in entries)
