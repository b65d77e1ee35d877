// Draws one message: text as markdown, tool calls as such, tokens with their probabilities.

import { pieces, textOf, toolText } from "./chat.js";
import { copyText, el, iconButton } from "./dom.js";
import { showMarkdown } from "./markdown.js";
import { showTokens } from "./tokens.js";

const SPEAKERS = { user: "You", assistant: "Assistant", console: "Note" };
const FIRST_TOOL = 0xe000; // a tool call is one character of the private use area to markdown

// An empty turn; `buttons` stand below it.
export function turnNode(message, buttons) {
  const node = el("article", { className: `turn ${message.role}`, "aria-label": SPEAKERS[message.role] });
  node.append(el("div", { className: "body" }), el("div", { className: "after" }));
  if (buttons.length) node.append(el("div", { className: "actions" }, ...buttons));
  return node;
}

export const copyButton = (message) => iconButton("copy", "Copy", (button) => copyText(textOf(message), button));

// Shows what a message holds now; `live` while it is still coming, `elsewhere` in another tab.
export function showMessage(node, message, { live = false, elsewhere = false, inspect = false } = {}) {
  const body = node.querySelector(".body");
  const mode = inspect && message.tokens?.length ? "tokens" : "text";
  if (body.dataset.mode !== mode) {
    body.replaceChildren();
    delete body.blockKeys;
    body.dataset.mode = mode;
  }
  if (message.role !== "assistant") body.textContent = message.content;
  else if (mode === "tokens") showTokens(body, message.tokens);
  else showReply(body, message.parts);
  body.classList.toggle("waiting", live);
  node.setAttribute("aria-busy", String(live));
  if (message.role === "assistant") showNotes(node.querySelector(".after"), message, { live, elsewhere, inspect });
}

function showReply(body, parts) {
  const tools = [];
  const character = (tool) => String.fromCharCode(FIRST_TOOL + tools.push(tool) - 1);
  const source = pieces(parts).map((piece) => piece.text?.replace(/[\uE000-\uF8FF]/g, "\uFFFD") ?? character(piece));
  const toolAt = (c) => {
    const tool = tools[c.charCodeAt(0) - FIRST_TOOL];
    return tool && [() => toolNode(tool), toolText(tool)];
  };
  showMarkdown(body, source.join(""), toolAt);
}

function toolNode({ call, result }) {
  const node = el("span", { className: "tool" }, el("b", { textContent: "calculator" }), ` ${call}`);
  if (result !== undefined) node.append(" = ", el("strong", { textContent: result }));
  return node;
}

function showNotes(after, message, { live, elsewhere, inspect }) {
  const notes = [];
  const oldest = message.dropped === 1 ? "message" : `${message.dropped} messages`;
  if (message.dropped) notes.push(`The oldest ${oldest} of this chat no longer fit into the model's context and were not read.`);
  if (message.finish === "length") notes.push("The reply ends here: it reached its limit of tokens.");
  if (message.finish === "stopped") notes.push("Stopped.");
  if (elsewhere) notes.push("Coming in another tab…");
  else if (message.finish === "left" || !(live || message.finish || message.failure))
    notes.push("Cut short: the page was left while this reply came.");
  if (inspect && !live && !message.tokens?.length && message.parts.length)
    notes.push("This reply came without token probabilities; regenerate it to see them.");
  after.replaceChildren(...notes.map((textContent) => el("p", { className: "note", textContent })));
  if (message.failure) after.append(el("p", { className: "failure", role: "alert", textContent: message.failure }));
}

// "42 tokens, 31 a second", or nothing where it was not counted.
export function paceOf({ count, seconds }) {
  if (!count) return "";
  const pace = count > 1 && seconds > 0 ? `, ${Math.round((count - 1) / seconds)} a second` : "";
  return `${count} token${count === 1 ? "" : "s"}${pace}`;
}

// Turns a message into a box to change it in; `done` gets the new text.
export function editMessage(node, text, done) {
  const body = node.querySelector(".body");
  const box = el("textarea", { value: text, rows: Math.min(10, text.split("\n").length + 1), "aria-label": "Edit message" });
  const send = el("button", { type: "button", className: "main", textContent: "Send edited" });
  const cancel = el("button", { type: "button", textContent: "Cancel" });
  const form = el("div", { className: "edit" }, box, el("div", {}, cancel, send));
  const close = () => {
    form.remove();
    node.classList.remove("editing");
    node.querySelector("[aria-label=Edit]")?.focus();
  };
  send.addEventListener("click", () => {
    if (!box.value.trim()) return;
    close();
    done(box.value);
  });
  cancel.addEventListener("click", close);
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      close();
    }
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send.click();
    }
  });
  if (node.classList.contains("editing")) return;
  node.classList.add("editing");
  body.before(form);
  box.focus();
}
