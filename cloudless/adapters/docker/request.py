"""What the engine is asked to create for an attempt: a pure function from the request to the engine's own document.

The document is that of `POST /containers/create` of the Engine API. Everything of a task's specification that matters
to a container is translated here and nowhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from cloudless.core.model import Limits, Port, SecurityContext, Volume
from cloudless.core.task_environment import build_variables, fill_ports, port_variables
from cloudless.errors import Permanent
from cloudless.ports import ExecRequest, StartRequest

LABEL_TASK = "cloudless.task"
LABEL_ATTEMPT = "cloudless.attempt"
LABEL_AGENT = "cloudless.agent_id"
LABEL_PORTS = "cloudless.ports"
_LABEL_PREFIX = "cloudless."

LOG_CONFIG = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}
"""A driver whose output can be read back, bounded as that of processes: one file and an older one."""
MIB = 1024 * 1024

_TASK_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


def container_name(task_id: str, attempt: int) -> str:
    """Return the name that only this attempt's container has. Raises Permanent for what can be no task's id."""
    if not _TASK_ID.fullmatch(task_id):
        raise Permanent(f"{task_id!r} cannot be a task's id")
    return f"cloudless-{task_id}-{attempt}"


def volume_name(task_id: str, volume: str) -> str:
    """Return the name of a task's own volume."""
    return f"cloudless-{task_id}-{volume}"


def build_create(request: StartRequest, agent_id: str) -> dict[str, Any]:
    """Return the create document of an attempt of this agent. Raises Permanent for what no container can be."""
    spec = request.spec
    if not spec.image:
        raise Permanent("the task has no image", hint="the docker executor runs spec.image")
    inside = _inside_ports(spec.ports, request.ports)
    environment = build_variables(request.task_id, spec.env, request.env, inside)
    variables = port_variables(inside)
    document: dict[str, Any] = {
        "Image": spec.image,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Labels": _labels(request, agent_id),
        "ExposedPorts": {inner: {} for inner in _bindings(spec.ports, request.ports)},
        "StopTimeout": max(0, round(spec.stop_grace_s)),
        "HostConfig": _host_config(request, agent_id),
    }
    # As with other orchestrators: `command` replaces the image's entrypoint, `args` what it is given.
    if spec.command:
        document["Entrypoint"] = [fill_ports(word, variables) for word in spec.command]
    if spec.args:
        document["Cmd"] = [fill_ports(word, variables) for word in spec.args]
    if user := _user(spec.security_context):
        document["User"] = user
    return document


def build_exec(request: ExecRequest) -> list[str]:
    """Return the words of a command inside the container, with port references replaced. Raises Permanent."""
    variables = port_variables(_inside_ports(request.attempt.spec.ports, request.attempt.ports))
    words = [fill_ports(word, variables) for word in request.command]
    if not words or not words[0] or any("\0" in word for word in words):
        raise Permanent(f"{' '.join(words)!r} cannot be a command")
    return words


def _host_config(request: StartRequest, agent_id: str) -> dict[str, Any]:
    spec = request.spec
    security = spec.security_context
    config: dict[str, Any] = {
        # Who restarts what is decided by the agent alone.
        "RestartPolicy": {"Name": "no"},
        "LogConfig": LOG_CONFIG,
        "PortBindings": _bindings(spec.ports, request.ports),
        "ReadonlyRootfs": security.read_only_root,
        "CapAdd": list(security.add_capabilities),
        "CapDrop": list(security.drop_capabilities),
        "Ulimits": [{"Name": one.name, "Soft": one.soft, "Hard": one.hard} for one in security.rlimits],
        "Mounts": [_mount(volume, request.task_id, agent_id) for volume in spec.volumes],
        **_limits(spec.limits),
    }
    if spec.requests.cpu_millicores:
        # A share in relation to others when the processors are short; 1024 is one core's worth.
        config["CpuShares"] = max(2, spec.requests.cpu_millicores * 1024 // 1000)
    if security.private_tmp:
        config["Tmpfs"] = {"/tmp": "mode=1777"}
    return config


def _limits(limits: Limits) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if limits.cpu_millicores:
        config["NanoCpus"] = limits.cpu_millicores * 1_000_000
    if limits.memory_mb:
        # As much with swap as without: no swap, which would only make the end slower.
        config["Memory"] = config["MemorySwap"] = limits.memory_mb * MIB
    if limits.pids:
        config["PidsLimit"] = limits.pids
    return config


def _mount(volume: Volume, task_id: str, agent_id: str) -> dict[str, Any]:
    mount: dict[str, Any] = {"Target": volume.mount_path, "ReadOnly": volume.read_only}
    if volume.host_path:
        return {**mount, "Type": "bind", "Source": volume.host_path}
    options: dict[str, Any] = {"Labels": {LABEL_TASK: task_id, LABEL_AGENT: agent_id}}
    if volume.size_mb:
        # The only bound that every file system knows: a volume in memory.
        size = {"type": "tmpfs", "device": "tmpfs", "o": f"size={volume.size_mb}m,mode=1777"}
        options["DriverConfig"] = {"Name": "local", "Options": size}
    return {**mount, "Type": "volume", "Source": volume_name(task_id, volume.name), "VolumeOptions": options}


def _user(security: SecurityContext) -> str:
    if security.run_as_user is None:
        if security.run_as_group is not None:
            raise Permanent("runAsGroup needs runAsUser with the docker executor")
        return ""
    return f"{security.run_as_user}" + ("" if security.run_as_group is None else f":{security.run_as_group}")


def _labels(request: StartRequest, agent_id: str) -> dict[str, str]:
    return {
        **{_LABEL_PREFIX + name: value for name, value in request.labels.items()},
        LABEL_TASK: request.task_id,
        LABEL_ATTEMPT: str(request.attempt),
        LABEL_AGENT: agent_id,
        LABEL_PORTS: json.dumps(dict(request.ports), sort_keys=True),
    }


def _inside_ports(ports: tuple[Port, ...], outside: Mapping[str, int]) -> dict[str, int]:
    """Return the number by name that the task listens on inside its container."""
    own = {port.name: port.container_port for port in ports}
    return {name: own.get(name, 0) or number for name, number in outside.items()}


def _bindings(ports: tuple[Port, ...], outside: Mapping[str, int]) -> dict[str, list[dict[str, str]]]:
    """Return the engine's port map: "80/tcp" → the host's numbers."""
    protocols = {port.name: port.protocol.value for port in ports}
    bindings: dict[str, list[dict[str, str]]] = {}
    for name, inner in _inside_ports(ports, outside).items():
        bindings.setdefault(f"{inner}/{protocols.get(name, 'tcp')}", []).append({"HostPort": str(outside[name])})
    return bindings
