"""`cluster recover`: make the cluster anew from this host's data, after the majority was lost for good.

Looks first, tells what it found and what it would do, asks once. Nothing of the old data is deleted.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudless.cli.options import Command, current

if TYPE_CHECKING:
    from cloudless.cli.recovery import Outcome, Prospect


@click.command("recover", cls=Command)
@click.option(
    "--data-dir", type=click.Path(path_type=Path), envvar="CLOUDLESS_DATA_DIR", show_envvar=True, required=True
)
@click.option(
    "--raft-address", envvar="CLOUDLESS_RAFT_ADDR", show_envvar=True, metavar="HOST:PORT",
    help="Where this host's member will be reached. Default: where it was.",
)  # fmt: skip
@click.option(
    "--ask", multiple=True, metavar="HOST:PORT", help="Another coordinator to ask; those known are asked anyway."
)
@click.option("--identity-dir", type=click.Path(path_type=Path), envvar="CLOUDLESS_IDENTITY_DIR", show_envvar=True)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--insist", is_flag=True, help="Go on although another survivor has more, or a majority has its data.")
@click.option("--plan", "only_plan", is_flag=True, help="Only say what would be done.")
def recover(
    data_dir: Path,
    raft_address: str | None,
    ask: tuple[str, ...],
    identity_dir: Path | None,
    yes: bool,
    insist: bool,
    only_plan: bool,
) -> None:
    """Rebuild the cluster from this host's data directory, when the majority is lost for good.

    Run it on the survivor's host. It stops the coordinator there if it still runs without a quorum, keeps the old data
    aside, and makes a cluster of this member alone that has every write this host had. Then start the coordinator; the
    others join it when they are started, and put aside what old data they have. Tasks run on.
    """
    import asyncio

    from cloudless.cli.recovery import carry_out, finish_interrupted, look
    from cloudless.errors import RecoveryRefused
    from etcd.find import find

    if finish_interrupted(data_dir):
        click.echo("An interrupted recovery was finished: start the coordinator.")
        return
    options = current()
    prospect = look(data_dir, raft_address, ask, options, identity_dir)
    outlook = prospect.outlook
    if outlook.refusal and not (insist and outlook.insistable):
        more = "; --insist goes on all the same" if outlook.insistable else ""
        raise RecoveryRefused(outlook.refusal, hint=outlook.hint + more)
    _tell(prospect, insist)
    if only_plan:
        return
    if not yes:
        click.confirm("\nGo on?", abort=True)
    done = asyncio.run(carry_out(prospect, find()))
    _tell_done(prospect, done)


def _tell(prospect: Prospect, insist: bool) -> None:
    found = prospect.found
    click.echo(f"{found.node_id} has the data of cluster {found.cluster_id} up to term {found.log.term}, ", nl=False)
    click.echo(f"index {found.log.index} ({found.log.index - found.log.commit} entries not known to be committed).")
    for neighbour in prospect.neighbours:
        said = "has no data of this cluster" if not neighbour.has_data else "has data, and no leader"
        click.echo(f"  {neighbour.node_id} at {neighbour.address}: {said}")
    for node_id, address in prospect.silent.items():
        click.echo(f"  {node_id or 'a coordinator'} at {address}: no answer")
    if prospect.silent:
        click.echo(
            "Those that do not answer will never belong to this cluster again with their old data. If a majority of "
            "them still runs somewhere, there would be two clusters: go on only if they are lost for good."
        )
    if prospect.outlook.refusal and insist:
        click.echo(f"You insist, although {prospect.outlook.refusal}.")
    click.echo("\nThe plan:")
    for number, step in enumerate(prospect.steps(), start=1):
        click.echo(f"  {number}. {step}")


def _tell_done(prospect: Prospect, done: Outcome) -> None:
    found = prospect.found
    click.echo(f"\nDone: a cluster of {found.node_id} alone, with everything up to revision {done.recovered.revision}.")
    if done.recovered.aside:
        click.echo(f"The old data are in {done.recovered.aside}; delete them when you no longer need them.")
    if done.stopped_pid:
        click.echo(
            f"The coordinator (pid {done.stopped_pid}) was stopped. What supervises it starts it again; else do so."
        )
    else:
        click.echo(f"Now start the coordinator {found.node_id}.")
    others = ", ".join(voter for voter in found.voters if voter != found.node_id) or "other coordinators"
    click.echo(
        f"Then start {others} as usual, with this one's address in CLOUDLESS_RAFT_JOIN_ADDR. With empty directories "
        "they join; with old data they put them aside first."
    )
