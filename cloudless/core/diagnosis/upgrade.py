"""Whether the cluster may be upgraded now, to what, and in which order its coordinators are to be restarted.

No more than two versions run together. cloudless moves one minor at a time, up from the cluster's feature level or
back to it (`core.versions`), etcd one minor at a time and never back. A coordinator is restarted only while all the
others are well, followers first: the raft leader's host last but one, the leader last, so that each election happens
once. Agents go up after the coordinators and back before them: none is ever newer than a coordinator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cloudless.core.versions import Level, level_of, parse_level, parse_version, write_level

REFUSED = "refused"
VOTERS_MIN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """One coordinator before the upgrade. `ailing` is why it is not well, "" if it is."""

    id: str
    version: str
    etcd_version: str
    leader: bool = False
    raft_leader: bool = False
    learner: bool = False
    ailing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is to run afterwards. An `etcd_version` of "" leaves etcd as it is; `etcd_verdict` is the version gate's."""

    version: str
    etcd_version: str = ""
    etcd_verdict: str = ""
    etcd_reason: str = ""


@dataclass(frozen=True, slots=True)
class UpgradeJudgement:
    """`refusals` say why not now; without any, `order` are the coordinators to restart, one after the other."""

    refusals: tuple[str, ...]
    order: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def allowed(self) -> bool:
        return not self.refusals


def judge_upgrade(
    runners: Sequence[Runner], target: Target, agents: Mapping[str, str] | None = None, level: str = ""
) -> UpgradeJudgement:
    """Return whether, and in which order, `runners` may go to `target`.

    `agents`: their versions by node. `level`: the cluster's feature level, "" if nobody tells it.
    """
    refusals = (
        *_health(runners),
        *_cloudless(runners, target, parse_level(level)),
        *_etcd(runners, target),
        *_agents(agents or {}, target),
    )
    changing = [runner for runner in runners if _changes(runner, target)]
    order = sorted(changing, key=lambda runner: (runner.leader, runner.raft_leader, runner.id))
    notes = _notes(runners, changing, target) if changing else _notes_when_done(agents or {}, target, level)
    return UpgradeJudgement(refusals, tuple(runner.id for runner in order), tuple(notes))


def _health(runners: Sequence[Runner]) -> Iterator[str]:
    if not runners:
        yield "no coordinator answers, so nothing is known of what runs"
    for runner in runners:
        if runner.ailing:
            yield f"{runner.id} {runner.ailing}: mend that first (`cloudless cluster doctor`)"
        if runner.learner:
            yield f"{runner.id} is still a learner: wait until it votes"
    if runners and not any(runner.leader for runner in runners):
        yield "there is no leader"


def _cloudless(runners: Sequence[Runner], target: Target, level: Level | None) -> Iterator[str]:
    running = {runner.id: runner.version for runner in runners}
    yield from _steps("cloudless", running, target.version, level)
    aim, minors = parse_version(target.version), {level_of(version) for version in running.values()}
    if aim is None or level is None or aim[0] != level[0]:
        return
    following = write_level((level[0], level[1] + 1))
    if aim[:2] < level:
        yield (
            f"the upgrade to {write_level(level)} was finished: {target.version} cannot run here any more, "
            "only a snapshot from before leads back"
        )
    elif aim[1] > level[1] + 1 and minors == {following}:
        yield f"the upgrade to {following} is not finished: `cloudless cluster upgrade --finish` first"


def _etcd(runners: Sequence[Runner], target: Target) -> Iterator[str]:
    if not target.etcd_version:
        return
    if target.etcd_verdict == REFUSED:
        yield f"etcd {target.etcd_version} is refused: {target.etcd_reason}"
    yield from _steps("etcd", {runner.id: runner.etcd_version for runner in runners}, target.etcd_version)


def _agents(agents: Mapping[str, str], target: Target) -> Iterator[str]:
    """Agents are older than the coordinators for a while, by one minor version at most, and never newer."""
    aim = parse_version(target.version)
    for node_id, version in sorted(agents.items()):
        now = parse_version(version)
        if aim and now and (now[0] != aim[0] or abs(aim[1] - now[1]) > 1):
            yield f"the agent of {node_id} runs {version}: bring it within one minor version of {target.version} first"
        elif aim and now and now[:2] > aim[:2]:
            yield f"the agent of {node_id} runs {version}, newer than {target.version}: agents go back first"


def _steps(what: str, running: dict[str, str], target: str, level: Level | None = None) -> Iterator[str]:
    """Yield why any of `running` may not go to `target`; with a `level` it may be lower than what runs."""
    aim = parse_version(target)
    if aim is None:
        yield f"{target!r} is no version of {what}"
        return
    others = {version for version in running.values() if version != target}
    if len(others) > 1:
        yield f"{what} {', '.join(sorted(others))} run together: finish that upgrade first"
    for id, version in sorted(running.items()):
        now = parse_version(version)
        if now is None:
            yield f"{id} runs {what} {version or 'of an unknown version'}: it cannot be judged"
        elif now > aim and level is None:
            yield f"{id} runs {what} {version}, newer than {target}: going back is not supported, restore a snapshot"
        elif now[0] != aim[0]:
            yield f"{id} runs {what} {version}: another major version than {target}, see its notes"
        elif aim[1] - now[1] > 1:
            yield f"{id} runs {what} {version}: go to {now[0]}.{now[1] + 1} first, one minor version at a time"


def _changes(runner: Runner, target: Target) -> bool:
    return runner.version != target.version or target.etcd_version not in ("", runner.etcd_version)


def _notes(runners: Sequence[Runner], changing: Sequence[Runner], target: Target) -> Iterator[str]:
    voters = [runner for runner in runners if not runner.learner]
    if len(voters) < VOTERS_MIN:
        yield f"with {len(voters)} voter(s) each restart stops writes for some seconds; tasks run on"
    if len(changing) == len(runners):
        yield "take a snapshot first: `cloudless cluster snapshot save`"
    else:
        yield f"under way: {len(runners) - len(changing)} of {len(runners)} coordinators run it"
    back = any(_is_newer(runner.version, target.version) for runner in changing)
    if back:
        yield f"this goes back; what is newer than {level_of(target.version)} has not been used yet"
    yield (
        "restart one, wait until `cloudless cluster upgrade --check` names the next"
        + ("" if back else "; the agents after them")
    )


def _notes_when_done(agents: Mapping[str, str], target: Target, level: str) -> Iterator[str]:
    yield "every coordinator runs that version already"
    behind = sorted(node_id for node_id, version in agents.items() if _is_newer(target.version, version))
    if behind:
        yield f"agents to follow, one after the other: {', '.join(behind)}"
    elif level and level != level_of(target.version):
        yield (
            "what is new is used once you say `cloudless cluster upgrade --finish`; "
            f"until then you may go back to {level}"
        )


def _is_newer(version: str, other: str) -> bool:
    one, two = parse_version(version), parse_version(other)
    return bool(one and two and one > two)
