"""`cluster upgrade --check`: whether the cluster may go to another version now, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudless.cli.options import Command, Options, current

if TYPE_CHECKING:
    from cloudless.core.diagnosis import ClusterFacts
    from cloudless.core.diagnosis.upgrade import Runner, Target

REFUSED = 1


@click.command("upgrade", cls=Command)
@click.option("--check", is_flag=True, required=True, help="Judge only; upgrading itself is replacing and restarting.")
@click.option(
    "--to", "version", default="", metavar="VERSION", help="Version of cloudless. Default: this program's own."
)
@click.option("--etcd", "etcd_version", default="", metavar="VERSION", help="Version of etcd. Default: as it is.")
def upgrade(check: bool, version: str, etcd_version: str) -> None:
    """Judge an upgrade: one minor version at a time, everybody well, followers before the leader.

    Exits with 1 if it must not be done now.
    """
    from cloudless import __version__
    from cloudless.cli.doctor.coordinators import gather_cluster
    from cloudless.cli.output import show_plain
    from cloudless.core.diagnosis.upgrade import judge_upgrade

    options = current()
    cluster = gather_cluster(options.addresses(), options.timeout_s, options.credentials())
    target = _target(version or __version__, etcd_version)
    runners = list_runners(cluster)
    judged = judge_upgrade(runners, target, _list_agents(options) if cluster.answering else {})
    if options.output in ("json", "yaml"):
        show_plain(
            options,
            {
                "allowed": judged.allowed,
                "target": {"version": target.version, "etcdVersion": target.etcd_version},
                "refusals": list(judged.refusals),
                "order": list(judged.order),
                "notes": list(judged.notes),
            },
        )
    else:
        _show(runners, target, judged.refusals, judged.order if judged.allowed else (), judged.notes)
    if not judged.allowed:
        click.get_current_context().exit(REFUSED)


def _target(version: str, etcd_version: str) -> Target:
    from cloudless.core.diagnosis.upgrade import Target
    from etcd.gate import Version, judge

    if not etcd_version:
        return Target(version=version)
    try:
        judgement = judge(Version.parse(etcd_version))
    except ValueError:
        return Target(version=version, etcd_version=etcd_version)
    return Target(
        version=version,
        etcd_version=etcd_version,
        etcd_verdict=judgement.verdict.value,
        etcd_reason=judgement.reason,
    )


def _list_agents(options: Options) -> dict[str, str]:
    """Return the agents' versions by node; none if nobody tells."""
    from cloudless.cli.methods import LIST_NODES
    from cloudless.errors import CloudlessError
    from cloudless.rpc.v1.common_pb2 import CONSISTENCY_STALE, ReadOptions
    from cloudless.rpc.v1.node_pb2 import ListNodesRequest

    agents: dict[str, str] = {}
    request = ListNodesRequest(read=ReadOptions(consistency=CONSISTENCY_STALE))
    try:
        with options.client() as client:
            while True:
                answer = client.call(LIST_NODES, request)
                agents |= {node.id: node.info.version for node in answer.nodes if node.info.version}
                request.page_token = answer.next_token
                if not answer.next_token:
                    return agents
    except CloudlessError:
        return agents


def list_runners(cluster: ClusterFacts) -> list[Runner]:
    """Return every coordinator there should be: those that answer, those that are silent, members nobody speaks for."""
    from cloudless.core.diagnosis.member_rules import list_members
    from cloudless.core.diagnosis.upgrade import Runner

    members = {member.name: member for member in list_members(cluster)}
    leader_id = next((one.leader_id for one in cluster.answering if one.leader_id), "")
    runners = {}
    for one in cluster.coordinators:
        if not one.id:
            continue
        member = members.get(one.id)
        ailing = f"does not answer ({one.error})" if one.error else ""
        if not one.error and one.store is None:
            ailing = f"has no answer from its etcd ({one.store_error})"
        runners[one.id] = Runner(
            id=one.id,
            version=one.version,
            etcd_version=one.etcd_version,
            leader=one.id == leader_id,
            raft_leader=member is not None and member.raft_leader,
            learner=member is not None and member.learner,
            ailing=ailing,
        )
    for name in sorted(members.keys() - runners.keys()):
        words = name or f"member {members[name].id:x}"
        runners[name] = Runner(id=words, version="", etcd_version="", ailing="is a member, but does not answer")
    return [runners[id] for id in sorted(runners)]


def _show(
    runners: list[Runner], target: Target, refusals: tuple[str, ...], order: tuple[str, ...], notes: tuple[str, ...]
) -> None:
    aim = f"cloudless {target.version}" + (f" with etcd {target.etcd_version}" if target.etcd_version else "")
    for runner in runners:
        roles = [word for word, has in (("leader", runner.leader), ("raft leader", runner.raft_leader)) if has]
        suffix = f" ({', '.join(roles)})" if roles else ""
        click.echo(f"{runner.id}: cloudless {runner.version or '?'}, etcd {runner.etcd_version or '?'}{suffix}")
    if refusals:
        click.echo(f"\nnot now to {aim}:")
        for refusal in refusals:
            click.echo(f"  {refusal}")
        return
    click.echo(f"\nto {aim}: " + (f"restart {', then '.join(order)}" if order else "nothing to do"))
    for note in notes:
        click.echo(f"  {note}")
