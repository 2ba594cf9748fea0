"""The console of a real cluster in a real browser: what it shows, lets whom do, and how soon it tells of a loss."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudless.cli.methods import LIST_EVENTS
from cloudless.rpc.v1 import objects_pb2
from cloudless.rpc.v1.event_pb2 import ListEventsRequest
from etcd.find import Found
from tests.integration.certificate_relay import relay_to
from tests.integration.cloudless_cli import must, run_cli
from tests.integration.cluster import COORDINATORS, LocalCluster, manifest_of
from tests.integration.console_crowd import TASKS, crowd
from tests.integration.console_page import (
    OBSERVE,
    SHOWN_MS,
    chromium,
    console,
    find_chromium,
    go,
    now_ms,
    open_page,
    visit,
    wait_seen,
)
from tests.integration.etcd_fixture import binary
from tests.integration.trusted import Trusted

__all__ = ["binary"]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(150)]
SHOWN_MAX_MS = 2000
FROZEN_MAX_MS = 8000
ELEMENTS_MAX = 5000
BLOCK_MAX_MS = 1000
"""On a machine that others use, too; alone it is a fraction of that."""
NOTE_LONG_TASKS = """
window.blocks = [];
new PerformanceObserver(list => window.blocks.push(...list.getEntries().map(one => one.duration)))
  .observe({type: 'longtask', buffered: true});
"""
HOSTILE = "<img src=x onerror=alert(1)>"
GIANT = {
    "apiVersion": "cloudless/v1", "kind": "Workload", "metadata": {"name": "giant", "annotations": {"note": HOSTILE}},
    "spec": {"command": ["sleep", "1000"], "replicas": 1, "resources": {"requests": {"cpu": 64}}},
}  # fmt: skip
TALKER = {
    "apiVersion": "cloudless/v1", "kind": "Workload", "metadata": {"name": "talker"},
    "spec": {
        "command": ["python3", "-u", "-c"], "replicas": 1,
        "args": [f"import time, itertools\nfor n in itertools.count(): print('line', n, '{HOSTILE}'); time.sleep(0.2)"],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, binary: Found) -> Iterator[LocalCluster]:
    """Three coordinators, two agents, an admin; a workload that talks and one that fits nowhere."""
    find_chromium()
    root = tmp_path_factory.mktemp("console")
    cluster = LocalCluster(root, binary.path, trust=Trusted(root))
    cluster.add_coordinators()
    cluster.found_together()
    cluster.add_agent("agent-1")
    cluster.add_agent("agent-2", zone="zone-b")
    try:
        cluster.start(*COORDINATORS)
        cluster.trust.begin(cluster.coordinators)
        cluster.wait_formed()
        cluster.start("agent-1", "agent-2")
        cluster.wait_ready()
        for manifest in (manifest_of("web", replicas=2), json.dumps(TALKER), json.dumps(GIANT)):
            cluster.apply(manifest)
        cluster.until(lambda: cluster.status().tasks_running == 3, "three tasks run")
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def browser(cluster: LocalCluster) -> Iterator[Any]:
    """Begun after the cluster: while it runs, no event loop may be begun in this thread."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(cluster: LocalCluster) -> Iterator[str]:
    """The page as the admin, who asks whichever coordinator there is."""
    with console(cluster) as address:
        yield address


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    page = open_page(browser, address)
    yield page
    complaints = page.complaints
    page.context.close()
    assert complaints == []


def test_topology_shows_who_leads_who_is_a_member_and_what_runs_where(page: Any, cluster: LocalCluster) -> None:
    page.wait_for_function("() => document.querySelectorAll('[data-coordinator][data-state=healthy]').length === 3")
    leader = cluster.leader()
    cards = page.locator("[data-coordinator]")
    shown = {card.get_attribute("data-coordinator"): card.inner_text() for card in cards.all()}
    assert sorted(shown) == list(COORDINATORS)
    assert [name for name, text in shown.items() if "leader, term" in text] == [leader]
    assert all("voter" in text for name, text in shown.items() if name != leader)
    zones = page.locator(".zone")
    assert [zone.locator("[data-node]").get_attribute("data-node") for zone in zones.all()] == ["agent-1", "agent-2"]
    tasks = {task.desired.id for name in ("web", "talker") for task in cluster.tasks(name)}
    assert set(page.eval_on_selector_all(".chip", "all => all.map(one => one.hash.split('/').at(-1))")) == tasks
    assert page.locator("#health").inner_text().startswith("Healthy: ")


