// Talks to the server that sent this page: a streamed chat, its model, and whether it is well.

// The server's words for why it did not answer; `status` 0 within a stream.
export class ServerError extends Error {
  constructor({ message, code = null }, status = 0) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

// Yields the stream's chunks; throws ServerError with the server's own words, or TypeError when the
// connection breaks. A stream that ends without `[DONE]` was cut.
export async function* streamChat(body, key, signal) {
  const answer = await post("/v1/chat/completions", body, key, signal);
  for await (const data of events(answer.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ServerError(chunk.error);
    yield chunk;
  }
  throw new TypeError("the connection was cut");
}

async function post(path, body, key, signal) {
  const headers = { "Content-Type": "application/json", ...bearer(key) };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  if (!answer.ok) throw new ServerError(await errorOf(answer), answer.status);
  return answer;
}

// The whole answer; throws as `streamChat` does.
export const ask = async (path, body, key) => (await post(path, body, key)).json();

const bearer = (key) => (key ? { Authorization: `Bearer ${key}` } : {});

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

// The server's own error. One that a proxy in front of it made has another form, or is a page.
async function errorOf(answer) {
  const unsaid = { message: `the server, or a proxy in front of it, answered ${answer.status} and did not say why: Retry in a moment` };
  try {
    const { error } = await answer.json();
    return error?.message ? error : unsaid;
  } catch {
    return unsaid;
  }
}

// Throws ServerError when the conversation is more than the model can read.
export const checkRoom = (messages, key) => post("/tokenize", { messages }, key);

// {status, progress}: "ok", "loading" with the share that is done, "draining", "failed", or "gone"
// when nobody answers.
export async function health() {
  try {
    const answer = await fetch("/health", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    const { status = "gone", progress } = await answer.json();
    return { status, progress };
  } catch {
    return { status: "gone" };
  }
}

// {id, max_model_len, limits} of the model that answers, or null where a key is wanted.
export async function model(key) {
  try {
    const answer = await fetch("/v1/models", { headers: bearer(key) });
    return (await answer.json()).data[0] ?? null;
  } catch {
    return null;
  }
}
