// A list of any length: only the rows in sight are elements. Filter and sort are in the address; `/` goes to the filter,
// arrows move between rows, Enter opens. A row that changes is changed in place, so the focus stays.
//
// A column: {key, title, text(item), sort(item) if not by its text, tone(item) for a state's mark, href(item), kind}.

import { fill, h, say } from "./dom.js";
import { tone as toneOf } from "./format.js";
import { keep } from "./router.js";

const ROW_PX = 29;
const SPARE = 8;
const REST = 3;
const AGES_MS = 5000;

export class Table {
  constructor({ name, columns, items, idOf, empty, values = {}, sort = columns[0].key }) {
    Object.assign(this, { _columns: columns, _items: items, _idOf: idOf, _name: name, _empty: empty, _standard: sort });
    this._shown = [];
    this._rows = new Map();
    this._active = null;
    this._timer = 0;
    this._build(name);
    this.take(values);
    this._ages = setInterval(() => this._draw(), AGES_MS);
    this._size = new ResizeObserver(() => this._draw());
    this._size.observe(this._box);
  }

  end() {
    clearInterval(this._ages);
    clearTimeout(this._timer);
    this._size.disconnect();
  }

  // What the address says: filter and sort.
  take({ q = "", sort = "" }) {
    this._query = q;
    this._sort = sort || this._standard;
    if (this._filter.value !== q) this._filter.value = q;
    this._compute();
  }

  // Something changed: look at it all again soon, but rest between two looks as long as they take.
  update() {
    if (this._timer) return;
    this._timer = setTimeout(() => { this._timer = 0; this._compute(); }, this._wait ?? 0);
  }

  _build(name) {
    const search = () => { this._query = this._filter.value.trim(); this._remember(); this._compute(); };
    this._filter = h("input", {
      type: "search", class: "filter", placeholder: "Filter", "aria-label": `Filter ${name}`, spellcheck: "false",
      autocomplete: "off", on: { input: search },
    });
    this._count = h("span", { class: "dim count" });
    this._heads = new Map(this._columns.map((column) => [column.key, this._head(column)]));
    this._body = h("tbody", { on: { keydown: (event) => this._key(event), focusin: (event) => this._focused(event) } });
    this._table = h("table", { class: "list" },
      h("caption", { class: "unseen" }, name), h("thead", {}, h("tr", {}, [...this._heads.values()])), this._body);
    this._box = h("div", { class: "listbox", on: { scroll: () => this._draw() } }, this._table);
    this._none = h("p", { class: "none", hidden: true });
    this._above = this._spacer();
    this._below = this._spacer();
    this._bar = h("div", { class: "tablebar" }, this._filter, this._count);
    this.element = h("div", {}, this._bar, this._box, this._none);
  }

  _head(column) {
    const button = h("button", { type: "button", on: { click: () => this._turn(column.key) } }, column.title);
    return h("th", { scope: "col", class: column.kind ?? null }, button);
  }

  _spacer() {
    return h("tr", { class: "spacer", "aria-hidden": "true" }, h("td", { colspan: this._columns.length }));
  }

  _turn(key) {
    this._sort = this._sort === key ? `-${key}` : key;
    this._remember();
    this._compute();
  }

  _remember() {
    keep({ q: this._query, sort: this._sort === this._standard ? "" : this._sort });
  }

  // Something else to choose by, beside the filter.
  addTool(element) {
    this._always = true;
    this._bar.hidden = false;
    this._count.before(element);
  }

  focusFilter() { this._filter.focus(); this._filter.select(); }

  _compute() {
    const began = performance.now();
    const all = this._items();
    const fits = matcher(this._query, this._columns);
    const found = fits ? all.filter(fits) : all;
    this._shown = sorted(found, this._columns, this._sort, this._idOf);
    say(this._count, found.length === all.length ? `${all.length}` : `${found.length} of ${all.length}`);
    for (const column of this._columns) {
      const by = this._sort.replace(/^-/, "") === column.key;
      const order = this._sort.startsWith("-") ? "descending" : "ascending";
      this._heads.get(column.key).setAttribute("aria-sort", by ? order : "none");
    }
    this._bar.hidden = !all.length && !this._query && !this._always;
    this._none.hidden = found.length > 0;
    this._box.hidden = found.length === 0;
    say(this._none, all.length ? `Nothing fits “${this._query}”.` : this._empty);
    this._draw();
    this._wait = Math.max(100, REST * (performance.now() - began));
  }

