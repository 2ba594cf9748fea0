// Put the page together: who looks, what is shown, how the connection is, which keys there are.

import { Access } from "./access.js";
import { ApiError, proxied, takeToken } from "./api.js";
import { late as isLate, pagesOfOthers } from "./coordinators.js";
import { tell } from "./dialog.js";
import { add, fill, h, say } from "./dom.js";
import { Feed } from "./feed.js";
import { clock, duration } from "./format.js";
import { Refresh } from "./refresh.js";
import { Router } from "./router.js";
import { Store } from "./store.js";
import * as theme from "./theme.js";
import { events } from "./views/events.js";
import { member, members } from "./views/members.js";
import { node, nodes } from "./views/nodes.js";
import { rollouts } from "./views/rollouts.js";
import { task, tasks } from "./views/tasks.js";
import { topology } from "./views/topology.js";
import { workload } from "./views/workload.js";
import { workloads } from "./views/workloads.js";

const TABS = [
  ["", "Topology", "t"], ["members", "Coordinators", "c"], ["nodes", "Nodes", "n"], ["workloads", "Workloads", "w"],
  ["tasks", "Tasks", "k"], ["rollouts", "Rollouts", "r"], ["events", "Events", "e"],
];
const AGAIN_MS = 1000;
const $ = (id) => document.getElementById(id);

const store = new Store();
const access = new Access(store);
const refresh = new Refresh(store, access);
const feed = new Feed(store, refresh, access);
// Read out by a screen reader, and seen by nobody else.
const announce = (text) => say($("say"), text);
const context = { store, access, announce };

const router = new Router($("main"), [
  ["/", (parts, values) => topology(context, values)],
  ["/members", (parts, values) => members(context, values)],
  ["/members/:id", (parts) => member(context, parts)],
  ["/nodes", (parts, values) => nodes(context, values)],
  ["/nodes/:id", (parts) => node(context, parts)],
  ["/workloads", (parts, values) => workloads(context, values)],
  ["/workloads/:namespace/:name", (parts) => workload(context, parts)],
  ["/tasks", (parts, values) => tasks(context, values)],
  ["/tasks/:id", (parts) => task(context, parts)],
  ["/rollouts", (parts, values) => rollouts(context, values)],
  ["/events", (parts, values) => events(context, values)],
]);

function showLink() {
  const { phase, since, coordinator, cluster, leader, term, reason, staleness } = store.link;
  const line = $("link");
  const late = phase === "live" && isLate(store.link);
  const shown = late ? "late" : phase;
  if (line.dataset.phase !== shown) {
    line.dataset.phase = shown;
    document.body.classList.toggle("old", shown !== "live");
    announce({ live: "Connected", lost: "Connection lost", late: "Not up to date", denied: "Not allowed", paused: "Paused" }[shown] ?? "");
  }
  say($("link-text"), {
    connecting: "Connecting", live: "Live", paused: `Paused while nobody looked, since ${clock(since)}`,
    late: `${coordinator} cannot reach a quorum: what is shown is ${duration(staleness)} old`,
    lost: `Not connected since ${clock(since)} (${duration((Date.now() - since) / 1000)}). What is shown is of then`,
    denied: "Not allowed",
  }[shown]);
  const facts = phase === "live"
    ? [coordinator && `through ${coordinator}`, leader ? `${late ? "last known leader" : "leader"} ${leader}` : "no leader", `term ${term}`, cluster && `cluster ${cluster.slice(0, 8)}`]
    : [phase === "lost" && coordinator && !proxied() ? `${coordinator} is gone` : "", reason];
  const text = facts.filter(Boolean).join(" · ");
  if (text !== $("link-facts").dataset.text) {
    $("link-facts").dataset.text = text;
    fill($("link-facts"), text);
    if (phase === "lost" && !proxied()) {
      const others = pagesOfOthers(store);
      if (others.length) add($("link-facts"), [". Ask another: ", others.map((one, at) => [at ? ", " : "", h("a", { href: one.href }, one.name)])]);
    }
  }
}

function showTabs() {
  fill($("tabs"), TABS.map(([path, title]) => h("a", { href: `#/${path}` }, title)));
}

function showWho() {
  const { name, role, namespaces } = store.me;
  const bound = namespaces.length ? ` in ${namespaces.join(", ")}` : "";
  say($("who"), role === "unspecified" ? "no TLS: everybody may do everything" : `${name} (${role}${bound})`);
}

function help() {
  const keys = [["/", "to the filter"], ["?", "this"], ["g, then a letter", TABS.map(([, title, key]) => `${key} ${title}`).join(", ")],
    ["arrows, Home, End", "from row to row in a list"], ["Enter", "open"], ["Esc", "close a question; leave the filter"]];
  tell("Keys", h("dl", { class: "facts" }, keys.map(([key, text]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, text)))),
    h("p", { class: "dim" }, "A filter's words must all occur in a row. state:failed looks in that column; -word leaves rows out."));
}

let prefix = 0;
function key(event) {
  if (event.altKey || event.ctrlKey || event.metaKey || $("dialog").open) return;
  const typing = event.target.matches("input, textarea, select");
  if (typing) {
    if (event.key === "Escape") { event.target.blur(); $("main").focus({ preventScroll: true }); }
    return;
  }
  if (Date.now() - prefix < 1500) {
    prefix = 0;
    const tab = TABS.find(([, , letter]) => letter === event.key);
    if (tab) { event.preventDefault(); location.hash = `#/${tab[0]}`; }
    return;
  }
  if (event.key === "g") prefix = Date.now();
  else if (event.key === "?") { event.preventDefault(); help(); }
  else if (event.key === "/") {
    event.preventDefault();
    if (router.view?.table) router.view.table.focusFilter();
    else document.querySelector("main .filter")?.focus();
  }
}

// Why there is nothing to see, in words that help.
function showRefusal(error) {
  const lost = !(error instanceof ApiError);
  const way = proxied() || error.code === "no-token"
    ? "Open the address that cloudless console printed: it holds the token of this page."
    : "Run cloudless console on your machine: it shows this page under your identity. Or give the browser a client certificate of this cluster.";
  fill($("main"), h("div", { class: "page refusal" }, h("h1", {}, lost ? "No coordinator answers" : "The cluster does not know you here"),
    h("p", {}, lost ? "The page keeps trying." : error.message), error.hint ? h("p", { class: "dim" }, error.hint) : null,
    lost ? null : h("p", {}, way)));
}

async function begin() {
  for (;;) {
    try {
      await access.load();
      return;
    } catch (error) {
      const denied = error instanceof ApiError && error.status < 500;
      store.set("link", { ...store.link, phase: denied ? "denied" : "lost", reason: error.message });
      showRefusal(denied ? error : new Error());
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }
}

takeToken();
theme.begin($("theme"));
showTabs();
$("help").addEventListener("click", help);
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); $("main").focus(); });
document.addEventListener("keydown", key);
addEventListener("online", () => feed.hurry());
store.on("link", showLink);
store.on("status", showLink);
setInterval(showLink, 1000);
begin().then(() => {
  showWho();
  router.show();
  feed.run();
});
