// The chat on screen.

import { isKept, isLive, LIVE_MS, newChat, titleOf } from "./chat.js";
import { $, el } from "./dom.js";
import { banner, dropToast, toast } from "./notice.js";
import { isRunning, replyOf } from "./reply.js";
import { settings } from "./settings.js";
import * as store from "./store.js";
import { hideCard } from "./tokens.js";
import { cutLine, showMessage, turnNode } from "./view.js";

const messages = $("messages");
export let chat = newChat();
let around = () => {};
let buttonsOf = () => [];
let welcome = () => "";
let lookAgain;

// `parts`: around() draws what stands around the conversation, whenever that may have changed;
// buttonsOf(message, place) stand below a turn; welcome() stands where there is none.
export function setUpConversation(parts) {
  ({ around, buttonsOf, welcome } = parts);
}

// Puts another chat on screen.
export function show(next, { toEnd = true } = {}) {
  chat = next;
  dropToast("chat");
  draw({ toEnd });
}

// Takes over what another tab made of this chat: a reply that grows disturbs nothing above it.
export function follow(stored) {
  if (messages.querySelector(".edit")) return;
  const earlier = ({ title, system, messages }) => JSON.stringify([title, system, messages.length, messages.slice(0, -1)]);
  if (!stored.messages.length || earlier(stored) !== earlier(chat)) return show(stored, { toEnd: false });
  chat.messages.splice(-1, 1, stored.messages.at(-1));
  chat.live = stored.live;
  drawLast();
}

function drawLast() {
  const stick = atEnd();
  messages.lastChild.replaceWith(turn(chat.messages.at(-1), chat.messages.length - 1));
  if (stick) goToEnd();
  drawAround();
}

// A reply to the chat of this id has ended; what is being edited stays.
export function drawEnd(id) {
  if (id !== chat.id) drawAround();
  else if (messages.querySelector(".edit")) drawLast();
  else draw();
}

export function draw({ toEnd = false } = {}) {
  const stick = toEnd || atEnd();
  const focused = messages.contains(document.activeElement);
  hideCard();
  document.title = `${titleOf(chat)} · nanochat`;
  $("title").textContent = isKept(chat) ? titleOf(chat) : "nanochat";
  if (document.activeElement !== $("system")) $("system").value = chat.system;
  const told = chat.system ? [el("p", { className: "told", dir: "auto", textContent: chat.system })] : [];
  messages.replaceChildren(...told, ...(chat.messages.length ? turns() : [welcome()]));
  if (stick) goToEnd();
  if (focused) messages.focus({ preventScroll: true });
  drawAround();
}

// The turns, with a line where the last reply began to read.
function turns() {
  const nodes = chat.messages.map(turn);
  const { unread } = chat.messages.findLast((message) => "unread" in message) ?? {};
  if (unread > 0 && unread < nodes.length) nodes.splice(unread, 0, cutLine());
  return nodes;
}

export const turnAt = (place) => messages.querySelectorAll(".turn")[place];

function drawAround() {
  $("send").hidden = isRunning(chat.id);
  $("stop").hidden = !isRunning(chat.id);
  offerEnd();
  around();
}

function turn(message, place) {
  const live = replyOf(chat.id)?.message === message;
  const node = turnNode(message, live ? [] : buttonsOf(message, place));
  if (live) node.id = "live";
  const last = place === chat.messages.length - 1;
  const elsewhere = !live && last && isLive(chat);
  clearTimeout(lookAgain);
  if (elsewhere) lookAgain = setTimeout(() => follow(chat), LIVE_MS); // that tab may die
  showMessage(node, message, { live, waiting: live && replyOf(chat.id).waiting, elsewhere, inspect: settings.inspect, last });
  return node;
}

const atEnd = () => messages.scrollHeight - messages.scrollTop - messages.clientHeight < 60;
export const goToEnd = () => (messages.scrollTop = messages.scrollHeight);
export const offerEnd = () => ($("latest").hidden = wasAtEnd = atEnd());

// The conversation got more room, or less: whoever looked at its end still does.
let wasAtEnd = true;
export function stayAtEnd() {
  if (wasAtEnd) goToEnd();
  offerEnd();
}

// Draws a growing reply at most once a frame.
let planned = false;
export function drawGrowth() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    const reply = replyOf(chat.id);
    if (!reply || !$("live")) return;
    if (reply.message.unread > 0 && !messages.querySelector(".cut")) return draw();
    const stick = atEnd();
    showMessage($("live"), reply.message, { live: true, waiting: reply.waiting, inspect: settings.inspect });
    if (stick) goToEnd();
    offerEnd();
  });
}

export const keep = () => warnOfStorage(store.saveChat(chat));

export function warnOfStorage(how) {
  if (how === "trimmed") toast("This browser's storage was full: the token probabilities of older chats made room.");
  if (how === "full") banner("This browser's storage is full: this chat will be gone with the page. Export it, or delete old chats.");
}
