// The page: the chat on screen, the history beside it, and what every key and button does.

import { imported, isKept, newChat, titleOf } from "./chat.js";
import { model } from "./client.js";
import { atEnd, chat, draw, follow, goToEnd, keep, onChange, send, show, warnOfStorage } from "./conversation.js";
import { $ } from "./dom.js";
import { download, drawHistory } from "./history.js";
import { onWell, toast, watchHealth } from "./notice.js";
import { forget, isRunning, leaveReplies, replyOf, stopReply } from "./reply.js";
import { reloadSettings, settings, setUpSettings } from "./settings.js";
import * as store from "./store.js";
import { hideCard } from "./tokens.js";

const messages = $("messages");
const box = $("message");

// The history.

onChange(drawChats);

function drawChats() {
  const chats = store.listChats().filter(isKept);
  drawHistory(chats, chat.id, (each) => isRunning(each.id), { open, rename, remove });
}

function open({ id }) {
  showSidebar(false);
  show(replyOf(id)?.chat ?? store.loadChat(id) ?? chat);
  box.focus();
}

function startNew() {
  showSidebar(false);
  show(newChat());
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
  else drawChats();
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

onWell(async () => {
  const card = await model(settings.api_key);
  $("model").textContent = card ? `${card.id} · context ${card.max_model_len.toLocaleString("en")}` : "";
});

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
  if (id !== chat.id || isRunning(id)) drawChats();
  else if (stored) follow(stored);
  else show(newChat());
}

setUpSettings(() => draw());
box.value = store.loadDraft();
show(chat);
growBox();
watchHealth();
