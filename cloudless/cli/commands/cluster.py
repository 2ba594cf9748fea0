"""`cluster …`: the coordinators, their members, their leader."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudless.cli.lazy import LazyGroup
from cloudless.cli.options import Command, Options, current

if TYPE_CHECKING:
    from cloudless.rpc.v1.cluster_pb2 import GetStatusResponse

DIFFERENT = 1


_LAZY = {
    "found": ("cloudless.cli.commands.found:found", "Make the founding file of a new cluster."),
    "join": ("cloudless.cli.commands.members:join", "Explain how a coordinator joins, or wait until it has."),
    "leave": ("cloudless.cli.commands.members:leave", "Let a coordinator go in good order."),
    "remove": ("cloudless.cli.commands.members:remove", "Remove a member that does not go by itself."),
    "replace": ("cloudless.cli.commands.members:replace", "Give a dead coordinator up for a new one."),
    "promote": ("cloudless.cli.commands.members:promote", "Make a learner a voter now."),
    "update-member": ("cloudless.cli.commands.members:update_member", "Announce a coordinator's new raft address."),
    "scheduler": ("cloudless.cli.commands.scheduler:scheduler", "How nodes are chosen for tasks: get, set."),
    "autopilot": ("cloudless.cli.commands.autopilot:autopilot", "How the leader cares for the members: get, set."),
    "doctor": ("cloudless.cli.commands.doctor:doctor", "Say what is wrong, what shows it, and the cure."),
    "debug": ("cloudless.cli.commands.debug:debug", "Write a bundle for whoever helps you, without secrets."),
    "hygiene": ("cloudless.cli.commands.hygiene:hygiene", "The room in the store: show it, make more."),
    "upgrade": ("cloudless.cli.commands.upgrade:upgrade", "Judge an upgrade and its order; finish it."),
    "snapshot": ("cloudless.cli.commands.snapshot:snapshot", "Backups: save, list, inspect, verify, restore, prune."),
    "recover": ("cloudless.cli.commands.recover:recover", "Rebuild the cluster here after the majority was lost."),
}


@click.group(
    cls=LazyGroup,
    lazy=_LAZY,
    aliases={
        "info": "status", "health": "status", "ls": "members", "list": "members",
        "backup": "snapshot", "snapshots": "snapshot", "backups": "snapshot",
    },
)  # fmt: skip
def cluster() -> None:
    """The coordinators: who belongs, who leads, how healthy it is."""


@cluster.command("status", cls=Command)
def status() -> None:
    """Show the whole cluster as one coordinator sees it. Answers without a quorum too.

    Exits with 3 when the cluster is unavailable, 0 when it is ok or degraded.
    """
    from cloudless.cli.methods import GET_STATUS
    from cloudless.rpc.v1.cluster_pb2 import GetStatusRequest

    options = current()
    with options.client() as client:
        answer = client.call(GET_STATUS, GetStatusRequest())
    show_status(options, answer)
    if answer.health == "unavailable":
        click.get_current_context().exit(3)


def show_status(options: Options, answer: GetStatusResponse) -> None:
    """Print a status in the form asked for."""
    from cloudless.cli.output import show_fields, show_list, show_plain
    from cloudless.cli.plain import to_plain
    from cloudless.cli.views import COORDINATORS

    if options.output in ("json", "yaml"):
        return show_plain(options, to_plain(answer))
    if options.output != "name":
        header = answer.header
        db_mb = answer.etcd_db_bytes / 1024**2
        leader = f"{header.leader_id} (term {header.term})" if header.leader_id else "none"
        show_fields(
            options,
            [
                ("health", answer.health),
                ("problems", "\n".join(answer.problems)),
                ("cluster", header.cluster_id),
                ("leader", leader),
                ("nodes", f"{answer.nodes_ready} of {answer.nodes_total} ready"),
                ("workloads", f"{answer.workloads_total}; {answer.tasks_running} of {answer.tasks_total} tasks run"),
                ("revision", f"{header.revision}, digest {answer.digest[:12]}, stale by {header.staleness_s:.2f} s"),
                ("etcd", f"{answer.etcd_version}, {db_mb:.1f} MiB, raft term {answer.etcd_raft_term}"),
                ("features", answer.feature_level),
                ("room", _room(answer)),
                ("backup", _describe_backup(answer)),
                ("quarantine", "\n".join(f"{key}: {answer.quarantine[key]}" for key in sorted(answer.quarantine))),
                ("asked", header.coordinator_id),
            ],
        )
        click.echo()
    show_list(options, COORDINATORS, sorted(answer.coordinators, key=lambda c: c.record.id))


def _room(answer: GetStatusResponse) -> str:
    """Return how full the store is, and until when, if it grows."""
    if not answer.etcd_quota_bytes:
        return ""
    used = f"{100 * answer.etcd_db_in_use_bytes / answer.etcd_quota_bytes:.0f} % of {answer.etcd_quota_bytes >> 20} MiB"
    lasts = f", full in about {answer.quota_hours_left:.0f} h" if answer.quota_hours_left >= 0 else ""
    return f"{used} in use{lasts}"


def _describe_backup(answer: GetStatusResponse) -> str:
    from cloudless.cli.ages import format_age
    from cloudless.cli.views import now_ms

    status = answer.backup
    if not status.last_success_at_ms:
        return "none yet" if answer.HasField("backup") else ""
    return (
        f"{format_age(status.last_success_at_ms, now_ms())} ago, revision {status.last_revision}, {status.last_target}"
    )


@cluster.command("members", cls=Command)
def members() -> None:
    """List the etcd members, voters and learners, with their health, and who waits to become one.

    LAG is in raft entries behind the coordinator asked. NOTE says what ails a member or what the autopilot waits for.
    """
    from cloudless.cli.methods import LIST_MEMBERS
    from cloudless.cli.output import show_list
    from cloudless.cli.views import JOINERS, MEMBERS
    from cloudless.rpc.v1.cluster_pb2 import ListMembersRequest

    options = current()
    with options.client() as client:
        answer = client.call(LIST_MEMBERS, ListMembersRequest())
    show_list(options, MEMBERS, sorted(answer.members, key=lambda m: m.name))
    if answer.joiners and options.output in ("table", "wide"):
        click.echo()
        show_list(options, JOINERS, answer.joiners)


@cluster.command("leader", cls=Command)
def leader() -> None:
    """Name the leader and its term. Exits with 3 if there is none."""
    from cloudless.cli.methods import GET_STATUS
    from cloudless.cli.output import show_plain
    from cloudless.errors import NoQuorum
    from cloudless.rpc.v1.cluster_pb2 import GetStatusRequest

    options = current()
    with options.client() as client:
        header = client.call(GET_STATUS, GetStatusRequest()).header
    if not header.leader_id:
        raise NoQuorum("there is no leader now", hint="`cloudless cluster status` says why")
    if options.output in ("json", "yaml"):
        show_plain(options, {"leaderId": header.leader_id, "term": header.term})
    elif options.output == "name":
        click.echo(f"coordinator/{header.leader_id}")
    else:
        click.echo(f"{header.leader_id} (term {header.term})")


@cluster.command("transfer-leader", cls=Command)
@click.argument("coordinator_id", required=False, default="")
def transfer_leader(coordinator_id: str) -> None:
    """Make the leader resign in favour of COORDINATOR_ID, or of any other coordinator."""
    from cloudless.cli.methods import TRANSFER_LEADER
    from cloudless.rpc.v1.cluster_pb2 import TransferLeaderRequest

    with current().client() as client:
        answer = client.call(TRANSFER_LEADER, TransferLeaderRequest(to_coordinator_id=coordinator_id))
    click.echo(f"{answer.leader_id} leads (term {answer.term})")


@cluster.command("digest", cls=Command)
@click.option("--revision", default=0, metavar="N", help="Compare at this revision. Default: the newest all have.")
def digest(revision: int) -> None:
    """Compare the state of all coordinators at one revision. Exits with 1 if they differ."""
    from cloudless.cli.digests import compare_digests
    from cloudless.cli.output import show_plain, show_table

    options = current()
    compared = compare_digests(options.addresses(), options.timeout_s, revision, options.credentials())
    if options.output in ("json", "yaml"):
        show_plain(options, compared.plain())
    else:
        rows = [
            [a, o.coordinator_id or "-", str(o.revision or "-"), o.digest or o.error] for a, o in compared.seen.items()
        ]
        show_table(options, ["ADDRESS", "COORDINATOR", "REVISION", "DIGEST"], rows)
    if not compared.equal:
        click.echo(f"digests differ or are missing at revision {compared.revision}", err=True)
        click.get_current_context().exit(DIFFERENT)
