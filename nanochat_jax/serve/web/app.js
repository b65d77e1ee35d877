// The page: one chat on screen, its history beside it, replies coming to any of them.

import { imported, isKept, isLive, newChat, titleOf } from "./chat.js";
import { model, ServerError } from "./client.js";
import { runCommand } from "./commands.js";
import { $, el, iconButton } from "./dom.js";
import { download, drawHistory } from "./history.js";
import { banner, toast, watchHealth } from "./notice.js";
import { forget, isRunning, leaveReplies, replyOf, startReply, stopReply } from "./reply.js";
import { changeSettings, openPanel, reloadSettings, settings, setUpSettings } from "./settings.js";
import * as store from "./store.js";
import { hideCard } from "./tokens.js";
import { copyButton, editMessage, paceOf, showMessage, turnNode } from "./view.js";

const TRIES = ["Who are you?", "What is 48 plus 37?", "Spell the word river."];
const messages = $("messages");
const box = $("message");
let chat = store.loadChat(store.currentId()) ?? newChat();

// What is on screen.

function draw({ toEnd = false } = {}) {
  const stick = toEnd || atEnd();
  hideCard();
  document.title = `${titleOf(chat)} · nanochat`;
  $("title").textContent = isKept(chat) ? titleOf(chat) : "nanochat";
  if (document.activeElement !== $("system")) $("system").value = chat.system;
  const told = chat.system ? [el("p", { className: "told", textContent: chat.system })] : [];
  messages.replaceChildren(...told, ...(chat.messages.length ? chat.messages.map(turn) : [welcome()]));
  if (stick) goToEnd();
  drawAround();
}

function drawAround() {
  drawHistory(store.listChats().filter(isKept), chat.id, ({ id }) => isRunning(id), { open, rename, remove });
  $("send").hidden = isRunning(chat.id);
  $("stop").hidden = !isRunning(chat.id);
}

function turn(message, index) {
  const live = replyOf(chat.id)?.message === message;
  const node = turnNode(message, live ? [] : buttonsOf(message));
  if (live) node.id = "live";
  const elsewhere = !live && index === chat.messages.length - 1 && isLive(chat);
  showMessage(node, message, { live, elsewhere, inspect: settings.inspect });
  return node;
}

function buttonsOf(message) {
  if (message.role === "user") return [copyButton(message), iconButton("pencil", "Edit", () => edit(message))];
  if (message.role !== "assistant") return [];
  const again = message.failure ? "Retry" : "Regenerate";
  const copy = message.parts.length ? [copyButton(message)] : [];
  const pace = el("span", { className: "note", textContent: paceOf(message) });
  return [...copy, iconButton("again", again, () => regenerate(message)), pace];
}

function welcome() {
  const tries = TRIES.map((text) => {
    const button = el("button", { type: "button", textContent: text });
    button.addEventListener("click", () => send(text));
    return button;
  });
  const logo = el("img", { src: "/logo.svg", alt: "", width: 48, height: 48 });
  return el("div", { className: "welcome" }, logo, el("h2", { textContent: "What would you like to know?" }), el("div", {}, ...tries));
}

const atEnd = () => messages.scrollHeight - messages.scrollTop - messages.clientHeight < 60;
const goToEnd = () => (messages.scrollTop = messages.scrollHeight);

// What people do with a chat.

function send(text) {
  const line = runCommand(text, commandPage());
  if (line !== null) {
    if (line) chat.messages.push({ role: "console", content: `${text.trim()}\n${line}` });
    if (line) keep();
    return draw({ toEnd: true });
  }
  if (busyElsewhere()) return (box.value = text);
  chat.messages.push({ role: "user", content: text });
  ask();
}

const commandPage = () => ({ settings, change: changeSettings, clear: startNew, system: tellSystem });

function tellSystem(text) {
  if (text !== undefined) {
    chat.system = text;
    keep();
  }
  return chat.system ? `The system prompt is: ${chat.system}` : "There is no system prompt.";
}

function ask() {
  store.setCurrent(chat);
  startReply(chat, settings, { grew: soon, kept: warnOfStorage, ended });
  draw({ toEnd: true });
}

// Draws a growing reply at most once a frame.
let planned = false;
function soon() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    const reply = replyOf(chat.id);
    if (!reply || !$("live")) return;
    const stick = atEnd();
    showMessage($("live"), reply.message, { live: true, inspect: settings.inspect });
    if (stick) goToEnd();
  });
}

function ended(reply, error) {
  const { message } = reply;
  if (error) message.failure = failureText(error);
  const spoken = message.parts.map((part) => part.text).join("");
  $("status").textContent = error ? "" : message.finish === "stopped" ? "Stopped." : `Reply: ${spoken}`;
  if (reply.chat.id === chat.id) draw();
  else drawAround();
}

function failureText(error) {
  if (!(error instanceof ServerError)) {
    watchHealth(showModel);
    return "The connection to the server was lost. What had come is kept; Retry asks again.";
  }
  if (error.status === 401) return `${error.message}. Enter the key under Settings, then Retry.`;
  if (error.status === 0 || error.status >= 500) watchHealth(showModel);
  return error.message;
}