def test_a_workload_is_scaled_by_keyboard_alone(page: Any, cluster: LocalCluster) -> None:
    press = page.keyboard.press
    press("g")
    press("w")
    page.wait_for_selector("text=talker")
    press("/")
    page.keyboard.type("web")
    page.wait_for_function("() => document.querySelector('.count').textContent === '1 of 3'")
    for _ in range(40):
        press("Tab")
        if page.evaluate("document.activeElement.textContent") == "web":
            break
    press("Enter")
    page.wait_for_selector("h1 >> text=web")
    for _ in range(10):
        press("Tab")
        if page.evaluate("document.activeElement.dataset.action") == "scale":
            break
    press("Enter")
    page.wait_for_selector("dialog[open]")
    for _ in range(6):  # the focus goes round within the question
        press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || Boolean(document.activeElement.closest('dialog'))"
        )
    press("Escape")
    page.wait_for_selector("dialog[open]", state="detached")
    assert page.evaluate("document.activeElement.dataset.action") == "scale"
    press("Enter")
    page.wait_for_selector("dialog[open]")
    page.keyboard.type("3")
    press("Enter")
    page.wait_for_selector("dialog[open]", state="detached")
    page.wait_for_selector("text=3 of 3 running")
    assert len([task for task in cluster.tasks("web") if task.state == "RUNNING"]) == 3


def test_why_a_workload_waits_can_be_read_and_nothing_it_says_is_markup(page: Any) -> None:
    go(page, "workloads/default/giant")
    page.wait_for_selector(".unplaced")
    text = page.locator("main").inner_text()
    assert "0 of 2 nodes fit" in text
    assert "lack cpu" in text
    page.locator("summary >> text=Show it").click()
    assert HOSTILE in page.locator("details[open] pre").inner_text()
    assert page.locator("main img").count() == 0


def test_output_is_followed(page: Any) -> None:
    go(page, "workloads/default/talker")
    page.wait_for_selector(".logs >> text=line")
    seen = page.locator(".logs div").count()
    page.wait_for_function("seen => document.querySelectorAll('.logs div').length > seen + 3", arg=seen)
    assert HOSTILE in page.locator(".logs div").last.inner_text()
    assert page.locator(".logs img").count() == 0


def test_a_node_is_cordoned_and_a_workload_deleted_only_once_its_name_is_typed(
    page: Any, cluster: LocalCluster
) -> None:
    go(page, "nodes/agent-2")
    for action, shown in (("cordon", "cordoned"), ("uncordon", "ready")):
        page.locator(f"[data-action={action}]").click()
        page.locator("dialog [type=submit]").click()
        page.wait_for_selector(f".facts .state >> text={shown}")
    go(page, "workloads/default/giant")
    page.locator("[data-action=delete]").click()
    confirm = page.locator("dialog [type=submit]")
    assert confirm.is_disabled()
    page.keyboard.type("gian")
    assert confirm.is_disabled()
    page.keyboard.type("t")
    confirm.click()
    page.wait_for_selector("text=There is no workload of this name.")
    told = cluster.call(LIST_EVENTS, ListEventsRequest(subject="workload/default/giant")).events
    assert "person/admin" in [event.actor for event in told]


def test_a_viewer_is_offered_nothing_and_refused_all(browser: Any, cluster: LocalCluster, tmp_path: Path) -> None:
    trust = cluster.trust
    assert isinstance(trust, Trusted)
    token = trust.create_token(objects_pb2.ROLE_VIEWER, "vera")
    door = cluster.coordinators[0].address("enrol")
    words = ("login", "--token", token, "--name", "vera", "--as", "vera", "--join-address", door)
    must(run_cli(cluster, *words, CONFIG=tmp_path, CONTEXT=""))
    with console(cluster, CONFIG=tmp_path, CONTEXT="vera") as address:
        page = open_page(browser, address)
        for route in ("workloads/default/web", "nodes/agent-1", f"members/{cluster.followers()[0]}"):
            go(page, route)
            page.wait_for_selector("h1")
            page.wait_for_selector(".facts dd")
            assert page.locator("[data-action]").count() == 0
        refused = page.evaluate(
            """async () => {
              const headers = {Authorization: 'Bearer ' + localStorage.getItem('cloudless-token')};
              const answer = await fetch('/v1/workloads/default/web', {method: 'DELETE', headers});
              return [answer.status, (await answer.json()).code];
            }"""
        )
        assert refused == [403, "denied"]
        page.context.close()


def test_without_a_token_or_a_certificate_the_page_says_what_to_do(
    browser: Any, cluster: LocalCluster, address: str
) -> None:
    direct = f"https://{cluster.processes[COORDINATORS[0]].address('http')}/"
    for url in (address.partition("#")[0], direct):
        page = browser.new_context(ignore_https_errors=True).new_page()
        visit(page, url, ".refusal >> text=cloudless console")
        assert page.locator("[data-coordinator]").count() == 0
        page.context.close()


