// Markdown as DOM nodes. Text only ever becomes text nodes: nothing a model or a person writes can
// become an element, an attribute or a request of its own.

import { readMarkdown } from "./blocks.js";
import { codeBlock } from "./code.js";
import { el, icon } from "./dom.js";

// Shows `text` in `node`, touching only the blocks that changed since the last call. A character of
// the private use area stands for a tool call: `toolAt` gives [what makes its node, its plain text].
export function showMarkdown(node, text, toolAt = () => null) {
  node.read = readMarkdown(text, node.read);
  const tools = (source) => (source.match(/[\uE000-\uF8FF]/g) ?? []).map((c) => toolAt(c)?.[1]);
  const wanted = node.read.tokens.filter(({ type }) => type !== "space" && type !== "def");
  const keys = wanted.map((token) => JSON.stringify([token.type, node.read.linked ? token : token.raw, tools(token.raw)]));
  const have = node.blockKeys ?? [];
  let same = 0;
  while (same < have.length && have[same] === keys[same]) same++;
  while (node.childNodes.length > same) node.lastChild.remove();
  node.append(...wanted.slice(same).map((token) => new Writer(toolAt).topBlock(token)));
  node.blockKeys = keys;
}

const SAFE = /^(https?:\/\/|mailto:)/i;
const MARKS = { strong: "strong", em: "em", del: "del" };

class Writer {
  constructor(toolAt) {
    this.toolAt = toolAt;
  }

  // Reads from right to left where it begins so; lines within find their own way by CSS.
  topBlock(token) {
    const node = this.block(token);
    node.dir ||= "auto";
    return node;
  }

  block(token) {
    if (token.type === "code") return codeBlock(this.plain(token.text), token.lang);
    if (token.type === "heading") return el(`h${Math.min(6, token.depth + 1)}`, {}, ...this.inline(token.tokens));
    if (token.type === "hr") return el("hr");
    if (token.type === "list") return this.list(token);
    if (token.type === "blockquote") return el("blockquote", {}, ...this.blocks(token.tokens));
    if (token.type === "table") return this.table(token);
    return el("p", {}, ...this.inline(token.tokens ?? [token]));
  }

  // What stands within a quote or an item. The text of an item whose lines stand close is no paragraph.
  blocks(tokens) {
    return tokens.flatMap((token) => {
      if (token.type === "space" || token.type === "def") return [];
      if (token.type === "checkbox") return [task(token)];
      return token.type === "text" ? this.inline(token.tokens ?? [token]) : [this.block(token)];
    });
  }

  list({ ordered, start, items }) {
    const node = el(ordered ? "ol" : "ul", {}, ...items.map((item) => this.item(item)));
    if (ordered) node.start = start;
    return node;
  }

  item({ task, tokens }) {
    return el("li", classed(task && "with-task"), ...this.blocks(tokens));
  }

  table({ header, rows }) {
    const cell = (name) => ({ tokens, align }) => el(name, classed(align && `to-${align}`), ...this.inline(tokens));
    const row = (name, cells) => el("tr", {}, ...cells.map(cell(name)));
    const body = el("tbody", {}, ...rows.map((cells) => row("td", cells)));
    const table = el("table", {}, el("thead", {}, row("th", header)), body);
    return el("div", { className: "wide", tabIndex: 0, role: "group", "aria-label": "Table" }, table);
  }

  inline(tokens) {
    return tokens.flatMap((token) => this.mark(token));
  }

  mark(token) {
    const { type, text, href } = token;
    if (type in MARKS) return el(MARKS[type], {}, ...this.inline(token.tokens));
    if (type === "codespan") return el("code", { dir: "ltr", textContent: this.plain(text) });
    if (type === "br") return el("br");
    if (type === "checkbox") return task(token);
    if (type === "escape") return text;
    if (type === "link" && SAFE.test(href)) return this.link(href, "", this.inline(token.tokens));
    if (type === "image" && SAFE.test(href)) return this.link(href, "picture", [icon("picture"), this.plain(text) || href]);
    return this.words(type === "text" ? resolved(text) : token.raw);
  }

  // A picture is a link to it, too: to show it the page would have to ask another server.
  link(address, className, children) {
    const href = this.plain(address);
    return el("a", { ...classed(className), href, title: href, target: "_blank", rel: "noopener noreferrer" }, ...children);
  }

  // Text, its tool calls as such.
  words(text) {
    const parts = text.split(/([\uE000-\uF8FF])/);
    return parts.map((part, i) => (i % 2 ? (this.toolAt(part)?.[0]() ?? "\uFFFD") : part)).filter((part) => part !== "");
  }

  // The text with every tool call written out, for where no element may stand.
  plain(text) {
    return text.replace(/[\uE000-\uF8FF]/g, (c) => this.toolAt(c)?.[1] ?? "\uFFFD");
  }
}

const classed = (className) => (className ? { className } : {});

const task = ({ checked }) =>
  el("span", { className: "task", role: "img", "aria-label": checked ? "done" : "to do", textContent: checked ? "☑" : "☐" });

const NAMED = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };

// Text with its character references read: those by number, and the names that writers of HTML need.
function resolved(text) {
  return text.replace(/&(?:#(\d{1,7})|#x([\da-f]{1,6})|(\w+));/gi, (whole, decimal, hex, name) =>
    name ? (NAMED[name] ?? whole) : character(decimal ? Number(decimal) : parseInt(hex, 16)),
  );
}

const character = (code) => (isText(code) ? String.fromCodePoint(code) : "\uFFFD");
const isText = (code) => code > 0 && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xf8ff); // no halves, no tool calls
