// Parts of a workload's page that are answers of their own calls: explain, endpoints, revisions, use.

import { h } from "../dom.js";
import { none, plainTable } from "../facts.js";
import { bytes, cores, moment } from "../format.js";
import { to } from "../router.js";

const SHOWN_MAX = 50;

// Why it is not (yet) as asked: the verdict, what it waits for, and for each slot how many nodes refuse it and why.
export function explanation({ verdict, waiting = [], unplaced = [] }) {
  const groups = new Map();
  for (const slot of unplaced) {
    const key = JSON.stringify([slot.text, slot.reasons]);
    if (!groups.has(key)) groups.set(key, { ...slot, slots: [] });
    groups.get(key).slots.push(Number(slot.slot ?? 0));
  }
  return [
    h("p", { class: "verdict" }, verdict ?? ""),
    waiting.length ? h("ul", { class: "waiting" }, waiting.map((text) => h("li", {}, text))) : null,
    [...groups.values()].map(unplacedSlot),
  ];
}

function unplacedSlot({ slots, text, nodesTotal, reasons = [], nearest = [] }) {
  const total = Number(nodesTotal ?? 0);
  const named = slots.length > 6 ? `${slots.slice(0, 6).join(", ")} … (${slots.length} slots)` : slots.join(", ");
  return h("div", { class: "unplaced" },
    h("h3", {}, `No place for slot ${named}`), h("p", {}, text ?? ""),
    reasons.length ? h("ul", { class: "reasons" }, reasons.map((one) => reason(one, total))) : null,
    nearest.length ? h("p", { class: "dim" }, "Nearest: ", nearest.map((miss, at) => [
      at ? "; " : "", h("a", { href: to("nodes", miss.nodeId) }, miss.nodeId), ` – it ${(miss.obstacles ?? []).join(", ")}`])) : null);
}

function reason({ reason: text, count }, total) {
  const share = h("span", { class: "share", "aria-hidden": "true" }, h("span", {}));
  share.firstChild.style.width = `${total ? (100 * Number(count)) / total : 0}%`;
  return h("li", {}, share, h("span", { class: "number" }, `${count} of ${total}`), h("span", {}, text));
}

export function endpoints({ endpoints: found = [] }) {
  if (!found.length) return none("None is ready.");
  return plainTable(["Port", "Address", "Task", "Node", "Zone"], found.slice(0, SHOWN_MAX).map((one) => [
    one.portName ?? "", h("code", {}, one.port ? `${one.host}:${one.port}` : one.host ?? ""),
    h("a", { href: to("tasks", one.taskId) }, one.taskId), h("a", { href: to("nodes", one.nodeId) }, one.nodeId),
    [one.zone, one.doubtful ? " (node not reached)" : ""]]), "Endpoints");
}

export function revisions({ revisions: found = [] }) {
  if (!found.length) return none("Its template never changed.");
  return found.map((one) => h("details", {},
    h("summary", {}, `Generation ${one.generation}`, one.current ? ", the present one" : "",
      Number(one.replacedAtMs ?? 0) ? h("span", { class: "dim" }, ` replaced ${moment(one.replacedAtMs)} ${one.reason ?? ""}`) : null),
    h("pre", { tabindex: "0", "aria-label": `Manifest of generation ${one.generation}` }, one.manifest ?? "")));
}

export function usage({ tasks = [], silentNodeIds = [] }) {
  const silent = silentNodeIds.length ? h("p", { class: "dim" }, `No answer from ${silentNodeIds.join(", ")}.`) : null;
  if (!tasks.length) return [none("Nothing runs."), silent];
  return [plainTable(["Task", "Node", "Cores", "of", "Memory", "of"], tasks.slice(0, SHOWN_MAX).map((one) => [
    h("a", { href: to("tasks", one.taskId) }, one.taskId), one.nodeId, amount(one.usage?.cpuMillicores, cores),
    limit(one.cpuLimitMillicores, cores), amount(one.usage?.memoryBytes, bytes),
    limit(one.memoryLimitMb, (value) => bytes(value * 2 ** 20))]), "In use now"), silent];
}

const amount = (value, write) => (Number(value ?? 0) < 0 ? "not known" : write(Number(value ?? 0)));
const limit = (value, write) => (Number(value ?? 0) ? write(Number(value)) : "no limit");
