// Coordinators: the list, and the page of one.

import { ActionBar, MEMBER } from "../actions.js";
import { coordinatorsOf } from "../coordinators.js";
import { h } from "../dom.js";
import { Facts, Loaded, Page, heading, none, plainTable, section } from "../facts.js";
import { age, bytes, moment } from "../format.js";
import { to } from "../router.js";
import { Table } from "../table.js";
import { eventsOf } from "./events.js";

export function members({ store }, values) {
  const table = new Table({
    name: "Coordinators", values, items: () => coordinatorsOf(store), idOf: (one) => one.name, empty: "No coordinator is known yet.",
    columns: [
      { key: "name", title: "Name", text: (one) => one.name, href: (one) => to("members", one.name) },
      { key: "state", title: "State", text: (one) => one.state, tone: (one) => one.state },
      { key: "role", title: "Role", text: (one) => (one.leads ? `leader, term ${store.link.term}` : one.role) },
      { key: "behind", title: "Behind", kind: "number", text: (one) => (one.lag === null ? "" : one.lag), sort: (one) => one.lag ?? -1 },
      { key: "version", title: "Version", text: (one) => one.record?.version ?? "" },
      { key: "api", title: "API", text: (one) => one.record?.apiAddress ?? "", kind: "id" },
      { key: "up", title: "Up for", text: (one) => age(one.record?.startedAtMs), sort: (one) => -Number(one.record?.startedAtMs ?? 0) },
      { key: "note", title: "Note", text: (one) => one.note, kind: "wide" },
    ],
  });
  const joiners = new Loaded("Asking to join", async () => {
    const found = store.joiners;
    if (!found.length) return none("Nobody asks to join.");
    return plainTable(["Coordinator", "Raft address", "Waits for"],
      found.map((one) => [one.record.id, one.record.raftAddress ?? "", one.note ?? ""]), "Asking to join");
  });
  const page = new Page("Coordinators", h("h1", {}, "Coordinators"), table.element, joiners.element);
  page.table = table;
  page.take = (next) => table.take(next);
  return page.also(
    store.on(["status", "members", "link"], () => table.update()), store.on("joiners", () => joiners.due()),
    () => table.end(), () => joiners.end());
}

export function member({ store, access, announce }, { id }) {
  const find = () => coordinatorsOf(store).find((one) => one.name === id);
  const bar = new ActionBar(access, MEMBER, { coordinatorId: id }, announce);
  const facts = new Facts([
    ["State", (one) => one.state, "state"],
    ["Role", (one) => (one.leads ? `leader in term ${store.link.term}, ${one.role}` : one.role)],
    ["Note", (one) => one.note],
    ["etcd", (one) => (one.member ? `member ${BigInt(one.member.id).toString(16)}${one.raftLeader ? ", leads" : ""}` : "")],
    ["Behind", (one) => (one.lag === null || one.raftLeader ? "" : `${one.lag} raft entries`)],
    ["API", (one) => one.record?.apiAddress ?? "", "id"],
    ["HTTP", (one) => one.record?.httpAddress ?? "", "id"],
    ["Metrics", (one) => one.record?.metricsAddress ?? "", "id"],
    ["Raft", (one) => one.record?.raftAddress ?? "", "id"],
    ["Version", (one) => (one.record ? `${one.record.version}, etcd ${one.record.etcdVersion}` : "")],
    ["Started", (one) => (one.record ? moment(one.record.startedAtMs) : "")],
  ]);
  const absent = h("p", { class: "dim" }, "No coordinator of this name is known.");
  const room = new Facts([
    ["Database", (status) => `${bytes(status.etcdDbBytes ?? 0)}, ${bytes(status.etcdDbInUseBytes ?? 0)} in use`],
    ["Quota", (status) => (Number(status.etcdQuotaBytes ?? 0) ? bytes(status.etcdQuotaBytes) : "")],
    ["Last backup", (status) => (Number(status.backup?.lastSuccessAtMs ?? 0) ? moment(status.backup.lastSuccessAtMs) : "")],
  ]);
  const store_ = section("The store, as the coordinator asked sees it", room.element);
  const update = () => {
    const one = find();
    absent.hidden = Boolean(one);
    facts.update(one);
    bar.update(one);
    room.update(store.status);
  };
  const events = eventsOf(store, [`coordinator/${id}`, `member/${id}`]);
  update();
  return new Page(id, heading(id, h("a", { href: "#/members" }, "Coordinators")), bar.element, absent,
    facts.element, store_, events.element).also(store.on(["status", "members", "link"], update), () => events.end());
}

