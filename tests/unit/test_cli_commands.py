"""The commands as a person types them: what they print, in which form, and how they exit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from cloudless.cli import methods
from cloudless.cli.main import _COMMANDS, cli
from cloudless.cli.views import format_taint
from cloudless.errors import AlreadyExists, CloudlessError, Denied, InvalidSpec, NoSpace, NotFound, Problem, Unavailable
from cloudless.rpc.v1 import cluster_pb2, event_pb2, node_pb2, objects_pb2, workload_pb2
from cloudless.rpc.v1.common_pb2 import CONSISTENCY_BOUNDED, CONSISTENCY_STALE, ResponseHeader
from tests.unit.cli_coordinator import FakeCoordinator

NODE = node_pb2.Node(
    id="agent-1",
    phase="READY",
    tasks_live=2,
    last_heard_s=0.4,
    revision=17,
    info=objects_pb2.NodeInfo(
        id="agent-1",
        zone="zone-a",
        capacity=objects_pb2.Resources(cpu_millicores=2000, memory_mb=2048),
        labels={"disk": "ssd"},
    ),
    reserved=objects_pb2.Resources(cpu_millicores=250, memory_mb=64),
)


@pytest.fixture
def coordinator() -> Iterator[FakeCoordinator]:
    made = FakeCoordinator()
    made.answer(methods.LIST_NODES, node_pb2.ListNodesResponse(nodes=[NODE]))
    made.answer(methods.GET_NODE, node_pb2.GetNodeResponse(node=NODE))
    yield made
    made.stop()


def run(coordinator: FakeCoordinator, *words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["--coordinator", coordinator.address, *words], input=stdin)


def every_command() -> Iterator[list[str]]:
    """Yield the path of every command and group there is."""
    queue: list[tuple[list[str], click.Command]] = [([], cli)]
    while queue:
        path, command = queue.pop()
        yield path
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                queue.append(([*path, name], found))


# --- the program --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", list(every_command()), ids=" ".join)
def test_every_command_explains_itself(path: list[str]) -> None:
    result = CliRunner().invoke(cli, [*path, "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Usage:")


@pytest.mark.parametrize("words", [["--help"], ["version"], ["node", "list", "--help"], ["dev", "up", "--help"]])
def test_help_and_version_import_click_and_nothing_slow(words: list[str]) -> None:
    program = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from cloudless.cli.main import cli\n"
        "try: cli.main(args=sys.argv[1:], prog_name='cloudless')\n"
        "except SystemExit: pass\n"
        "slow = {'asyncio', 'concurrent', 'email', 'http', 'json', 'logging', 'multiprocessing', 'socket', 'ssl',"
        " 'subprocess', 'tempfile'}\n"
        "allowed = (sys.stdlib_module_names - slow) | {'click', 'cloudless'}\n"
        "added = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "below = {name.split('.')[1] for name in sys.modules if name.startswith('cloudless.')}\n"
        "sys.exit(', '.join(sorted(added - allowed) + sorted(below - {'cli', 'errors'})) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_exit_codes_are_documented_and_match_the_one_table() -> None:
    from cloudless.errors import OUTCOMES

    text = CliRunner().invoke(cli, ["--help"]).output.partition("Exit codes:")[2]
    documented = {int(line.split()[0]) for line in text.splitlines() if line.strip()}
    assert {outcome.exit_code for outcome in OUTCOMES.values()} <= documented


@pytest.mark.parametrize(("words", "near"), [(["wrkload"], "workload"), (["node", "drane"], "drain")])
def test_a_mistyped_command_is_answered_with_the_nearest(words: list[str], near: str) -> None:
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2
    assert f"did you mean {near}?" in result.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_both_names(shell: str) -> None:
    output = CliRunner().invoke(cli, ["completion", shell]).output
    assert "_CLOUDLESS_COMPLETE" in output
    assert "_CLOUDLESSCTL_COMPLETE" in output


def test_every_command_listed_can_be_imported() -> None:
    context = click.Context(cli)
    assert all(cli.get_command(context, name) for name in _COMMANDS)


# --- failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("no node"), 4),
        (AlreadyExists("there is one"), 5),
        (Denied("not yours"), 6),
        (NoSpace("full"), 3),
        (CloudlessError("odd"), 70),
    ],
)
def test_a_typed_error_is_printed_and_gives_its_exit_code(
    coordinator: FakeCoordinator, error: CloudlessError, code: int
) -> None:
    coordinator.answer(methods.GET_NODE, error)
    result = run(coordinator, "node", "get", "agent-1")
    assert result.exit_code == code
    assert f"error: {error.message}" in result.stderr
    assert result.stdout == ""


def test_every_problem_has_a_line_and_the_hint_comes_last(coordinator: FakeCoordinator) -> None:
    problems = [Problem("spec.replicas", "must not be negative"), Problem("spec.imag", "unknown; did you mean image?")]
    coordinator.answer(methods.APPLY_WORKLOAD, InvalidSpec(problems, hint="see examples/"))
    result = run(coordinator, "workload", "apply", "-f", "-", stdin="kind: Workload")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: refused: 2 problems",
        "  spec.replicas: must not be negative",
        "  spec.imag: unknown; did you mean image?",
        "hint: see examples/",
    ]


def test_a_manifest_that_is_not_there_is_a_user_error(coordinator: FakeCoordinator) -> None:
    result = run(coordinator, "workload", "apply", "-f", "no-such-file.yaml")
    assert result.exit_code == 2
    assert "no-such-file.yaml" in result.stderr


def test_no_coordinator_exits_with_three_and_names_the_cure() -> None:
    result = CliRunner().invoke(cli, ["--coordinator", "127.0.0.1:1", "--timeout", "1", "node", "list"])
    assert result.exit_code == 3
    assert "error:" in result.stderr


@pytest.mark.parametrize(
    "words", [["-c", "srv+nonsense"], ["--consistency", "sometimes"], ["--consistency", "bounded:x"]]
)
def test_a_wrong_option_is_a_usage_error(words: list[str]) -> None:
    assert CliRunner().invoke(cli, [*words, "node", "list"]).exit_code == 2


# --- options ------------------------------------------------------------------------------------


def test_options_may_stand_before_or_after_the_command(coordinator: FakeCoordinator) -> None:
    before = run(coordinator, "-o", "name", "node", "list")
    after = CliRunner().invoke(cli, ["node", "list", "-o", "name", "--coordinator", coordinator.address])
    assert before.stdout == after.stdout == "node/agent-1\n"


def test_coordinators_come_from_the_environment(coordinator: FakeCoordinator) -> None:
    variables = {"CLOUDLESS_COORDINATORS": f"127.0.0.1:1,{coordinator.address}"}
    assert CliRunner(env=variables).invoke(cli, ["node", "ls", "-o", "name"]).stdout == "node/agent-1\n"


def test_consistency_and_selector_reach_the_coordinator(coordinator: FakeCoordinator) -> None:
    run(coordinator, "node", "list", "--consistency", "bounded:2.5", "-l", "zone=zone-a,phase=READY")
    run(coordinator, "--consistency", "stale", "node", "list")
    bounded, stale = coordinator.requests
    assert bounded.read.consistency == CONSISTENCY_BOUNDED
    assert bounded.read.max_staleness_s == 2.5
    assert dict(bounded.selector) == {"zone": "zone-a", "phase": "READY"}
    assert stale.read.consistency == CONSISTENCY_STALE


def test_a_name_may_carry_its_namespace(coordinator: FakeCoordinator) -> None:
    coordinator.answer(methods.DELETE_WORKLOAD, workload_pb2.DeleteWorkloadResponse())
    for words in (["shop/web"], ["web", "--namespace", "shop"], ["web"]):
        assert run(coordinator, "workload", "delete", *words).exit_code == 0
    assert [(r.namespace, r.name) for r in coordinator.requests] == [
        ("shop", "web"),
        ("shop", "web"),
        ("default", "web"),
    ]


# --- forms of output ----------------------------------------------------------------------------


def test_the_table_shows_what_matters_and_wide_shows_more(coordinator: FakeCoordinator) -> None:
    table = run(coordinator, "node", "list").stdout.splitlines()
    wide = run(coordinator, "node", "list", "-o", "wide").stdout
    assert table[0].split() == ["NAME", "PHASE", "ZONE", "CPU", "MEM", "TASKS", "HEARD", "AGE"]
    assert table[1].split()[:6] == ["agent-1", "READY", "zone-a", "0.25/2", "64M/2G", "2"]
    assert "disk=ssd" in wide


def test_json_is_a_list_with_numbers_as_numbers(coordinator: FakeCoordinator) -> None:
    (node,) = json.loads(run(coordinator, "node", "list", "-o", "json").stdout)
    assert (node["id"], node["tasksLive"], node["revision"]) == ("agent-1", 2, 17)
    assert node["info"]["capacity"]["cpuMillicores"] == 2000
    assert node["spec"] is None


def test_yaml_says_the_same_as_json(coordinator: FakeCoordinator) -> None:
    as_json = json.loads(run(coordinator, "node", "list", "-o", "json").stdout)
    assert yaml.safe_load(run(coordinator, "node", "list", "-o", "yaml").stdout) == as_json


def test_an_empty_list_is_said_on_stderr_only(coordinator: FakeCoordinator) -> None:
    coordinator.answer(methods.LIST_NODES, node_pb2.ListNodesResponse())
    empty = run(coordinator, "node", "list")
    assert (empty.stdout, empty.exit_code) == ("", 0)
    assert "no nodes" in empty.stderr
    assert json.loads(run(coordinator, "node", "list", "-o", "json").stdout) == []


def test_a_list_is_read_to_its_last_page(coordinator: FakeCoordinator) -> None:
    def page(request: node_pb2.ListNodesRequest) -> node_pb2.ListNodesResponse:
        number = int(request.page_token or "0")
        token = str(number + 1) if number < 2 else ""
        header = ResponseHeader(revision=50)
        return node_pb2.ListNodesResponse(header=header, nodes=[node_pb2.Node(id=f"n{number}")], next_token=token)

    coordinator.answer(methods.LIST_NODES, page)
    assert run(coordinator, "node", "list", "-o", "name").stdout == "node/n0\nnode/n1\nnode/n2\n"
    assert coordinator.requests[-1].read.min_revision == 50


# --- single commands ----------------------------------------------------------------------------


def test_apply_says_what_became_of_each_workload(coordinator: FakeCoordinator, tmp_path: Path) -> None:
    results = [
        workload_pb2.ApplyResult(namespace="default", name="web", action="changed", changed_fields=["replicas"]),
        workload_pb2.ApplyResult(namespace="shop", name="db", action="created"),
    ]
    coordinator.answer(methods.APPLY_WORKLOAD, workload_pb2.ApplyWorkloadResponse(results=results))
    manifest = tmp_path / "shop.yaml"
    manifest.write_text("kind: Workload\n", encoding="utf-8")
    result = run(coordinator, "workload", "apply", "-f", str(manifest), "--dry-run")
    assert result.stdout.splitlines() == [
        "workload/web changed: replicas (dry run)",
        "workload/shop/db created (dry run)",
    ]
    (request,) = coordinator.requests
    assert request.manifest == "kind: Workload\n"
    assert request.dry_run


def test_workload_get_as_yaml_is_the_manifest(coordinator: FakeCoordinator) -> None:
    answer = workload_pb2.GetWorkloadResponse(manifest="apiVersion: cloudless/v1\nkind: Workload\n")
    coordinator.answer(methods.GET_WORKLOAD, answer)
    assert (
        run(coordinator, "workload", "get", "web", "-o", "yaml").stdout == "apiVersion: cloudless/v1\nkind: Workload\n"
    )


def test_scale_takes_the_number_as_argument_or_option(coordinator: FakeCoordinator) -> None:
    coordinator.answer(methods.SCALE_WORKLOAD, workload_pb2.ScaleWorkloadResponse())
    assert run(coordinator, "workload", "scale", "web", "3").exit_code == 0
    assert run(coordinator, "workload", "scale", "web", "--replicas", "0").exit_code == 0
    assert run(coordinator, "workload", "scale", "web").exit_code == 2
    assert [request.replicas for request in coordinator.requests] == [3, 0]


def test_waiting_for_a_workload_ends_with_the_reason_why_not(coordinator: FakeCoordinator) -> None:
    summary = workload_pb2.WorkloadSummary(desired=2, running=1, updated=2)
    workload = workload_pb2.Workload(summary=summary)
    coordinator.answer(methods.SCALE_WORKLOAD, workload_pb2.ScaleWorkloadResponse())
    coordinator.answer(methods.GET_ROLLOUT, workload_pb2.GetRolloutResponse(workload=workload))
    coordinator.answer(methods.EXPLAIN_WORKLOAD, workload_pb2.ExplainWorkloadResponse(verdict="no node has cpu left"))
    result = run(coordinator, "workload", "scale", "web", "2", "--wait", "--wait-timeout", "0.3")
    assert result.exit_code == 3
    assert "0 of 2 ready" in result.stderr
    assert "no node has cpu left" in result.stderr


def test_plan_shows_what_would_happen_and_exits_with_1_if_anything_would(
    coordinator: FakeCoordinator, tmp_path: Path
) -> None:
    manifest = tmp_path / "web.yaml"
    manifest.write_text("kind: Workload")
    planned = workload_pb2.PlannedWorkload(
        namespace="default",
        name="web",
        action="changed",
        fields=[workload_pb2.PlannedField(path="replicas", before="2", after="5")],
        starts=[workload_pb2.PlannedTask(slot=n, node_id="agent-1") for n in (2, 3)],
        stops=[
            workload_pb2.PlannedTask(task_id="job-x", node_id="agent-2", reason="makes room", workload="default/job")
        ],
        unplaced=[
            workload_pb2.SlotDiagnosis(
                slot=4,
                text="0 of 2 nodes fit: 2 lack cpu",
                nearest=[workload_pb2.NearMiss(node_id="agent-2", obstacles=["lacks cpu", "is cordoned"])],
            )
        ],
    )
    coordinator.answer(methods.PLAN_WORKLOAD, workload_pb2.PlanWorkloadResponse(workloads=[planned]))
    result = run(coordinator, "workload", "plan", str(manifest))
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "workload/web changed",
        "  replicas: 2 -> 5",
        "  start slot 2, 3 on agent-1",
        "  stop job-x of default/job on agent-2: makes room",
        "  pending slot 4: 0 of 2 nodes fit: 2 lack cpu",
        "    nearest agent-2: lacks cpu; is cordoned",
        "plan: 1 of 1 workloads change; tasks: 2 start, 1 stop, 1 pending",
    ]
    same = workload_pb2.PlannedWorkload(namespace="default", name="web", action="unchanged")
    coordinator.answer(methods.PLAN_WORKLOAD, workload_pb2.PlanWorkloadResponse(workloads=[same]))
    result = run(coordinator, "workload", "plan", "-f", str(manifest))
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "plan: nothing would change")
    assert run(coordinator, "workload", "plan").exit_code == 2
    assert run(coordinator, "workload", "plan", str(tmp_path / "none.yaml")).exit_code == 2


def test_drain_waits_until_the_node_is_empty(coordinator: FakeCoordinator) -> None:
    left = iter([2, 1, 0])
    coordinator.answer(methods.UPDATE_NODE, node_pb2.UpdateNodeResponse(node=node_pb2.Node(phase="DRAINING")))
    coordinator.answer(
        methods.GET_NODE, lambda _: node_pb2.GetNodeResponse(node=node_pb2.Node(id="agent-1", tasks_live=next(left)))
    )
    result = run(coordinator, "node", "drain", "agent-1", "--wait")
    assert result.exit_code == 0
    assert "node/agent-1 drained" in result.stdout
    assert coordinator.requests[0].draining is True
    assert not coordinator.requests[0].HasField("cordoned")


def test_labels_are_set_and_removed(coordinator: FakeCoordinator) -> None:
    coordinator.answer(methods.UPDATE_NODE, node_pb2.UpdateNodeResponse(node=NODE))
    assert run(coordinator, "node", "label", "agent-1", "disk=ssd", "old-").exit_code == 0
    (request,) = coordinator.requests
    assert dict(request.set_labels) == {"disk": "ssd"}
    assert list(request.remove_labels) == ["old"]


def test_taints_are_set_and_removed(coordinator: FakeCoordinator) -> None:
    node = node_pb2.Node()
    node.CopyFrom(NODE)
    node.spec.taints.add(key="gpu", value="yes", effect="TAINT_EFFECT_NO_SCHEDULE")
    coordinator.answer(methods.UPDATE_NODE, node_pb2.UpdateNodeResponse(node=node))
    words = ("gpu=yes:NO_SCHEDULE", "slow:prefer-no-schedule", "a:NoExecute-", "old-")
    assert run(coordinator, "node", "taint", "agent-1", *words).exit_code == 0
    (request,) = coordinator.requests
    assert [format_taint(taint) for taint in request.set_taints] == ["gpu=yes:NO_SCHEDULE", "slow:PREFER_NO_SCHEDULE"]
    assert [format_taint(taint) for taint in request.remove_taints] == ["a:NO_EXECUTE", "old:"]
    for wrong in ("gpu", "gpu:SOMETIMES", ":NO_EXECUTE", "=x:NO_EXECUTE"):
        assert run(coordinator, "node", "taint", "agent-1", wrong).exit_code == 2, wrong


def test_logs_of_several_tasks_never_mix_inside_a_line(coordinator: FakeCoordinator) -> None:
    chunks = [("a", b"one\ntw"), ("b", b"three\n"), ("a", b"o\nlast")]
    coordinator.answer(
        methods.READ_LOGS,
        lambda _: [workload_pb2.ReadLogsResponse(task_id=t, stream="stdout", data=d) for t, d in chunks],
    )
    result = run(coordinator, "workload", "logs", "web")
    assert result.stdout.splitlines() == ["[a] one", "[b] three", "[a] two", "[a] last"]


def test_logs_that_cannot_be_had_are_named_and_fail(coordinator: FakeCoordinator) -> None:
    coordinator.answer(
        methods.READ_LOGS,
        lambda _: [workload_pb2.ReadLogsResponse(task_id="a", stream="error", data=b"its node is away")],
    )
    result = run(coordinator, "task", "logs", "a")
    assert result.exit_code == 3
    assert "a: its node is away" in result.stderr


def test_following_events_goes_on_after_a_coordinator_has_gone(coordinator: FakeCoordinator) -> None:
    def event(number: int) -> objects_pb2.EventRecord:
        return objects_pb2.EventRecord(
            id=f"e{number}", kind="NodeReady", subject="node/agent-1", message=f"no {number}"
        )

    def watch(request: event_pb2.WatchRequest) -> Iterator[object]:
        revision = request.from_revision
        record = objects_pb2.StoredRecord(event=event(revision))
        yield event_pb2.WatchResponse(revision=revision, changes=[event_pb2.Change(revision=revision, record=record)])
        yield Unavailable("stopping") if revision < 13 else CloudlessError("enough")

    header = ResponseHeader(revision=10)
    coordinator.answer(methods.LIST_EVENTS, event_pb2.ListEventsResponse(header=header, events=[event(10)]))
    coordinator.answer(methods.WATCH, watch)
    result = run(coordinator, "events", "--follow", "-o", "name")
    assert result.stdout.split() == ["event/e10", "event/e11", "event/e12", "event/e13"]


def test_cluster_status_shows_problems_and_exits_by_health(coordinator: FakeCoordinator) -> None:
    record = objects_pb2.CoordinatorRecord(id="coordinator-1", api_address="10.0.0.1:8080")
    status = cluster_pb2.GetStatusResponse(
        header=ResponseHeader(leader_id="coordinator-1", term=7),
        health="unavailable",
        problems=["no quorum: 1 of 3 members answers"],
        coordinators=[cluster_pb2.CoordinatorStatus(record=record, leader=True, linked=True, member_role="voter")],
    )
    coordinator.answer(methods.GET_STATUS, status)
    result = run(coordinator, "cluster", "status")
    assert result.exit_code == 3
    assert "no quorum: 1 of 3 members answers" in result.stdout
    assert "coordinator-1 (term 7)" in result.stdout
    assert run(coordinator, "cluster", "leader", "-o", "name").stdout == "coordinator/coordinator-1\n"


def test_equal_digests_pass_and_different_ones_fail(coordinator: FakeCoordinator) -> None:
    other = FakeCoordinator()
    try:
        for each in (coordinator, other):
            each.answer(methods.GET_DIGEST, cluster_pb2.GetDigestResponse(revision=9, digest="aa"))
        words = ["cluster", "digest", "--coordinator", f"{coordinator.address},{other.address}"]
        assert CliRunner().invoke(cli, words).exit_code == 0
        other.answer(methods.GET_DIGEST, cluster_pb2.GetDigestResponse(revision=9, digest="bb"))
        result = CliRunner().invoke(cli, words)
        assert result.exit_code == 1
        assert "digests differ" in result.stderr
    finally:
        other.stop()


def test_join_waits_until_the_member_is_a_voter(coordinator: FakeCoordinator) -> None:
    stages = iter([[], [(True, False)], [(True, True)], [(False, True)]])

    def members(_: object) -> cluster_pb2.ListMembersResponse:
        found = [cluster_pb2.Member(name="coordinator-4", learner=learner, started=on) for learner, on in next(stages)]
        return cluster_pb2.ListMembersResponse(members=found)

    coordinator.answer(methods.LIST_MEMBERS, members)
    result = run(coordinator, "cluster", "join", "--wait", "coordinator-4")
    assert result.exit_code == 0
    assert "coordinator-4 is a voter" in result.stdout
    assert "catches up" in result.stderr


def test_remove_asks_first(coordinator: FakeCoordinator) -> None:
    coordinator.answer(methods.REMOVE_MEMBER, cluster_pb2.RemoveMemberResponse())
    assert run(coordinator, "cluster", "remove", "coordinator-3", stdin="n\n").exit_code == 130
    assert coordinator.requests == []
    assert run(coordinator, "cluster", "remove", "coordinator-3", "--yes").exit_code == 0


def test_members_show_their_health_and_who_waits(coordinator: FakeCoordinator) -> None:
    record = objects_pb2.JoinRecord(id="coordinator-5", raft_address="10.0.0.5:3000", api_address="10.0.0.5:8080")
    answer = cluster_pb2.ListMembersResponse(
        members=[
            cluster_pb2.Member(id=1, name="coordinator-1", started=True, health="healthy", raft_lag=0),
            cluster_pb2.Member(id=4, name="coordinator-4", started=True, learner=True, health="standby", note="spare"),
        ],
        joiners=[cluster_pb2.Joiner(record=record, note="one learner at a time")],
    )
    coordinator.answer(methods.LIST_MEMBERS, answer)
    result = run(coordinator, "cluster", "members")
    assert result.exit_code == 0
    for words in ("healthy", "standby", "spare", "coordinator-5", "one learner at a time"):
        assert words in result.stdout
    assert [member["name"] for member in json.loads(run(coordinator, "cluster", "members", "-o", "json").stdout)] == [
        "coordinator-1",
        "coordinator-4",
    ]


def test_autopilot_get_tells_what_is_waited_for(coordinator: FakeCoordinator) -> None:
    wait = objects_pb2.AutopilotWait(subject="coordinator-3", reason="is not removed: nobody waits")
    coordinator.answer(
        methods.GET_AUTOPILOT,
        cluster_pb2.GetAutopilotResponse(
            settings=objects_pb2.AutopilotRecord(cleanup_dead_voters=True, dead_after_s=300, min_quorum=3),
            status=objects_pb2.AutopilotStatus(doing="coordinator-2 promoted to voter: it has caught up", waits=[wait]),
        ),
    )
    result = run(coordinator, "cluster", "autopilot", "get")
    assert result.exit_code == 0
    assert "removed after 300 s dead" in result.stdout
    assert "coordinator-3 is not removed: nobody waits" in result.stdout
    assert "coordinator-2 promoted to voter" in result.stdout


def test_autopilot_set_sends_only_what_was_given(coordinator: FakeCoordinator) -> None:
    coordinator.answer(methods.SET_AUTOPILOT, cluster_pb2.SetAutopilotResponse())
    result = run(coordinator, "cluster", "autopilot", "set", "--dead-after", "60", "--no-cleanup")
    assert result.exit_code == 0
    (request,) = coordinator.requests
    assert (request.dead_after_s, request.cleanup_dead_voters) == (60.0, False)
    assert request.HasField("cleanup_dead_voters")
    assert not request.HasField("min_quorum")
    assert run(coordinator, "cluster", "autopilot", "set").exit_code == 2


def test_scheduler_get_tells_the_weights_and_set_sends_only_what_was_given(coordinator: FakeCoordinator) -> None:
    settings = objects_pb2.SchedulerRecord(pack=50, cost=7, preemption=True)
    coordinator.answer(methods.GET_SCHEDULER, cluster_pb2.GetSchedulerResponse(settings=settings))
    shown = run(coordinator, "cluster", "scheduler", "get").stdout
    assert "cloudless.io/cost" in shown
    assert "lower priorities make way" in shown
    coordinator.answer(methods.SET_SCHEDULER, cluster_pb2.SetSchedulerResponse(settings=settings))
    assert run(coordinator, "cluster", "scheduler", "set", "--pack", "0", "--preemption").exit_code == 0
    request = coordinator.requests[-1]
    assert (request.HasField("pack"), request.pack, request.preemption) == (True, 0, True)
    assert not request.HasField("balance")
    assert not request.HasField("rebalance_after_s")
    assert run(coordinator, "cluster", "scheduler", "set").exit_code == 2


def test_rebalancing_is_off_until_a_time_is_set_and_off_again_with_none(coordinator: FakeCoordinator) -> None:
    coordinator.answer(methods.GET_SCHEDULER, cluster_pb2.GetSchedulerResponse())
    assert "rebalance    off" in run(coordinator, "cluster", "scheduler", "get").stdout
    settings = objects_pb2.SchedulerRecord(rebalance_after_s=60)
    coordinator.answer(methods.SET_SCHEDULER, cluster_pb2.SetSchedulerResponse(settings=settings))
    shown = run(coordinator, "cluster", "scheduler", "set", "--rebalance-after", "60").stdout
    assert "after 60 s of calm, one task at a time" in shown
    assert coordinator.requests[-1].rebalance_after_s == 60
    assert run(coordinator, "cluster", "scheduler", "set", "--rebalance-after", "0").exit_code == 0
    assert coordinator.requests[-1].HasField("rebalance_after_s")


def test_leave_asks_the_one_that_is_to_leave(coordinator: FakeCoordinator) -> None:
    leaver = FakeCoordinator()
    try:
        records = {"coordinator-1": coordinator.address, "coordinator-2": leaver.address}
        coordinators = [
            cluster_pb2.CoordinatorStatus(record=objects_pb2.CoordinatorRecord(id=id, api_address=address))
            for id, address in records.items()
        ]
        coordinator.answer(methods.GET_STATUS, cluster_pb2.GetStatusResponse(coordinators=coordinators))
        leaver.answer(methods.LEAVE_CLUSTER, cluster_pb2.LeaveClusterResponse())
        result = run(coordinator, "cluster", "leave", "coordinator-2", "--yes")
        assert result.exit_code == 0
        assert [request.coordinator_id for request in leaver.requests] == ["coordinator-2"]
        assert run(coordinator, "cluster", "leave", "coordinator-9", "--yes").exit_code == 4
    finally:
        leaver.stop()


def test_replace_explains_and_waits_until_it_is_done(coordinator: FakeCoordinator) -> None:
    coordinator.answer(methods.GET_STATUS, cluster_pb2.GetStatusResponse())
    coordinator.answer(
        methods.REPLACE_MEMBER, cluster_pb2.ReplaceMemberResponse(step="await-newcomer", newcomer="away")
    )
    record = objects_pb2.ReplacementRecord(id="coordinator-3")
    steps = iter(["await-newcomer", "add-learner", "await-catch-up", ""])

    def autopilot(_: object) -> cluster_pb2.GetAutopilotResponse:
        step = next(steps)
        found = [cluster_pb2.Replacement(record=record, step=step)] if step else []
        return cluster_pb2.GetAutopilotResponse(replacements=found)

    coordinator.answer(methods.GET_AUTOPILOT, autopilot)
    result = run(coordinator, "cluster", "replace", "coordinator-3", "coordinator-9")
    assert result.exit_code == 0
    assert "export CLOUDLESS_NODE_ID=coordinator-9" in result.stdout
    assert "coordinator/coordinator-3 is replaced" in result.stdout
    assert "coordinator-9 becomes a learner" in result.stderr


def test_a_drain_may_have_a_deadline_and_a_node_may_be_removed(coordinator: FakeCoordinator) -> None:
    coordinator.answer(methods.UPDATE_NODE, node_pb2.UpdateNodeResponse(node=node_pb2.Node(phase="DRAINING")))
    assert run(coordinator, "node", "drain", "agent-1", "--deadline", "10m").exit_code == 0
    assert coordinator.requests[-1].drain_deadline_s == 600
    assert run(coordinator, "node", "drain", "agent-1", "--deadline", "soon").exit_code == 2
    coordinator.answer(methods.REMOVE_NODE, node_pb2.RemoveNodeResponse())
    assert run(coordinator, "node", "remove", "agent-1", "agent-2").stdout.split() == [
        "node/agent-1", "removed", "node/agent-2", "removed",
    ]  # fmt: skip
    assert run(coordinator, "node", "remove", "agent-1", "agent-2", "--request-id", "x").exit_code == 2
