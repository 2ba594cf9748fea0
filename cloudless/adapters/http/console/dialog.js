// Questions before something is done. The browser's own modal dialog keeps the focus inside and gives it back; where
// what had it is gone meanwhile, the page's heading gets it.

import { ApiError } from "./api.js";
import { fill, h, say } from "./dom.js";

const box = () => document.getElementById("dialog");

// Ask, then do it. `fields` are {name, label, type, value, min, max, match}: with `match` the text must be typed as it is.
export function ask({ title, text, fields = [], verb, danger = false, run }) {
  const dialog = box();
  const opener = document.activeElement;
  const inputs = fields.map((field) => input(field));
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const go = h("button", { type: "submit", class: danger ? "danger" : "primary" }, verb);
  const cancel = h("button", { type: "button", on: { click: () => dialog.close() } }, "Cancel");
  const fits = () => { go.disabled = fields.some((field, at) => field.match && inputs[at].value !== field.match); };
  const form = h("form", { method: "dialog", on: { submit: (event) => { event.preventDefault(); submit(); }, input: fits } },
    h("h2", { id: "dialog-title" }, title), [].concat(text ?? []).map((line) => h("p", {}, line)),
    fields.map((field, at) => h("label", {}, h("span", {}, field.label), inputs[at])), problem,
    h("div", { class: "buttons" }, cancel, go));

  async function submit() {
    const values = Object.fromEntries(fields.map((field, at) => [field.name, inputs[at].value]));
    go.disabled = true;
    try {
      await run(values);
      dialog.close();
    } catch (error) {
      problem.hidden = false;
      say(problem, describe(error));
      go.disabled = false;
    }
  }

  fits();
  show(dialog, form, opener, inputs[0] ?? cancel);
}

export function tell(title, ...content) {
  const dialog = box();
  const close = h("button", { type: "button", class: "primary", on: { click: () => dialog.close() } }, "Close");
  const body = h("div", {}, h("h2", { id: "dialog-title" }, title), ...content, h("div", { class: "buttons" }, close));
  show(dialog, body, document.activeElement, close);
}

function show(dialog, content, opener, first) {
  fill(dialog, content);
  dialog.onclose = () => {
    fill(dialog);
    const back = opener?.isConnected && !opener.disabled ? opener : document.getElementById("main");
    back.focus({ preventScroll: true });
  };
  if (!dialog.open) dialog.showModal();
  first.focus();
  first.select?.();
}

function input(field) {
  return h("input", {
    name: field.name, type: field.type ?? "text", value: field.value ?? "", min: field.min, max: field.max,
    required: true, autocomplete: "off", spellcheck: "false",
  });
}

export function describe(error) {
  if (!(error instanceof ApiError)) {
    return "No coordinator answered in time: it may or may not have happened. Look before you repeat it.";
  }
  const problems = error.problems.map((one) => (one.field ? `${one.field}: ${one.message}` : one.message));
  const said = problems.length ? problems.join("; ") : error.message;
  return error.hint ? `${said} – ${error.hint}` : said;
}
