// Who looks, and what they may do. What needs which role is read from the API's own description (x-role in
// /openapi.json), never said here; the coordinator judges each call anyway.

import { get } from "./api.js";

// From least to most. Nobody in particular (a cluster without TLS) may do everything.
const RANKS = ["viewer", "operator", "admin"];

export class Access {
  constructor(store) {
    this._store = store;
    this._roles = new Map();
    this.role = "";
    this.namespaces = [];
  }

  async load() {
    const [me, document] = await Promise.all([get("/v1/whoami"), get("/openapi.json")]);
    this.role = (me.role ?? "ROLE_UNSPECIFIED").replace("ROLE_", "").toLowerCase();
    this.namespaces = me.namespaces ?? [];
    for (const [path, verbs] of Object.entries(document.paths)) {
      for (const [verb, operation] of Object.entries(verbs)) {
        this._roles.set(`${verb.toUpperCase()} ${path}`, operation["x-role"] ?? "");
      }
    }
    this._store.set("me", { name: me.name ?? "", role: this.role, namespaces: this.namespaces });
  }

  // Whether an operation, as "PUT /v1/workloads/{namespace}/{name}/scale", may be offered; in a namespace if it has one.
  may(operation, namespace = "") {
    if (!this._roles.has(operation)) return false;
    if (this.role === "unspecified") return true;
    const needed = this._roles.get(operation);
    if (needed !== "anyone" && !(RANKS.indexOf(this.role) >= RANKS.indexOf(needed) && RANKS.includes(needed))) return false;
    if (!this.namespaces.length) return true;
    return namespace ? this.namespaces.includes(namespace) : false;
  }

  // Whoever is bound to namespaces may see the cluster, but of workloads and tasks only theirs, and watch nothing.
  get watches() { return !this.namespaces.length; }

  queries(kind) {
    if (kind === "nodes" || !this.namespaces.length) return [{}];
    return this.namespaces.map((namespace) => ({ namespace }));
  }
}
