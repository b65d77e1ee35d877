// Chats in files: nanochat's conversations, one a line, with a title and the times beside them.

import { chatFrom, isKept, isSpoken, newChat, saidIn, titleOf, wire } from "./chat.js";

export function exported(chat) {
  const system = chat.system ? [{ role: "system", content: chat.system }] : [];
  const messages = [...system, ...chat.messages.filter(isSpoken).map(wire)];
  return JSON.stringify({ title: titleOf(chat), created: date(chat.created), changed: date(chat.changed), messages });
}

const date = (ms) => new Date(ms).toISOString();

// The chats in a file of such lines (or of one JSON value), the newest first where it does not say
// when they were; throws Error naming the line that is none.
export function imported(source) {
  const lines = whole(source) ?? source.split("\n").map((line, i) => [line, i + 1]).filter(([line]) => line.trim());
  if (!lines.length) throw new Error("the file is empty");
  const now = Date.now();
  return lines.map(([line, place], i) => chatOf(typeof line === "string" ? parsed(line) : line, place, now - i));
}

function chatOf(value, place, now) {
  const given = Array.isArray(value) ? value : value?.messages;
  const [first] = given ?? [];
  const system = ["system", "developer"].includes(first?.role) ? saidIn(first.content) : "";
  const changed = Date.parse(value?.changed) || now;
  const times = { created: Date.parse(value?.created) || changed, changed };
  const chat = chatFrom({ title: value?.title, system, ...times, messages: given }, newChat().id);
  if (!chat || !isKept(chat)) throw new Error(`line ${place} is no conversation: expected {"messages": [{"role": "user", "content": "…"}, …]}`);
  for (const message of chat.messages) if (message.role === "assistant") message.finish = "stop";
  return chat;
}

// Those that are not here yet; a chat that has gone on since is here.
export function unknown(chats, here) {
  const said = (chat) => JSON.stringify([chat.system, ...chat.messages.filter(isSpoken).map(wire)]).slice(0, -1);
  const known = here.map(said);
  return chats.filter((chat) => !known.some((other) => `${other},`.startsWith(`${said(chat)},`)));
}

function whole(source) {
  const value = parsed(source);
  return value === undefined ? null : [[value, 1]];
}

function parsed(source) {
  try {
    return JSON.parse(source);
  } catch {
    return undefined;
  }
}
