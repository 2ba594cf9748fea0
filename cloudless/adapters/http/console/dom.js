// Build elements. Whatever comes from the cluster becomes text, never markup; there is no other way in this page to
// make an element, and the page's policy (trusted types) forbids any.

// h("a", {href: "#/nodes", class: "id"}, "text", element, …); `on` holds listeners; null and false children are left out.
export function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    } else if (name === "href") {
      made.setAttribute("href", safeHref(value));
    } else {
      made.setAttribute(name, value === true ? "" : String(value));
    }
  }
  add(made, children);
  return made;
}

export function add(parent, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return parent;
}

// Replace what an element holds; what is the same element stays where it is, and so keeps the focus.
export function fill(parent, ...children) {
  const wanted = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  parent.replaceChildren(...wanted.map((child) => (child instanceof Node ? child : String(child))));
  return parent;
}

// Set an element's text only if it differs: no needless layout, and selections survive.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
  return element;
}

// Places in this page, and other coordinators; nothing that could run.
function safeHref(value) {
  const text = String(value);
  return /^(#|https?:\/\/)/.test(text) ? text : "#/";
}
