// Draws one message: text as markdown, tool calls as such, tokens with their probabilities.

import { pieces, textOf, toolText } from "./chat.js";
import { copyText, el, iconButton, isSendKey } from "./dom.js";
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

// Shows what a message holds now; `live` while it is still coming, `elsewhere` in another tab, `last`
// in the chat.
export function showMessage(node, message, { live = false, waiting = false, elsewhere = false, inspect = false, last = true } = {}) {
  const body = node.querySelector(".body");
  const mode = inspect && message.tokens?.length ? "tokens" : "text";
  if (body.dataset.mode !== mode) {
    body.replaceChildren();
    delete body.blockKeys;
    body.dataset.mode = mode;
  }
  if (message.role !== "assistant") Object.assign(body, { textContent: message.content, dir: "auto" });
  else if (mode === "tokens") showTokens(body, message.tokens);
  else showReply(body, message.parts);
  body.classList.toggle("waiting", live);
  node.setAttribute("aria-busy", String(live));
  if (message.role === "assistant") showNotes(node.querySelector(".after"), message, { live, waiting, elsewhere, inspect, last });
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

function showNotes(after, message, { live, waiting, elsewhere, inspect, last }) {
  const notes = [];
  if (message.finish === "length" && message.full) notes.push("The reply ends here: the model's context is full.");
  else if (message.finish === "length") notes.push("Cut at Max tokens, the most that one reply may have: Continue it, or raise the limit under Settings.");
  if (message.finish === "stopped") notes.push("Stopped.");
  if (waiting) notes.push("Waiting for the model…");
  if (elsewhere) notes.push("Coming in another tab…");
  else if (message.finish === "left" || !(live || message.finish || message.failure))
    notes.push("Cut short: the page was left while this reply came.");
  const unscored = inspect && !live && !message.tokens?.length && message.parts.length;
  after.replaceChildren(...notes.map((textContent) => el("p", { className: "note", textContent })), ...(unscored ? [scoreOffer()] : []));
  if (message.failure && last) after.append(el("p", { className: "failure", role: "alert", textContent: message.failure }));
  else if (message.failure) after.append(el("p", { className: "note", textContent: pastFailure(message) }));
}

const scoreOffer = () =>
  el("p", { className: "note" }, "This reply came without token probabilities. ", el("button", { type: "button", className: "score", textContent: "Score it" }));

// A failure that the chat went on after; without a reply the message before it is not sent along.
const pastFailure = ({ failure, parts }) => (parts.length ? failure : `${failure} The model does not read this message.`);

// Where the model began to read: what stands above did not fit.
export const cutLine = () => el("p", { className: "cut", textContent: "What is above this line no longer fits into the model's context: it was not read." });

// "42 tokens, 31 a second" by the server's clock, or nothing where it was not counted.
export function paceOf({ count, ms }) {
  if (!count) return "";
  const rate = (1000 * count) / ms;
  const pace = ms > 0 ? `, ${rate < 10 ? rate.toFixed(1) : Math.round(rate)} a second` : "";
  return `${count} token${count === 1 ? "" : "s"}${pace}`;
}

// "‹ 2/3 ›", between the versions of a turn; `turn` gets the number of the one to show.
export function versionButtons(place, count, turn) {
  const arrow = (textContent, label, to) => {
    const button = el("button", { type: "button", className: "tiny", textContent, title: label, "aria-label": label });
    button.disabled = to < 0 || to >= count;
    button.addEventListener("click", () => turn(to, label));
    return button;
  };
  const which = el("span", { className: "note", textContent: `${place + 1}/${count}`, "aria-label": `Version ${place + 1} of ${count}` });
  which.setAttribute("role", "img");
  return el("span", { className: "versions" }, arrow("‹", "Previous version", place - 1), which, arrow("›", "Next version", place + 1));
}

// Turns a message into a box to change it in; `take` gets the new text and resolves to what is wrong
// with it, if anything is.
export function editMessage(node, text, take) {
  const body = node.querySelector(".body");
  const box = el("textarea", { value: text, rows: Math.min(10, text.split("\n").length + 1), dir: "auto", "aria-label": "Edit message" });
  const send = el("button", { type: "button", className: "main", textContent: "Send edited" });
  const cancel = el("button", { type: "button", textContent: "Cancel" });
  const problem = el("p", { className: "problem", role: "alert" });
  const form = el("div", { className: "edit" }, box, problem, el("div", {}, cancel, send));
  const close = () => {
    form.remove();
    node.classList.remove("editing");
    node.querySelector("[aria-label=Edit]")?.focus();
  };
  send.addEventListener("click", async () => {
    if (!box.value.trim() || send.disabled) return;
    send.disabled = true;
    problem.textContent = await take(box.value);
    send.disabled = false;
  });
  cancel.addEventListener("click", close);
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      close();
    }
    if (isSendKey(event)) {
      event.preventDefault();
      send.click();
    }
  });
  if (node.classList.contains("editing")) return;
  node.classList.add("editing");
  body.before(form);
  box.focus();
}
