"""`cluster join|leave|remove|replace|promote|update-member`: who belongs to the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudless.cli.options import Command, current

if TYPE_CHECKING:
    from cloudless.cli.client import Client
    from cloudless.rpc.v1.cluster_pb2 import GetAutopilotResponse, GetStatusResponse

# Longer than coordinators wait for members that have just connected, and for a leader's office to move.
REMOVE_TIMEOUT_S = 15.0
LEAVE_TIMEOUT_S = 25.0

_STEPS = {
    "await-newcomer": "waiting for {new} to ask to join",
    "remove-dead": "{dead} is being removed, {new} is there",
    "add-learner": "{dead} is removed; {new} becomes a learner",
    "await-catch-up": "{dead} is removed; {new} is a learner that catches up",
    "done": "{new} votes",
}


@click.command("join", cls=Command)
@click.argument("node_id", required=False, default="")
@click.option("--wait", is_flag=True, help="Wait until NODE_ID is a voter instead of explaining.")
@click.option("--wait-timeout", default=120.0, show_default=True, metavar="SECONDS", help="For --wait.")
def join(node_id: str, wait: bool, wait_timeout: float) -> None:
    """Explain how a new coordinator joins this cluster, or wait until NODE_ID has joined.

    Joining is done by the new coordinator itself: it asks any of the addresses it is given, waits in a queue, is added
    as a learner, catches up and becomes a voter when the number of voters is odd with it. `cluster members` shows the
    queue and what each one waits for.
    """
    if not wait:
        return _explain_join(node_id or "coordinator-4")
    if not node_id:
        raise click.UsageError("--wait needs the id of the coordinator to wait for")
    _wait_for_voter(node_id, wait_timeout)


def _explain_join(node_id: str) -> None:
    click.echo("On the new host, with its own address in place of HOST:\n")
    with current().client() as client:
        _show_variables(node_id, _status(client))
    click.echo(f"Then, here:  cloudless cluster join --wait {node_id}")


def _show_variables(node_id: str, answer: GetStatusResponse) -> None:
    known = sorted(c.record.api_address for c in answer.coordinators if c.record.api_address)
    variables = {
        "CLOUDLESS_NODE_ID": node_id,
        "CLOUDLESS_BIND_ADDR": "0.0.0.0:8080",
        "CLOUDLESS_ADVERTISE_ADDR": "HOST:8080",
        "CLOUDLESS_RAFT_ADDR": "HOST:3000",
        "CLOUDLESS_RAFT_JOIN_ADDR": ",".join(known) or ",".join(current().coordinators),
        "CLOUDLESS_DATA_DIR": "/var/lib/cloudless",
    }
    for name, value in variables.items():
        click.echo(f"  export {name}={value}")
    click.echo("  cloudless coordinator run\n")


def _wait_for_voter(node_id: str, timeout_s: float) -> None:
    from cloudless.cli.methods import LIST_MEMBERS
    from cloudless.cli.waiting import wait_for
    from cloudless.rpc.v1.cluster_pb2 import ListMembersRequest

    with current().client() as client:

        def look() -> tuple[bool, None, str]:
            answer = client.call(LIST_MEMBERS, ListMembersRequest())
            members = {m.name: m for m in answer.members}
            member, waiting = members.get(node_id), {j.record.id: j.note for j in answer.joiners}
            if member is None and node_id in waiting:
                return False, None, f"{node_id} {waiting[node_id] or 'is in the queue'}"
            if member is None:
                told = ", ".join(sorted(filter(None, members)))
                return False, None, f"{node_id} has not asked to join (members: {told})"
            if not member.started or member.learner:
                how = "is a learner that catches up" if member.started else "is added, not started"
                return False, None, f"{node_id} {member.note or how}"
            return True, None, ""

        wait_for(look, timeout_s, f"a voter: {node_id}")
    click.echo(f"{node_id} is a voter")


@click.command("leave", cls=Command)
@click.argument("coordinator_id")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Even if links to others are down; etcd's own check remains.")
def leave(coordinator_id: str, yes: bool, force: bool) -> None:
    """Let COORDINATOR_ID go: its offices move to others, its member is removed, its process ends.

    It keeps its data aside and does not come back by mistake: to join again it needs CLOUDLESS_REJOIN=true. Refused if
    what remains would have no healthy majority. For one that does not run any more use `replace` or `remove`.
    """
    from cloudless.cli.client import Client
    from cloudless.cli.methods import LEAVE_CLUSTER
    from cloudless.errors import NotFound, Unavailable
    from cloudless.rpc.v1.cluster_pb2 import LeaveClusterRequest

    options = current()
    with options.client() as client:
        status = _status(client)
        addresses = {c.record.id: c.record.api_address for c in status.coordinators}
        if coordinator_id not in addresses:
            hint = "see cloudless cluster members; a dead one is taken away by `cluster replace` or `cluster remove`"
            raise NotFound(f"no coordinator {coordinator_id} is running", hint=hint)
        if not yes:
            click.confirm(f"Let {coordinator_id} leave the cluster for good?", abort=True)
        others = tuple(address for id, address in addresses.items() if id != coordinator_id and address)
        try:
            with Client((addresses[coordinator_id],), options.timeout_s, options.credentials()) as leaver:
                request = LeaveClusterRequest(coordinator_id=coordinator_id, force=force)
                leaver.call(LEAVE_CLUSTER, request, timeout_s=max(LEAVE_TIMEOUT_S, options.timeout_s))
        except Unavailable:  # it may have gone before its answer came
            with Client(others or options.addresses(), options.timeout_s, options.credentials()) as asked:
                if coordinator_id in _member_names(asked):
                    raise
    click.echo(f"coordinator/{coordinator_id} has left")


@click.command("remove", cls=Command)
@click.argument("coordinator_id")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Leave the judgement whether the rest is healthy to etcd alone.")
@click.option("--request-id", default="", metavar="ID", help="Repeat safely under this id.")
def remove(coordinator_id: str, yes: bool, force: bool, request_id: str) -> None:
    """Remove COORDINATOR_ID's member (or the member with this id in hex). One that runs should rather `leave`.

    Refused if what remains would have no majority of voters whose coordinators answer. --force skips that check, for
    links that are down while etcd is well; what would lose the quorum at once is refused by etcd all the same, and
    without a quorum nothing can be removed: then the way is `cloudless cluster recover`.

    A removed coordinator stops; it joins again with CLOUDLESS_REJOIN=true or an empty data directory.
    """
    from cloudless.cli.methods import REMOVE_MEMBER
    from cloudless.rpc.v1.cluster_pb2 import RemoveMemberRequest
    from cloudless.rpc.v1.common_pb2 import WriteOptions

    if not yes:
        click.confirm(f"Remove {coordinator_id} from the cluster for good?", abort=True)
    write = WriteOptions(request_id=request_id)
    with current().client() as client:
        request = RemoveMemberRequest(options=write, coordinator_id=coordinator_id, force=force)
        client.call(REMOVE_MEMBER, request, timeout_s=max(REMOVE_TIMEOUT_S, client.timeout_s))
    click.echo(f"coordinator/{coordinator_id} removed")


@click.command("promote", cls=Command)
@click.argument("coordinator_id")
def promote(coordinator_id: str) -> None:
    """Make the learner COORDINATOR_ID a voter now, even if their number becomes even. etcd refuses one that lags."""
    from cloudless.cli.methods import PROMOTE_MEMBER
    from cloudless.rpc.v1.cluster_pb2 import PromoteMemberRequest

    with current().client() as client:
        answer = client.call(PROMOTE_MEMBER, PromoteMemberRequest(coordinator_id=coordinator_id))
    click.echo(f"coordinator/{coordinator_id} votes; {answer.voters} voters")
    if answer.voters % 2 == 0:
        click.echo(f"{answer.voters} voters survive no more losses than {answer.voters - 1}", err=True)


@click.command("replace", cls=Command)
@click.argument("dead_id")
@click.argument("new_id", required=False, default="")
@click.option("--cancel", is_flag=True, help="Withdraw it: DEAD_ID stays a member.")
@click.option("--no-wait", is_flag=True, help="Return at once; the cluster goes on by itself.")
@click.option("--wait-timeout", default=600.0, show_default=True, metavar="SECONDS", help="How long to wait.")
@click.option("--request-id", default="", metavar="ID", help="Repeat safely under this id.")
def replace(dead_id: str, new_id: str, cancel: bool, no_wait: bool, wait_timeout: float, request_id: str) -> None:
    """Give DEAD_ID up for good and let NEW_ID (default: the next coordinator that asks to join) take its place.

    The order is kept by the cluster: once the new one is there the dead member is removed, the new one is added as a
    learner, and votes when it has caught up. It goes on whoever crashes meanwhile, this command included; say it again
    to watch. NEW_ID may be DEAD_ID: the same name on a new host.
    """
    from cloudless.cli.methods import REPLACE_MEMBER
    from cloudless.rpc.v1.cluster_pb2 import ReplaceMemberRequest
    from cloudless.rpc.v1.common_pb2 import WriteOptions

    request = ReplaceMemberRequest(
        options=WriteOptions(request_id=request_id), coordinator_id=dead_id, new_coordinator_id=new_id, cancel=cancel
    )
    with current().client() as client:
        answer = client.call(REPLACE_MEMBER, request)
        if cancel:
            return click.echo(f"coordinator/{dead_id} is no longer to be replaced")
        click.echo(f"coordinator/{dead_id} is given up for {new_id or 'the next that joins'}")
        if answer.newcomer == "away":
            click.echo("\nIf the new one does not run yet, on its host (HOST is its own address):\n")
            _show_variables(new_id or "coordinator-4", _status(client))
        if not no_wait:
            _wait_replaced(client, dead_id, new_id, wait_timeout)
            click.echo(f"coordinator/{dead_id} is replaced")


def _wait_replaced(client: Client, dead_id: str, new_id: str, timeout_s: float) -> None:
    from cloudless.cli.waiting import wait_for

    def look() -> tuple[bool, None, str]:
        answer = _autopilot(client)
        found = next((r for r in answer.replacements if r.record.id == dead_id), None)
        if found is None:
            return True, None, ""
        said = _STEPS.get(found.step, found.step).format(dead=dead_id, new=new_id or "a new coordinator")
        why = [
            wait.reason for wait in answer.status.waits if wait.subject == dead_id and "is not removed" in wait.reason
        ]
        return False, None, "; ".join([said, *why])

    wait_for(look, timeout_s, f"replaced: {dead_id}")


@click.command("update-member", cls=Command)
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


def _status(client: Client) -> GetStatusResponse:
    from cloudless.cli.methods import GET_STATUS
    from cloudless.rpc.v1.cluster_pb2 import GetStatusRequest

    return client.call(GET_STATUS, GetStatusRequest())


def _autopilot(client: Client) -> GetAutopilotResponse:
    from cloudless.cli.methods import GET_AUTOPILOT
    from cloudless.rpc.v1.cluster_pb2 import GetAutopilotRequest

    return client.call(GET_AUTOPILOT, GetAutopilotRequest())


def _member_names(client: Client) -> set[str]:
    from cloudless.cli.methods import LIST_MEMBERS
    from cloudless.rpc.v1.cluster_pb2 import ListMembersRequest

    return {member.name for member in client.call(LIST_MEMBERS, ListMembersRequest()).members}
