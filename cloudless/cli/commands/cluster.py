"""`cluster …`: the coordinators, their members, their leader."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudless.cli.lazy import LazyGroup
from cloudless.cli.options import Command, Options, current

if TYPE_CHECKING:
    from cloudless.rpc.v1.cluster_pb2 import GetStatusResponse

DIFFERENT = 1


_COMMANDS = {
    "snapshot": ("cloudless.cli.commands.snapshot:snapshot", "Backups: save, list, inspect, verify, restore, prune."),
    "recover": ("cloudless.cli.commands.recover:recover", "Rebuild the cluster here after the majority was lost."),
}


@click.group(
    cls=LazyGroup,
    lazy=_COMMANDS,
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
                ("backup", _describe_backup(answer)),
                ("quarantine", "\n".join(f"{key}: {answer.quarantine[key]}" for key in sorted(answer.quarantine))),
                ("asked", header.coordinator_id),
            ],
        )
        click.echo()
    show_list(options, COORDINATORS, sorted(answer.coordinators, key=lambda c: c.record.id))


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
    """List the etcd members: voters and learners."""
    from cloudless.cli.methods import LIST_MEMBERS
    from cloudless.cli.output import show_list
    from cloudless.cli.views import MEMBERS
    from cloudless.rpc.v1.cluster_pb2 import ListMembersRequest

    options = current()
    with options.client() as client:
        answer = client.call(LIST_MEMBERS, ListMembersRequest())
    show_list(options, MEMBERS, sorted(answer.members, key=lambda m: m.name))


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


@cluster.command("join", cls=Command)
@click.argument("node_id", required=False, default="")
@click.option("--wait", is_flag=True, help="Wait until NODE_ID is a voter instead of explaining.")
@click.option("--wait-timeout", default=120.0, show_default=True, metavar="SECONDS", help="For --wait.")
def join(node_id: str, wait: bool, wait_timeout: float) -> None:
    """Explain how a new coordinator joins this cluster, or wait until NODE_ID has joined.

    Joining is done by the new coordinator itself: it asks any of the addresses it is given, is added as a
    learner, catches up and becomes a voter.
    """
    if not wait:
        return _explain_join(node_id or "coordinator-4")
    if not node_id:
        raise click.UsageError("--wait needs the id of the coordinator to wait for")
    _wait_for_voter(node_id, wait_timeout)


def _explain_join(node_id: str) -> None:
    from cloudless.cli.methods import GET_STATUS
    from cloudless.rpc.v1.cluster_pb2 import GetStatusRequest

    options = current()
    with options.client() as client:
        answer = client.call(GET_STATUS, GetStatusRequest())
    known = sorted(c.record.api_address for c in answer.coordinators if c.record.api_address)
    click.echo("On the new host, with its own address in place of HOST:\n")
    variables = {
        "CLOUDLESS_NODE_ID": node_id,
        "CLOUDLESS_BIND_ADDR": "0.0.0.0:8080",
        "CLOUDLESS_ADVERTISE_ADDR": "HOST:8080",
        "CLOUDLESS_RAFT_ADDR": "HOST:3000",
        "CLOUDLESS_RAFT_JOIN_ADDR": ",".join(known) or ",".join(options.coordinators),
        "CLOUDLESS_DATA_DIR": "/var/lib/cloudless",
    }
    for name, value in variables.items():
        click.echo(f"  export {name}={value}")
    click.echo("  cloudless coordinator run\n")
    click.echo(f"Then, here:  cloudless cluster join --wait {node_id}")


def _wait_for_voter(node_id: str, timeout_s: float) -> None:
    from cloudless.cli.methods import LIST_MEMBERS
    from cloudless.cli.waiting import wait_for
    from cloudless.rpc.v1.cluster_pb2 import ListMembersRequest

    with current().client() as client:

        def look() -> tuple[bool, None, str]:
            members = {m.name: m for m in client.call(LIST_MEMBERS, ListMembersRequest()).members}
            member = members.get(node_id)
            if member is None:
                return (
                    False,
                    None,
                    f"{node_id} has not asked to join (members: {', '.join(sorted(filter(None, members)))})",
                )
            if not member.started or member.learner:
                return (
                    False,
                    None,
                    f"{node_id} is {'a learner that catches up' if member.started else 'added, not started'}",
                )
            return True, None, ""

        wait_for(look, timeout_s, f"a voter: {node_id}")
    click.echo(f"{node_id} is a voter")


@cluster.command("remove", cls=Command)
@click.argument("coordinator_id")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--request-id", default="", metavar="ID", help="Repeat safely under this id.")
def remove(coordinator_id: str, yes: bool, request_id: str) -> None:
    """Remove COORDINATOR_ID's member. Refused if what remains would have no healthy majority.

    A removed coordinator stops; it joins again only with an empty data directory.
    """
    from cloudless.cli.methods import REMOVE_MEMBER
    from cloudless.rpc.v1.cluster_pb2 import RemoveMemberRequest
    from cloudless.rpc.v1.common_pb2 import WriteOptions

    if not yes:
        click.confirm(f"Remove {coordinator_id} from the cluster for good?", abort=True)
    request = RemoveMemberRequest(options=WriteOptions(request_id=request_id), coordinator_id=coordinator_id)
    with current().client() as client:
        client.call(REMOVE_MEMBER, request)
    click.echo(f"coordinator/{coordinator_id} removed")


@cluster.command("update-member", cls=Command)
@click.argument("coordinator_id")
@click.option("--raft-address", required=True, metavar="HOST:PORT", help="Where its member will listen.")
@click.option("--request-id", default="", metavar="ID", help="Repeat safely under this id.")
def update_member(coordinator_id: str, raft_address: str, request_id: str) -> None:
    """Tell the cluster the new raft address of COORDINATOR_ID, before it is restarted with it.

    Needed only where the others have no quorum without it; otherwise it asks them itself when it starts.
    """
    from cloudless.cli.methods import UPDATE_MEMBER
    from cloudless.rpc.v1.cluster_pb2 import UpdateMemberRequest
    from cloudless.rpc.v1.common_pb2 import WriteOptions

    request = UpdateMemberRequest(
        options=WriteOptions(request_id=request_id), coordinator_id=coordinator_id, raft_address=raft_address
    )
    with current().client() as client:
        client.call(UPDATE_MEMBER, request)
    click.echo(f"coordinator/{coordinator_id} is expected at {raft_address}: restart it with CLOUDLESS_RAFT_ADDR")


@cluster.command("digest", cls=Command)
@click.option("--revision", default=0, metavar="N", help="Compare at this revision. Default: the newest all have.")
def digest(revision: int) -> None:
    """Compare the state of all coordinators at one revision. Exits with 1 if they differ."""
    from cloudless.cli.digests import compare_digests
    from cloudless.cli.output import show_plain, show_table

    options = current()
    compared = compare_digests(options.coordinators, options.timeout_s, revision)
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
