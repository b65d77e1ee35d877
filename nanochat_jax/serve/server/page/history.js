// The chats beside the conversation: open, rename, export, delete, import.

import { exported, titleOf } from "./chat.js";
import { $, el, iconButton } from "./dom.js";

// Draws the list. `act`: open(chat), rename(chat, title), remove(chat); `current`: the shown one's id.
export function drawHistory(chats, current, isBusy, act) {
  if ($("chats").querySelector("input")) return; // a name is being typed
  $("chats").replaceChildren(...chats.map((chat) => entry(chat, chat.id === current, isBusy(chat), act)));
  $("export-all").disabled = !chats.length;
}

function entry(chat, shown, busy, act) {
  const name = titleOf(chat);
  const open = el("button", { type: "button", className: "open", textContent: name, title: name });
  if (shown) open.setAttribute("aria-current", "true");
  if (busy) open.append(el("span", { className: "busy", title: "A reply is coming" }));
  open.addEventListener("click", () => act.open(chat));
  const item = el("li", { className: shown ? "current" : "" }, open);
  item.append(
    iconButton("pencil", "Rename", () => askName(chat, item, act), `Rename ${name}`),
    iconButton("save", "Export", () => download([chat], name), `Export ${name}`),
    iconButton("bin", "Delete", () => act.remove(chat), `Delete ${name}`),
  );
  return item;
}

function askName(chat, item, act) {
  const input = el("input", { value: titleOf(chat), "aria-label": "New name", maxLength: 200 });
  let open = true;
  const close = (take) => {
    if (!open) return;
    open = false;
    input.remove();
    act.rename(chat, take ? input.value.trim() : "");
  };
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") close(true);
    if (event.key === "Escape") {
      event.stopPropagation();
      close(false);
    }
  });
  input.addEventListener("blur", () => close(true));
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
