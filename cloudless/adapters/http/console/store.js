// What the page knows of the cluster, and who wants to hear of a change. However many changes come, listeners are
// called once per animation frame, with the ids that changed.

export class Store {
  constructor() {
    this.nodes = new Map();
    this.workloads = new Map();
    this.tasks = new Map();
    this.rollouts = new Map();
    this.events = [];
    this.eventIds = new Set();
    this.members = [];
    this.joiners = [];
    this.status = null;
    this.statusAt = 0;
    this.me = null;
    this.link = { phase: "connecting", since: Date.now(), heard: 0 };
    this.tasksOfNode = new Map();
    this.tasksOfWorkload = new Map();
    this._listeners = new Map();
    this._touched = new Map();
    this._frame = 0;
  }

  // Call `listener(ids)` in the next frame after anything of `topic` changed. Returns how to end that.
  on(topics, listener) {
    const list = [].concat(topics);
    for (const topic of list) {
      if (!this._listeners.has(topic)) this._listeners.set(topic, new Set());
      this._listeners.get(topic).add(listener);
    }
    return () => list.forEach((topic) => this._listeners.get(topic).delete(listener));
  }

  touch(topic, id = "") {
    if (!this._touched.has(topic)) this._touched.set(topic, new Set());
    this._touched.get(topic).add(id);
    if (!this._frame) this._frame = requestAnimationFrame(() => this._flush());
  }

  putTask(task) {
    const { id, nodeId, namespace, workload } = task.desired;
    const held = this.tasks.get(id)?.desired;
    if (held && (held.nodeId !== nodeId || held.workload !== workload || held.namespace !== namespace)) this.dropTask(id);
    this.tasks.set(id, task);
    link(this.tasksOfNode, nodeId, id);
    link(this.tasksOfWorkload, `${namespace}/${workload}`, id);
    this._touchTask(task);
  }

  dropTask(id) {
    const old = this.tasks.get(id);
    if (!old) return;
    this.tasks.delete(id);
    unlink(this.tasksOfNode, old.desired.nodeId, id);
    unlink(this.tasksOfWorkload, `${old.desired.namespace}/${old.desired.workload}`, id);
    this._touchTask(old);
  }

  tasksOn(nodeId) {
    return [...(this.tasksOfNode.get(nodeId) ?? [])].map((id) => this.tasks.get(id));
  }

  tasksFor(workload) {
    return [...(this.tasksOfWorkload.get(workload) ?? [])].map((id) => this.tasks.get(id));
  }

  // Replace nodes or workloads as a whole after they were listed afresh.
  replace(kind, items, idOf) {
    const found = new Map(items.map((item) => [idOf(item), item]));
    const gone = [...this[kind].keys()].filter((id) => !found.has(id));
    this[kind] = found;
    [...gone, ...found.keys()].forEach((id) => this.touch(kind, id));
    if (!found.size) this.touch(kind);
  }

  set(name, value) {
    this[name] = value;
    this.touch(name);
  }

  _touchTask(task) {
    this.touch("tasks", task.desired.id);
    this.touch("node-tasks", task.desired.nodeId);
    this.touch("workload-tasks", `${task.desired.namespace}/${task.desired.workload}`);
  }

  _flush() {
    this._frame = 0;
    const touched = this._touched;
    this._touched = new Map();
    const calls = new Map();
    for (const [topic, ids] of touched) {
      for (const listener of this._listeners.get(topic) ?? []) {
        if (!calls.has(listener)) calls.set(listener, new Map());
        calls.get(listener).set(topic, ids);
      }
    }
    for (const [listener, changes] of calls) {
      try {
        listener(changes);
      } catch (error) {
        console.error(error);
      }
    }
  }
}

function link(index, key, id) {
  if (!index.has(key)) index.set(key, new Set());
  index.get(key).add(id);
}

function unlink(index, key, id) {
  const held = index.get(key);
  held?.delete(id);
  if (held && !held.size) index.delete(key);
}
