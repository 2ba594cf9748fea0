// The cluster at one look: how it is in a sentence, the coordinators with leader and term, what is not as asked, and the
// nodes by region and zone.

import { coordinatorsOf, late } from "../coordinators.js";
import { fill, h, say } from "../dom.js";
import { Page, mark, section } from "../facts.js";
import { clock, count, tone as toneOf, word } from "../format.js";
import { workloadId } from "../refresh.js";
import { to } from "../router.js";
import { Places } from "./places.js";

const CALM = new Set(["RUNNING", "COMPLETED", "SCALED_TO_ZERO"]);
const WANTING_MAX = 8;

export function topology({ store }) {
  const health = h("p", { class: "health", id: "health" });
  const problems = h("ul", { class: "problems" });
  const cards = h("ol", { class: "coordinators", id: "coordinators" });
  const places = new Places(store);
  const wanting = new Wanting(store);
  const page = new Page("Topology", h("h1", { class: "unseen" }, "Topology"), health, problems,
    section("Coordinators", cards), wanting.element, h("section", {}, h("h2", {}, "Nodes"), places.element));
  const shown = new Map();
  const above = () => {
    say(health, sentence(store));
    health.className = `health ${toneOf(store.status?.health ?? "")}`;
    const said = store.status?.problems ?? [];
    if (problems.textContent !== said.join("")) fill(problems, said.map((text) => h("li", {}, text)));
    showCards(cards, shown, coordinatorsOf(store), store.link);
  };
  above();
  places.all();
  return page.also(
    store.on(["status", "members", "link"], above),
    store.on(["nodes", "node-tasks"], (changes) => places.update(changes)),
    store.on("workloads", () => { wanting.update(); above(); }),
    () => places.end(),
  );
}

const isWanting = (workload) => !CALM.has(workload.summary?.state ?? "");

function sentence({ status, statusAt, link, workloads }) {
  if (!status) return "Asking how the cluster is.";
  const then = link.phase === "live" ? "" : `At ${clock(statusAt)}: `;
  const health = { ok: "Healthy", degraded: "Degraded", unavailable: "Unavailable" }[status.health] ?? status.health;
  const lead = leading(link);
  const nodes = `${status.nodesReady ?? 0} of ${count(Number(status.nodesTotal ?? 0), "node")} ready`;
  const tasks = `${status.tasksRunning ?? 0} of ${count(Number(status.tasksTotal ?? 0), "task")} running`;
  const wanting = [...workloads.values()].filter(isWanting).length;
  const other = wanting ? `; ${count(wanting, "workload")} not as asked` : "";
  return `${then}${health}: ${lead}; ${nodes}, ${tasks}${other}.`;
}

function leading(link) {
  if (!link.leader) return "nobody leads at the moment";
  if (late(link)) return `the last leader known is ${link.leader}, of term ${link.term}`;
  return `${link.leader} leads in term ${link.term}`;
}

function showCards(list, shown, coordinators, link) {
  const names = new Set(coordinators.map((one) => one.name));
  for (const [name, card] of shown) if (!names.has(name)) { card.element.remove(); shown.delete(name); }
  for (const one of coordinators) {
    if (!shown.has(one.name)) {
      const card = makeCard(one.name);
      shown.set(one.name, card);
      list.append(card.element);
    }
    showCard(shown.get(one.name), one, link);
  }
}

function makeCard(name) {
  const parts = { role: h("span", { class: "role" }), state: h("span", {}), facts: h("p", { class: "dim" }), note: h("p", { class: "note" }) };
  parts.element = h("li", { "data-coordinator": name },
    h("div", { class: "cardline" }, h("a", { href: to("members", name) }, name), parts.role), parts.state, parts.facts, parts.note);
  return parts;
}

function showCard(card, one, link) {
  card.element.className = one.leads ? "leads" : "";
  card.element.dataset.state = one.state;
  card.element.dataset.leads = String(one.leads);
  say(card.role, one.leads ? `${one.answers ? "leader, term" : "led term"} ${link.term}` : one.role);
  card.state.className = `state ${toneOf(one.state)}`;
  say(card.state, one.state);
  const facts = [one.record?.apiAddress, one.raftLeader ? "etcd leader" : one.lag ? `${one.lag} entries behind` : "",
    one.name === link.coordinator ? "this page asks it" : ""];
  say(card.facts, facts.filter(Boolean).join(" · "));
  say(card.note, one.note);
  card.note.hidden = !one.note;
}

// Workloads that are not as they were asked to be.
class Wanting {
  constructor(store) {
    this._store = store;
    this._list = h("ul", { class: "wanting" });
    this.element = h("section", { id: "wanting" }, h("h2", {}, "Workloads that are not as asked"), this._list);
    this.update();
  }

  update() {
    const found = [...this._store.workloads.values()].filter(isWanting);
    this.element.hidden = !found.length;
    const shown = found.slice(0, WANTING_MAX);
    const text = JSON.stringify([found.length, ...shown.map((one) => [workloadId(one), one.summary])]);
    if (text === this._text) return;
    this._text = text;
    fill(this._list, shown.map(({ record, summary }) => h("li", {},
      h("a", { href: to("workloads", record.namespace, record.name) }, `${record.namespace}/${record.name}`),
      mark(word(summary.state)), h("span", { class: "dim" }, `${summary.running ?? 0} of ${summary.desired ?? 0} running`))),
      found.length > shown.length ? h("li", {}, h("a", { href: "#/workloads?q=-state:running" }, `${found.length - shown.length} more`)) : null);
  }
}
