// The token inspector: a reply as its tokens, each with its probability and what else was likely.
// A token is kept as [text, probability, forced, [[text, probability], ...]].

import { $, el } from "./dom.js";

const rounded = (logprob) => Number(Math.exp(logprob).toPrecision(4));

export const toToken = (text, logprob, forced, top) => [text, rounded(logprob), forced ? 1 : 0, top.map(([other, score]) => [other, rounded(score)])];

// A token of the API's `logprobs.content` as it is kept.
export const compact = ({ token, logprob, forced, top_logprobs }) =>
  toToken(token, logprob, forced, (top_logprobs ?? []).map((other) => [other.token, other.logprob]));

// Shows `tokens` in `body`; of a reply that is coming only the new ones are added. One of them is
// reached by Tab, the others by the arrow keys.
export function showTokens(body, tokens) {
  let line = body.querySelector(".tokens");
  if (!line || line.children.length > tokens.length) {
    line = el("div", { className: "tokens", dir: "auto", role: "listbox", "aria-label": "Tokens of the reply; arrow keys move" });
    line.setAttribute("aria-orientation", "horizontal");
    line.addEventListener("keydown", move);
    for (const begin of ["mouseover", "focusin"]) line.addEventListener(begin, ({ target }) => showCard(target));
    for (const end of ["mouseleave", "focusout"]) line.addEventListener(end, hideCard);
    body.replaceChildren(line);
  }
  for (const token of tokens.slice(line.children.length)) line.append(tokenNode(token, !line.children.length));
}

function tokenNode(token, first) {
  const [text, probability, forced] = token;
  const node = el("span", { className: `token ${forced ? "forced" : shade(probability)}`, role: "option", tabIndex: first ? 0 : -1 });
  node.textContent = visible(text);
  node.setAttribute("aria-label", spokenOf(token));
  node.setAttribute("aria-selected", "false");
  node.token = token;
  return node;
}

const STEPS = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -Infinity, End: Infinity };

function move(event) {
  if (event.key === "Escape" && $("card")) {
    event.stopPropagation();
    return hideCard();
  }
  const step = STEPS[event.key];
  if (!step || !event.target.token) return;
  event.preventDefault();
  const all = [...event.currentTarget.children];
  const to = Math.max(0, Math.min(all.length - 1, all.indexOf(event.target) + step));
  event.target.tabIndex = -1;
  all[to].tabIndex = 0;
  all[to].focus();
}

const visible = (text) => (text.startsWith("bytes:") ? `⟨${text.slice(6)}⟩` : text.replace(/\n/g, "⏎\n"));

function percent(p) {
  if (p < 0.0001) return "<0.01 %";
  return p >= 0.0995 ? `${Math.round(p * 100)} %` : `${Number((p * 100).toPrecision(2))} %`;
}

function shade(p) {
  if (p > 0.8) return "sure";
  if (p > 0.3) return "likely";
  return p > 0.05 ? "unlikely" : "rare";
}

const headline = ([text, probability, forced]) =>
  `${JSON.stringify(text)} ${forced ? "forced: the tool wrote it" : percent(probability)}`;

function spokenOf(token) {
  const [text, , forced, top] = token;
  const others = forced ? [] : top.filter(([other]) => other !== text);
  const listed = others.map(([other, p]) => `${JSON.stringify(other)} ${percent(p)}`).join(", ");
  return headline(token) + (listed ? `; else ${listed}` : "");
}

function showCard(node) {
  if (!node.token) return;
  hideCard();
  const [text, , forced, top] = node.token;
  const card = el("div", { id: "card", role: "tooltip", "aria-hidden": "true" }, el("b", {}, headline(node.token)));
  if (!forced) card.append(el("table", {}, el("tbody", {}, ...top.map((other) => alternative(other, text)))));
  document.body.prepend(card);
  const place = node.getClientRects()[0];
  const below = place.bottom + 6;
  card.style.left = `${Math.max(8, Math.min(place.left, innerWidth - card.offsetWidth - 8))}px`;
  card.style.top = `${below + card.offsetHeight > innerHeight ? place.top - card.offsetHeight - 6 : below}px`;
}

function alternative([name, p], chosen) {
  const bar = el("span", { className: "share" });
  bar.style.width = `${Math.max(1, p * 90)}px`;
  const row = el("tr", { className: name === chosen ? "chosen" : "" });
  row.append(el("td", { textContent: JSON.stringify(name) }), el("td", {}, bar), el("td", { textContent: percent(p) }));
  return row;
}

export const hideCard = () => $("card")?.remove();
