// Read server-sent events from a response. EventSource would hide the status, and cannot carry a header.

// Yield {id, type, data}; data is parsed. `alive` is called whenever anything comes, comments included.
export async function* events(response, alive = () => {}) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      alive();
      rest += decoder.decode(value, { stream: true });
      const blocks = rest.split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parse(block);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

export function parse(block) {
  const event = { id: "", type: "message", data: null };
  const lines = [];
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    if (at <= 0) continue;
    const value = line.slice(at + 1).replace(/^ /, "");
    const name = line.slice(0, at);
    if (name === "data") lines.push(value);
    else if (name === "id") event.id = value;
    else if (name === "event") event.type = value;
  }
  if (!lines.length) return null;
  event.data = JSON.parse(lines.join("\n"));
  return event;
}
