// The nodes by region and zone, with their tasks. Of many nodes a zone shows its sums first, and its nodes when it is
// opened; a change touches the tile of its node and the sums of its zone, nothing else.

import { fill, h, say } from "../dom.js";
import { ended, stateOf } from "../fold.js";
import { count, tone as toneOf } from "../format.js";
import { to } from "../router.js";

const OPEN_MAX = 150;
const SQUARES_MAX = 24;
const NAMED_MAX = 8;
const WIDE_MIN = 4;
const PHASES = ["READY", "CORDONED", "DRAINING", "DRAINED", "ENROLLING", "OFFLINE"];

export class Places {
  constructor(store) {
    this._store = store;
    this._zones = new Map();
    this._tiles = new Map();
    this._place = new Map();
    this._opened = new Map();
    this._timer = 0;
    this._due = new Set();
    this.element = h("div", { class: "regions", id: "regions" });
  }

  end() { clearTimeout(this._timer); }

  all() {
    this._arrange();
    for (const zone of this._zones.values()) this._sum(zone);
  }

  // A node that came, went or moved to another zone is arranged anew; else only its tile and its zone's sums.
  update(changes) {
    for (const id of changes.get("node-tasks") ?? []) this._due.add(id);
    for (const id of changes.get("nodes") ?? []) this._due.add(id);
    if (!this._timer) this._timer = setTimeout(() => this._catchUp(), this._tiles.size > OPEN_MAX ? 300 : 0);
  }

  _catchUp() {
    this._timer = 0;
    const due = this._due;
    this._due = new Set();
    const moved = [...due].some((id) => this._place.get(id) !== placeOf(this._store.nodes.get(id)));
    if (moved) this._arrange();
    const zones = new Set([...due].map((id) => this._place.get(id)));
    for (const id of due) if (this._tiles.has(id)) this._show(this._tiles.get(id), id);
    for (const key of zones) if (this._zones.has(key)) this._sum(this._zones.get(key));
  }

  _arrange() {
    const regions = new Map();
    this._place = new Map();
    for (const node of [...this._store.nodes.values()].sort(byId)) {
      const key = placeOf(node);
      this._place.set(node.id, key);
      const [region, zone] = JSON.parse(key);
      if (!regions.has(region)) regions.set(region, new Map());
      if (!regions.get(region).has(zone)) regions.get(region).set(zone, []);
      regions.get(region).get(zone).push(node.id);
    }
    this._zones = new Map();
    this._tiles = new Map();
    const many = this._store.nodes.size > OPEN_MAX;
    fill(this.element, [...regions].sort().map(([region, zones]) => h("div", { class: "region" },
      h("h3", {}, region || "no region"), h("div", { class: "zones" },
        [...zones].sort().map(([zone, ids]) => this._zone(region, zone, ids, many))))));
    if (!this._store.nodes.size) {
      fill(this.element, h("p", { class: "dim" }, this._store.listed ? "No node has joined yet: cloudless token create --role agent" : "…"));
    }
  }

  _zone(region, zone, ids, many) {
    const key = placeOf({ info: { region, zone } });
    const sums = h("span", { class: "dim" });
    const bar = h("span", { class: "bars", "aria-hidden": "true" });
    const tiles = h("ul", { class: "tiles" });
    const made = { ids, sums, bar, tiles };
    this._zones.set(key, made);
    const details = h("details", { class: ids.length > WIDE_MIN ? "zone many" : "zone" },
      h("summary", {}, h("span", { class: "zonename" }, zone || "no zone"), sums, bar), tiles);
    details.open = this._opened.get(key) ?? !many;
    const open = () => {
      if (details.open && !tiles.childElementCount) fill(tiles, ids.map((id) => this._tile(id)));
    };
    details.addEventListener("toggle", () => { this._opened.set(key, details.open); open(); });
    open();
    return details;
  }

  _tile(id) {
    const tile = { state: h("span", {}), free: h("span", { class: "dim" }), tasks: h("span", { class: "squares" }), shown: "" };
    tile.element = h("li", { "data-node": id },
      h("a", { href: to("nodes", id) }, id), tile.state, tile.free, tile.tasks);
    this._tiles.set(id, tile);
    this._show(tile, id);
    return tile.element;
  }

  _show(tile, id) {
    const node = this._store.nodes.get(id);
    if (!node) return;
    const tasks = this._store.tasksOn(id).filter((task) => !ended(task)).sort((a, b) => (a.desired.id < b.desired.id ? -1 : 1));
    const states = tasks.map((task) => stateOf(this._store, task));
    const text = JSON.stringify([node.phase, states, tasks.map((task) => task.desired.workload)]);
    if (tile.shown === text) return;
    tile.shown = text;
    tile.element.dataset.phase = node.phase;
    tile.state.className = `state ${toneOf(node.phase)}`;
    say(tile.state, node.phase.toLowerCase());
    say(tile.free, count(tasks.length, "task"));
    const named = tasks.length <= NAMED_MAX && this._store.nodes.size <= OPEN_MAX;
    tile.tasks.className = named ? "chips" : "squares";
    fill(tile.tasks, tasks.slice(0, SQUARES_MAX).map((task, at) => taskLink(task, states[at], named)),
      tasks.length > SQUARES_MAX ? h("span", { class: "dim" }, `+${tasks.length - SQUARES_MAX}`) : null);
  }

  _sum(zone) {
    const phases = new Map();
    const tones = new Map();
    let total = 0;
    for (const id of zone.ids) {
      const phase = this._store.nodes.get(id)?.phase ?? "OFFLINE";
      phases.set(phase, (phases.get(phase) ?? 0) + 1);
      for (const task of this._store.tasksOn(id)) {
        if (ended(task)) continue;
        const shade = toneOf(stateOf(this._store, task));
        tones.set(shade, (tones.get(shade) ?? 0) + 1);
        total += 1;
      }
    }
    const others = PHASES.slice(1).filter((phase) => phases.has(phase)).map((phase) => `${phases.get(phase)} ${phase.toLowerCase()}`);
    say(zone.sums, [count(zone.ids.length, "node"), ...others, count(total, "task")].join(", "));
    fill(zone.bar, [...tones].sort().map(([shade, number]) => {
      const part = h("span", { class: shade });
      part.style.flexGrow = number;
      return part;
    }));
  }
}

// A task on its node: by name where there are few, else as a square that says it when it is pointed at.
function taskLink(task, state, named) {
  const { id, workload, slot } = task.desired;
  const title = `${workload}, slot ${slot}: ${state.toLowerCase()}`;
  const square = (attributes, ...inside) => h(named ? "span" : "a", { class: `square ${toneOf(state)}`, ...attributes }, ...inside);
  if (!named) return square({ href: to("tasks", id), tabindex: "-1", title }, h("span", { class: "unseen" }, title));
  return h("a", { class: "chip", href: to("tasks", id), title }, square({ "aria-hidden": "true" }), `${workload}/${slot}`,
    h("span", { class: "unseen" }, state.toLowerCase()));
}

const placeOf = (node) => JSON.stringify([node?.info?.region ?? "", node?.info?.zone ?? ""]);
const byId = (a, b) => a.id.localeCompare(b.id, undefined, { numeric: true });
