// Output of a task, or of a workload's tasks, as it comes. It follows its end unless the reader has scrolled away; what
// is too old to be kept is let go. A stream that breaks off says so and goes on by itself.

import { ApiError, open, query } from "../api.js";
import { fill, h, say } from "../dom.js";
import { events } from "../events.js";
import { clock } from "../format.js";

const LINES_MAX = 4000;
const TAIL = 200;
const AGAIN_MS = 1500;
const NEAR_PX = 40;
const HIDDEN_MS = 30_000;

export class Logs {
  constructor(path, named = false) {
    this._path = path;
    this._named = named;
    this._abort = new AbortController();
    this._decoders = new Map();
    this._waiting = [];
    this._frame = 0;
    this._state = h("span", { class: "dim", role: "status" });
    this._toggle = h("button", { type: "button", on: { click: () => (this._runs ? this.stop() : this.start()) } }, "Stop");
    // A log reads itself out all the time: it is read on purpose only.
    this._box = h("div", { class: "logs", role: "log", "aria-live": "off", "aria-label": "Output", tabindex: "0" });
    this.element = h("section", { class: "output" },
      h("div", { class: "titleline" }, h("h2", {}, "Output"), this._toggle, this._state), this._box);
    this._since = 0;
    this._seen = () => this._look();
    document.addEventListener("visibilitychange", this._seen);
    this.start();
  }

  end() {
    this._ended = true;
    this._abort.abort();
    cancelAnimationFrame(this._frame);
    clearTimeout(this._hide);
    document.removeEventListener("visibilitychange", this._seen);
  }

  // As the watch does: a page that nobody sees gives its connection back, and goes on from there later.
  _look() {
    clearTimeout(this._hide);
    if (document.hidden) this._hide = setTimeout(() => { if (this._runs) { this.stop(); this._hidden = true; } }, HIDDEN_MS);
    else if (this._hidden) { this._hidden = false; this.start(); }
  }

  stop() { this._runs = false; this._abort.abort(); this._show("stopped"); }

  start() {
    this._runs = true;
    this._abort = new AbortController();
    this._run(this._abort);
  }

  async _run(abort) {
    while (!abort.signal.aborted) {
      try {
        this._show("following");
        const asked = this._since ? { sinceS: ((Date.now() - this._since) / 1000).toFixed(1) } : { tailLines: TAIL };
        const response = await open("GET", this._path + query({ ...asked, follow: true }), { signal: abort.signal });
        for await (const event of events(response)) {
          if (event.type === "problem") throw new ApiError(event.data, event.data.status);
          this._since = Date.now();
          this._take(event.data);
        }
        this._show("ended");
        this._runs = false;
        say(this._toggle, "Follow");
        return;
      } catch (error) {
        if (abort.signal.aborted) break;
        if (error instanceof ApiError && !error.retryable) {
          this._show(error.message);
          this._runs = false;
          say(this._toggle, "Follow");
          return;
        }
        this._line("", "note", `— broke off at ${clock(Date.now())}, going on; lines may be missing or twice —`);
        this._since ||= Date.now();
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
    }
  }

  _show(text) {
    if (this._ended) return;
    say(this._state, text);
    say(this._toggle, this._runs ? "Stop" : "Follow");
  }

  // Pieces end anywhere, in the middle of a letter too: each task's stream has a decoder and a rest of its own.
  _take({ taskId, stream, data }) {
    const key = `${taskId} ${stream}`;
    if (!this._decoders.has(key)) this._decoders.set(key, { decoder: new TextDecoder(), line: null });
    const held = this._decoders.get(key);
    const raw = Uint8Array.from(atob(data ?? ""), (letter) => letter.charCodeAt(0));
    const parts = held.decoder.decode(raw, { stream: true }).split("\n");
    parts.forEach((part, at) => {
      if (held.line) held.line.text += part;
      else if (part || at < parts.length - 1) held.line = this._line(taskId, stream, part);
      if (held.line) this._touch(held.line);
      if (at < parts.length - 1) held.line = null;
    });
  }

  _line(taskId, stream, text) {
    const line = { taskId, stream, text, element: null };
    this._touch(line);
    return line;
  }

  _touch(line) {
    this._waiting.push(line);
    this._frame ||= requestAnimationFrame(() => this._draw());
  }

  _draw() {
    this._frame = 0;
    const follows = this._box.scrollHeight - this._box.scrollTop - this._box.clientHeight < NEAR_PX;
    for (const line of new Set(this._waiting.splice(0).slice(-LINES_MAX))) {
      if (!line.element) {
        line.element = h("div", { class: line.stream ?? "" });
        this._box.append(line.element);
      }
      const name = this._named && line.taskId ? h("span", { class: "source" }, line.taskId) : null;
      fill(line.element, name, line.text.replace(/\x1b\[[0-9;]*m/g, "") || " ");
    }
    while (this._box.childElementCount > LINES_MAX) this._box.firstChild.remove();
    if (follows) this._box.scrollTop = this._box.scrollHeight;
  }
}
