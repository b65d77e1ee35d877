// Chats and settings, kept in this browser alone. Each chat is its own entry, so that two tabs with
// two chats never overwrite each other.

const CHAT = "nanochat.chat.";
const SETTINGS = "nanochat.settings";
const CURRENT = "nanochat.current";
export const DEFAULTS = { temperature: 0.8, top_k: 50, max_tokens: 512, inspect: false, theme: "", api_key: "" };

const kept = new Map(); // stands in where the browser refuses to store

function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key) ?? kept.get(key) ?? "null");
  } catch {
    return null;
  }
}

function write(key, value) {
  const text = JSON.stringify(value);
  try {
    localStorage.setItem(key, text);
    kept.delete(key);
    return true;
  } catch {
    kept.set(key, text);
    return false;
  }
}

export function newChat() {
  const id = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 8)}`;
  return { id, title: "", system: "", created: Date.now(), changed: Date.now(), messages: [] };
}

export const loadChat = (id) => read(CHAT + id);

// False when the browser is full: the chat then lives only as long as the page.
export function saveChat(chat) {
  chat.changed = Date.now();
  return write(CHAT + chat.id, chat);
}

export function deleteChat(id) {
  localStorage.removeItem(CHAT + id);
  kept.delete(CHAT + id);
}

export function listChats() {
  const keys = new Set([...Object.keys(localStorage), ...kept.keys()]);
  const chats = [...keys].filter((key) => key.startsWith(CHAT)).map(read);
  return chats.filter(Boolean).sort((a, b) => b.changed - a.changed);
}

// This tab's chat survives a reload; a new tab begins with the chat used last.
export const currentId = () => sessionStorage.getItem(CURRENT) ?? read(CURRENT);

export function setCurrent(id) {
  sessionStorage.setItem(CURRENT, id);
  write(CURRENT, id);
}

export const loadSettings = () => ({ ...DEFAULTS, ...read(SETTINGS) });
export const saveSettings = (settings) => write(SETTINGS, settings);

export function titleOf(chat) {
  if (chat.title) return chat.title;
  const first = chat.messages.find((message) => message.role === "user");
  return first ? first.content.trim().replace(/\s+/g, " ").slice(0, 60) : "New chat";
}

// A conversation as nanochat trains on it: a message's content is text, or parts where a tool spoke.
export function exported(chat) {
  const system = chat.system ? [{ role: "system", content: chat.system }] : [];
  return { title: titleOf(chat), messages: [...system, ...spoken(chat.messages)] };
}

export function spoken(messages) {
  return messages
    .filter((message) => message.role === "user" || message.role === "assistant")
    .filter((message) => message.role === "user" || message.parts?.length)
    .map((message) => ({ role: message.role, content: message.role === "user" ? message.content : content(message) }));
}

function content({ parts }) {
  return parts.every((part) => part.type === "text") ? parts.map((part) => part.text).join("") : parts;
}

export const onOtherTab = (listener) =>
  addEventListener("storage", (event) => {
    if (event.key?.startsWith(CHAT)) listener(event.key.slice(CHAT.length));
  });
