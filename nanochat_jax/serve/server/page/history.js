// The chats beside the conversation, by day: search, open, rename, export, delete.

import { hrefOf } from "./address.js";
import { textOf, titleOf } from "./chat.js";
import { $, el, iconButton } from "./dom.js";
import { exported } from "./exchange.js";
import { everyMessage } from "./versions.js";

const DAY_MS = 24 * 3600 * 1000;

// Draws the list of the chats that the search finds. `act`: rename(chat, title), remove(chat);
// `current`: the shown one's id.
export function drawHistory(chats, current, isBusy, act) {
  if ($("chats").querySelector("input")) return; // a name is being typed
  const again = focusIn($("chats"));
  const found = chats.filter(matcher($("search").value));
  const days = Map.groupBy(found, ({ changed }) => dayOf(changed));
  const entries = (some) => some.map((chat) => entry(chat, chat.id === current, isBusy(chat), act));
  const parts = [...days].map(([day, some]) => el("section", {}, el("h2", { textContent: day }), el("ul", {}, ...entries(some))));
  const none = chats.length && !found.length ? [el("p", { className: "note", textContent: "No chat has these words." })] : [];
  $("chats").replaceChildren(...parts, ...none);
  again();
  for (const id of ["export-all", "delete-all", "search"]) $(id).disabled = !chats.length;
}

// All of the words, in the title or in what was said.
function matcher(search) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return () => true;
  return (chat) => {
    const said = [titleOf(chat), ...[...everyMessage(chat.messages)].map(textOf)].join("\n").toLowerCase();
    return words.every((word) => said.includes(word));
  };
}

function dayOf(time) {
  const today = new Date().setHours(0, 0, 0, 0);
  const days = Math.ceil((today - time) / DAY_MS);
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  if (days <= 7) return "Last seven days";
  return new Date(time).toLocaleDateString("en", { month: "long", year: "numeric" });
}

// Gives the focus back, once the list is drawn anew, to what had it, or to what stands in its place.
function focusIn(list) {
  const item = document.activeElement?.closest("#chats li");
  if (!item) return () => {};
  const [items, within] = [[...list.querySelectorAll("li")], [...item.children].indexOf(document.activeElement)];
  return () => {
    const now = [...list.querySelectorAll("li")];
    const same = now.find((each) => each.dataset.id === item.dataset.id);
    const next = same ?? now[Math.min(items.indexOf(item), now.length - 1)];
    (next ? next.children[same ? within : 0] : $("new-chat")).focus();
  };
}

// Puts the focus on a chat in the list.
export const focusChat = (id) => $("chats").querySelector(`li[data-id="${id}"] .open`)?.focus();

function entry(chat, shown, busy, act) {
  const name = titleOf(chat);
  const title = `${name}\n${new Date(chat.changed).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" })}`;
  const open = el("a", { href: hrefOf(chat.id), className: "open", dir: "auto", textContent: name, title });
  if (shown) open.setAttribute("aria-current", "true");
  if (busy) open.append(el("span", { className: "busy", title: "A reply is coming" }));
  const item = el("li", { className: shown ? "current" : "" }, open);
  item.dataset.id = chat.id;
  item.append(
    iconButton("pencil", "Rename", () => askName(chat, item, act), `Rename ${name}`),
    iconButton("save", "Export", () => download([chat], name), `Export ${name}`),
    iconButton("bin", "Delete", () => act.remove(chat), `Delete ${name}`),
  );
  return item;
}

function askName(chat, item, act) {
  const input = el("input", { value: titleOf(chat), dir: "auto", "aria-label": "New name", maxLength: 200 });
  let open = true;
  const close = (take, stay) => {
    if (!open) return;
    open = false;
    input.remove();
    act.rename(chat, take ? input.value.trim() : "");
    if (stay) focusChat(chat.id);
  };
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") close(true, true);
    if (event.key === "Escape") {
      event.stopPropagation();
      close(false, true);
    }
  });
  input.addEventListener("blur", () => close(true, false));
  item.replaceChildren(input);
  input.select();
}

// A file of nanochat's conversations, one a line: `scripts.data add --conversations` takes it.
export function download(chats, name) {
  const lines = chats.map((chat) => `${exported(chat)}\n`);
  const url = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
  const file = name.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "chat";
  el("a", { href: url, download: `${file}.jsonl` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
