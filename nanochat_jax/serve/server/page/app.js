// The page: the chat on screen, the history beside it, and what every key and button does.

import { idInAddress, onAddress, setAddress } from "./address.js";
import { buttonsOf, score, send, startNew, welcome } from "./asking.js";
import { isKept, titleOf } from "./chat.js";
import { focusBox, setUpComposer, showDraft } from "./composer.js";
import { chat, draw, follow, goToEnd, keep, offerEnd, setUpConversation, show, stayAtEnd, warnOfStorage } from "./conversation.js";
import { $ } from "./dom.js";
import { imported, unknown } from "./exchange.js";
import { download, drawHistory, focusChat } from "./history.js";
import { setUpMenu } from "./menu.js";
import { setUpToast, toast } from "./notice.js";
import { forget, isRunning, leaveReplies, replyOf, stopReply } from "./reply.js";
import { onWell, whenWell } from "./server.js";
import { reloadSettings, setUpSettings } from "./settings.js";
import * as store from "./store.js";
import { hideCard } from "./tokens.js";

const messages = $("messages");
const placeOf = (turn) => [...messages.querySelectorAll(".turn")].indexOf(turn);
const TWICE_MS = 400; // the second click of a double click on Delete is not meant for the next chat

// The history.

setUpConversation({ around, buttonsOf, welcome });

function around() {
  drawChats();
  showDraft();
}

const keptChats = () => store.listChats().filter(isKept);

function drawChats() {
  drawHistory(keptChats(), chat.id, (each) => isRunning(each.id), { rename, remove });
}

// Once a frame, however many chats another tab has taken from a file.
let planned = false;
function drawChatsSoon() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    drawChats();
  });
}

// Shows the chat that the address names.
function showAddressed() {
  showSidebar(false);
  const id = idInAddress();
  const known = id && (replyOf(id)?.chat ?? store.loadChat(id));
  if (id && !known) {
    setAddress(null, true);
    toast("That chat is not in this browser; it may have been deleted.");
  }
  if (known?.id !== chat.id) show(known ?? store.freshChat());
}

function open({ id }) {
  setAddress(id);
  showAddressed();
}

function begin() {
  showSidebar(false);
  startNew();
}

function rename({ id }, title) {
  const target = id === chat.id ? chat : (replyOf(id)?.chat ?? store.loadChat(id));
  if (title && target) {
    target.title = title;
    warnOfStorage(store.saveChat(target));
  }
  draw();
}

let removedAt = -Infinity;

function remove(entry) {
  if (performance.now() - removedAt < TWICE_MS) return;
  removedAt = performance.now();
  removeChats([entry], `Deleted “${titleOf(entry)}”.`);
}

function removeAll() {
  const all = keptChats();
  removeChats(all, all.length === 1 ? "Deleted 1 chat." : `Deleted ${all.length} chats.`);
}

// Deletes chats; they can be brought back to where they were.
function removeChats(entries, words) {
  const chats = entries.map((entry) => replyOf(entry.id)?.chat ?? (entry.id === chat.id ? chat : entry));
  const shown = chats.find(({ id }) => id === chat.id);
  for (const { id } of chats) {
    stopReply(id);
    forget(id);
  }
  if (shown) setAddress(null, true);
  if (shown) show(store.freshChat());
  else drawChats();
  toast(words, () => {
    for (const each of chats) warnOfStorage(store.saveChat(each));
    if (shown) open(shown);
    drawChats();
    focusChat((shown ?? chats[0]).id);
  });
}

async function importFile() {
  const [file] = $("file").files;
  $("file").value = "";
  try {
    const chats = imported(await file.text());
    const fresh = unknown(chats, keptChats());
    for (const each of fresh) warnOfStorage(store.saveChat(each));
    if (fresh.length) open(fresh[0]);
    const known = chats.length - fresh.length;
    const took = `Took ${fresh.length} chat${fresh.length === 1 ? "" : "s"} from ${file.name}`;
    toast(known ? `${took}; ${known} ${known === 1 ? "was" : "were"} here already.` : `${took}.`);
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

onWell((card) => {
  $("model").textContent = card ? `${card.id} · context ${card.max_model_len.toLocaleString("en")}` : "";
  if (card) $("system").maxLength = card.limits.message_characters;
});

// Wiring.

setUpToast();
setUpMenu(); // before the composer: while a command is chosen Enter does not send
setUpComposer(send);
messages.addEventListener("scroll", () => {
  hideCard();
  offerEnd();
});
new ResizeObserver(stayAtEnd).observe(messages);
messages.addEventListener("click", ({ target }) => target.closest(".score") && score(placeOf(target.closest(".turn"))));
$("latest").addEventListener("click", () => {
  goToEnd();
  focusBox();
});
$("new-chat").addEventListener("click", begin);
$("menu").addEventListener("click", () => showSidebar(!$("sidebar").classList.contains("open")));
for (const id of ["shade", "close-menu"]) $(id).addEventListener("click", () => showSidebar(false));
$("chats").addEventListener("click", ({ target }) => target.closest(".open") && showSidebar(false));
$("search").addEventListener("input", drawChats);
$("search").addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !$("search").value) return;
  event.stopPropagation();
  $("search").value = "";
  drawChats();
});
$("import").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", importFile);
$("export-all").addEventListener("click", () => download(keptChats(), "nanochat-chats"));
$("delete-all").addEventListener("click", removeAll);
$("system").addEventListener("input", () => {
  chat.system = $("system").value.trim();
  keep();
});
$("system").addEventListener("change", () => draw());
$("api_key").addEventListener("change", whenWell);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && $("sidebar").classList.contains("open")) {
    showSidebar(false);
    $("menu").focus();
  } else if (event.key === "Escape") stopReply(chat.id);
  if (event.ctrlKey && event.shiftKey && ["n", "o"].includes(event.key.toLowerCase())) {
    event.preventDefault();
    begin();
  }
});
onAddress(showAddressed);
addEventListener("pagehide", leaveReplies);
addEventListener("pageshow", (event) => event.persisted && draw());
store.onOtherTab(chatChanged, () => {
  reloadSettings();
  draw();
});

function chatChanged(id, deleted) {
  const reply = replyOf(id);
  const stored = store.loadChat(id);
  if (reply && deleted) forget(id);
  else if (reply && stored) Object.assign(reply.chat, { title: stored.title, system: stored.system });
  const taken = id === chat.id && !isKept(chat) && stored && isKept(stored); // by a copy of this tab
  if (taken) show(store.freshChat());
  else if (id !== chat.id || isRunning(id)) drawChatsSoon();
  else if (stored) follow(stored);
  else {
    setAddress(null, true);
    show(store.freshChat());
  }
}

setUpSettings(() => draw());
show(store.freshChat());
showAddressed();
focusBox();
whenWell();
