"""`cluster upgrade`: whether the cluster may go to another version now, in which order, and how an upgrade ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudless.cli.options import Command, Options, current

if TYPE_CHECKING:
    from cloudless.core.diagnosis import ClusterFacts
    from cloudless.core.diagnosis.upgrade import Runner, Target, UpgradeJudgement

REFUSED = 1


@click.command("upgrade", cls=Command)
@click.option("--check", is_flag=True, help="Judge only; upgrading itself is replacing and restarting.")
@click.option("--finish", is_flag=True, help="All run the new version: use what it brought. There is no way back.")
@click.option(
    "--to", "version", default="", metavar="VERSION", help="Version of cloudless. Default: this program's own."
)
@click.option("--etcd", "etcd_version", default="", metavar="VERSION", help="Version of etcd. Default: as it is.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before finishing.")
def upgrade(check: bool, finish: bool, version: str, etcd_version: str, yes: bool) -> None:
    """Judge an upgrade (--check), or end one (--finish).

    One minor version at a time, everybody well, followers before the leader. --check exits with 1 if it must not be
    done now. Until --finish each coordinator may go back to the version before.
    """
    if check == finish:
        raise click.UsageError("give one of --check and --finish")
    if finish:
        _finish(current(), yes)
    else:
        _check(current(), version, etcd_version)


def _finish(options: Options, yes: bool) -> None:
    from cloudless.cli.methods import FINISH_UPGRADE
    from cloudless.cli.output import show_plain
    from cloudless.rpc.v1.cluster_pb2 import FinishUpgradeRequest

    if not yes:
        click.confirm("From then on no coordinator can go back to the version before; go on?", abort=True)
    with options.client() as client:
        answer = client.call(FINISH_UPGRADE, FinishUpgradeRequest())
    before, level = answer.feature_level_before, answer.feature_level
    if options.output in ("json", "yaml"):
        show_plain(options, {"featureLevel": level, "before": before})
    elif before == level:
        click.echo(f"nothing to finish: the feature level is {level} already, and no coordinator is ahead of it")
    else:
        click.echo(f"the feature level is {level} (it was {before or 'none'}): the upgrade is finished")


def _check(options: Options, version: str, etcd_version: str) -> None:
    from cloudless import __version__
    from cloudless.cli.doctor.coordinators import gather_cluster
    from cloudless.cli.output import show_plain
    from cloudless.core.diagnosis.upgrade import judge_upgrade

    cluster = gather_cluster(options.addresses(), options.timeout_s, options.credentials())
    target = _target(version or __version__, etcd_version)
    runners = list_runners(cluster)
    level = cluster.feature_level
    judged = judge_upgrade(runners, target, _list_agents(options) if cluster.answering else {}, level)
    if options.output in ("json", "yaml"):
        show_plain(
            options,
            {
                "allowed": judged.allowed,
                "featureLevel": level,
                "target": {"version": target.version, "etcdVersion": target.etcd_version},
                "refusals": list(judged.refusals),
                "order": list(judged.order),
                "notes": list(judged.notes),
            },
        )
    else:
        _show(runners, target, judged, level)
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


def _show(runners: list[Runner], target: Target, judged: UpgradeJudgement, level: str) -> None:
    aim = f"cloudless {target.version}" + (f" with etcd {target.etcd_version}" if target.etcd_version else "")
    for runner in runners:
        roles = [word for word, has in (("leader", runner.leader), ("raft leader", runner.raft_leader)) if has]
        suffix = f" ({', '.join(roles)})" if roles else ""
        click.echo(f"{runner.id}: cloudless {runner.version or '?'}, etcd {runner.etcd_version or '?'}{suffix}")
    if level:
        click.echo(f"feature level: {level}")
    if not judged.allowed:
        click.echo(f"\nnot now to {aim}:")
        for refusal in judged.refusals:
            click.echo(f"  {refusal}")
        return
    order = judged.order
    click.echo(f"\nto {aim}: " + (f"restart {', then '.join(order)}" if order else "nothing to restart"))
    for note in judged.notes:
        click.echo(f"  {note}")
