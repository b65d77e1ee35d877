// The page: one chat on screen, its history beside it, one reply at a time.

import { health, ServerError, streamChat } from "./client.js";
import { runCommand } from "./commands.js";
import { el } from "./markdown.js";
import * as store from "./store.js";
import { copyMessage, editMessage, showMessage, turnNode } from "./view.js";

const $ = (id) => document.getElementById(id);
const page = { messages: $("messages"), box: $("message"), banner: $("banner") };
let settings = store.loadSettings();
let chat = store.loadChat(store.currentId()) ?? store.newChat();
let running = null; // { chat, message, node, abort } of the reply that is coming

// The conversation.

function draw() {
  document.title = `${store.titleOf(chat)} · nanochat`;
  $("title").textContent = chat.messages.length ? store.titleOf(chat) : "nanochat";
  page.messages.replaceChildren();
  if (!chat.messages.length) page.messages.append(el("p", { className: "welcome", textContent: "What would you like to know?" }));
  chat.messages.forEach((message, i) => page.messages.append(nodeFor(message, i)));
  if (running?.chat === chat) running.node = page.messages.querySelector(`[data-index="${chat.messages.indexOf(running.message)}"]`);
  $("system").value = chat.system;
  toBottom(true);
  drawChats();
  drawBusy();
}

function nodeFor(message, index) {
  const live = running?.message === message;
  const node = turnNode(message, index, live ? {} : actionsFor(message));
  showMessage(node, message, { live, inspect: settings.inspect });
  return node;
}

function actionsFor(message) {
  const copy = (_, button) => copyMessage(message, button);
  if (message.role === "user") return { Copy: copy, Edit: (node) => edit(message, node) };
  if (message.role !== "assistant") return {};
  const again = () => regenerate(message);
  if (message.failure) return { Retry: again };
  return { Copy: copy, Regenerate: again };
}

function edit(message, node) {
  editMessage(node, message.content, (text) => {
    stop();
    chat.messages.splice(chat.messages.indexOf(message));
    send(text);
  });
}

function regenerate(message) {
  stop();
  chat.messages.splice(chat.messages.indexOf(message));
  reply();
}

function send(text) {
  const line = runCommand(text.trim(), settings, changeSettings, startNew);
  if (line !== null) {
    if (line) chat.messages.push({ role: "console", content: `${text.trim()}\n${line}` });
    keep();
    return draw();
  }
  chat.messages.push({ role: "user", content: text });
  reply();
}

// The reply.

async function reply() {
  const message = { role: "assistant", parts: [] };
  const mine = { chat, message, node: null, abort: new AbortController() };
  const request = requestBody();
  chat.messages.push(message);
  running = mine;
  store.setCurrent(chat.id);
  keep();
  draw();
  try {
    for await (const chunk of streamChat(request, settings.api_key, mine.abort.signal)) take(mine, chunk);
  } catch (error) {
    message.finish ??= mine.abort.signal.aborted ? "stopped" : undefined;
    if (!mine.abort.signal.aborted) message.failure = await failureText(error);
  }
  if (running === mine) running = null;
  store.saveChat(mine.chat);
  $("status").textContent = message.failure ? "" : "Reply complete.";
  if (mine.chat === chat) draw();
  else drawChats();
}

function requestBody() {
  const system = chat.system ? [{ role: "system", content: chat.system }] : [];
  const { temperature, top_k, max_tokens, inspect } = settings;
  const body = { messages: [...system, ...store.spoken(chat.messages)], stream: true, temperature, top_k, max_tokens };
  return inspect ? { ...body, logprobs: true, top_logprobs: 5 } : body;
}

function take(mine, chunk) {
  const { message } = mine;
  if (chunk.nanochat?.dropped_messages) message.dropped = chunk.nanochat.dropped_messages;
  for (const choice of chunk.choices) {
    const { content, part } = choice.delta;
    if (content) add(message, "text", content);
    if (part) add(message, part.type, part.text);
    for (const token of choice.logprobs?.content ?? []) (message.tokens ??= []).push(compact(token));
    if (choice.finish_reason) message.finish = choice.finish_reason;
  }
  soon(mine);
}

