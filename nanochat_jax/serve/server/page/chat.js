// A chat as a value: {id, title, system, created, changed, live, messages}. What comes from storage
// or a file is checked here once; whatever does not fit is left out.

const KINDS = ["text", "python", "python_output"];
export const LIVE_MS = 4000; // a reply that is coming is kept at least this often

export function newChat() {
  const now = Date.now();
  const id = `${now.toString(36)}-${Math.random().toString(36).slice(2, 8)}`;
  return { id, title: "", system: "", created: now, changed: now, live: 0, messages: [] };
}

const text = (value) => (typeof value === "string" ? value : "");
const number = (value) => (Number.isFinite(value) ? value : 0);

// The chat that `value` describes, or null.
export function chatFrom(value, id) {
  if (!Array.isArray(value?.messages)) return null;
  const { title, system, created, changed, live, messages } = value;
  const times = { created: number(created), changed: number(changed), live: number(live) };
  return { id, title: text(title), system: text(system), ...times, messages: messages.map(messageFrom).filter(Boolean) };
}

function messageFrom(value) {
  if (value?.role === "user" || value?.role === "console") return { role: value.role, content: text(value.content) };
  if (value?.role !== "assistant") return null;
  const message = { role: "assistant", parts: partsFrom(value.parts ?? value.content) };
  for (const name of ["finish", "failure"]) if (text(value[name])) message[name] = value[name];
  for (const name of ["dropped", "count", "seconds"]) if (number(value[name])) message[name] = value[name];
  if (Array.isArray(value.tokens)) message.tokens = value.tokens.filter(isToken);
  return message;
}

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

// The messages as the API and nanochat's files have them; content is text, or parts with a tool's.
export function spoken(messages) {
  return messages
    .filter(({ role, parts }) => role === "user" || (role === "assistant" && parts.length))
    .map((message) => ({ role: message.role, content: message.content ?? content(message.parts) }));
}

const content = (parts) => (parts.every((part) => part.type === "text") ? parts.map((part) => part.text).join("") : parts);

// One line of nanochat's conversation files.
export function exported(chat) {
  const system = chat.system ? [{ role: "system", content: chat.system }] : [];
  return JSON.stringify({ title: titleOf(chat), messages: [...system, ...spoken(chat.messages)] });
}

// The chats in a file of such lines (or of one JSON value); throws Error naming the line that is none.
export function imported(source) {
  const lines = whole(source) ?? source.split("\n").map((line, i) => [line, i + 1]).filter(([line]) => line.trim());
  if (!lines.length) throw new Error("the file is empty");
  return lines.map(([line, place]) => {
    const value = typeof line === "string" ? parsed(line) : line;
    const messages = Array.isArray(value) ? value : value?.messages;
    const first = messages?.[0]?.role === "system" ? text(messages[0].content) : "";
    const chat = chatFrom({ ...newChat(), title: value?.title, system: first, messages }, newChat().id);
    if (!chat || !isKept(chat)) throw new Error(`line ${place} is no conversation: expected {"messages": [{"role": "user", "content": "…"}, …]}`);
    for (const message of chat.messages) if (message.role === "assistant") message.finish = "stop";
    return chat;
  });
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
