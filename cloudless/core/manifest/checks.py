"""Check what no field of a specification can tell alone."""

from __future__ import annotations

from cloudless.core.fields import Fields, quote
from cloudless.core.model import (
    ExecutorKind,
    ImagePullPolicy,
    PortProtocol,
    Probe,
    ProbeKind,
    RolloutStrategy,
    SpreadTopology,
    WorkloadMode,
    WorkloadSpec,
)

TEMPLATE_BYTES_MAX = 65_536
"""Of all texts of a task's template together: it is stored once per task."""


def check_together(spec: WorkloadSpec, fields: Fields) -> None:
    """Add what does not fit together to the problems of `fields`."""
    _check_executor(spec, fields)
    _check_size(spec, fields)
    for name, probe in (("livenessProbe", spec.liveness_probe), ("readinessProbe", spec.readiness_probe)):
        if probe is not None and probe.kind is not ProbeKind.EXEC:
            _check_probe_port(spec, probe, f"{fields.at(name)}.{probe.kind.value}.port", fields)
    if spec.liveness_probe is not None and spec.liveness_probe.success_threshold != 1:
        path = fields.at("livenessProbe.successThreshold")
        fields.problems.add(path, "must be 1: a task that failed is not asked again, it is started anew")
    if spec.mode is WorkloadMode.PER_NODE and spec.placement.spread_topology is not SpreadTopology.NONE:
        path = fields.at("placement.spreadTopology")
        fields.problems.add(path, "does not go with mode PER_NODE: each node that fits runs one task")
    if spec.mode is WorkloadMode.PER_NODE and spec.rollout.strategy is RolloutStrategy.BLUE_GREEN:
        path = fields.at("rollout.strategy")
        fields.problems.add(path, "BLUE_GREEN does not go with mode PER_NODE, which never has two tasks on a node")


def _check_executor(spec: WorkloadSpec, fields: Fields) -> None:
    problems = fields.problems
    if spec.executor is ExecutorKind.DOCKER:
        if not spec.image:
            problems.add(fields.at("image"), "is required by the docker executor")
        elif any(char.isspace() for char in spec.image):
            problems.add(fields.at("image"), "must not contain spaces")
        return
    if not spec.command or not spec.command[0]:
        problems.add(fields.at("command"), "is required by the process executor: the program and its arguments")
    if spec.image:
        problems.add(fields.at("image"), "is for the docker executor only")
    if spec.image_pull_policy is not ImagePullPolicy.IF_NOT_PRESENT:
        problems.add(fields.at("imagePullPolicy"), "is for the docker executor only")
    for index, port in enumerate(spec.ports):
        if port.container_port:
            message = "is for the docker executor only: a process listens on the node's own port"
            problems.add(fields.at(f"ports[{index}].containerPort"), message)


def _check_size(spec: WorkloadSpec, fields: Fields) -> None:
    texts = [spec.image, *spec.command, *spec.args, *spec.env.keys(), *spec.env.values()]
    for probe in (spec.liveness_probe, spec.readiness_probe):
        texts += (*probe.command, probe.path) if probe is not None else ()
    for volume in spec.volumes:
        texts += (volume.name, volume.mount_path, volume.host_path)
    size = sum(len(text.encode()) for text in texts)
    if size > TEMPLATE_BYTES_MAX:
        message = f"image, command, args, env, probes and volumes have {size} bytes; at most {TEMPLATE_BYTES_MAX} fit"
        fields.problems.add(fields.path, message)


def _check_probe_port(spec: WorkloadSpec, probe: Probe, path: str, fields: Fields) -> None:
    named = next((port for port in spec.ports if port.name == probe.port), None)
    if not probe.port:
        return  # said already, where it was read
    if named is None:
        declared = ", ".join(port.name for port in spec.ports[:10])
        known = f"the declared ports are {declared}" if declared else "no port is declared"
        fields.problems.add(path, f"{quote(probe.port)} is not the name of a declared port; {known}")
    elif named.protocol is PortProtocol.UDP:
        fields.problems.add(path, f"{quote(probe.port)} is a udp port, which cannot be probed")
