// Replies that are coming: at most one a chat, each kept as it grows, whichever chat is on screen.

import { requestFor, streamChat } from "./client.js";
import { deleteChat, saveChat } from "./store.js";
import { compact } from "./tokens.js";

const KEEP_MS = 1000;
const running = new Map(); // chat id -> {chat, message, abort, told}

export const replyOf = (id) => running.get(id);
export const isRunning = (id) => running.has(id);

// Asks for a reply to `chat` and puts it at its end. Calls told.grew(reply) at every chunk,
// told.kept(how it went) at every save, told.ended(reply, error or null) once.
export async function startReply(chat, settings, told) {
  const [request, left] = requestFor(chat, settings);
  const message = { role: "assistant", parts: [], ...(left && { dropped: left }) };
  const reply = { chat, message, told, abort: new AbortController() };
  chat.messages.push(message);
  running.set(chat.id, reply);
  keep(reply);
  const beat = setInterval(() => keep(reply), KEEP_MS);
  let failure = null;
  try {
    for await (const chunk of streamChat(request, settings.api_key, reply.abort.signal)) take(reply, chunk, left);
  } catch (error) {
    failure = error;
  }
  clearInterval(beat);
  end(reply, failure);
}

function take(reply, chunk, left) {
  const { message } = reply;
  if (chunk.nanochat?.dropped_messages) message.dropped = left + chunk.nanochat.dropped_messages;
  if (chunk.usage) message.count = chunk.usage.completion_tokens;
  for (const choice of chunk.choices) {
    const { content, part } = choice.delta;
    if (content || part) reply.began ??= performance.now();
    if (content) add(message, "text", content);
    if (part) add(message, part.type, part.text);
    for (const token of choice.logprobs?.content ?? []) (message.tokens ??= []).push(compact(token));
    if (choice.finish_reason) {
      message.finish = choice.finish_reason;
      if (reply.began) message.seconds = Math.round(performance.now() - reply.began) / 1000;
    }
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