function edit(message) {
  const node = messages.querySelectorAll(".turn")[chat.messages.indexOf(message)];
  editMessage(node, message.content, (text) => {
    if (busyElsewhere()) return;
    replaceFrom(message, "Edited");
    send(text);
  });
}

function regenerate(message) {
  if (busyElsewhere()) return;
  replaceFrom(message, "Asked again");
  ask();
}

// Takes `message` and all after it out of the chat; what was there can be brought back.
function replaceFrom(message, what) {
  stopReply(chat.id);
  const [here, before] = [chat, [...chat.messages]];
  chat.messages.splice(chat.messages.indexOf(message));
  const later = before.length - chat.messages.length - 1;
  toast(later ? `${what}; what came after it was replaced.` : `${what}.`, () => {
    stopReply(here.id);
    here.messages = before;
    warnOfStorage(store.saveChat(here));
    open(here);
  });
}

// Another tab is receiving a reply to this very chat: writing to it now would lose one of the two.
function busyElsewhere() {
  const kept = isRunning(chat.id) ? null : store.loadChat(chat.id);
  if (!kept || !isLive(kept)) return false;
  toast("A reply to this chat is coming in another tab; wait for it, or open a new chat.");
  return true;
}

const keep = () => warnOfStorage(store.saveChat(chat));

function warnOfStorage(how) {
  if (how === "trimmed") toast("This browser's storage was full: the token probabilities of older chats made room.");
  if (how === "full") banner("This browser's storage is full: this chat will be gone with the page. Export it, or delete old chats.");
}

// The history.

function open({ id }) {
  chat = replyOf(id)?.chat ?? store.loadChat(id) ?? chat;
  store.setCurrent(chat);
  showSidebar(false);
  draw({ toEnd: true });
  box.focus();
}

function startNew() {
  chat = newChat();
  store.setCurrent(chat);
  showSidebar(false);
  draw({ toEnd: true });
  box.focus();
}

function rename({ id }, title) {
  const target = id === chat.id ? chat : (replyOf(id)?.chat ?? store.loadChat(id));
  if (title && target) {
    target.title = title;
    warnOfStorage(store.saveChat(target));
  }
  draw();
}

function remove(entry) {
  const whole = entry.id === chat.id ? chat : entry;
  stopReply(entry.id);
  forget(entry.id);
  if (entry.id === chat.id) startNew();
  else drawAround();
  toast(`Deleted “${titleOf(entry)}”.`, () => {
    warnOfStorage(store.saveChat(whole));
    open(whole);
  });
}

async function importFile() {
  const [file] = $("file").files;
  $("file").value = "";
  try {
    const chats = imported(await file.text());
    for (const each of chats) warnOfStorage(store.saveChat(each));
    open(chats[0]);
    toast(`Took ${chats.length} chat${chats.length === 1 ? "" : "s"} from ${file.name}.`);
  } catch (error) {
    toast(`${file.name}: ${error.message}`);
  }
}

function showSidebar(shown) {
  $("sidebar").classList.toggle("open", shown);
  $("shade").hidden = !shown;
  $("menu").setAttribute("aria-expanded", String(shown));
  if (shown) $("new-chat").focus();
}

async function showModel() {
  const card = await model(settings.api_key);
  $("model").textContent = card ? `${card.id} · context ${card.max_model_len.toLocaleString("en")}` : "";
}

// Wiring.

function growBox() {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
  store.saveDraft(box.value);
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = box.value;
  if (!text.trim() || isRunning(chat.id)) return;
  box.value = "";
  send(text);
  growBox();
});
box.addEventListener("input", growBox);
box.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
});
$("stop").addEventListener("click", () => {
  stopReply(chat.id);
  box.focus();
});
messages.addEventListener("scroll", () => {
  hideCard();
  $("latest").hidden = atEnd();
});
$("latest").addEventListener("click", goToEnd);
$("new-chat").addEventListener("click", startNew);
$("menu").addEventListener("click", () => showSidebar(!$("sidebar").classList.contains("open")));
$("shade").addEventListener("click", () => showSidebar(false));
$("import").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", importFile);
$("export-all").addEventListener("click", () => download(store.listChats().filter(isKept), "nanochat-chats"));
$("system").addEventListener("input", () => {
  chat.system = $("system").value.trim();
  keep();
});
$("system").addEventListener("change", () => draw());
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && $("sidebar").classList.contains("open")) {
    showSidebar(false);
    $("menu").focus();
  } else if (event.key === "Escape") stopReply(chat.id);
  if (event.ctrlKey && event.shiftKey && ["n", "o"].includes(event.key.toLowerCase())) {
    event.preventDefault();
    startNew();
  }
});
addEventListener("pagehide", leaveReplies);
store.onOtherTab(chatChanged, () => {
  reloadSettings();
  draw();
});

function chatChanged(id, deleted) {
  if (deleted && isRunning(id)) forget(id);
  if (id !== chat.id || isRunning(id)) return drawAround();
  chat = store.loadChat(id) ?? newChat();
  if (!messages.querySelector(".edit")) draw();
}

setUpSettings(() => draw());
store.setCurrent(chat);
box.value = store.loadDraft();
draw({ toEnd: true });
growBox();
watchHealth(showModel);
