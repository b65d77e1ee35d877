// Talks to the server that sent this page: a streamed chat, its model, and whether it is well.

import { spoken } from "./chat.js";

// The server's words for why it did not answer; `status` 0 within a stream.
export class ServerError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

// What the server takes in one request (serve/server/schemas.py); older turns are left out here.
const MOST_CHARACTERS = 32_000;
const MOST_MESSAGES = 500;

// The request for a reply to `chat`, and how many of its oldest messages were left out.
export function requestFor(chat, settings) {
  const system = chat.system ? [{ role: "system", content: chat.system }] : [];
  const messages = spoken(chat.messages);
  let left = 0;
  while (tooMuch([...system, ...messages.slice(left)])) {
    const next = messages.findIndex(({ role }, i) => i > left && role === "user");
    if (next < 0) break;
    left = next;
  }
  const { temperature, top_k, max_tokens } = settings;
  const body = { messages: [...system, ...messages.slice(left)], temperature, top_k, max_tokens };
  Object.assign(body, { stream: true, stream_options: { include_usage: true } });
  if (settings.inspect) Object.assign(body, { logprobs: true, top_logprobs: 5 });
  return [body, left];
}

function tooMuch(messages) {
  const length = ({ content }) => (typeof content === "string" ? content.length : content.reduce((n, part) => n + part.text.length, 0));
  return messages.length > MOST_MESSAGES || messages.reduce((n, message) => n + length(message), 0) > MOST_CHARACTERS;
}

// Yields the stream's chunks; throws ServerError with the server's own words, or TypeError when the
// connection breaks. A stream that ends without `[DONE]` was cut.
export async function* streamChat(body, key, signal) {
  const headers = { "Content-Type": "application/json", ...bearer(key) };
  const answer = await fetch("/v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
  if (!answer.ok) throw new ServerError(await errorText(answer), answer.status);
  for await (const data of events(answer.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ServerError(chunk.error.message);
    yield chunk;
  }
  throw new TypeError("the connection was cut");
}

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

async function errorText(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `the server answered ${answer.status}`;
  }
}

// "ok", "loading", "draining", "failed", or "gone" when nobody answers.
export async function health() {
  try {
    const answer = await fetch("/health", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    return (await answer.json()).status ?? "gone";
  } catch {
    return "gone";
  }
}

// {id, max_model_len} of the model that answers, or null where a key is wanted.
export async function model(key) {
  try {
    const answer = await fetch("/v1/models", { headers: bearer(key) });
    return (await answer.json()).data[0] ?? null;
  } catch {
    return null;
  }
}
