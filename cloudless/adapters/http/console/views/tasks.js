// Tasks: the list, and the page of one with its output.

import { get } from "../api.js";
import { h } from "../dom.js";
import { Facts, Loaded, Page, heading, none } from "../facts.js";
import { ended, stateOf } from "../fold.js";
import { age, bytes, cores, moment } from "../format.js";
import { to } from "../router.js";
import { Table } from "../table.js";
import { eventsOf } from "./events.js";
import { Logs } from "./logs.js";

export function taskTable(store, name, items, values = {}, without = [], sort = "workload") {
  const columns = [
    { key: "task", title: "Task", text: (task) => task.desired.id, href: (task) => to("tasks", task.desired.id) },
    { key: "state", title: "State", text: (task) => stateOf(store, task).toLowerCase(), tone: (task) => stateOf(store, task) },
    { key: "workload", title: "Workload", text: (task) => `${task.desired.namespace}/${task.desired.workload}` },
    { key: "slot", title: "Slot", kind: "number", text: (task) => task.desired.slot, sort: (task) => task.desired.slot },
    { key: "node", title: "Node", text: (task) => task.desired.nodeId },
    { key: "ready", title: "Ready", text: (task) => readiness(store, task) },
    { key: "restarts", title: "Restarts", kind: "number", text: (task) => task.observed?.restarts ?? 0, sort: (task) => Number(task.observed?.restarts ?? 0) },
    { key: "age", title: "Age", text: (task) => age(task.desired.createdAtMs), sort: (task) => -Number(task.desired.createdAtMs ?? 0) },
    { key: "message", title: "Message", kind: "wide", text: (task) => task.observed?.message || (ended(task) ? task.desired.reason : "") || "" },
  ];
  return new Table({
    name, values, items, idOf: (task) => task.desired.id, empty: "No tasks.", sort,
    columns: columns.filter((column) => !without.includes(column.key)),
  });
}

export function tasks({ store }, values) {
  const endedToo = h("input", { type: "checkbox", id: "ended", on: { change: () => table.update() } });
  const items = () => {
    const all = [...store.tasks.values()];
    return endedToo.checked ? all : all.filter((task) => !ended(task));
  };
  const table = taskTable(store, "Tasks", items, values);
  table.addTool(h("label", { class: "check" }, endedToo, "ended too"));
  const page = new Page("Tasks", h("h1", {}, "Tasks"), table.element);
  page.table = table;
  page.take = (next) => table.take(next);
  return page.also(store.on(["tasks", "nodes"], () => table.update()), () => table.end());
}

export function task({ store }, { id }) {
  const held = () => store.tasks.get(id);
  const facts = new Facts([
    ["State", (one) => stateOf(store, one), "state"],
    ["Message", (one) => one.observed?.message ?? ""],
    ["Workload", (one) => h("a", { href: to("workloads", one.desired.namespace, one.desired.workload) }, `${one.desired.namespace}/${one.desired.workload}`)],
    ["Slot", (one) => one.desired.slot],
    ["Node", (one) => h("a", { href: to("nodes", one.desired.nodeId) }, one.desired.nodeId)],
    ["Reached at", (one) => Object.entries(one.observed?.ports ?? {}).map(([name, port]) => `${name} ${one.observed.host}:${port}`).join(", "), "id"],
    ["Ready", (one) => readiness(store, one)],
    ["Attempt", (one) => (one.observed ? `${one.observed.attempt ?? 0}, ${one.observed.restarts ?? 0} restarts` : "")],
    ["Process", (one) => (Number(one.observed?.pid ?? 0) ? `pid ${one.observed.pid}` : "")],
    ["Exit code", (one) => (ended(one) ? one.observed.exitCode ?? 0 : "")],
    ["Wanted", (one) => (one.desired.desired === "DESIRED_STOPPED" ? `stopped: ${one.desired.reason ?? ""}` : "running")],
    ["Created", (one) => moment(one.desired.createdAtMs)],
    ["Started", (one) => moment(one.observed?.startedAtMs)],
    ["Finished", (one) => (Number(one.observed?.finishedAtMs ?? 0) ? moment(one.observed.finishedAtMs) : "")],
  ]);
  const absent = h("p", { class: "dim" }, "There is no such task any more.");
  const update = () => {
    absent.hidden = Boolean(held()) || !store.listed;
    facts.update(held());
  };
  const command = new Loaded("What it runs", async () => {
    const { spec } = (await get(`/v1/tasks/${encodeURIComponent(id)}`, { consistency: "CONSISTENCY_STALE" })).task.desired;
    const shown = new Facts([
      ["Image", (one) => one.image ?? "", "id"],
      ["Command", (one) => [...(one.command ?? []), ...(one.args ?? [])].join(" "), "id"],
      ["Asks for", (one) => `${cores(one.requests?.cpuMillicores)} cores, ${bytes(Number(one.requests?.memoryMb ?? 0) * 2 ** 20)}`],
    ]);
    shown.update(spec ?? {});
    return spec ? shown.element : none("Nothing is said of it.");
  });
  const logs = new Logs(`/v1/tasks/${encodeURIComponent(id)}/logs`);
  const events = eventsOf(store, [`task/${id}`]);
  update();
  return new Page(id, heading(id, h("a", { href: "#/tasks" }, "Tasks")), absent, facts.element, logs.element,
    command.element, events.element)
    .also(store.on(["tasks", "nodes", "listed"], (changes) => (changes.get("tasks")?.has(id) || changes.has("nodes") || changes.has("listed")) && update()),
      () => logs.end(), () => command.end(), () => events.end());
}

function readiness(store, one) {
  if (stateOf(store, one) !== "RUNNING") return "";
  return one.observed.ready === false ? "no" : "yes";
}
