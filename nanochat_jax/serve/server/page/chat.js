// A chat as a value: {id, title, system, created, changed, live, messages}. What comes from storage
// or a file is checked here once; whatever does not fit is left out. A reply keeps how it ended
// (`finish`, `failure`, `full`: no room is left for more), which message of the chat was the first
// that it was made from (`unread`, 0: all were), its tokens and the milliseconds they took.

import { withVersions } from "./versions.js";

const KINDS = ["text", "python", "python_output"];
export const LIVE_MS = 4000; // a reply that is coming is kept at least this often

export function newChat(now = Date.now()) {
  const id = `${now.toString(36)}-${Math.random().toString(36).slice(2, 8)}`;
  return { id, title: "", system: "", created: now, changed: now, live: 0, messages: [] };
}

const text = (value) => (typeof value === "string" ? value : "");
const number = (value) => (Number.isFinite(value) ? value : 0);

// The chat that `value` describes, or null.
export function chatFrom(value, id) {
  if (!Array.isArray(value?.messages)) return null;
  const { title, system, created, changed, live } = value;
  const times = { created: number(created), changed: number(changed), live: number(live) };
  const messages = value.messages.map(messageFrom).filter(Boolean);
  for (const message of messages) readDropped(message, messages);
  return { id, title: text(title), system: text(system), ...times, messages };
}

// Older versions of the page kept how many of the oldest messages a reply was made without, not
// which was the first to be read.
function readDropped(message, messages) {
  const left = message.dropped && messages.filter(isSpoken)[message.dropped];
  if (left) message.unread = messages.indexOf(left);
  delete message.dropped;
}

function messageFrom(value) {
  const message = bareMessageFrom(value);
  return message && withVersions(message, versionsFrom(value.versions));
}

function bareMessageFrom(value) {
  if (value?.role === "user" || value?.role === "console") return { role: value.role, content: saidIn(value.content) };
  if (value?.role !== "assistant") return null;
  const message = { role: "assistant", parts: partsFrom(value.parts ?? value.content) };
  for (const name of ["finish", "failure"]) if (text(value[name])) message[name] = value[name];
  for (const name of ["unread", "dropped", "count", "ms"]) if (Number.isFinite(value[name])) message[name] = value[name];
  if (value.full === true) message.full = true;
  if (Array.isArray(value.tokens)) message.tokens = value.tokens.filter(isToken);
  return message;
}

// Other versions of a message as messages, null where it stands itself.
function versionsFrom(value) {
  if (!Array.isArray(value) || value.filter((version) => version === null).length !== 1) return [null];
  const versions = value.map((version) => version && Array.isArray(version) && version.map(messageFrom).filter(Boolean));
  return versions.filter((version) => version === null || version.length);
}

// Text, also of what is given in parts.
export const saidIn = (content) => text(content) || partsFrom(content).map((part) => part.text).join("");

function partsFrom(value) {
  if (typeof value === "string") return value ? [{ type: "text", text: value }] : [];
  const parts = Array.isArray(value) ? value : [];
  return parts.filter((part) => KINDS.includes(part?.type) && text(part.text)).map(({ type, text }) => ({ type, text }));
}

const isPair = (pair) => Array.isArray(pair) && typeof pair[0] === "string" && Number.isFinite(pair[1]);
const isToken = (token) => isPair(token) && Array.isArray(token[3]) && token[3].every(isPair);

export const isKept = (chat) => chat.messages.some((message) => message.role === "user");
export const isLive = (chat) => Date.now() - chat.live < LIVE_MS;

export function titleOf(chat) {
  if (chat.title) return chat.title;
  const first = chat.messages.find((message) => message.role === "user");
  return first?.content.trim().replace(/\s+/g, " ").slice(0, 60) || "New chat";
}

// What a reply says, its tool calls as the terminal writes them.
export const textOf = (message) => message.content ?? pieces(message.parts).map((piece) => piece.text ?? toolText(piece)).join("");
export const toolText = ({ call, result }) => `[${call}${result === undefined ? "" : `=${result}`}]`;

// Parts as text and tool calls: {text}, or {call, result}, without a result while there is none.
export function pieces(parts) {
  const out = [];
  for (const { type, text } of parts) {
    if (type === "text") out.push({ text });
    else if (type === "python") out.push({ call: text });
    else if (out.at(-1)?.call !== undefined && out.at(-1).result === undefined) out.at(-1).result = text;
    else out.push({ call: "", result: text });
  }
  return out;
}

export const isSpoken = ({ role, parts }) => role === "user" || (role === "assistant" && parts.length > 0);

// A message as the API and nanochat's files have it; content is text, or parts with a tool's.
export const wire = ({ role, content, parts }) => ({ role, content: content ?? plain(parts) });

const plain = (parts) => (parts.every((part) => part.type === "text") ? parts.map((part) => part.text).join("") : parts);
