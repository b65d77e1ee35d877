// The chat on screen: its turns, and what people do with them.

import { isKept, isLive, LIVE_MS, newChat, titleOf } from "./chat.js";
import { ServerError } from "./client.js";
import { runCommand } from "./commands.js";
import { $, el, icon, iconButton } from "./dom.js";
import { banner, toast, watchHealth } from "./notice.js";
import { isRunning, replyOf, startReply, stopReply } from "./reply.js";
import { changeSettings, settings } from "./settings.js";
import * as store from "./store.js";
import { hideCard } from "./tokens.js";
import { copyButton, editMessage, paceOf, showMessage, turnNode } from "./view.js";

const TRIES = ["Who are you?", "What is 48 plus 37?", "Spell the word river."];
const messages = $("messages");
export let chat = store.loadChat(store.currentId()) ?? newChat();
let around = () => {};
let lookAgain;

// `listener` draws what stands around the conversation, whenever that may have changed.
export const onChange = (listener) => (around = listener);

// Puts another chat on screen.
export function show(next, { toEnd = true } = {}) {
  chat = next;
  store.setCurrent(chat);
  draw({ toEnd });
}

// Takes over what another tab made of this chat: a reply that grows disturbs nothing above it.
export function follow(stored) {
  if (messages.querySelector(".edit")) return;
  const earlier = ({ title, system, messages }) => JSON.stringify([title, system, messages.length, messages.slice(0, -1)]);
  if (!stored.messages.length || earlier(stored) !== earlier(chat)) return show(stored, { toEnd: false });
  const stick = atEnd();
  chat.messages.splice(-1, 1, stored.messages.at(-1));
  chat.live = stored.live;
  messages.lastChild.replaceWith(turn(chat.messages.at(-1), chat.messages.length - 1));
  if (stick) goToEnd();
  drawAround();
}

export function draw({ toEnd = false } = {}) {
  const stick = toEnd || atEnd();
  const focused = messages.contains(document.activeElement);
  hideCard();
  document.title = `${titleOf(chat)} · nanochat`;
  $("title").textContent = isKept(chat) ? titleOf(chat) : "nanochat";
  if (document.activeElement !== $("system")) $("system").value = chat.system;
  const told = chat.system ? [el("p", { className: "told", textContent: chat.system })] : [];
  messages.replaceChildren(...told, ...(chat.messages.length ? chat.messages.map(turn) : [welcome()]));
  if (stick) goToEnd();
  if (focused) messages.focus({ preventScroll: true });
  drawAround();
}

function drawAround() {
  $("send").hidden = isRunning(chat.id);
  $("stop").hidden = !isRunning(chat.id);
  around();
}

function turn(message, index) {
  const live = replyOf(chat.id)?.message === message;
  const node = turnNode(message, live ? [] : buttonsOf(message));
  if (live) node.id = "live";
  const elsewhere = !live && index === chat.messages.length - 1 && isLive(chat);
  clearTimeout(lookAgain);
  if (elsewhere) lookAgain = setTimeout(() => follow(chat), LIVE_MS); // that tab may die
  showMessage(node, message, { live, elsewhere, inspect: settings.inspect });
  return node;
}

function buttonsOf(message) {
  if (message.role === "user") return [copyButton(message), iconButton("pencil", "Edit", () => edit(message))];
  if (message.role !== "assistant") return [];
  const copy = message.parts.length ? [copyButton(message)] : [];
  const pace = el("span", { className: "note", textContent: paceOf(message) });
  const again = iconButton("again", message.failure ? "Retry" : "Regenerate", () => regenerate(message));
  if (message.failure) again.append("Retry");
  return [...copy, again, pace];
}

function welcome() {
  const tries = TRIES.map((text) => {
    const button = el("button", { type: "button", textContent: text });
    button.addEventListener("click", () => send(text));
    return button;
  });
  return el("div", { className: "welcome" }, icon("logo", "logo"), el("h2", { textContent: "What would you like to know?" }), el("div", {}, ...tries));
}

export const atEnd = () => messages.scrollHeight - messages.scrollTop - messages.clientHeight < 60;
export const goToEnd = () => (messages.scrollTop = messages.scrollHeight);

// What people do with a chat.

export function send(text) {
  if (busyElsewhere()) return ($("message").value = text);
  const line = runCommand(text, commandPage());
  if (line !== null) {
    if (line) chat.messages.push({ role: "console", content: `${text.trim()}\n${line}` });
    if (line) keep();
    return draw({ toEnd: true });
  }
  chat.messages.push({ role: "user", content: text });
  ask();
}

const commandPage = () => ({ settings, change: changeSettings, clear: () => show(newChat()), system: tellSystem });

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
  if (error) message.failure = failureText(error, message.parts.length > 0);
  const spoken = message.parts.map((part) => part.text).join("");
  $("status").textContent = error ? "" : message.finish === "stopped" ? "Stopped." : `Reply: ${spoken}`;
  if (reply.chat.id === chat.id) draw();
  else drawAround();
}

function failureText(error, begun) {
  if (!(error instanceof ServerError)) {
    watchHealth();
    return `The connection to the server was lost${begun ? "; what had come is kept" : ""}. Retry asks again.`;
  }
  if (error.status === 401) return `${error.message}. Enter the key under Settings, then Retry.`;
  if (error.status === 0 || error.status >= 500) watchHealth();
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
  const at = chat.messages.indexOf(message);
  const [here, before] = [chat, [...chat.messages]];
  chat.messages.splice(at);
  const later = before.length - at - 1;
  toast(later ? `${what}; what came after it was replaced.` : `${what}.`, () => {
    stopReply(here.id);
    here.messages = before;
    warnOfStorage(store.saveChat(here));
    show(here);
  });
}

// Another tab is receiving a reply to this very chat: writing to it now would lose one of the two.
function busyElsewhere() {
  const kept = isRunning(chat.id) ? null : store.loadChat(chat.id);
  if (!kept || !isLive(kept)) return false;
  toast("A reply to this chat is coming in another tab; wait for it, or open a new chat.");
  return true;
}

export const keep = () => warnOfStorage(store.saveChat(chat));

export function warnOfStorage(how) {
  if (how === "trimmed") toast("This browser's storage was full: the token probabilities of older chats made room.");
  if (how === "full") banner("This browser's storage is full: this chat will be gone with the page. Export it, or delete old chats.");
}
