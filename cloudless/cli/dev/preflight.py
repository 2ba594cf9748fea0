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
            hint=f"`{table.layout.command('status')}` shows it, `{table.layout.command('down')}` ends it",
        )
    _require_same_ports(table.layout)
    taken, homes = _taken(table.layout)
    if taken:
        ends = ", ".join(f"`cloudless dev down --state-dir {home}`" for home in homes) or "end those processes"
        raise PortInUse(
            "ports in use:\n  " + "\n  ".join(taken), hint=f"{ends}, or move this one with --port-offset 10000"
        )


def keep_ports(layout: Layout) -> None:
    """Remember the ports the data under this directory belongs to."""
    layout.ports_file.write_text(f"{layout.port_offset}\n", encoding="ascii")


def _require_same_ports(layout: Layout) -> None:
    """Refuse to start existing data on other ports, or with other addresses: its members would not find each other."""
    try:
        kept = int(layout.ports_file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return
    if layout.founding_file.exists() is not layout.tls:
        made = "without --insecure" if layout.founding_file.exists() else "with --insecure"
        raise StartupError(
            f"the data in {layout.state_dir} belongs to a cluster that was made {made}",
            hint=f"start it {made} again, or delete the data with `{layout.command('down --purge')}`",
        )
    if kept != layout.port_offset:
        raise StartupError(
            f"the data in {layout.state_dir} belongs to a cluster with --port-offset {kept}",
            hint=f"use --port-offset {kept}, another --state-dir, "
            f"or delete the data with `{layout.command('down --purge')}`",
        )


def _taken(layout: Layout) -> tuple[list[str], list[Path]]:
    """Return a line for every port taken, one for all ports of another dev cluster; and those clusters' directories."""
    lines: list[str] = []
    clusters: dict[Path, list[int]] = {}
    for plan in layout.plans:
        for use, port in plan.ports.items():
            try:
                require_free(f"tcp://{HOST}:{port}", use)
            except PortInUse:
                pid = procfs.listener_of(port)
                home = _dev_cluster_of(pid) if pid else None
                if home:
                    clusters.setdefault(home, []).append(port)
                else:
                    lines.append(f"{port} ({plan.name} {use}): {_owner(pid)}")
    lines += [
        f"{len(ports)} ports from {min(ports)} to {max(ports)}: the dev cluster under {home}"
        for home, ports in clusters.items()
    ]
    return lines, list(clusters)


def _owner(pid: int | None) -> str:
    if pid is None:
        return "a process that cannot be seen from here"
    return f"pid {pid} ({' '.join(procfs.argv_of(pid))[:90]})"


def _dev_cluster_of(pid: int) -> Path | None:
    """Return the state directory of the dev cluster that `pid` belongs to, if it does."""
    try:
        here = Path(os.readlink(f"/proc/{pid}/cwd"))
    except OSError:
        return None
    data = next((a.removeprefix("--data-dir=") for a in procfs.argv_of(pid) if a.startswith("--data-dir=")), "")
    candidates = [here, *([Path(data).parents[2]] if data.count("/") > 3 else [])]
    return next((path for path in candidates if (path / "state.json").is_file()), None)