function add(message, type, text) {
  const last = message.parts.at(-1);
  if (last?.type === type) last.text += text;
  else message.parts.push({ type, text });
}

const rounded = (logprob) => Number(Math.exp(logprob).toPrecision(4));
const compact = (token) => [token.token, rounded(token.logprob), token.forced ? 1 : 0, token.top_logprobs.map((t) => [t.token, rounded(t.logprob)])];

// Draws at most once a frame, and keeps what came so far about once a second.
function soon(mine) {
  if (mine.planned) return;
  mine.planned = true;
  requestAnimationFrame(() => {
    mine.planned = false;
    if (running !== mine) return;
    if (mine.node?.isConnected && mine.chat === chat) {
      const stick = atBottom();
      showMessage(mine.node, mine.message, { live: true, inspect: settings.inspect });
      if (stick) toBottom();
    }
    if (Date.now() - (mine.kept ?? 0) > 1000) {
      mine.kept = Date.now();
      store.saveChat(mine.chat);
    }
  });
}

async function failureText(error) {
  if (error instanceof ServerError) return error.message;
  watchHealth();
  return "The connection to the server was lost. What had come is kept; Retry asks again.";
}

function stop() {
  if (!running) return;
  running.abort.abort();
  running.message.finish = "stopped";
  const { chat: stopped } = running;
  running = null;
  store.saveChat(stopped);
  draw();
}

function drawBusy() {
  $("send").hidden = Boolean(running);
  $("stop").hidden = !running;
}

const atBottom = () => page.messages.scrollHeight - page.messages.scrollTop - page.messages.clientHeight < 60;
const toBottom = () => (page.messages.scrollTop = page.messages.scrollHeight);

// The history.

function drawChats() {
  const chats = store.listChats();
  $("chats").replaceChildren(...chats.map(chatEntry));
}

function chatEntry(entry) {
  const name = store.titleOf(entry);
  const open = el("button", { type: "button", className: "open", textContent: name, title: name });
  if (entry.id === chat.id) open.setAttribute("aria-current", "true");
  open.addEventListener("click", () => openChat(entry.id));
  const small = (label, run) => {
    const button = el("button", { type: "button", className: "small", textContent: label, "aria-label": `${label} ${name}` });
    button.addEventListener("click", run);
    return button;
  };
  const item = el("li", { className: entry.id === chat.id ? "current" : "" }, open);
  item.append(
    small("Rename", () => rename(entry, item)),
    small("Export", () => exportChat(entry)),
    small("Delete", () => remove(entry)),
  );
  return item;
}

function openChat(id) {
  const found = id === running?.chat.id ? running.chat : store.loadChat(id);
  if (found) chat = found;
  store.setCurrent(chat.id);
  showSidebar(false);
  draw();
  page.box.focus();
}

function startNew() {
  chat = store.newChat();
  sessionStorage.setItem("nanochat.current", chat.id);
  showSidebar(false);
  draw();
  page.box.focus();
}

function rename(entry, item) {
  const input = el("input", { value: store.titleOf(entry), "aria-label": "New name" });
  let open = true;
  const close = (keepIt) => {
    if (!open) return;
    open = false;
    const target = entry.id === chat.id ? chat : store.loadChat(entry.id);
    if (keepIt && target && input.value.trim()) {
      target.title = input.value.trim();
      store.saveChat(target);
    }
    draw();
  };
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") close(true);
    if (event.key === "Escape") close(false);
  });
  input.addEventListener("blur", () => close(true));
  item.replaceChildren(input);
  input.select();
}

function remove(entry) {
  if (running?.chat.id === entry.id) stop();
  store.deleteChat(entry.id);
  if (entry.id === chat.id) startNew();
  else drawChats();
  toast(`Deleted “${store.titleOf(entry)}”.`, () => {
    store.saveChat(entry);
    openChat(entry.id);
  });
}

