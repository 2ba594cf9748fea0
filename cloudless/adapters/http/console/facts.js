// Parts of an object's page: its heading, a list of facts whose values change in place, sections that load by themselves.

import { fill, h, say } from "./dom.js";
import { tone as toneOf } from "./format.js";

// `rows` are [label, get] or [label, get, "state"]; get(object) returns text, an element, or "" for nothing to say.
export class Facts {
  constructor(rows) {
    this._rows = rows.map(([label, get, kind]) => {
      const value = h("dd", { class: kind === "id" ? "id" : null });
      const line = h("div", {}, h("dt", {}, label), value);
      return { get, kind, value, line };
    });
    this.element = h("dl", { class: "facts" }, this._rows.map((row) => row.line));
  }

  update(object) {
    for (const { get, kind, value, line } of this._rows) {
      const found = object ? get(object) : "";
      line.hidden = found === "" || found === false || found === null || found === undefined;
      if (found instanceof Node) fill(value, found);
      else if (kind === "state") {
        if (value.dataset.text !== String(found)) fill(value, mark(found));
        value.dataset.text = String(found ?? "");
      } else say(value, String(found ?? ""));
    }
  }
}

export function mark(state, text = String(state).toLowerCase()) {
  return h("span", { class: `state ${toneOf(state)}` }, text);
}

// An object's name under where it belongs.
export function heading(name, ...trail) {
  return h("div", { class: "heading" },
    h("p", { class: "kind" }, trail.map((part, at) => [at ? " / " : "", part])), h("h1", {}, name));
}

export function section(title, ...content) {
  return h("section", {}, h("h2", {}, title), ...content);
}

// A section whose content is asked for: at first, and again when `due()` is called, but one question at a time.
export class Loaded {
  constructor(title, load, { tools = [], every = 0 } = {}) {
    this._load = load;
    this._body = h("div", { class: "loaded" }, h("p", { class: "dim" }, "…"));
    this.element = h("section", {}, h("div", { class: "titleline" }, h("h2", {}, title), ...tools), this._body);
    this._busy = false;
    this._again = false;
    this._timer = every ? setInterval(() => document.hidden || this.due(), every) : 0;
    this.due();
  }

  end() { clearInterval(this._timer); this._ended = true; }

  due() {
    if (this._busy) { this._again = true; return; }
    this._run();
  }

  async _run() {
    this._busy = true;
    try {
      const content = await this._load();
      if (!this._ended) this._put(content);
    } catch (error) {
      if (!this._ended) fill(this._body, h("p", { class: "problem" }, error.message));
    }
    this._busy = false;
    if (this._again && !this._ended) {
      this._again = false;
      setTimeout(() => this._run(), 500);
    }
  }

  // What reads the same stays as it is: a selection, or a focus in it, survives.
  _put(content) {
    const made = h("div", {}, content);
    if (this._body.dataset.full && made.textContent === this._body.textContent) return;
    this._body.dataset.full = "1";
    fill(this._body, ...made.childNodes);
  }
}

export function plainTable(titles, rows, caption) {
  return h("div", { class: "plainbox" }, h("table", { class: "plain" }, h("caption", { class: "unseen" }, caption),
    h("thead", {}, h("tr", {}, titles.map((title) => h("th", { scope: "col" }, title)))),
    h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell)))))));
}

export function none(text) {
  return h("p", { class: "dim" }, text);
}

// A view made of parts: keeps who listens, and ends all of it.
export class Page {
  constructor(title, ...parts) {
    this.title = title;
    this._ends = [];
    this.element = h("div", { class: "page" }, ...parts);
  }

  also(...ends) { this._ends.push(...ends); return this; }

  end() { this._ends.forEach((end) => end()); }
}
