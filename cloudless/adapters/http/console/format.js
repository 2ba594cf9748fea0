// How values are written for people: ages, amounts, words of states and the marks beside them.

export function age(ms, now = Date.now()) {
  const at = Number(ms);
  if (!at) return "";
  return duration(Math.max(0, now - at) / 1000);
}

export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(seconds < 1 ? 0 : 1).replace(".0", "")} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

export function clock(ms) {
  return ms ? new Date(Number(ms)).toLocaleTimeString([], { hour12: false }) : "";
}

export function moment(ms) {
  return ms ? new Date(Number(ms)).toLocaleString([], { hour12: false }) : "";
}

export function bytes(count) {
  const value = Number(count);
  if (!(value >= 0)) return "not known";
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (value >= size) return `${(value / size).toFixed(value / size < 10 ? 1 : 0)} ${unit}`;
  }
  return `${value} B`;
}

export function megabytes(count) {
  return bytes(Number(count ?? 0) * 2 ** 20);
}

export function cores(millicores) {
  const value = Number(millicores ?? 0) / 1000;
  return String(Math.round(value * 100) / 100);
}

// "ROLLOUT_PHASE_AWAITING_PROMOTION" after "ROLLOUT_PHASE_" is "awaiting promotion".
export function word(name, prefix = "") {
  return String(name ?? "").replace(prefix, "").replaceAll("_", " ").toLowerCase();
}

export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

// What a state means for whoever looks: decides the colour and the shape of its mark.
const TONES = {
  good: ["running", "ready", "ok", "healthy", "completed", "leader", "linked", "stable", "available", "done"],
  busy: [
    "pending", "accepted", "starting", "stopping", "updating", "enrolling", "draining", "progressing", "catching-up",
    "scaling", "deleting", "joining", "rolling", "paused", "awaiting promotion", "cordoned",
  ],
  bad: ["failed", "offline", "dead", "silent", "unavailable", "error", "no answer"],
  odd: ["cut off", "backoff", "unknown", "degraded", "ailing", "warning"],
};

export function tone(state) {
  const text = String(state ?? "").toLowerCase();
  return Object.keys(TONES).find((name) => TONES[name].includes(text)) ?? "idle";
}
