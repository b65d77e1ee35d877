// The commands as a menu over the message box, while one is being typed.

import { COMMANDS, usage } from "./commands.js";
import { $, el } from "./dom.js";

const box = $("message");
const list = $("words");
let chosen = -1; // of the entries in the list; none is while a value is being typed

const isOpen = () => !list.hidden;
const entryOf = (i) => list.children[i];

function show() {
  const [, typed, more] = /^\/([a-z]*)(\s?)[^\n]*$/i.exec(box.value) ?? [];
  const fits = ({ word }) => (more ? word === typed.toLowerCase() : word.startsWith(typed.toLowerCase()));
  const found = typed === undefined ? [] : COMMANDS.filter(fits);
  list.replaceChildren(...found.map(entry));
  list.hidden = !found.length;
  choose(found.length && !more ? 0 : -1);
}

function entry(command) {
  const node = el("li", { id: `word-${command.word}`, role: "option" }, el("b", { textContent: usage(command) }), el("span", { textContent: command.does }));
  node.command = command;
  node.addEventListener("pointerdown", (event) => event.preventDefault()); // the box keeps the focus
  node.addEventListener("click", () => take(command));
  return node;
}

function choose(i) {
  chosen = i;
  for (const [place, node] of [...list.children].entries()) node.setAttribute("aria-selected", String(place === i));
  if (entryOf(i)) box.setAttribute("aria-activedescendant", entryOf(i).id);
  else box.removeAttribute("aria-activedescendant");
  entryOf(i)?.scrollIntoView({ block: "nearest" });
}

function close() {
  list.hidden = true;
  choose(-1);
}

// Puts the word into the box; one that takes no value is run.
function take({ word, value }) {
  box.value = `/${word}${value ? " " : ""}`;
  box.dispatchEvent(new Event("input", { bubbles: true }));
  close();
  if (value) show();
  else $("composer").requestSubmit();
}

const KEYS = {
  ArrowDown: () => choose((chosen + 1) % list.children.length),
  ArrowUp: () => choose((chosen + list.children.length - 1) % list.children.length),
  Tab: () => take(entryOf(chosen).command),
  Enter: () => take(entryOf(chosen).command),
  Escape: close,
};

function pressed(event) {
  const key = isOpen() && !event.shiftKey && !event.isComposing && KEYS[event.key];
  if (!key || (chosen < 0 && event.key !== "Escape")) return;
  if (event.key === "Enter" && box.value.trim() === `/${entryOf(chosen).command.word}`) return close(); // as it is
  event.preventDefault();
  event.stopImmediatePropagation();
  key();
}

// Before the composer: it would send.
export function setUpMenu() {
  box.addEventListener("input", show);
  box.addEventListener("keydown", pressed, { capture: true });
  box.addEventListener("blur", close);
  $("composer").addEventListener("submit", close); // what was typed leaves the box without an input event
}
