// Ask the API of whoever gave this page: JSON there and back, problems as errors, changes under a key of their own.

const TOKEN = "cloudless-token";
export const PAGE = 2000;

export class ApiError extends Error {
  constructor(problem, status) {
    super(problem.detail || problem.title || `status ${status}`);
    this.status = status;
    this.code = problem.code || "";
    this.hint = problem.hint || "";
    this.problems = problem.problems || [];
    this.retryable = Boolean(problem.retryable);
  }
}

// The token of `cloudless console` comes in the address once, and is kept by this origin alone.
export function takeToken() {
  const found = /^#token=([\w-]+)$/.exec(location.hash);
  if (!found) return;
  localStorage.setItem(TOKEN, found[1]);
  history.replaceState(null, "", "#/");
}

export function proxied() {
  return Boolean(localStorage.getItem(TOKEN));
}

function headersOf(extra) {
  const token = localStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}`, ...extra } : { ...extra };
}

export function query(values) {
  const pairs = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== undefined && value !== "" && value !== null) pairs.append(name, value);
  }
  const text = pairs.toString();
  return text ? `?${text}` : "";
}

// Open a response; whoever opens it reads it. Raises ApiError, and TypeError where nobody answers.
export async function open(verb, path, { headers = {}, body, signal } = {}) {
  const sent = headersOf(headers);
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const response = await fetch(path, {
    method: verb, headers: sent, body: body === undefined ? undefined : JSON.stringify(body), signal,
    cache: "no-store", credentials: "same-origin", redirect: "error",
  });
  if (response.ok) return response;
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    problem = { detail: `${path.split("?")[0]} answered ${response.status}` };
  }
  throw new ApiError(problem, response.status);
}

export async function call(verb, path, options = {}) {
  const limit = AbortSignal.timeout(options.timeoutMs ?? 12000);
  const signal = options.signal ? AbortSignal.any([limit, options.signal]) : limit;
  const response = await open(verb, path, { ...options, signal });
  return response.json();
}

export function get(path, values = {}, options = {}) {
  return call("GET", path + query(values), options);
}

// Yield pages of a list: {items, header}. Reads what the coordinator holds, quorum or not; its header says how old.
export async function* pages(path, field, values = {}, signal = undefined) {
  let token = "";
  do {
    const asked = { consistency: "CONSISTENCY_STALE", limit: PAGE, pageToken: token, ...values };
    const answer = await get(path, asked, { signal });
    yield { items: answer[field] ?? [], header: answer.header ?? {} };
    token = answer.nextToken ?? "";
  } while (token);
}

// randomUUID exists only in secure contexts; a coordinator without TLS is none.
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
