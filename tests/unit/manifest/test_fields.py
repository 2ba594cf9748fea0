"""Each topic of a manifest is read as its users write it, and what does not fit together is said in plain words."""

from __future__ import annotations

from typing import Any

import pytest

from cloudless.core.model import (
    NodeOperator,
    NodeTerm,
    Probe,
    ProbeKind,
    Resources,
    RestartCondition,
    Rollout,
    RolloutStrategy,
    TaintEffect,
    Toleration,
    TolerationOperator,
)
from tests.unit.manifest.samples import read

PORTS = [{"name": "http"}, {"name": "dns", "protocol": "UDP"}]


def process(**spec: Any) -> dict[str, Any]:
    return {"command": ["a"], "ports": PORTS, **spec}


def docker(**spec: Any) -> dict[str, Any]:
    return {"image": "i", **spec}


def test_probes_may_be_spelled_as_in_kubernetes() -> None:
    ours = {"http": {"path": "/ok", "port": "http"}, "initialDelay": "5s", "period": 2, "timeout": "500ms"}
    theirs = {
        "httpGet": {"path": "/ok", "port": "http"},
        "initialDelaySeconds": 5,
        "periodSeconds": 2,
        "timeout_seconds": 0.5,
    }
    spec, problems = read(process(readinessProbe=theirs, livenessProbe={"tcp_socket": {"port": "http"}}))
    assert problems == []
    assert spec == read(process(readinessProbe=ours, livenessProbe={"tcp": {"port": "http"}}))[0]
    assert spec.readiness_probe == Probe(
        kind=ProbeKind.HTTP, path="/ok", port="http", initial_delay_s=5.0, period_s=2.0, timeout_s=0.5
    )


def test_words_may_be_spelled_as_in_kubernetes() -> None:
    spec, problems = read(
        docker(
            imagePullPolicy="IfNotPresent",
            restartPolicy="OnFailure",
            placement={
                "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "affinity": {"nodes": {"required": [{"key": "disk", "operator": "NotIn", "values": ["hdd"]}]}},
            },
            securityContext={"readOnlyRootFilesystem": True, "capabilities": {"add": ["CAP_NET_ADMIN", "sys_time"]}},
            rollout={"minReadySeconds": 3, "maxSurge": "25%"},
        )
    )
    assert problems == []
    assert spec.restart_policy.condition is RestartCondition.ON_FAILURE
    assert spec.placement.tolerations == (
        Toleration(key="gpu", operator=TolerationOperator.EXISTS, effect=TaintEffect.NO_SCHEDULE),
    )
    assert spec.placement.node_affinity == (NodeTerm(key="disk", operator=NodeOperator.NOT_IN, values=("hdd",)),)
    assert spec.security_context.read_only_root
    assert spec.security_context.add_capabilities == ("NET_ADMIN", "SYS_TIME")
    assert spec.rollout == Rollout(max_surge=0, max_surge_percent=25, min_ready_s=3.0)


def test_a_request_that_is_left_out_is_no_more_than_its_limit() -> None:
    spec, problems = read(process(resources={"limits": {"cpu": "50m", "memory": "1Gi"}}))
    assert problems == []
    assert spec.requests == Resources(cpu_millicores=50, memory_mb=64)


def test_empty_and_absent_say_the_same() -> None:
    empty: dict[str, Any] = {
        "volumes": [],
        "livenessProbe": None,
        "securityContext": {},
        "rollout": {},
        "placement": {"affinity": {}},
    }
    assert read(process(**empty)) == read(process())


PROBE = "spec.readinessProbe"
REQUIRED = "spec.placement.affinity.nodes.required[0]"
NEAR = "spec.placement.antiAffinity.workloads.required[0]"


def node_term(**term: Any) -> dict[str, Any]:
    return process(placement={"affinity": {"nodes": {"required": [term]}}})


