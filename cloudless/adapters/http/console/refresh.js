// Ask again for what a coordinator computes: nodes and workloads that a change may have touched, the cluster's health,
// the members. Level-triggered and bounded: one question of a kind at a time, a crowd of changes becomes one list.

import { get, pages } from "./api.js";

const PAUSE_MS = 120;
const SINGLE_MAX = 8;
// After a list, so many times as long as it took is waited: the page must not be what keeps a coordinator busy.
const REST = 4;
const STATUS_MS = 800;
const MEMBERS_MS = 5000;
const STATUS_MAX_MS = 1500;

export class Refresh {
  constructor(store, scope) {
    this._store = store;
    this._scope = scope;
    this._due = { nodes: new Set(), workloads: new Set() };
    this._busy = { nodes: false, workloads: false };
    this._timers = {};
    this._asking = { status: false, members: false };
    this.revision = 0;
    this.live = false;
  }

  // `computed`: whether what is shown in lists changed, or only the number of its tasks.
  node(id) { this._mark("nodes", id); }
  workload(id) { this._mark("workloads", id); }

  cluster() {
    clearTimeout(this._timers.cluster);
    this._timers.cluster = setTimeout(() => { this.status(); this.members(); }, 60);
  }

  // While the watch is up: health is looked at all the time, since no record changes when a coordinator is lost.
  begin() {
    this.live = true;
    if (this._timers.status) return;
    this._timers.status = setInterval(() => this.live && this.status(), STATUS_MS);
    this._timers.members = setInterval(() => this.live && this.members(), MEMBERS_MS);
  }

  pause() { this.live = false; }

  async status() {
    await this._once("status", async () => {
      const asked = Date.now();
      const status = await get("/v1/cluster/status", {}, { timeoutMs: STATUS_MAX_MS });
      this._store.statusAt = asked;
      this._store.set("status", status);
    });
  }

  async members() {
    await this._once("members", async () => {
      const answer = await get("/v1/members", {}, { timeoutMs: 4000 });
      this._store.set("joiners", answer.joiners ?? []);
      this._store.set("members", answer.members ?? []);
    });
  }

  async _once(what, ask) {
    if (this._asking[what]) return;
    this._asking[what] = true;
    try {
      await ask();
    } catch {
      // The watch tells of a coordinator that is gone; here there is only no news.
    } finally {
      this._asking[what] = false;
    }
  }

  _mark(kind, id) {
    this._due[kind].add(id);
    if (!this._busy[kind]) this._later(kind, PAUSE_MS);
  }

  _later(kind, ms) {
    if (this._timers[kind]) return;
    this._timers[kind] = setTimeout(() => { this._timers[kind] = 0; this._run(kind); }, ms);
  }

  async _run(kind) {
    const ids = [...this._due[kind]];
    if (!ids.length || this._busy[kind]) return;
    this._due[kind] = new Set();
    this._busy[kind] = true;
    const began = performance.now();
    try {
      if (ids.length <= SINGLE_MAX) await Promise.all(ids.map((id) => this._one(kind, id)));
      else await this.list(kind);
    } catch {
      ids.forEach((id) => this._due[kind].add(id));
    } finally {
      this._busy[kind] = false;
    }
    const took = performance.now() - began;
    if (this._due[kind].size) this._later(kind, Math.max(PAUSE_MS, ids.length > SINGLE_MAX ? REST * took : took));
  }

  async list(kind, signal) {
    const found = [];
    let header = {};
    for (const values of this._scope.queries(kind)) {
      for await (const page of pages(`/v1/${kind}`, kind, { minRevision: this.revision || "", ...values }, signal)) {
        found.push(...page.items);
        header = header.revision ? header : page.header;
      }
    }
    this._store.replace(kind, found, kind === "nodes" ? (node) => node.id : workloadId);
    return header;
  }

  async _one(kind, id) {
    const path = kind === "nodes" ? `/v1/nodes/${encodeURIComponent(id)}` : workloadPath(id);
    const held = this._store[kind];
    try {
      const answer = await get(path, { consistency: "CONSISTENCY_STALE", minRevision: this.revision || "" });
      held.set(id, kind === "nodes" ? answer.node : answer.workload);
    } catch (error) {
      if (error.status !== 404) throw error;
      held.delete(id);
    }
    this._store.touch(kind, id);
  }
}

export function workloadId(workload) {
  return `${workload.record.namespace}/${workload.record.name}`;
}

export function workloadPath(id) {
  const [namespace, name] = id.split("/");
  return `/v1/workloads/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;
}