  _draw() {
    const first = Math.max(0, Math.floor(this._box.scrollTop / ROW_PX) - SPARE);
    const last = Math.min(this._shown.length, first + Math.ceil((this._box.clientHeight || 800) / ROW_PX) + 2 * SPARE);
    const held = document.activeElement?.closest?.("tr");
    const rows = new Map();
    const wanted = [];
    for (let at = first; at < last; at += 1) {
      const item = this._shown[at];
      const id = this._idOf(item);
      const row = this._rows.get(id) ?? this._row(id);
      this._show(row, item, at);
      rows.set(id, row);
      wanted.push(row.element);
    }
    this._rows = rows;
    this._above.firstChild.style.height = `${first * ROW_PX}px`;
    this._below.firstChild.style.height = `${(this._shown.length - last) * ROW_PX}px`;
    place(this._body, [this._above, ...wanted, this._below]);
    this._table.setAttribute("aria-rowcount", this._shown.length + 1);
    if (held && held.isConnected && !held.contains(document.activeElement)) held.querySelector("a")?.focus();
    if (!rows.has(this._active)) this._active = rows.keys().next().value ?? null;
    for (const [id, row] of rows) if (row.link) row.link.tabIndex = id === this._active ? 0 : -1;
  }

  _row(id) {
    const cells = this._columns.map((column) => h(column.href ? "th" : "td", {
      class: column.kind ?? null, scope: column.href ? "row" : null,
    }));
    return { id, element: h("tr", {}, cells), cells, texts: [], link: null };
  }

  _show(row, item, at) {
    row.element.setAttribute("aria-rowindex", at + 2);
    this._columns.forEach((column, index) => {
      const text = String(column.text(item) ?? "");
      const shade = column.tone ? toneOf(column.tone(item)) : "";
      if (row.texts[index] === text + shade) return;
      row.texts[index] = text + shade;
      const cell = row.cells[index];
      cell.title = text.length > 24 ? text : "";
      if (column.href) {
        row.link ??= cell.appendChild(h("a", {}));
        row.link.setAttribute("href", column.href(item));
        say(row.link, text);
      } else if (column.tone) {
        fill(cell, h("span", { class: `state ${shade}` }, text));
      } else {
        say(cell, text);
      }
    });
  }

  _focused(event) {
    const row = event.target.closest("tr");
    const found = [...this._rows.values()].find((one) => one.element === row);
    if (!found) return;
    this._active = found.id;
    for (const one of this._rows.values()) if (one.link) one.link.tabIndex = one === found ? 0 : -1;
  }

  _key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15, Home: -Infinity, End: Infinity }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const from = this._shown.findIndex((item) => this._idOf(item) === this._active);
    const to = Math.max(0, Math.min(this._shown.length - 1, from + step));
    const top = to * ROW_PX;
    if (top < this._box.scrollTop) this._box.scrollTop = top;
    const view = this._box.clientHeight - 2 * ROW_PX;
    if (top > this._box.scrollTop + view) this._box.scrollTop = top - view;
    this._active = this._idOf(this._shown[to]);
    this._draw();
    this._rows.get(this._active)?.link?.focus({ preventScroll: true });
  }
}

// Put elements in order, moving only those that are elsewhere: moving one takes the focus from it.
function place(parent, wanted) {
  const keep = new Set(wanted);
  for (const child of [...parent.children]) if (!keep.has(child)) child.remove();
  let at = parent.firstChild;
  for (const element of wanted) {
    if (element === at) at = at.nextSibling;
    else parent.insertBefore(element, at);
  }
}

// Every word must occur in a row; `state:failed` in that column; `-word` must not.
export function matcher(query, columns) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return null;
  const tests = words.map((text) => {
    const no = text.startsWith("-") && text.length > 1;
    const [, key, rest] = /^([a-z]+):(.*)$/.exec(no ? text.slice(1) : text) ?? [];
    const column = columns.find((one) => one.key === key);
    const looked = column ? [column] : columns;
    const part = column ? rest : no ? text.slice(1) : text;
    return (item) => no !== looked.some((one) => String(one.text(item) ?? "").toLowerCase().includes(part));
  });
  return (item) => tests.every((test) => test(item));
}

// Equal ones by their ids: an order that nothing but a change of what it is by can change.
function sorted(items, columns, sort, idOf) {
  const column = columns.find((one) => one.key === sort.replace(/^-/, "")) ?? columns[0];
  const back = sort.startsWith("-") ? -1 : 1;
  const keyed = items.map((item) => [sortKey(column.sort ? column.sort(item) : column.text(item)), item, idOf(item)]);
  keyed.sort(([a, , x], [b, , y]) => (a < b ? -back : a > b ? back : x < y ? -1 : x > y ? 1 : 0));
  return keyed.map(([, item]) => item);
}

// agent-9 goes before agent-10.
function sortKey(value) {
  return typeof value === "number" ? value : String(value ?? "").toLowerCase().replace(/\d+/g, (d) => d.padStart(12, "0"));
}
