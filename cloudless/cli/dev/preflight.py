"""Look before starting: is there a dev cluster here already, are all its ports free? All findings at once."""

from __future__ import annotations

import os
from pathlib import Path

from cloudless.adapters.member import procfs
from cloudless.adapters.member.ports import require_free
from cloudless.cli.dev.layout import HOST, Layout
from cloudless.cli.dev.table import Table
from cloudless.errors import PortInUse, StartupError


def require_ready(table: Table) -> None:
    """Raise StartupError if a cluster runs from this directory, PortInUse naming every port taken and its owner."""
    living = table.living()
    if living:
        raise StartupError(
            f"a dev cluster runs already from {table.layout.state_dir} ({', '.join(sorted(living))})",
            hint="`cloudless dev status` shows it, `cloudless dev down` ends it",
        )
    _require_same_ports(table.layout)
    taken = _taken(table.layout)
    if taken:
        raise PortInUse(
            "ports in use:\n  " + "\n  ".join(taken),
            hint="end those processes (`cloudless dev down --state-dir …` for another dev cluster), "
            "or move this one with --port-offset 10000",
        )


def keep_ports(layout: Layout) -> None:
    """Remember the ports the data under this directory belongs to."""
    layout.ports_file.write_text(f"{layout.port_offset}\n", encoding="ascii")


def _require_same_ports(layout: Layout) -> None:
    """Refuse to start existing data on other ports: its members would look for each other at the old ones."""
    try:
        kept = int(layout.ports_file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return
    if kept != layout.port_offset:
        raise StartupError(
            f"the data in {layout.state_dir} belongs to a cluster with --port-offset {kept}",
            hint=f"use --port-offset {kept}, another --state-dir, or delete the data with `cloudless dev down --purge`",
        )


def _taken(layout: Layout) -> list[str]:
    taken = []
    for plan in layout.plans:
        for use, port in plan.ports.items():
            try:
                require_free(f"tcp://{HOST}:{port}", use)
            except PortInUse:
                taken.append(f"{port} ({plan.name} {use}): {_owner(port)}")
    return taken


def _owner(port: int) -> str:
    pid = procfs.listener_of(port)
    if pid is None:
        return "a process that cannot be seen from here"
    argv = procfs.argv_of(pid)
    text = " ".join(argv)[:90]
    where = f", another dev cluster: {home}" if (home := _dev_cluster_of(pid)) else ""
    return f"pid {pid} ({text}){where}"


def _dev_cluster_of(pid: int) -> Path | None:
    """Return the state directory of the dev cluster that `pid` belongs to, if it does."""
    try:
        here = Path(os.readlink(f"/proc/{pid}/cwd"))
    except OSError:
        return None
    data = next((a.removeprefix("--data-dir=") for a in procfs.argv_of(pid) if a.startswith("--data-dir=")), "")
    candidates = [here, *([Path(data).parents[2]] if data.count("/") > 3 else [])]
    return next((path for path in candidates if (path / "state.json").is_file()), None)
