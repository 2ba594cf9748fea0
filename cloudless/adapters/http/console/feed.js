// Keep the store like the cluster: list, then watch from that revision on; after a break go on from the last revision,
// at whichever coordinator answers; where history is gone, list afresh. It says at any time how sure the page may be:
//
//   connecting ─► live ─► lost (since when, why) ─► live …        denied: no certificate, no token, no role
//                  └──► paused, while nobody sees the page
//
// The watch is asked for a sign of life every half second. A coordinator that is silent for a second and a half is
// taken for gone, whatever its connection looks like.

import { ApiError, get, open, pages, proxied, query } from "./api.js";
import { events } from "./events.js";
import { KINDS, addEvents, fold, slim } from "./fold.js";

export const SIGN_OF_LIFE_S = 0.5;
export const SILENT_MS = 1500;
const HIDDEN_MS = 30_000;
const POLL_MS = 2000;
const POLL_MAX_MS = 4000;
const BACKOFF_MS = [20, 150, 300, 600, 1000];
const AFRESH = new Set([410, 413]);
const DENIED = new Set([401, 403]);

export class Feed {
  constructor(store, refresh, scope) {
    this._store = store;
    this._refresh = refresh;
    this._scope = scope;
    this._revision = 0;
    this._fails = 0;
    this._abort = new AbortController();
    this._hide = 0;
    this._shown = Promise.resolve();
  }

  // Run for as long as the page is there.
  async run() {
    document.addEventListener("visibilitychange", () => this._seen());
    for (;;) {
      await this._shown;
      try {
        if (!this._revision) await this._list();
        if (this._scope.watches) await this._watch();
        else await this._poll();
        this._say("lost", "the coordinator ended the stream");
      } catch (error) {
        this._fail(error);
      }
      this._refresh.pause();
      await sleep(BACKOFF_MS[Math.min(this._fails, BACKOFF_MS.length - 1)]);
      this._fails += 1;
    }
  }

  // Try at once: the person asked for it, or the network is said to be back.
  hurry() { this._fails = 0; this._abort.abort("again"); }

  _fail(error) {
    if (error instanceof ApiError && AFRESH.has(error.status)) {
      this._revision = 0;
      return;
    }
    if (this._store.link.phase === "paused") return;
    if (error instanceof ApiError && DENIED.has(error.status)) this._say("denied", error.message, error);
    else this._say("lost", error instanceof ApiError ? error.message : why(error, this._abort.signal));
  }

  _say(phase, reason = "", error = null) {
    const before = this._store.link;
    const since = before.phase === phase ? before.since : phase === "lost" && before.heard ? before.heard : Date.now();
    this._store.set("link", { ...before, phase, reason, error, since });
  }

  async _list() {
    const refresh = this._refresh;
    refresh.revision = 0;
    refresh.status();
    refresh.members();
    this._abort = new AbortController();
    const signal = this._abort.signal;
    // The watch begins at the first answer's revision: what a later page has already is told once more, to no harm.
    const header = await refresh.list("nodes", signal);
    await refresh.list("workloads", signal);
    const gone = new Set(this._store.tasks.keys());
    for (const values of this._scope.queries("tasks")) {
      for await (const page of pages("/v1/tasks", "tasks", { all: true, ...values }, signal)) {
        // Page by page: twenty thousand at once would be a pause that is felt.
        for (const task of page.items) {
          gone.delete(task.desired.id);
          this._store.putTask(slim(task));
        }
      }
    }
    gone.forEach((id) => this._store.dropTask(id));
    if (this._scope.watches) {
      const told = await get("/v1/events", { limit: 1000, consistency: "CONSISTENCY_STALE" }, { signal });
      addEvents(this._store, told.events ?? []);
    }
    this._store.set("listed", true);
    this._hear(header);
    this._revision = Number(header.revision);
  }

  async _watch() {
    const asked = new AbortController();
    this._abort = asked;
    let timer = 0;
    const alive = () => {
      clearTimeout(timer);
      timer = setTimeout(() => asked.abort("silent"), SILENT_MS);
    };
    const path = "/v1/watch" + query({ signOfLifeS: SIGN_OF_LIFE_S }) + KINDS.map((kind) => `&kinds=${kind}`).join("");
    try {
      alive();
      const headers = { "Last-Event-ID": String(this._revision) };
      const response = await open("GET", path, { headers, signal: asked.signal });
      for await (const event of events(response, alive)) {
        if (event.type === "problem") throw new ApiError(event.data, event.data.status);
        this._take(event.data);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  _take(told) {
    this._fails = 0;
    this._revision = Math.max(this._revision, Number(told.revision));
    this._refresh.revision = this._revision;
    this._hear(told.header);
    if (told.changes) fold(this._store, this._refresh, told.changes);
  }

  // Note who spoke, who it says leads, and that it is now.
  _hear(header) {
    const before = this._store.link;
    const led = before.leader !== header.leaderId || before.term !== header.term;
    const first = before.phase !== "live";
    const now = Date.now();
    this._store.set("link", {
      phase: "live", heard: now, since: first ? now : before.since, reason: "", error: null,
      coordinator: header.coordinatorId, cluster: header.clusterId, leader: header.leaderId ?? "",
      term: header.term ?? "0", revision: header.revision, staleness: Number(header.stalenessS ?? 0),
    });
    this._refresh.begin();
    if (first || led) this._refresh.cluster();
  }

  // For people bound to namespaces, who may not watch the whole cluster: look again every two seconds.
  async _poll() {
    for (;;) {
      await sleep(POLL_MS);
      await this._shown;
      const timer = setTimeout(() => this._abort.abort("silent"), POLL_MAX_MS);
      try {
        await this._list();
      } finally {
        clearTimeout(timer);
      }
    }
  }

  // A page that nobody sees gives its connection back: browsers have six for one host, in all tabs together.
  _seen() {
    clearTimeout(this._hide);
    if (!document.hidden) {
      this._wake?.();
      return;
    }
    this._hide = setTimeout(() => {
      this._shown = new Promise((resolve) => { this._wake = resolve; });
      this._say("paused");
      this._refresh.pause();
      this._abort.abort("hidden");
    }, HIDDEN_MS);
  }
}

function why(error, signal) {
  if (signal.aborted && signal.reason === "silent") return "nothing was heard any more";
  if (error.name === "TimeoutError") return "there was no answer in time";
  return proxied() ? "cloudless console does not answer: does it still run?" : "the connection broke";
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
