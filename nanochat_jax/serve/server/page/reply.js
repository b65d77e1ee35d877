// Replies that are coming: at most one a chat, each kept as it grows, whichever chat is on screen.

import { health, ServerError, streamChat } from "./client.js";
import { requestFor } from "./request.js";
import { card, whenWell } from "./server.js";
import { deleteChat, saveChat } from "./store.js";
import { compact } from "./tokens.js";
import { withVersions } from "./versions.js";

const KEEP_MS = 1000;
const PAUSE_MS = 500; // before a question is asked again, whatever /health says
const running = new Map(); // chat id -> {chat, message, told, abort, startedAt, ...}

export const replyOf = (id) => running.get(id);
export const isRunning = (id) => running.has(id);

// Asks for a reply to `chat` and puts it at its end, one of these `versions` of it. Calls
// told.grew(reply) at every change, told.kept(how it went) at every save, told.ended(reply, error or
// null) once.
export function startReply(chat, settings, told, versions = [null]) {
  const request = requestFor(chat, settings, card?.limits);
  const message = withVersions({ role: "assistant", parts: [] }, versions);
  chat.messages.push(message);
  run({ chat, message, told, ...request, count: 0, ms: 0 }, settings.api_key);
}

// Asks for more of the reply at the end of `chat`, which was cut.
export function goOnWithReply(chat, settings, told) {
  const request = requestFor(chat, settings, card?.limits, true);
  const message = chat.messages.at(-1);
  for (const name of ["finish", "failure", "full"]) delete message[name];
  run({ chat, message, told, ...request, count: message.count ?? 0, ms: message.ms ?? 0 }, settings.api_key);
}

async function run(reply, key) {
  Object.assign(reply, { abort: new AbortController(), startedAt: performance.now(), waiting: false });
  running.set(reply.chat.id, reply);
  reply.chat.changed = Date.now();
  keep(reply);
  const beat = setInterval(() => keep(reply), KEEP_MS);
  const failure = await readReply(reply, key);
  clearInterval(beat);
  end(reply, failure);
}

// Reads the whole reply; what went wrong, or null. As long as the server is about to be there the
// question waits for it.
async function readReply(reply, key) {
  for (;;) {
    try {
      for await (const chunk of streamChat(reply.body, key, reply.abort.signal)) take(reply, chunk);
      return null;
    } catch (error) {
      if (reply.began || !(await isComing(error)) || reply.abort.signal.aborted) return error;
    }
    reply.waiting = true;
    reply.told.grew(reply);
    await Promise.all([whenWell(), new Promise((resolve) => setTimeout(resolve, PAUSE_MS))]);
    if (reply.abort.signal.aborted) return null;
    reply.waiting = false;
    reply.told.grew(reply);
  }
}

async function isComing(error) {
  if (error instanceof ServerError) return ["loading", "shutting_down"].includes(error.code);
  return !["ok", "failed"].includes((await health()).status);
}

function take(reply, chunk) {
  const { message } = reply;
  reply.began = true;
  if (chunk.nanochat) message.unread = reply.place(chunk.nanochat.dropped_messages);
  if (chunk.usage) message.count = reply.count + chunk.usage.completion_tokens;
  if (chunk.usage) message.full = chunk.usage.total_tokens >= card?.max_model_len;
  if (chunk.timings) message.ms = reply.ms + chunk.timings.predicted_ms;
  for (const choice of chunk.choices) {
    const { content, part } = choice.delta;
    if (content) add(message, "text", content);
    if (part) add(message, part.type, part.text);
    for (const token of choice.logprobs?.content ?? []) (message.tokens ??= []).push(compact(token));
    if (choice.finish_reason) message.finish = choice.finish_reason;
  }
  reply.told.grew(reply);
}

function add(message, type, text) {
  const last = message.parts.at(-1);
  if (last?.type === type) last.text += text;
  else message.parts.push({ type, text });
}

// Other tabs see by `live` that the chat is being written to.
function keep(reply) {
  const { chat, told } = reply;
  if (running.get(chat.id) !== reply) return;
  chat.live = Date.now();
  told.kept(saveChat(chat));
}

function end(reply, failure) {
  const { chat, told } = reply;
  if (running.get(chat.id) !== reply) return;
  running.delete(chat.id);
  chat.live = 0;
  chat.changed = Date.now();
  told.ended(reply, failure);
  told.kept(saveChat(chat));
}

// Ends the reply to this chat, if there is one, with what has come.
export function stopReply(id) {
  const reply = running.get(id);
  if (!reply) return;
  reply.message.finish = "stopped";
  reply.abort.abort();
  end(reply, null);
}

// Ends the reply and deletes the chat.
export function forget(id) {
  const reply = running.get(id);
  running.delete(id);
  reply?.abort.abort();
  deleteChat(id);
}

// The page is left: what has come is kept, and that it was cut short.
export function leaveReplies() {
  for (const { chat, message, abort } of running.values()) {
    message.finish ??= "left";
    chat.live = 0;
    saveChat(chat);
    abort.abort();
  }
  running.clear();
}