function exportChat(entry) {
  const text = JSON.stringify(store.exported(entry), null, 2);
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  const name = store.titleOf(entry).replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "chat";
  el("a", { href: url, download: `${name}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

let toastEnd;
function toast(text, undo) {
  const [label, button] = $("toast").children;
  label.textContent = text;
  button.hidden = !undo;
  button.onclick = () => {
    $("toast").hidden = true;
    undo();
  };
  $("toast").hidden = false;
  clearTimeout(toastEnd);
  toastEnd = setTimeout(() => ($("toast").hidden = true), 8000);
}

function keep() {
  if (!store.saveChat(chat)) banner("This browser's storage is full: this chat will be gone with the page. Delete or export old chats.");
}

// Settings.

function changeSettings(changes) {
  settings = { ...settings, ...changes };
  store.saveSettings(settings);
  showSettings();
}

function showSettings() {
  for (const name of ["temperature", "top_k", "max_tokens", "api_key"]) $(name).value = settings[name];
  $("inspect").setAttribute("aria-pressed", String(settings.inspect));
  if (settings.theme) document.documentElement.dataset.theme = settings.theme;
  else delete document.documentElement.dataset.theme;
  $("theme").textContent = { light: "Light", dark: "Dark" }[settings.theme] ?? "Theme";
}

function numberChanged(event) {
  const input = event.target;
  if (input.type !== "number") return;
  if (input.value !== "" && input.checkValidity()) changeSettings({ [input.id]: Number(input.value) });
  else {
    input.value = settings[input.id];
    toast(`${input.labels[0].firstChild.textContent.trim()} must lie between ${input.min} and ${input.max}.`);
  }
}

function showSidebar(open) {
  $("sidebar").classList.toggle("open", open);
  $("shade").hidden = !open;
  $("menu").setAttribute("aria-expanded", String(open));
}

// Health.

function banner(text) {
  page.banner.hidden = !text;
  page.banner.textContent = text;
}

let watching = false;
async function watchHealth() {
  if (watching) return;
  watching = true;
  const words = { loading: "The model is still loading…", failed: "The model has failed; the server's log says why.", gone: "The server does not answer; trying again…" };
  let trouble = false;
  for (let wait = 500; ; wait = Math.min(wait * 1.5, 5000)) {
    const state = await health();
    if (state === "ok") break;
    trouble = true;
    banner(words[state] ?? words.gone);
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
  watching = false;
  if (trouble) {
    banner("");
    $("status").textContent = "Connected again.";
  }
}

// What people do.

function growBox() {
  page.box.style.height = "auto";
  page.box.style.height = `${page.box.scrollHeight + 2}px`;
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = page.box.value;
  if (!text.trim() || running) return;
  page.box.value = "";
  growBox();
  send(text);
});
page.box.addEventListener("input", growBox);
page.box.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
});
$("stop").addEventListener("click", () => {
  stop();
  page.box.focus();
});
$("new-chat").addEventListener("click", startNew);
$("menu").addEventListener("click", () => showSidebar(!$("sidebar").classList.contains("open")));
$("shade").addEventListener("click", () => showSidebar(false));
$("open-settings").addEventListener("click", () => {
  $("settings").hidden = !$("settings").hidden;
  $("open-settings").setAttribute("aria-expanded", String(!$("settings").hidden));
});
$("settings").addEventListener("submit", (event) => event.preventDefault());
$("settings").addEventListener("change", numberChanged);
$("system").addEventListener("change", () => {
  chat.system = $("system").value.trim();
  if (chat.messages.length) keep();
});
$("api_key").addEventListener("change", () => changeSettings({ api_key: $("api_key").value }));
$("inspect").addEventListener("click", () => {
  changeSettings({ inspect: !settings.inspect });
  draw();
});
$("theme").addEventListener("click", () => changeSettings({ theme: { "": "dark", dark: "light", light: "" }[settings.theme] }));
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running && !event.target.closest(".edit, #chats")) stop();
  if (event.ctrlKey && event.shiftKey && event.key.toLowerCase() === "n") {
    event.preventDefault();
    startNew();
  }
});
addEventListener("pagehide", () => running && store.saveChat(running.chat));
store.onOtherTab((id) => {
  if (id === chat.id && !running) {
    chat = store.loadChat(id) ?? store.newChat();
    draw();
  } else drawChats();
});

showSettings();
draw();
watchHealth();
