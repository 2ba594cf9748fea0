"""`dev …`: a whole cluster on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudless.cli.dev.layout import DEFAULT_STATE_DIR
from cloudless.cli.lazy import LazyGroup
from cloudless.cli.options import Command, current

if TYPE_CHECKING:
    from cloudless.cli.dev.table import Table


def _state_dir(command: Any) -> Any:
    return click.option(
        "--state-dir", type=click.Path(file_okay=False, path_type=Path), default=DEFAULT_STATE_DIR, show_default=True,
        envvar=None, help="Where the cluster keeps data, logs and the record of its processes.",
    )(command)  # fmt: skip


@click.group(cls=LazyGroup)
def dev() -> None:
    """A whole cluster on this machine, to try and to break: three coordinators, three agents, loopback only."""


@dev.command("up", cls=Command)
@_state_dir
@click.option("--port-offset", default=0, type=click.IntRange(0, 50000), metavar="N", help="Added to every port.")
@click.option(
    "--apply", "manifest", type=click.Path(path_type=Path), metavar="FILE", help="Apply it once nodes are ready."
)
@click.option("--detach", "-d", is_flag=True, help="Return once it is ready; `dev down` ends it.")
@click.option("--timeout", default=90.0, show_default=True, metavar="SECONDS", help="How long starting may take.")
@click.option(
    "--insecure", is_flag=True, help="Without TLS and identities: everybody on this machine may do everything."
)
def up(state_dir: Path, port_offset: int, manifest: Path | None, detach: bool, timeout: float, insecure: bool) -> None:
    """Start the cluster; stays in the foreground (Ctrl-C ends it all) unless --detach."""
    from cloudless.cli.dev.layout import build_layout
    from cloudless.cli.dev.table import Table
    from cloudless.cli.dev.up import Start, read_manifest

    start = Start(read_manifest(manifest) if manifest else "", timeout)
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if insecure:
        click.echo(click.style("WARNING: no TLS: whoever reaches these ports may do everything", fg="red"), err=True)
    _bring_up(Table(build_layout(state_dir, port_offset, tls=not insecure)), start, detach)


def _bring_up(table: Table, start: Any, detach: bool) -> None:
    from cloudless.cli.dev.down import take_down
    from cloudless.cli.dev.foreground import Stop, ignore_signals, raise_on_signals, stay
    from cloudless.cli.dev.preflight import require_ready
    from cloudless.cli.dev.progress import Progress
    from cloudless.cli.dev.status import next_steps
    from cloudless.cli.dev.up import Starter

    progress = Progress()
    # Before anything is ours: a cluster that runs already must not be taken down by the clean-up below.
    require_ready(table)
    raise_on_signals()
    leave_running = ready = False
    try:
        Starter(table, progress, start).run()
        ready = True
        click.echo(next_steps(table))
        if detach:
            leave_running = True
            return
        click.echo("\nCtrl-C ends it all.")
        stay(table, progress)
    except Stop as stop:
        progress.say(f"{stop}: taking it down")
        if not ready:
            raise click.Abort() from stop
    finally:
        ignore_signals()
        if not leave_running:
            take_down(table, progress)


@dev.command("status", cls=Command)
@_state_dir
def status(state_dir: Path) -> None:
    """Show its processes (pid, memory, ports) and what the cluster says of itself."""
    from cloudless.cli.dev.status import show
    from cloudless.cli.dev.table import Table

    show(Table.open(state_dir), current())


@dev.command("start", cls=Command)
@click.argument("name")
@_state_dir
def start(name: str, state_dir: Path) -> None:
    """Start process NAME (such as coordinator-2) again, with the settings it had."""
    table = _open(state_dir, name)
    who = table.start(name)
    click.echo(f"{name} started (pid {who.pid}), log {table.layout.log_file(name)}")


@dev.command("kill", cls=Command)
@click.argument("name")
@click.option("--signal", "signal_name", default="KILL", show_default=True, help="TERM, KILL, STOP, CONT, …")
@click.option("--etcd", is_flag=True, help="A coordinator's etcd too, as if the whole host died.")
@click.option("--only-etcd", is_flag=True, help="Only the coordinator's etcd.")
@_state_dir
def kill(name: str, signal_name: str, etcd: bool, only_etcd: bool, state_dir: Path) -> None:
    """Signal process NAME (such as coordinator-2)."""
    import signal

    from cloudless.cli.dev.table import send
    from cloudless.errors import NotFound

    try:
        number = signal.Signals[f"SIG{signal_name.upper().removeprefix('SIG')}"]
    except KeyError as error:
        raise click.BadParameter(f"{signal_name!r} is no signal", param_hint="--signal") from error
    table = _open(state_dir, name)
    targets = {} if only_etcd else {name: table.living().get(name)}
    if etcd or only_etcd:
        targets[f"{name}/etcd"] = table.etcd_of(name)
    for target, who in targets.items():
        if who is None or not send(who, number):
            raise NotFound(f"{target} does not run", hint=f"`{table.layout.command('status')}` shows what does")
        click.echo(f"{target} (pid {who.pid}) got {number.name}")


def _open(state_dir: Path, name: str) -> Table:
    from cloudless.cli.dev.table import Table
    from cloudless.errors import NotFound

    table = Table.open(state_dir)
    if name not in table.layout.names:
        raise NotFound(f"no process {name!r} in this cluster", hint=f"there are {', '.join(table.layout.names)}")
    return table


@dev.command("down", cls=Command)
@_state_dir
@click.option("--purge", is_flag=True, help="Delete its data and logs too.")
def down(state_dir: Path, purge: bool) -> None:
    """End the cluster: no process and no port is left. Safe to repeat."""
    from cloudless.cli.dev import down as taking
    from cloudless.cli.dev.identities import forget_context
    from cloudless.cli.dev.layout import build_layout
    from cloudless.cli.dev.progress import Progress
    from cloudless.cli.dev.table import Table
    from cloudless.errors import NotFound

    try:
        table = Table.open(state_dir)
    except NotFound:
        # No record, but a crash may have left members and tasks: their own records are in the directories.
        table = Table(build_layout(state_dir))
    taking.take_down(table, Progress())
    if purge:
        forget_context(table.layout)
        taking.purge(table.layout.state_dir)
    click.echo(f"nothing runs from {state_dir}" + (" (data deleted)" if purge else ""))


@dev.command("drill", cls=Command)
@_state_dir
@click.option("--rounds", default=8, show_default=True, type=click.IntRange(min=1), help="How many faults.")
@click.option(
    "--kind", "kinds", multiple=True, help="Only these kinds (repeat or separate by commas). Default: all in turn."
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write all figures."
)
@click.option(
    "--workload", default="hello", show_default=True, help="Whose replicas are watched; examples/hello.yaml has one."
)
@click.option("--settle", default=60.0, show_default=True, metavar="SECONDS", help="How long a round may take to heal.")
def drill(
    state_dir: Path, rounds: int, kinds: tuple[str, ...], json_file: Path | None, workload: str, settle: float
) -> None:
    """Break the running cluster on purpose, round by round, and measure how it recovers.

    Kinds: kill-leader (coordinator and its etcd), kill-raft-leader (the same on the host of etcd's leader), kill-agent,
    kill-etcd (of the leader's host), transfer. Exits with 1 if an acknowledged write was lost, two leaders were
    effective, a task was restarted that nobody touched, or a round proved nothing.
    """
    from cloudless.cli.dev.drill import DrillSettings, Kind, run_drill
    from cloudless.cli.dev.report import show_report, to_json
    from cloudless.cli.dev.table import Table

    wanted = [k.strip() for text in kinds for k in text.split(",") if k.strip()]
    unknown = [k for k in wanted if k not in {kind.value for kind in Kind}]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(k.value for k in Kind)}", param_hint="--kind")
    settings = DrillSettings(
        rounds=rounds, kinds=tuple(Kind(k) for k in wanted) or tuple(Kind), workload=workload, settle_s=settle
    )
    report = run_drill(Table.open(state_dir), settings)
    show_report(report, current())
    if json_file:
        json_file.write_text(to_json(report), encoding="utf-8")
    if report.findings:
        click.get_current_context().exit(1)
