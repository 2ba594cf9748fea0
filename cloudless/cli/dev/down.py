"""End a dev cluster so that no process and no port is left: agents first (they end their tasks), then coordinators,
then whatever killed ones left behind. Safe to repeat, and after any crash.
"""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from cloudless.adapters.member.pidfile import Identity
from cloudless.cli.dev.layout import AgentPlan
from cloudless.cli.dev.orphans import end_stray_children, find_orphans
from cloudless.cli.dev.progress import Progress
from cloudless.cli.dev.table import Table, send, wait_gone
from cloudless.errors import InvariantBroken

_AGENTS_S = 20.0
_COORDINATORS_S = 12.0
_ORPHANS_S = 15.0
_KILLED_S = 5.0


def take_down(table: Table, progress: Progress) -> None:
    """End every process of the cluster. Raises InvariantBroken if one survives even SIGKILL."""
    living = table.living()
    agents = {n: who for n, who in living.items() if isinstance(table.layout.plan(n), AgentPlan)}
    coordinators = {n: who for n, who in living.items() if n not in agents}
    _end(table, agents, _AGENTS_S, "agents and their tasks ended", progress)
    _end(table, coordinators, _COORDINATORS_S, "coordinators and their etcd ended", progress)
    orphans = find_orphans(table)
    _end(table, orphans, _ORPHANS_S, "leftovers ended", progress)
    end_stray_children(table)
    table.layout.record_file.unlink(missing_ok=True)


def purge(state_dir: Path) -> None:
    """Delete a dev cluster's directory. Only one that `dev up` made: it holds nothing but our directories."""
    for path in state_dir.glob("*"):
        if path.name.startswith(("coordinator-", "agent-", "admin")) and path.is_dir():
            shutil.rmtree(path)
        elif path.name in ("state.json", "state.lock", "port-offset", "founding"):
            path.unlink()
    if state_dir.is_dir() and not any(state_dir.iterdir()):
        state_dir.rmdir()


def _end(table: Table, processes: dict[str, Identity], grace_s: float, goal: str, progress: Progress) -> None:
    if not processes:
        return
    with progress.step(goal) as detail:
        detail(", ".join(processes))
        for who in processes.values():
            send(who, signal.SIGTERM)
            # A stopped process cannot end before it goes on.
            send(who, signal.SIGCONT)
        left = wait_gone(table, processes, grace_s)
        if left:
            detail(f"killing {', '.join(left)}, which did not end in {grace_s:g} s")
            for who in left.values():
                send(who, signal.SIGKILL)
            left = wait_gone(table, left, _KILLED_S)
        if left:
            raise InvariantBroken(
                f"still alive after SIGKILL: {', '.join(f'{n} pid {w.pid}' for n, w in left.items())}"
            )
