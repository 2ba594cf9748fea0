// Which view is shown, from the address after "#". A route is a pattern such as "/nodes/:id"; its view is made anew when
// the path changes, and not when only what follows "?" does: that is the view's own (filter, sort), kept in the address.

export class Router {
  constructor(outlet, routes) {
    this._outlet = outlet;
    this._routes = routes.map(([pattern, build]) => ({ parts: pattern.split("/"), build }));
    this._view = null;
    this._path = null;
    addEventListener("hashchange", () => this.show(true));
  }

  show(moved = false) {
    const { path, values } = read();
    if (path === this._path) {
      this._view?.take?.(values);
      return;
    }
    this._path = path;
    this._view?.end?.();
    this._view = this._build(path, values);
    this._outlet.replaceChildren(this._view.element);
    document.title = `${this._view.title} – cloudless`;
    for (const link of document.querySelectorAll("#tabs a")) {
      const here = link.getAttribute("href") === `#/${path.split("/")[1]}`;
      if (here) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (moved) {
      scrollTo(0, 0);
      this._outlet.focus({ preventScroll: true });
    }
  }

  get view() { return this._view; }

  _build(path, values) {
    const parts = path.split("/");
    for (const route of this._routes) {
      const found = match(route.parts, parts);
      if (found) return route.build(found, values);
    }
    location.replace("#/");
    return this._routes[0].build({}, {});
  }
}

function match(pattern, parts) {
  if (pattern.length !== parts.length) return null;
  const found = {};
  for (let at = 0; at < pattern.length; at += 1) {
    if (pattern[at].startsWith(":")) found[pattern[at].slice(1)] = parts[at];
    else if (pattern[at] !== parts[at]) return null;
  }
  return found;
}

function read() {
  const [path, search = ""] = (location.hash.slice(1) || "/").split("?");
  const parts = path.split("/").map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
  return { path: parts.join("/"), values: Object.fromEntries(new URLSearchParams(search)) };
}

// Put a view's own values into the address without making it a step to go back to.
export function keep(values) {
  const [path] = location.hash.slice(1).split("?");
  const search = new URLSearchParams(Object.entries(values).filter(([, value]) => value)).toString();
  history.replaceState(null, "", `#${path || "/"}${search ? `?${search}` : ""}`);
}

export const to = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;
