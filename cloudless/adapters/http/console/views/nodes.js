// Nodes: the list, and the page of one with its tasks and what it uses.

import { ActionBar, NODE } from "../actions.js";
import { get } from "../api.js";
import { h } from "../dom.js";
import { Facts, Loaded, Page, heading, none, section } from "../facts.js";
import { age, bytes, cores, megabytes, moment, word } from "../format.js";
import { to } from "../router.js";
import { Table } from "../table.js";
import { eventsOf } from "./events.js";
import { taskTable } from "./tasks.js";

const USAGE_MS = 5000;
const zoneOf = (node) => [node.info?.region, node.info?.zone].filter(Boolean).join(" / ");

export function nodes({ store }, values) {
  const table = new Table({
    name: "Nodes", values, items: () => [...store.nodes.values()], idOf: (node) => node.id,
    empty: "No node has joined yet: cloudless token create --role agent",
    columns: [
      { key: "name", title: "Name", text: (node) => node.id, href: (node) => to("nodes", node.id) },
      { key: "state", title: "State", text: (node) => (node.phase ?? "").toLowerCase(), tone: (node) => node.phase },
      { key: "zone", title: "Region / zone", text: zoneOf },
      { key: "type", title: "Type", text: (node) => node.info?.type ?? "" },
      { key: "tasks", title: "Tasks", kind: "number", text: (node) => node.tasksLive ?? 0, sort: (node) => Number(node.tasksLive ?? 0) },
      { key: "cpu", title: "Cores free", kind: "number", text: (node) => `${cores(node.free?.cpuMillicores)} of ${cores(node.info?.capacity?.cpuMillicores)}`, sort: (node) => Number(node.free?.cpuMillicores ?? 0) },
      { key: "memory", title: "Memory free", kind: "number", text: (node) => megabytes(node.free?.memoryMb), sort: (node) => Number(node.free?.memoryMb ?? 0) },
      { key: "version", title: "Version", text: (node) => node.info?.version ?? "" },
      { key: "note", title: "Note", kind: "wide", text: (node) => (node.phase === "READY" ? "" : node.status?.reason ?? "") },
    ],
  });
  const page = new Page("Nodes", h("h1", {}, "Nodes"), table.element);
  page.table = table;
  page.take = (next) => table.take(next);
  return page.also(store.on(["nodes", "listed"], () => table.update()), () => table.end());
}

export function node({ store, access, announce }, { id }) {
  const bar = new ActionBar(access, NODE, { nodeId: id }, announce);
  const facts = new Facts([
    ["State", (one) => one.phase, "state"],
    ["Since", (one) => (one.status?.sinceMs ? `${age(one.status.sinceMs)}, ${word(one.status.reachability, "REACHABILITY_")}` : "")],
    ["Reason", (one) => (one.phase === "READY" ? "" : one.status?.reason ?? "")],
    ["Region / zone", zoneOf],
    ["Type", (one) => one.info?.type ?? ""],
    ["Address", (one) => one.info?.address ?? "", "id"],
    ["Cores", (one) => `${cores(one.free?.cpuMillicores)} free of ${cores(one.info?.capacity?.cpuMillicores)}`],
    ["Memory", (one) => `${megabytes(one.free?.memoryMb)} free of ${megabytes(one.info?.capacity?.memoryMb)}`],
    ["Storage", (one) => `${megabytes(one.free?.storageMb)} free of ${megabytes(one.info?.capacity?.storageMb)}`],
    ["Executors", (one) => (one.info?.executors ?? []).join(", ")],
    ["Labels", (one) => pairs({ ...one.info?.labels, ...one.spec?.labels })],
    ["Taints", (one) => (one.spec?.taints ?? []).map((taint) => `${taint.key}${taint.value ? `=${taint.value}` : ""}:${word(taint.effect, "TAINT_EFFECT_")}`).join(", ")],
    ["Reliability", (one) => (one.status?.reliability === undefined ? "" : `${Math.round(one.status.reliability * 100)} %`)],
    ["Unable", (one) => pairs(one.info?.unable ?? {}, ": ")],
    ["Version", (one) => one.info?.version ?? ""],
    ["Enrolled", (one) => moment(one.info?.enrolledAtMs)],
  ]);
  const absent = h("p", { class: "dim" }, "There is no node of this name.");
  const update = () => {
    const one = store.nodes.get(id);
    absent.hidden = Boolean(one) || !store.listed;
    facts.update(one);
    bar.update(one);
  };
  const usage = new Loaded("In use now", async () => {
    const answer = await get("/v1/usage/nodes", { nodeIds: id });
    const found = (answer.nodes ?? [])[0];
    return found ? nodeUsage(found) : none("Its agent does not say.");
  }, { every: USAGE_MS });
  const tasks = taskTable(store, "Tasks", () => store.tasksOn(id), {}, ["node"]);
  const events = eventsOf(store, [`node/${id}`]);
  update();
  return new Page(id, heading(id, h("a", { href: "#/nodes" }, "Nodes")), bar.element, absent, facts.element,
    usage.element, section("Tasks", tasks.element), events.element)
    .also(store.on("nodes", update), store.on("node-tasks", (changes) => changes.get("node-tasks").has(id) && tasks.update()),
      () => usage.end(), () => tasks.end(), () => events.end());
}

function nodeUsage({ usage, diskFreeBytes, diskTotalBytes }) {
  const facts = new Facts([
    ["Cores", (one) => (Number(one?.cpuMillicores ?? 0) < 0 ? "not known" : cores(one?.cpuMillicores))],
    ["Memory", (one) => bytes(one?.memoryBytes ?? 0)],
    ["Disk", () => `${bytes(diskFreeBytes ?? 0)} free of ${bytes(diskTotalBytes ?? 0)}`],
  ]);
  facts.update(usage ?? {});
  return facts.element;
}

const pairs = (values, between = "=") => Object.entries(values).map(([key, value]) => `${key}${between}${value}`).join(", ");
