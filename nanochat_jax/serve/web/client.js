// Talks to the server that sent this page: a streamed chat, and whether it is well.

export class ServerError extends Error {}

// Yields the stream's chunks; throws ServerError with the server's own words, or TypeError when the
// connection breaks. A stream that ends without `[DONE]` was cut.
export async function* streamChat(body, key, signal) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  const answer = await fetch("/v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
  if (!answer.ok) throw new ServerError(await errorText(answer));
  let finished = false;
  for await (const data of events(answer.body)) {
    if (data === "[DONE]") {
      finished = true;
      break;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ServerError(chunk.error.message);
    yield chunk;
  }
  if (!finished) throw new TypeError("the connection was cut");
}

// The data of server-sent events; events and characters may be split anywhere between reads.
async function* events(stream) {
  const reader = stream.getReader();
  const utf8 = new TextDecoder();
  let held = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      held += utf8.decode(value, { stream: true });
      const whole = held.split("\n\n");
      held = whole.pop();
      for (const event of whole) if (event.startsWith("data: ")) yield event.slice(6);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function errorText(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `the server answered ${answer.status}`;
  }
}

// "ok", "loading", "failed", or "gone" when nobody answers.
export async function health() {
  try {
    const answer = await fetch("/health", { cache: "no-store" });
    return (await answer.json()).status ?? "gone";
  } catch {
    return "gone";
  }
}
