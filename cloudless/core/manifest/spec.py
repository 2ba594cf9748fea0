"""Read what a workload is: the fields of `spec`, topic by topic, then what only several fields can tell together."""

from __future__ import annotations

import re
from dataclasses import replace

from cloudless.core.fields import Fields, read_choice
from cloudless.core.manifest.checks import check_together
from cloudless.core.manifest.parts import read_ports, read_volumes
from cloudless.core.manifest.placement import read_placement
from cloudless.core.manifest.probes import read_probe
from cloudless.core.manifest.resources import read_limits, read_requests
from cloudless.core.manifest.rollout import REPLICAS_MAX, read_rollout
from cloudless.core.manifest.security import read_security_context
from cloudless.core.model import ExecutorKind, RestartPolicy, WorkloadMode, WorkloadSpec

__all__ = ["PRIORITY_MAX", "REPLICAS_MAX", "read_spec"]

PRIORITY_MAX = 1_000
BACKOFF_MIN_S = 0.01
HOUR_S = 3600.0
MONTH_S = 30 * 86_400.0
ITEMS_MAX = 256

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_ENV_WORDS = "letters, digits or '_', not beginning with a digit, at most 128 long"


def read_spec(fields: Fields) -> WorkloadSpec:
    """Return the specification, with what this version does not honour still in it; problems go to `fields`."""
    base = WorkloadSpec()
    image = fields.text("image", length_max=512)
    mode = fields.choice("mode", base.mode)
    if mode is WorkloadMode.PER_NODE and fields.has("replicas"):
        fields.problems.add(fields.at("replicas"), "does not go with mode PER_NODE: each node that fits runs one task")
    resources = fields.child("resources")
    limits = read_limits(resources.child("limits"))
    requests = read_requests(resources.child("requests"), base.requests, limits)
    resources.finish()
    spec = WorkloadSpec(
        executor=fields.choice("executor", ExecutorKind.DOCKER if image else ExecutorKind.PROCESS),
        image=image,
        command=fields.texts("command", count_max=ITEMS_MAX, length_max=16_384),
        args=fields.texts("args", count_max=ITEMS_MAX, length_max=16_384),
        env=fields.text_map("env", _ENV_NAME, _ENV_WORDS, count_max=ITEMS_MAX, length_max=32_768, convert=True),
        ports=read_ports(fields),
        requests=requests,
        replicas=fields.whole("replicas", base.replicas, least=0, most=REPLICAS_MAX),
        placement=read_placement(fields.child("placement")),
        restart_policy=_read_restart_policy(fields),
        rollout=read_rollout(fields.child("rollout")),
        stop_grace_s=fields.duration("stopGrace", base.stop_grace_s, most_s=HOUR_S),
        lost_after_s=fields.duration("lostAfter", base.lost_after_s, most_s=MONTH_S),
        liveness_probe=read_probe(fields, "livenessProbe"),
        readiness_probe=read_probe(fields, "readinessProbe"),
        volumes=read_volumes(fields),
        limits=limits,
        security_context=read_security_context(fields.child("securityContext")),
        image_pull_policy=fields.choice("imagePullPolicy", base.image_pull_policy),
        mode=mode,
        priority=fields.whole("priority", base.priority, least=-PRIORITY_MAX, most=PRIORITY_MAX),
        reconcile=fields.choice("reconcile", base.reconcile),
        stop_after_s=fields.duration("stopAfter", base.stop_after_s, most_s=MONTH_S),
    )
    fields.refuse("startupProbe")
    fields.finish()
    check_together(spec, fields)
    return spec


def _read_restart_policy(fields: Fields) -> RestartPolicy:
    base = RestartPolicy()
    value = fields.take("restartPolicy")
    path = fields.at("restartPolicy")
    if isinstance(value, str):
        return replace(base, condition=read_choice(value, base.condition, path, fields.problems))
    policy = Fields(value, path, fields.problems)
    made = RestartPolicy(
        condition=policy.choice("policy", base.condition),
        max_retries=policy.whole("maxRetries", base.max_retries, least=0, most=1000),
        backoff_s=policy.duration("backoff", base.backoff_s, least_s=BACKOFF_MIN_S, most_s=HOUR_S),
    )
    policy.finish()
    return made
