// Draws one message: text as markdown, tool calls as such, tokens with their probabilities.

import { copyText, el, showMarkdown } from "./markdown.js";

export function turnNode(message, index, actions) {
  const node = el("article", { className: `turn ${message.role}`, "aria-label": speaker(message) });
  node.dataset.index = index;
  node.append(el("div", { className: "body" }), el("div", { className: "after" }));
  const buttons = Object.entries(actions).map(([label, run]) => actionButton(label, run, node));
  if (buttons.length) node.append(el("div", { className: "actions" }, ...buttons));
  return node;
}

function actionButton(label, run, node) {
  const button = el("button", { type: "button", textContent: label });
  button.addEventListener("click", () => run(node, button));
  return button;
}

const speaker = ({ role }) => ({ user: "You", assistant: "Assistant" })[role] ?? "Note";

// Shows what a message holds now; `live` while it is still coming.
export function showMessage(node, message, { live = false, inspect = false } = {}) {
  const body = node.querySelector(".body");
  if (message.role !== "assistant") body.textContent = message.content;
  else if (inspect && message.tokens?.length) showTokens(body, message.tokens);
  else showParts(body, message.parts ?? []);
  body.classList.toggle("waiting", live && !message.parts?.length);
  node.setAttribute("aria-busy", String(live));
  showNotes(node.querySelector(".after"), message, inspect && !live);
}

function showParts(body, parts) {
  if (body.dataset.mode !== "parts") body.replaceChildren();
  body.dataset.mode = "parts";
  parts.forEach((part, i) => {
    const kind = part.type === "text" ? "said" : "tool";
    let node = body.children[i];
    if (!node?.classList.contains(kind)) {
      node?.remove();
      node = el(kind === "said" ? "div" : "span", { className: kind });
      body.insertBefore(node, body.children[i] ?? null);
    }
    if (kind === "said") showMarkdown(node, part.text);
    else showTool(node, part);
  });
  while (body.children.length > parts.length) body.lastChild.remove();
}

function showTool(node, part) {
  const label = part.type === "python" ? "calculator" : "result";
  node.replaceChildren(el("b", { textContent: `${label} ` }), part.text);
}

function showNotes(after, message, inspect) {
  after.replaceChildren();
  if (message.dropped) note(after, `The oldest ${message.dropped} messages no longer fit and were not read.`);
  if (message.finish === "length") note(after, "The reply ends here: it reached its limit of tokens.");
  if (message.finish === "stopped") note(after, "Stopped.");
  if (inspect && message.role === "assistant" && !message.tokens?.length && !message.failure)
    note(after, "No token probabilities were asked for with this reply; regenerate it to see them.");
  if (message.failure) after.append(el("p", { className: "failure", role: "alert", textContent: message.failure }));
}

const note = (after, text) => after.append(el("p", { className: "note", textContent: text }));

// Tokens: [text, probability, forced, [[text, probability], ...]] each.
function showTokens(body, tokens) {
  body.dataset.mode = "tokens";
  const line = el("div", { className: "tokens said" });
  for (const [text, probability, forced, top] of tokens) {
    const name = forced ? "forced" : shade(probability);
    const node = el("span", { className: `token ${name}`, textContent: visible(text), tabIndex: 0 });
    node.setAttribute("aria-description", describe(probability, forced));
    for (const begin of ["mouseenter", "focus"])
      node.addEventListener(begin, () => showCard(node, text, probability, forced, top));
    for (const end of ["mouseleave", "blur"]) node.addEventListener(end, hideCard);
    line.append(node);
  }
  body.replaceChildren(line);
  delete body.blockKeys;
}

const visible = (text) => (text.startsWith("bytes:") ? `⟨${text.slice(6)}⟩` : text.replace(/\n/g, "⏎\n"));
const percent = (p) => (p >= 0.0995 ? `${Math.round(p * 100)} %` : `${(p * 100).toPrecision(2)} %`);
const describe = (p, forced) => (forced ? "written by the tool" : `probability ${percent(p)}`);

function shade(p) {
  if (p > 0.8) return "sure";
  if (p > 0.3) return "likely";
  return p > 0.05 ? "unlikely" : "rare";
}

function showCard(node, text, probability, forced, top) {
  hideCard();
  const row = ([name, p]) =>
    el("tr", {}, el("td", { textContent: JSON.stringify(name) }), el("td", { textContent: percent(p) }));
  const head = forced ? `${JSON.stringify(text)}: forced, the tool wrote it` : `${JSON.stringify(text)}: ${percent(probability)}`;
  const card = el("div", { id: "card", role: "tooltip" }, head);
  if (!forced) card.append(el("table", {}, el("tbody", {}, ...top.map(row))));
  document.body.prepend(card);
  const place = node.getBoundingClientRect();
  const left = Math.min(place.left, innerWidth - card.offsetWidth - 8);
  const below = place.bottom + 6;
  card.style.left = `${Math.max(8, left)}px`;
  card.style.top = `${below + card.offsetHeight > innerHeight ? place.top - card.offsetHeight - 6 : below}px`;
}

const hideCard = () => document.getElementById("card")?.remove();

// Turns a message into a box to change it in; `done` gets the new text.
export function editMessage(node, text, done) {
  const body = node.querySelector(".body");
  const box = el("textarea", { value: text, rows: Math.min(10, text.split("\n").length + 1), "aria-label": "Edit message" });
  const send = el("button", { type: "button", textContent: "Send edited" });
  const cancel = el("button", { type: "button", textContent: "Cancel" });
  const form = el("div", { className: "edit" }, box, el("div", {}, cancel, send));
  const close = () => {
    form.remove();
    body.hidden = false;
  };
  send.addEventListener("click", () => {
    if (!box.value.trim()) return;
    close();
    done(box.value);
  });
  cancel.addEventListener("click", close);
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send.click();
    }
  });
  body.hidden = true;
  body.before(form);
  box.focus();
}

export const copyMessage = (message, button) =>
  copyText(message.content ?? message.parts.map((part) => part.text).join(""), button);
