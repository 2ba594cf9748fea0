// What can be done to an object: the operation of the API it is, when it is offered, and what is asked before. Whether
// somebody may do it is for `access` to say, by the operation's name.

import { call, newKey } from "./api.js";
import { ask } from "./dialog.js";
import { h } from "./dom.js";

const ROLLOUT = "/v1/workloads/{namespace}/{name}/rollout";

export const WORKLOAD = [
  {
    id: "scale", label: "Scale", operation: "PUT /v1/workloads/{namespace}/{name}/scale",
    offered: (workload) => workload.record.spec?.mode !== "WORKLOAD_MODE_PER_NODE" && !deleted(workload),
    question: (workload) => ({
      title: `Scale ${nameOf(workload)}`, verb: "Scale",
      fields: [{ name: "replicas", label: "Replicas", type: "number", min: 0, max: 100000, value: workload.record.spec?.replicas ?? 0 }],
      body: (values) => ({ replicas: Number(values.replicas) }),
    }),
  },
  rollout("pause", "Pause rollout", "No more tasks are replaced until it is resumed.", (w, r) => moving(r) && r.phase !== "ROLLOUT_PHASE_PAUSED"),
  rollout("resume", "Resume rollout", "Replacing tasks goes on.", (w, r) => r?.phase === "ROLLOUT_PHASE_PAUSED" || paused(w)),
  rollout("promote", "Promote", "All other tasks follow what was tried first.", (w, r) => r?.phase === "ROLLOUT_PHASE_AWAITING_PROMOTION"),
  rollout("undo", "Undo rollout", "The template before is put back; tasks are replaced by its rules.", (w) => Number(w.record.rolloutGeneration ?? 0) > 0 || (w.record.history ?? []).length > 0),
  {
    id: "delete", label: "Delete", danger: true, operation: "DELETE /v1/workloads/{namespace}/{name}",
    offered: (workload) => !deleted(workload),
    question: (workload) => ({
      title: `Delete ${nameOf(workload)}`, verb: "Delete",
      text: "All its tasks are stopped, then it is forgotten. This cannot be undone.",
      fields: [{ name: "typed", label: `Type ${workload.record.name} to confirm`, match: workload.record.name }],
    }),
  },
];

export const NODE = [
  {
    id: "cordon", label: "Cordon", operation: "POST /v1/nodes/{nodeId}/cordon", offered: (node) => !node.spec?.cordoned,
    question: (node) => ({ title: `Cordon ${node.id}`, verb: "Cordon", text: "It gets no new tasks; what runs there goes on." }),
  },
  {
    id: "drain", label: "Drain", operation: "POST /v1/nodes/{nodeId}/drain", offered: (node) => !node.spec?.draining,
    question: (node) => ({ title: `Drain ${node.id}`, verb: "Drain", text: "Its tasks move elsewhere, never below what their workloads keep available." }),
  },
  {
    id: "uncordon", label: "Uncordon", operation: "POST /v1/nodes/{nodeId}/uncordon", offered: (node) => node.spec?.cordoned || node.spec?.draining,
    question: (node) => ({ title: `Uncordon ${node.id}`, verb: "Uncordon", text: "It may get tasks again." }),
  },
];

export const MEMBER = [
  {
    id: "lead", label: "Make leader", operation: "POST /v1/cluster/transfer-leader",
    offered: (member) => !member.leads && member.answers,
    question: (member) => ({
      title: `Make ${member.name} the leader`, verb: "Transfer leadership",
      text: "The present leader resigns in its favour. Tasks are not touched.", body: () => ({ toCoordinatorId: member.name }),
      plain: true,
    }),
  },
];

function rollout(id, label, text, offered) {
  return {
    id, label, operation: `POST ${ROLLOUT}/${id}`, offered: (workload, record) => !deleted(workload) && offered(workload, record),
    question: (workload) => ({ title: `${label} of ${nameOf(workload)}`, verb: label, text }),
  };
}

const nameOf = (workload) => `${workload.record.namespace}/${workload.record.name}`;
const deleted = (workload) => Number(workload.record.deletedAtMs ?? 0) > 0;
const paused = (workload) => Number(workload.record.pausedGeneration ?? 0) > 0 && workload.record.pausedGeneration === workload.record.rolloutGeneration;
const moving = (record) => ["ROLLOUT_PHASE_PROGRESSING", "ROLLOUT_PHASE_AWAITING_PROMOTION"].includes(record?.phase);

// A bar of the actions that this person may take on an object now; `names` are the parts of its path.
export class ActionBar {
  constructor(access, actions, names, announce) {
    Object.assign(this, { _access: access, _names: names, _announce: announce });
    this._buttons = actions
      .filter((action) => access.may(action.operation, names.namespace))
      .map((action) => [action, h("button", { type: "button", class: action.danger ? "danger" : null, "data-action": action.id, on: { click: () => this._begin(action) } }, action.label)]);
    this.element = h("div", { class: "actions" }, this._buttons.map(([, button]) => button));
    this.element.hidden = !this._buttons.length;
  }

  update(object, ...more) {
    this._object = object;
    for (const [action, button] of this._buttons) {
      const offered = Boolean(object) && Boolean(action.offered(object, ...more));
      if (button.hidden === offered) button.hidden = !offered;
    }
    this.element.hidden = this._buttons.every(([, button]) => button.hidden);
  }

  _begin(action) {
    const { body, plain, ...question } = action.question(this._object);
    // One key for all tries of this question: pressed twice, or tried again after a lost answer, it happens once.
    const key = newKey();
    ask({
      ...question, danger: action.danger,
      run: async (values) => {
        const [verb, template] = action.operation.split(" ");
        const path = template.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(this._names[name]));
        const headers = plain ? {} : { "Idempotency-Key": `${key}-${JSON.stringify(body?.(values) ?? "").replace(/\W/g, "")}`.slice(0, 120) };
        await call(verb, path, { headers, body: verb === "DELETE" ? undefined : body?.(values) ?? {} });
        this._announce(`${question.title}: done`);
      },
    });
  }
}