def test_a_killed_leader_is_seen_within_two_seconds_whoever_was_asked(
    browser: Any, cluster: LocalCluster, record_property: Any
) -> None:
    leader, (other, third) = cluster.leader(), cluster.followers()
    tls = cluster.trust.web()
    assert tls is not None
    with (
        console(cluster, leader, other, third) as through_leader,
        console(cluster, other, third) as through_other,
        relay_to(cluster.processes[leader].address("http"), tls) as at_leader,
    ):
        asked_leader = open_page(browser, through_leader)
        asked_other = open_page(browser, through_other)
        direct = open_page(browser, f"http://{at_leader}/")
        pages = (asked_leader, asked_other, direct)
        for page, name in zip(pages, (leader, other, leader), strict=True):
            page.wait_for_selector(f"#link-facts >> text=through {name}")
            page.wait_for_function("() => document.querySelectorAll('[data-state=healthy]').length === 3")
            page.evaluate(OBSERVE, leader)
        assert all("next" not in page.evaluate("window.seen") for page in pages)
        killed_ms = now_ms()
        cluster.kill(leader)
        for page, name in ((asked_leader, "asked"), (asked_other, "another")):
            seen = wait_seen(page, "dead", "next")
            took = {what: round(seen[what] - killed_ms) for what in ("dead", "next")}
            print(f"leader killed, {name} shows it after {took} ms")
            record_property(name, took)
            assert max(took.values()) <= SHOWN_MAX_MS
            page.wait_for_selector("#link[data-phase=live]", state="attached")
        seen = wait_seen(direct, "dead", "lost")
        print(f"directly asked: gone after {seen['lost'] - killed_ms:.0f} ms")
        assert max(seen["dead"], seen["lost"]) - killed_ms <= SHOWN_MAX_MS
        assert "is gone" in direct.locator("#link").inner_text()
        links = direct.eval_on_selector_all("#link a", "all => all.map(one => one.href)")
        assert {f"http://{cluster.processes[name].address('http')}/console/" for name in (other, third)} <= set(links)
        assert [page.complaints for page in pages] == [[], [], []]
        for page in pages:
            page.context.close()
    cluster.start(leader)
    cluster.wait_formed()


def test_a_frozen_coordinator_is_left_for_another(browser: Any, cluster: LocalCluster, record_property: Any) -> None:
    leader, others = cluster.leader(), cluster.followers()
    with console(cluster, leader, *others) as address:
        page = open_page(browser, address)
        page.wait_for_selector(f"#link-facts >> text=through {leader}")
        page.evaluate(OBSERVE, leader)
        frozen_ms = now_ms()
        cluster.signal(leader, signal.SIGSTOP)
        try:
            seen = wait_seen(page, "dead", "next")
        finally:
            cluster.signal(leader, signal.SIGCONT)
        took = {what: round(seen[what] - frozen_ms) for what in ("dead", "next")}
        print(f"leader frozen, shown after {took} ms")
        record_property("frozen", took)
        assert max(took.values()) <= FROZEN_MAX_MS
        page.wait_for_function("() => document.querySelectorAll('[data-state=healthy]').length === 3")
        page.context.close()


def test_twenty_thousand_tasks_that_change_do_not_freeze_the_page(browser: Any, record_property: Any) -> None:
    with crowd() as (made, address):
        began_ms = now_ms()
        page = browser.new_context().new_page()
        page.add_init_script(NOTE_LONG_TASKS)
        page.goto(address)
        page.wait_for_function(f"() => document.querySelector('.zones')?.textContent.includes('{TASKS // 10} tasks')")
        figures = {"shown_ms": round(now_ms() - began_ms)}
        for route in ("tasks", "nodes", ""):
            go(page, route)
            page.wait_for_selector("table.list tbody tr[aria-rowindex]" if route else ".zone")
            if route == "tasks":
                page.wait_for_function(f"() => document.querySelector('.count').textContent === '{TASKS}'")
                page.evaluate("document.querySelector('.listbox').scrollTop = 300000")
                page.wait_for_function("() => Number(document.querySelector('tr[aria-rowindex]').ariaRowIndex) > 10000")
            told = made.told
            page.wait_for_function("() => true")
            page.wait_for_timeout(1500)  # time for changes to be told: what is measured
            assert made.told > told
            assert page.evaluate("document.querySelectorAll('*').length") < ELEMENTS_MAX
        figures["longest_block_ms"] = round(page.evaluate("Math.max(0, ...window.blocks)"))
        figures["blocked_share"] = round(
            page.evaluate("window.blocks.reduce((a, b) => a + b, 0) / performance.now()"), 2
        )
        print(f"{TASKS} tasks: {figures}, {made.told} changes told")
        record_property("crowd", figures)
        assert figures["longest_block_ms"] < BLOCK_MAX_MS
        page.context.close()


def test_a_part_of_the_page_that_does_not_arrive_is_asked_for_again(browser: Any) -> None:
    with crowd() as (_, address):
        page = browser.new_context().new_page()
        dropped: list[str] = []

        def drop(route: Any) -> None:
            if len(dropped) < 2:
                dropped.append(route.request.url)
                route.abort()
            else:
                route.continue_()

        page.route("**/views/logs.js", drop)
        page.goto(address)
        page.wait_for_selector("#link[data-phase=live]", state="attached", timeout=SHOWN_MS)
        assert len(dropped) == 2
        page.context.close()
