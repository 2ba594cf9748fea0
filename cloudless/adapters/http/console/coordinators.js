// The coordinators as one list, out of what three sources say: who leads (each message of the watch), who answers the
// coordinator that was asked (cluster status), and who is a member and how far (members).

import { proxied } from "./api.js";

const STALE_S = 2;

export function coordinatorsOf(store) {
  const { status, members, link } = store;
  const known = new Map((status?.coordinators ?? []).map((one) => [one.record.id, one]));
  const named = new Map(members.map((member) => [member.name || member.id, member]));
  const names = [...new Set([...named.keys(), ...known.keys()])].sort();
  return names.map((name) => describe(name, known.get(name), named.get(name), link, Boolean(status)));
}

function describe(name, entry, member, link, asked) {
  // Asked directly, the broken connection is its own; through a proxy it may be the proxy's.
  const gone = link.phase === "lost" && !proxied() && link.coordinator === name;
  const answers = !gone && Boolean(entry?.linked);
  const learner = member ? Boolean(member.learner) : entry?.memberRole === "learner";
  return {
    name, answers, learner, member, record: entry?.record ?? null,
    leads: link.leader === name,
    role: learner ? "learner" : "voter",
    state: answers && link.coordinator === name && late(link) ? "cut off" : stateOf(answers, entry, member, asked),
    note: member?.note ?? "",
    lag: member && Number(member.raftLag ?? 0) >= 0 ? Number(member.raftLag ?? 0) : null,
    raftLeader: Boolean(member?.raftLeader),
  };
}

function stateOf(answers, entry, member, asked) {
  const health = member?.health ?? "";
  if (answers) return ["silent", "dead", ""].includes(health) ? "healthy" : health;
  if (!entry && ["starting", "catching-up", "standby", "dead"].includes(health)) return health;
  return asked ? "no answer" : "unknown";
}

// Whether the coordinator that is asked does not know what is new: it has lost its quorum, or its own member.
export function late(link) {
  return Number(link.staleness ?? 0) > STALE_S;
}

// Where other coordinators serve this page, for when this one is gone.
export function pagesOfOthers(store) {
  const scheme = location.protocol;
  return coordinatorsOf(store)
    .filter((one) => one.record?.httpAddress && one.name !== store.link.coordinator)
    .map((one) => ({ name: one.name, href: `${scheme}//${one.record.httpAddress}/console/` }));
}
