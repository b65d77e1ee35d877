// Chats and settings, kept in this browser alone. Each chat is its own entry, so that two tabs with
// two chats never overwrite each other. A chat in which nothing was asked yet belongs to its tab.

import { chatFrom, isKept, newChat } from "./chat.js";
import { everyMessage } from "./versions.js";

const CHAT = "nanochat.chat.";
const SETTINGS = "nanochat.settings";
const KEY = "nanochat.key";
const FRESH = "nanochat.fresh";
const DRAFT = "nanochat.draft.";

// Stands in for a storage that the browser denies: it then lasts as long as the page.
class Memory extends Map {
  getItem = (key) => this.get(key) ?? null;
  setItem = (key, value) => this.set(key, value);
  removeItem = (key) => this.delete(key);
}

function storage(name) {
  try {
    window[name].getItem(SETTINGS);
    return window[name];
  } catch {
    return new Memory();
  }
}

const local = storage("localStorage");
const tab = storage("sessionStorage");
const overflow = new Memory(); // what no longer fitted
const keys = () => [...(local instanceof Memory ? local.keys() : Object.keys(local)), ...overflow.keys()];

function read(place, key) {
  try {
    return JSON.parse(overflow.getItem(key) ?? place.getItem(key));
  } catch {
    return null;
  }
}

function write(place, key, value) {
  const text = JSON.stringify(value);
  try {
    place.setItem(key, text);
    overflow.removeItem(key);
    return true;
  } catch {
    overflow.setItem(key, text);
    return false;
  }
}

// Chats.

export const loadChat = (id) => (id ? chatFrom(read(local, CHAT + id) ?? read(tab, CHAT + id), id) : null);

// How it went: "kept"; "trimmed" when token probabilities of other chats had to make room; "full"
// when the browser takes no more, and the chat lives only as long as the page.
export function saveChat(chat) {
  if (!isKept(chat)) return write(tab, CHAT + chat.id, chat) ? "kept" : "full";
  tab.removeItem(CHAT + chat.id);
  if (write(local, CHAT + chat.id, chat)) return "kept";
  return dropTokens(chat.id) && write(local, CHAT + chat.id, chat) ? "trimmed" : "full";
}

function dropTokens(except) {
  const scored = (chat) => [...everyMessage(chat.messages)].filter((message) => message.tokens);
  const heavy = listChats().filter((chat) => chat.id !== except && scored(chat).length);
  for (const chat of heavy) {
    for (const message of scored(chat)) delete message.tokens;
    write(local, CHAT + chat.id, chat);
  }
  return heavy.length > 0;
}

export function deleteChat(id) {
  for (const place of [local, tab, overflow]) for (const kind of [CHAT, DRAFT]) place.removeItem(kind + id);
}

export function listChats() {
  const ids = new Set(keys().filter((key) => key.startsWith(CHAT)).map((key) => key.slice(CHAT.length)));
  return [...ids].map(loadChat).filter(Boolean).sort((a, b) => b.changed - a.changed);
}

// The chat of this tab in which nothing was asked yet; it survives a reload. `anew`: one to begin
// with, without a system prompt or notes.
export function freshChat(anew = false) {
  const known = loadChat(read(tab, FRESH));
  const used = known && (isKept(known) || (anew && (known.system || known.messages.length)));
  if (known && !used) return known;
  const chat = newChat();
  saveChat(chat);
  write(tab, FRESH, chat.id);
  return chat;
}

// What stands in the message box of a chat, unsent. A book that was pasted there must not take the
// room of chats: it lasts as long as the page.
const LONGEST_DRAFT = 50_000; // characters

export const loadDraft = ({ id }) => String(read(local, DRAFT + id) ?? read(tab, DRAFT + id) ?? "");

export function saveDraft(chat, text) {
  const place = isKept(chat) ? local : tab;
  for (const each of [local, tab, overflow]) if (each !== place || !text) each.removeItem(DRAFT + chat.id);
  if (text.length > LONGEST_DRAFT) overflow.setItem(DRAFT + chat.id, JSON.stringify(text));
  else if (text) write(place, DRAFT + chat.id, text);
}

// Settings.

// [at first, lowest, highest]; null: not sent, so that the server's own holds.
const NUMBERS = {
  temperature: [0.8, 0, 2], top_k: [50, 0, 200], max_tokens: [512, 1, 4096], min_p: [null, 0, 1],
  repetition_penalty: [null, 0.01, 10], presence_penalty: [null, -2, 2], frequency_penalty: [null, -2, 2],
};
const WHOLE = ["top_k", "max_tokens"];
const BIAS = /^(\d{1,9})\s*:\s*([+-]?(?:\d+\.?\d*|\.\d+))$/;
const THEMES = ["", "light", "dark"];

// Whether the server takes `value` for this setting.
export function allowed(name, value) {
  const [first, low, high] = NUMBERS[name];
  if (value === null) return first === null;
  const whole = !WHOLE.includes(name) || Number.isInteger(value);
  return Number.isFinite(value) && whole && value >= low && value <= high;
}

export const BIASES = "bias must be up to 300 token ids, each with a number from -100 to 100, like 17: -100, 5: 2.5";

// {token id: what is added to its logit} of a text like "17: -100, 5: 2.5"; null when it is none.
export function biasesOf(text) {
  const pairs = text.split(",").map((pair) => pair.trim()).filter(Boolean).map((pair) => BIAS.exec(pair));
  if (pairs.length > 300 || pairs.some((pair) => !pair || Math.abs(pair[2]) > 100)) return null;
  return Object.fromEntries(pairs.map(([, id, bias]) => [id, Number(bias)]));
}

export const numbers = Object.keys(NUMBERS);
export const defaults = () => ({ ...Object.fromEntries(numbers.map((name) => [name, NUMBERS[name][0]])), logit_bias: "" });
export const range = (name) => NUMBERS[name].slice(1);

export function loadSettings() {
  const kept = read(local, SETTINGS) ?? {};
  const settings = { inspect: kept.inspect === true, theme: THEMES.includes(kept.theme) ? kept.theme : "" };
  // A key stays in its tab: it is gone with it, and lies on no disk of a machine that others use.
  const key = read(tab, KEY) ?? kept.api_key;
  settings.api_key = typeof key === "string" ? key : "";
  for (const name of numbers) settings[name] = allowed(name, kept[name]) ? kept[name] : NUMBERS[name][0];
  settings.logit_bias = biasesOf(String(kept.logit_bias ?? "")) ? String(kept.logit_bias ?? "") : "";
  if (kept.api_key !== undefined) saveSettings(settings); // where older versions kept it
  return settings;
}

export function saveSettings({ api_key, ...others }) {
  write(tab, KEY, api_key);
  return write(local, SETTINGS, others);
}

// What other tabs change: `onChat(id, deleted)` and `onSettings()`.
export const onOtherTab = (onChat, onSettings) =>
  addEventListener("storage", (event) => {
    if (event.key?.startsWith(CHAT)) onChat(event.key.slice(CHAT.length), event.newValue === null);
    if (event.key === SETTINGS) onSettings();
  });
