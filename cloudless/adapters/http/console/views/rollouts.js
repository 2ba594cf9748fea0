// Rollouts: how the newest change of each workload's template is doing.
//
// The API lists no rollouts: those of before are asked for one by one when this page is first opened, newest changes
// first and not without end; from then on the watch tells.

import { get } from "../api.js";
import { h } from "../dom.js";
import { Facts, Page } from "../facts.js";
import { age, moment, word } from "../format.js";
import { workloadPath } from "../refresh.js";
import { to } from "../router.js";
import { Table } from "../table.js";

const ASKED_MAX = 300;
const AT_ONCE = 4;
const phase = (record) => word(record.phase, "ROLLOUT_PHASE_");
const toneOf = (record) => phase(record);

export function rollouts({ store }, values) {
  const table = new Table({
    name: "Rollouts", values, sort: "-began", idOf: ([id]) => id, empty: "No template was changed yet.",
    items: () => [...store.rollouts],
    columns: [
      { key: "workload", title: "Workload", text: ([id]) => id, href: ([id]) => to("workloads", ...id.split("/")) },
      { key: "phase", title: "Phase", text: ([, one]) => phase(one), tone: ([, one]) => toneOf(one) },
      { key: "progress", title: "Steps done", kind: "number", text: ([, one]) => one.progress ?? 0, sort: ([, one]) => Number(one.progress ?? 0) },
      { key: "generation", title: "Generation", kind: "number", text: ([, one]) => one.generation ?? "", sort: ([, one]) => Number(one.generation ?? 0) },
      { key: "began", title: "Began", text: ([, one]) => moment(one.startedAtMs), sort: ([, one]) => Number(one.startedAtMs ?? 0) },
      { key: "since", title: "In this phase for", text: ([, one]) => age(one.sinceMs), sort: ([, one]) => -Number(one.sinceMs ?? 0) },
      { key: "reason", title: "Reason", kind: "wide", text: ([, one]) => one.reason || one.cause || "" },
    ],
  });
  askForAll(store);
  const page = new Page("Rollouts", h("h1", {}, "Rollouts"), table.element);
  page.table = table;
  page.take = (next) => table.take(next);
  return page.also(store.on("rollouts", () => table.update()), store.on("listed", () => askForAll(store)), () => table.end());
}

async function askForAll(store) {
  if (!store.listed || store.askedRollouts) return;
  store.askedRollouts = true;
  const changed = [...store.workloads].filter(([id, one]) => !store.rollouts.has(id) && Number(one.record.generation ?? 0) > 1)
    .sort(([, a], [, b]) => Number(b.record.updatedAtMs ?? 0) - Number(a.record.updatedAtMs ?? 0)).slice(0, ASKED_MAX).map(([id]) => id);
  const work = async () => { for (let id = changed.shift(); id; id = changed.shift()) await fetchRollout(store, id, workloadPath(id)); };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}

export async function fetchRollout(store, id, path) {
  try {
    const { rollout } = await get(`${path}/rollout`, { consistency: "CONSISTENCY_STALE" });
    if (rollout) {
      store.rollouts.set(id, rollout);
      store.touch("rollouts", id);
    }
  } catch {
    // Whoever looks at the page is told so by the watch's own state.
  }
}

export function rolloutFacts() {
  return new Facts([
    ["Phase", phase, "state"],
    ["Reason", (one) => one.reason ?? ""],
    ["Cause", (one) => one.cause ?? ""],
    ["Steps done", (one) => one.progress ?? 0],
    ["Generation", (one) => `${one.generation ?? 0}, before it ${one.stableGeneration ?? 0}`],
    ["Undoes", (one) => (Number(one.rollbackOf ?? 0) ? `generation ${one.rollbackOf}` : "")],
    ["Began", (one) => moment(one.startedAtMs)],
    ["In this phase for", (one) => age(one.sinceMs)],
  ]);
}
