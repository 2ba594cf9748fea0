// What happened: the list, and what concerns one object.

import { h } from "../dom.js";
import { Loaded, Page, none, plainTable, mark } from "../facts.js";
import { clock, moment, word } from "../format.js";
import { to } from "../router.js";
import { Table } from "../table.js";

const OF_ONE_MAX = 12;
const PLACES = { node: "nodes", workload: "workloads", task: "tasks", coordinator: "members", member: "members" };

export function events({ store, access }, values) {
  const severity = (event) => word(event.severity, "SEVERITY_") || "info";
  const table = new Table({
    name: "Events", values, sort: "-time", items: () => store.events, idOf: (event) => event.id,
    empty: access.watches ? "Nothing has happened yet." : "Events concern the whole cluster; you are bound to namespaces.",
    columns: [
      { key: "time", title: "Time", text: (event) => moment(event.atMs), sort: (event) => Number(event.atMs) },
      { key: "severity", title: "Severity", text: severity, tone: severity },
      { key: "what", title: "What", text: (event) => event.kind },
      { key: "subject", title: "Subject", text: (event) => event.subject, href: hrefOf },
      { key: "message", title: "Message", kind: "wide", text: (event) => event.message ?? "" },
      { key: "by", title: "By", text: (event) => event.actor || event.source || "" },
    ],
  });
  const page = new Page("Events", h("h1", {}, "Events"), table.element);
  page.table = table;
  page.take = (next) => table.take(next);
  return page.also(store.on("events", () => table.update()), () => table.end());
}

// "workload/default/web" is at #/workloads/default/web.
function hrefOf(event) {
  const [kind, ...rest] = (event.subject ?? "").split("/");
  return PLACES[kind] && rest.length ? to(PLACES[kind], ...rest) : "#/events";
}

// The newest events of one object, as a section.
export function eventsOf(store, subjects) {
  const loaded = new Loaded("Events", async () => {
    const found = store.events.filter((event) => subjects.includes(event.subject)).slice(-OF_ONE_MAX).reverse();
    if (!found.length) return none("None of late.");
    return plainTable(["Time", "What", "Message"], found.map((event) => [
      h("time", { title: moment(event.atMs) }, clock(event.atMs)), mark(word(event.severity, "SEVERITY_") || "info", event.kind), event.message ?? "",
    ]), "Events");
  });
  const stop = store.on("events", () => loaded.due());
  return { element: loaded.element, end: () => { stop(); loaded.end(); } };
}
