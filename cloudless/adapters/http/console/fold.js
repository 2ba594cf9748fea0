// Take the changes that a watch tells into the store. Tasks, rollouts and events are complete in them; what the
// coordinator computes of nodes and workloads (phases, sums) is only marked as due, and asked for again by `refresh`.

export const KINDS = [
  "coordinator", "election", "suspicion", "node-spec", "node-info", "node-status", "workload", "task-desired",
  "task-observed", "event", "rollout", "join", "replacement", "autopilot-status",
];
export const EVENTS_MAX = 2000;
const ENDED = new Set(["COMPLETED", "FAILED", "STOPPED"]);

export function fold(store, due, changes) {
  for (const change of changes) {
    const parts = change.key.split("/");
    const record = change.deleted ? null : change.record;
    switch (change.kind) {
      case "task-desired":
        foldDesired(store, due, parts.at(-2), record?.taskDesired ?? null, change.revision);
        break;
      case "task-observed":
        foldObserved(store, due, parts.at(-2), record?.taskObserved ?? null, change.revision);
        break;
      case "node-spec": case "node-info": case "node-status":
        due.node(parts.at(-2), true);
        break;
      case "workload":
        due.workload(`${parts.at(-3)}/${parts.at(-2)}`);
        break;
      case "rollout":
        foldRollout(store, `${parts.at(-2)}/${parts.at(-1)}`, record?.rollout ?? null);
        break;
      case "event":
        if (record?.event) addEvents(store, [record.event]);
        break;
      default:
        due.cluster();
    }
  }
}

function foldDesired(store, due, id, desired, revision) {
  const held = store.tasks.get(id);
  if (desired) store.putTask(slim({ desired, observed: held?.observed, revision }));
  else store.dropTask(id);
  const of = desired ?? held?.desired;
  if (of) markDue(due, of);
}

function foldObserved(store, due, id, observed, revision) {
  const held = store.tasks.get(id);
  if (!held) return;
  store.putTask({ ...held, observed: observed ?? undefined, revision });
  markDue(due, held.desired);
}

function markDue(due, desired) {
  due.node(desired.nodeId, false);
  due.workload(`${desired.namespace}/${desired.workload}`);
}

function foldRollout(store, id, rollout) {
  if (rollout) store.rollouts.set(id, rollout);
  else store.rollouts.delete(id);
  store.touch("rollouts", id);
}

export function addEvents(store, found) {
  const fresh = found.filter((event) => !store.eventIds.has(event.id));
  if (!fresh.length) return;
  fresh.forEach((event) => store.eventIds.add(event.id));
  store.events.push(...fresh);
  while (store.events.length > EVENTS_MAX) store.eventIds.delete(store.events.shift().id);
  store.touch("events");
}

// Twenty thousand specifications are of no use in a list: the page of a task asks for its own.
export function slim(task) {
  const { spec, ...desired } = task.desired;
  return { desired: { ...desired, slot: Number(desired.slot ?? 0) }, observed: task.observed, revision: task.revision };
}

// What a person calls its state, as the coordinator does: PENDING before the first report, UNKNOWN while its node is away.
export function stateOf(store, task) {
  const observed = task.observed?.state?.replace("TASK_STATE_", "");
  if (observed && ENDED.has(observed)) return observed;
  const node = store.nodes.get(task.desired.nodeId);
  if (node?.status?.reachability === "REACHABILITY_UNREACHABLE" || node?.phase === "OFFLINE") return "UNKNOWN";
  return observed && observed !== "UNSPECIFIED" ? observed : "PENDING";
}

export function ended(task) {
  return ENDED.has(task.observed?.state?.replace("TASK_STATE_", ""));
}
