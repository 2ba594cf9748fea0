"""Read what a task is given by name: its ports and its volumes."""

from __future__ import annotations

from cloudless.core.fields import Fields, quote
from cloudless.core.manifest.names import read_part_name
from cloudless.core.model import Port, PortProtocol, Volume
from cloudless.core.quantity import parse_storage_mb

PORTS_MAX = 64
VOLUMES_MAX = 64
PATH_LENGTH_MAX = 4_096


def read_ports(fields: Fields) -> tuple[Port, ...]:
    """Return the ports; names, and numbers of one protocol, must differ."""
    ports: list[Port] = []
    names: set[str] = set()
    for item in fields.mappings("ports", "name and hostPort", count_max=PORTS_MAX):
        port = Port(
            name=read_part_name(item, names, "port"),
            host_port=item.whole("hostPort", 0, least=0, most=65_535),
            container_port=item.whole("containerPort", 0, least=0, most=65_535),
            protocol=item.choice("protocol", PortProtocol.TCP),
        )
        item.finish()
        same = [other for other in ports if other.protocol is port.protocol]
        if port.host_port and any(port.host_port == other.host_port for other in same):
            item.problems.add(item.at("hostPort"), f"{port.host_port} is taken by another port")
        if port.container_port and any(port.container_port == other.container_port for other in same):
            item.problems.add(item.at("containerPort"), f"{port.container_port} is taken by another port")
        ports.append(port)
    return tuple(ports)


def read_volumes(fields: Fields) -> tuple[Volume, ...]:
    """Return the volumes; names and mount paths must differ."""
    volumes: list[Volume] = []
    names: set[str] = set()
    for item in fields.mappings("volumes", "name and mountPath", count_max=VOLUMES_MAX):
        volume = Volume(
            name=read_part_name(item, names, "volume"),
            mount_path=_read_path(item, "mountPath", required=True),
            host_path=_read_path(item, "hostPath", required=False),
            read_only=item.flag("readOnly", False),
            size_mb=item.parsed("size", 0, parse_storage_mb),
        )
        item.finish()
        if volume.mount_path and any(volume.mount_path == other.mount_path for other in volumes):
            item.problems.add(item.at("mountPath"), f"{quote(volume.mount_path)} is the place of another volume")
        if volume.host_path and volume.size_mb:
            message = "does not go with hostPath: only a directory of the task's own is bounded"
            item.problems.add(item.at("size"), message)
        if volume.read_only and not volume.host_path:
            message = "goes with hostPath: an empty directory is of use only to write to"
            item.problems.add(item.at("readOnly"), message)
        volumes.append(volume)
    return tuple(volumes)


def _read_path(fields: Fields, name: str, *, required: bool) -> str:
    value = fields.text(name, length_max=PATH_LENGTH_MAX)
    if not value and not required:
        return ""
    parts = value.split("/")
    if not value or parts[0] or any(part in ("", ".", "..") for part in parts[1:]):
        fields.problems.add(fields.at(name), f'must be an absolute path like "/data", not {quote(value)}')
        return ""
    return value
