// Workloads: the list.

import { h } from "../dom.js";
import { Page } from "../facts.js";
import { age, word } from "../format.js";
import { workloadId } from "../refresh.js";
import { to } from "../router.js";
import { Table } from "../table.js";

const summary = (workload) => workload.summary ?? {};

export function workloads({ store }, values) {
  const table = new Table({
    name: "Workloads", values, items: () => [...store.workloads.values()], idOf: workloadId,
    empty: "No workload yet: cloudless workload apply -f FILE",
    columns: [
      { key: "name", title: "Name", text: (one) => one.record.name, href: (one) => to("workloads", one.record.namespace, one.record.name) },
      { key: "namespace", title: "Namespace", text: (one) => one.record.namespace },
      { key: "state", title: "State", text: (one) => word(summary(one).state), tone: (one) => summary(one).state },
      { key: "running", title: "Running", kind: "number", text: (one) => `${summary(one).running ?? 0} of ${summary(one).desired ?? 0}`, sort: (one) => Number(summary(one).running ?? 0) },
      { key: "ready", title: "Ready", kind: "number", text: (one) => summary(one).ready ?? 0, sort: (one) => Number(summary(one).ready ?? 0) },
      { key: "pending", title: "Pending", kind: "number", text: (one) => missing(one) || "", sort: missing },
      { key: "failed", title: "Failed", kind: "number", text: (one) => Number(summary(one).failed ?? 0) || "", sort: (one) => Number(summary(one).failed ?? 0) },
      { key: "updated", title: "Updated", kind: "number", text: (one) => summary(one).updated ?? 0, sort: (one) => Number(summary(one).updated ?? 0) },
      { key: "age", title: "Age", text: (one) => age(one.record.createdAtMs), sort: (one) => -Number(one.record.createdAtMs ?? 0) },
      { key: "runs", title: "Runs", kind: "wide", text: runs },
    ],
  });
  const page = new Page("Workloads", h("h1", {}, "Workloads"), table.element);
  page.table = table;
  page.take = (next) => table.take(next);
  return page.also(store.on(["workloads", "listed"], () => table.update()), () => table.end());
}

// Wanted, but not running, and not done either.
export function missing(one) {
  const { desired = 0, running = 0, completed = 0, unknown = 0 } = summary(one);
  return Math.max(0, Number(desired) - Number(running) - Number(completed) - Number(unknown));
}

export function runs(one) {
  const spec = one.record.spec ?? {};
  return spec.image || (spec.command ?? []).join(" ");
}
