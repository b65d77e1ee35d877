// The message box: what stands in it belongs to the chat on screen and is kept, unsent.

import { chat } from "./conversation.js";
import { $, byTouch, isSendKey } from "./dom.js";
import { isRunning, replyOf, stopReply } from "./reply.js";
import { excess } from "./request.js";
import { card } from "./server.js";
import * as store from "./store.js";

const box = $("message");
const DEAF_MS = 500; // the second click of a double click on Send is not meant for Stop, its successor
let sending = false;
let shown = null; // the chat whose words stand in the box

// By touch the focus brings a keyboard, which covers half of the page: there people tap the box.
export function focusBox() {
  if (!byTouch()) box.focus();
}

// Says below the box what is wrong with what stands in it; "": nothing.
function tell(problem) {
  $("problem").textContent = problem;
}

// Puts the words that belong to the chat on screen into the box.
export function showDraft() {
  if (shown === chat.id) return;
  shown = chat.id;
  box.value = store.loadDraft(chat);
  tell("");
  grow();
}

function grow() {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
}

function changed() {
  grow();
  store.saveDraft(chat, box.value);
  tell(excess(box.value, card?.limits));
}

// Sends what stands in the box, by `send`; it stays there if something is wrong with it.
async function submit(send) {
  const [text, here] = [box.value, chat];
  if (!text.trim() || sending || isRunning(here.id)) return;
  sending = true;
  const problem = await send(text);
  sending = false;
  if (!problem) store.saveDraft(here, "");
  if (here.id !== shown) return; // another chat was opened meanwhile, by a command or by hand
  if (!problem && box.value === text) box.value = "";
  changed();
  tell(problem);
}

function stop() {
  if (performance.now() - replyOf(chat.id)?.startedAt > DEAF_MS) stopReply(chat.id);
  focusBox();
}

export function setUpComposer(send) {
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    submit(send);
    focusBox();
  });
  box.addEventListener("input", changed);
  box.addEventListener("keydown", (event) => {
    if (!isSendKey(event)) return;
    event.preventDefault();
    $("composer").requestSubmit();
  });
  $("stop").addEventListener("click", stop);
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address names the chat
    box.focus();
  });
}