def workload_term(**term: Any) -> dict[str, Any]:
    return process(placement={"antiAffinity": {"workloads": {"required": [term]}}})


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        # probes
        (process(readinessProbe={}), f"{PROBE}: needs one of http, tcp and exec, and only one"),
        (
            process(readinessProbe={"tcp": {"port": "http"}, "exec": {"command": ["a"]}}),
            f"{PROBE}: needs one of http, tcp and exec, and only one",
        ),
        (process(readinessProbe="http"), f'{PROBE}: must be a mapping of fields, not "http"'),
        (
            process(readinessProbe={"tcp": {"port": "web"}}),
            f'{PROBE}.tcp.port: "web" is not the name of a declared port; the declared ports are http, dns',
        ),
        (
            {"command": ["a"], "readinessProbe": {"tcp": {"port": "web"}}},
            f'{PROBE}.tcp.port: "web" is not the name of a declared port; no port is declared',
        ),
        (
            process(readinessProbe={"httpGet": {"port": 80}}),
            f"{PROBE}.http.port: must be the name of a declared port, not 80",
        ),
        (
            process(readinessProbe={"tcp": {"port": "dns"}}),
            f'{PROBE}.tcp.port: "dns" is a udp port, which cannot be probed',
        ),
        (process(readinessProbe={"tcp": {}}), f"{PROBE}.tcp.port: must be the name of a declared port"),
        (
            process(readinessProbe={"http": {"port": "http", "path": "ok"}}),
            f'{PROBE}.http.path: must begin with "/" and hold no spaces and only ASCII, not "ok"',
        ),
        (
            process(readinessProbe={"exec": {"command": []}}),
            f"{PROBE}.exec.command: is missing: the program and its arguments",
        ),
        (
            process(readinessProbe={"tcp": {"port": "http"}, "period": 0}),
            f"{PROBE}.period: must be 0.1 to 3600 seconds, not 0",
        ),
        (
            process(readinessProbe={"tcp": {"port": "http"}, "period": 1, "periodSeconds": 2}),
            f"{PROBE}.period: given twice, as period and as periodSeconds",
        ),
        (
            process(readinessProbe={"tcp": {"port": "http"}, "failureTreshold": 2}),
            f'{PROBE}: unknown field "failureTreshold"; did you mean failureThreshold?',
        ),
        (
            process(livenessProbe={"tcp": {"port": "http"}, "successThreshold": 2}),
            "spec.livenessProbe.successThreshold: must be 1: a task that failed is not asked again, it is started anew",
        ),
        # ports
        (
            {"image": "i", "ports": [{"name": "a", "containerPort": 1}, {"name": "b", "containerPort": 1}]},
            "spec.ports[1].containerPort: 1 is taken by another port",
        ),
        (
            {"command": ["a"], "ports": [{"name": "a", "containerPort": 1}]},
            "spec.ports[0].containerPort: is for the docker executor only: a process listens on the node's own port",
        ),
        (
            {"image": "i", "ports": [{"name": "a", "protocol": "sctp"}]},
            'spec.ports[0].protocol: must be one of tcp, udp, not "sctp"',
        ),
        (process(imagePullPolicy="always"), "spec.imagePullPolicy: is for the docker executor only"),
        # volumes
        (
            process(volumes=[{"name": "a", "mountPath": "/x"}, {"name": "b", "mountPath": "/x"}]),
            'spec.volumes[1].mountPath: "/x" is the place of another volume',
        ),
        (
            process(volumes=[{"name": "a", "mountPath": "/x"}, {"name": "a", "mountPath": "/y"}]),
            'spec.volumes[1].name: "a" is the name of another volume',
        ),
        (
            process(volumes=[{"name": "a", "mountPath": "/x/../y"}]),
            'spec.volumes[0].mountPath: must be an absolute path like "/data", not "/x/../y"',
        ),
        (process(volumes=[{"name": "a"}]), 'spec.volumes[0].mountPath: must be an absolute path like "/data", not ""'),
        (
            process(volumes=[{"name": "a", "mountPath": "/x", "hostPath": "/y", "size": 1}]),
            "spec.volumes[0].size: does not go with hostPath: only a directory of the task's own is bounded",
        ),
        (
            process(volumes=[{"name": "a", "mountPath": "/x", "readOnly": True}]),
            "spec.volumes[0].readOnly: goes with hostPath: an empty directory is of use only to write to",
        ),
        (process(volumes=["a"]), 'spec.volumes[0]: must be a mapping with name and mountPath, not "a"'),
        # resources
        (
            process(resources={"requests": {"cpu": 1}, "limits": {"cpu": "500m"}}),
            "spec.resources.requests.cpu: must be at most the limit of 500m",
        ),
        (
            process(resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}),
            "spec.resources.requests.memory: must be at most the limit of 1Gi",
        ),
        # security
        (
            process(securityContext={"runAsUser": "root"}),
            'spec.securityContext.runAsUser: must be a whole number, not "root"',
        ),
        (
            process(securityContext={"privateTmp": "yes"}),
            'spec.securityContext.privateTmp: must be true or false, not "yes"',
        ),
        (
            process(securityContext={"capabilities": {"add": ["NET_ADMN"]}}),
            'spec.securityContext.capabilities.add[0]: unknown capability "NET_ADMN"; did you mean NET_ADMIN?',
        ),
        (
            process(securityContext={"capabilities": {"add": ["KILL"], "drop": ["cap_kill"]}}),
            "spec.securityContext.capabilities: KILL is both added and dropped",
        ),
        (
            process(securityContext={"rlimits": {"nofle": 1}}),
            'spec.securityContext.rlimits: unknown field "nofle"; did you mean nofile?',
        ),
        (
            process(securityContext={"rlimits": {"nofile": {"soft": 2, "hard": 1}}}),
            "spec.securityContext.rlimits.nofile: soft must be at most hard",
        ),
        (
            process(securityContext={"rlimits": {"nofile": {"soft": "unlimited", "hard": 1}}}),
            "spec.securityContext.rlimits.nofile: soft must be at most hard",
        ),
        (
            process(securityContext={"rlimits": {"core": -1}}),
            'spec.securityContext.rlimits.core: must be a whole number of at least 0, or "unlimited", not -1',
        ),
        # placement
        (
            process(placement={"tolerations": [{"operator": "Exists", "key": "a", "value": "b"}]}),
            "spec.placement.tolerations[0].value: does not go with EXISTS, which holds for every value",
        ),
        (
            process(placement={"tolerations": [{"value": "b"}]}),
            "spec.placement.tolerations[0].key: is missing; without a key the operator must be EXISTS, for every taint",
        ),
        (
            process(placement={"tolerations": [{"key": "a", "effect": "NoRun"}]}),
            "spec.placement.tolerations[0].effect: must be one of NO_SCHEDULE, PREFER_NO_SCHEDULE, NO_EXECUTE,"
            ' not "NoRun"',
        ),
        (node_term(key="disk"), f"{REQUIRED}.values: is required by IN"),
        (node_term(key="disk", operator="EXISTS", values=["a"]), f"{REQUIRED}.values: does not go with EXISTS"),
        (
            node_term(key="disk", values=["a"], weight=5),
            f"{REQUIRED}.weight: goes with preferred terms only: a required one always holds",
        ),
        (
            process(placement={"affinity": {"nodes": {"preferred": [{"key": "a", "values": ["b"], "weight": 101}]}}}),
            "spec.placement.affinity.nodes.preferred[0].weight: must be 1 to 100, not 101",
        ),
        (workload_term(topology="zone"), f"{NEAR}: needs either workload (a name) or labels, and only one of them"),
        (
            workload_term(workload="db", labels={"a": "b"}),
            f"{NEAR}: needs either workload (a name) or labels, and only one of them",
        ),
        (
            workload_term(workload="db", topology="none"),
            f'{NEAR}.topology: must be one of node, zone, region, not "none"',
        ),
        (
            process(placement={"antiAffinity": {"nodes": {}}}),
            'spec.placement.antiAffinity: unknown field "nodes"',
        ),
        # rollout
        (
            process(rollout={"minAvailable": 1, "maxUnavailable": 1}),
            "spec.rollout.minAvailable: says the same as maxUnavailable in another way: leave one of them out",
        ),
        (
            process(rollout={"maxSurge": "120%"}),
            'spec.rollout.maxSurge: must be a whole number, or a percentage from "0%" to "100%", not "120%"',
        ),
        (
            process(rollout={"maxSurge": 0.5}),
            'spec.rollout.maxSurge: must be a whole number, or a percentage like "25%", not 0.5',
        ),
        (
            process(rollout={"maxSurge": "0%", "maxUnavailable": "0%"}),
            "spec.rollout: maxSurge and maxUnavailable must not both be 0: nothing could be replaced",
        ),
        (
            process(rollout={"strategy": "canary"}),
            "spec.rollout.canary: is required by the strategy CANARY: how many new tasks are tried first",
        ),
        (process(rollout={"canary": 1}), "spec.rollout.canary: goes with the strategy CANARY only"),
        (
            process(rollout={"minReady": "10m"}),
            "spec.rollout.progressDeadline: must be longer than minReady, or no rollout could ever succeed",
        ),
        (
            process(rollout={"autoPromote": True}),
            "spec.rollout.autoPromote: goes with the strategies CANARY and BLUE_GREEN only",
        ),
        # how many
        (
            process(mode="per-node", replicas=1),
            "spec.replicas: does not go with mode PER_NODE: each node that fits runs one task",
        ),
        (
            process(mode="per-node", placement={"spreadTopology": "zone"}),
            "spec.placement.spreadTopology: does not go with mode PER_NODE: each node that fits runs one task",
        ),
        (process(priority=1001), "spec.priority: must be -1000 to 1000, not 1001"),
        (
            process(reconcile="newest"),
            'spec.reconcile: must be one of KEEP_ORIGINAL, KEEP_REPLACEMENT, BEST, not "newest"',
        ),
    ],
)
def test_a_fault_is_named_with_its_place_and_cure(spec: dict[str, Any], problem: str) -> None:
    assert read(spec)[1] == [problem]


