"""Volumes: directories a task finds under paths of its own."""

from __future__ import annotations

from dataclasses import dataclass

from cloudless.core.model.evolving import Evolving


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Evolving):
    """A directory that the task sees at `mount_path`.

    With `host_path`, that directory of the node. Without, an empty directory of the task's own: it outlives the
    task's attempts and goes with the task; `size_mb` bounds what it may hold (0: unbounded).
    """

    name: str
    mount_path: str
    host_path: str = ""
    read_only: bool = False
    size_mb: int = 0
