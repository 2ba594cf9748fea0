// The page of one workload: how it is and why it is not as asked, its tasks, rollout, endpoints, revisions, use, output.

import { ActionBar, WORKLOAD } from "../actions.js";
import { get } from "../api.js";
import { h } from "../dom.js";
import { Facts, Loaded, Page, heading, section } from "../facts.js";
import { ended } from "../fold.js";
import { cores, megabytes, moment, word } from "../format.js";
import { workloadPath } from "../refresh.js";
import { eventsOf } from "./events.js";
import { Logs } from "./logs.js";
import { fetchRollout, rolloutFacts } from "./rollouts.js";
import { taskTable } from "./tasks.js";
import { endpoints, explanation, revisions, usage } from "./workload_parts.js";
import { runs } from "./workloads.js";

const USAGE_MS = 5000;
const EXPLAIN_MS = 4000;

export function workload({ store, access, announce }, { namespace, name }) {
  const id = `${namespace}/${name}`;
  const path = workloadPath(id);
  const held = () => store.workloads.get(id);
  const bar = new ActionBar(access, WORKLOAD, { namespace, name }, announce);
  const facts = workloadFacts();
  const absent = h("p", { class: "dim" }, "There is no workload of this name.");
  const why = new Loaded("Why it is so", async () => explanation(await get(`${path}/explain`)), { every: EXPLAIN_MS });
  const tasks = taskTable(store, "Tasks", () => store.tasksFor(id).filter((task) => !ended(task) || failedLast(store, task)), {}, ["workload"], "slot");
  const rollout = rolloutFacts();
  const rolloutSection = section("Rollout", rollout.element);
  const reached = new Loaded("Endpoints", async () => endpoints(await get(`${path}/endpoints`)));
  const uses = new Loaded("In use now", async () => usage(await get("/v1/usage/tasks", { namespace, workload: name })), { every: USAGE_MS });
  const history = new Loaded("Revisions", async () => revisions(await get(`${path}/revisions`)));
  const manifest = new Loaded("Manifest", async () => h("details", {}, h("summary", {}, "Show it"),
    h("pre", { tabindex: "0", "aria-label": "Manifest" }, (await get(path, { withManifest: true })).manifest ?? "")));
  const logs = new Logs(`${path}/logs`, true);
  const events = eventsOf(store, [`workload/${id}`]);
  const update = () => {
    const one = held();
    absent.hidden = Boolean(one) || !store.listed;
    facts.update(one);
    bar.update(one, store.rollouts.get(id));
    rolloutSection.hidden = !store.rollouts.has(id);
    rollout.update(store.rollouts.get(id));
  };
  let generation = held()?.record.generation;
  const changed = () => {
    update();
    why.due();
    if (held() && held().record.generation !== generation) {
      generation = held().record.generation;
      [history, manifest].forEach((part) => part.due());
    }
  };
  fetchRollout(store, id, path);
  // Without a watch nobody tells of it.
  const asking = access.watches ? 0 : setInterval(() => document.hidden || fetchRollout(store, id, path), EXPLAIN_MS);
  update();
  const parts = [why, reached, uses, history, manifest, tasks, logs, events];
  return new Page(name, heading(name, h("a", { href: "#/workloads" }, "Workloads"), namespace), bar.element,
    absent, facts.element, why.element, rolloutSection, section("Tasks", tasks.element), logs.element, reached.element,
    uses.element, history.element, manifest.element, events.element)
    .also(store.on(["workloads", "rollouts", "listed"], (changes) => (changes.has("listed") || [...changes.values()].some((ids) => ids.has(id))) && changed()),
      store.on("workload-tasks", (changes) => {
        if (!changes.get("workload-tasks").has(id)) return;
        tasks.update();
        reached.due();
      }), () => clearInterval(asking), ...parts.map((part) => () => part.end()));
}

// Of what ended, the newest of a slot that nothing runs in is worth a look.
function failedLast(store, task) {
  return task.observed?.state === "TASK_STATE_FAILED" && Date.now() - Number(task.observed.finishedAtMs ?? 0) < 600_000;
}

function workloadFacts() {
  const sum = (one) => one.summary ?? {};
  return new Facts([
    ["State", (one) => word(sum(one).state), "state"],
    ["Tasks", (one) => `${sum(one).running ?? 0} of ${sum(one).desired ?? 0} running, ${sum(one).ready ?? 0} ready`],
    ["Unknown", (one) => Number(sum(one).unknown ?? 0) || ""],
    ["Completed", (one) => Number(sum(one).completed ?? 0) || ""],
    ["Failed", (one) => Number(sum(one).failed ?? 0) || ""],
    ["Updated", (one) => Number(sum(one).active ?? 0) > 0 && `${sum(one).updated ?? 0} of ${sum(one).active ?? 0} have the newest template`],
    ["Runs", runs, "id"],
    ["Executor", (one) => word(one.record.spec?.executor, "EXECUTOR_KIND_")],
    ["Asks for", (one) => `${cores(one.record.spec?.requests?.cpuMillicores)} cores, ${megabytes(one.record.spec?.requests?.memoryMb)} each`],
    ["Labels", (one) => Object.entries(one.record.labels ?? {}).map(([key, value]) => `${key}=${value}`).join(", ")],
    ["Priority", (one) => Number(one.record.spec?.priority ?? 0) || ""],
    ["Created", (one) => moment(one.record.createdAtMs)],
    ["Changed", (one) => `${moment(one.record.updatedAtMs)}, generation ${one.record.generation ?? 0}`],
    ["Being deleted", (one) => (Number(one.record.deletedAtMs ?? 0) ? `since ${moment(one.record.deletedAtMs)}` : "")],
  ]);
}