def test_a_probe_command_counts_towards_the_size_of_a_template() -> None:
    _, problems = read(process(livenessProbe={"exec": {"command": ["x" * 16_000] * 5}}))
    assert len(problems) == 1
    assert "at most 65536 fit" in problems[0]


@pytest.mark.parametrize(
    ("rollout", "replicas", "surge", "available"),
    [
        (Rollout(), 3, 1, 3),
        (Rollout(max_unavailable=1), 3, 1, 2),
        (Rollout(max_unavailable=9), 3, 1, 0),
        (Rollout(max_surge=0, max_surge_percent=25), 3, 1, 3),
        (Rollout(max_surge=0, max_surge_percent=25), 8, 2, 8),
        (Rollout(max_unavailable_percent=25), 7, 1, 6),
        (Rollout(max_surge=0, max_unavailable_percent=25), 3, 0, 2),
        (Rollout(min_available_percent=50), 7, 1, 4),
        (Rollout(min_available=2), 5, 1, 2),
        (Rollout(min_available=9), 5, 1, 5),
        (Rollout(max_surge=0, min_available=9), 5, 0, 4),
        (Rollout(max_surge=0, min_available_percent=100), 5, 0, 4),
        (Rollout(max_surge=0, min_available=1), 0, 0, 0),
        (Rollout(strategy=RolloutStrategy.BLUE_GREEN, max_surge=0), 3, 3, 3),
        (Rollout(strategy=RolloutStrategy.BLUE_GREEN, max_surge=2), 1, 1, 1),
    ],
)
def test_bounds_of_a_rollout_follow_from_the_replicas(
    rollout: Rollout, replicas: int, surge: int, available: int
) -> None:
    assert (rollout.surge_of(replicas), rollout.available_least(replicas)) == (surge, available)
