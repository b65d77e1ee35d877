// Markdown as DOM nodes. Text only ever becomes text nodes: nothing a model or a person writes can
// become an element, an attribute or a request of its own.

import { copyText, el, icon } from "./dom.js";

// Shows `text` in `node`, touching only the blocks that changed since the last call. A character of
// the private use area stands for a tool call: `toolAt` gives [what makes its node, its plain text].
export function showMarkdown(node, text, toolAt = () => null) {
  const wanted = blocks(text);
  const key = (block) => JSON.stringify([block, (block[1].match(/[\uE000-\uF8FF]/g) ?? []).map((c) => toolAt(c)?.[1])]);
  const keys = wanted.map(key);
  const have = node.blockKeys ?? [];
  let same = 0;
  while (same < have.length && have[same] === keys[same]) same++;
  while (node.childNodes.length > same) node.lastChild.remove();
  node.append(...wanted.slice(same).map((block) => new Writer(toolAt).block(block)));
  node.blockKeys = keys;
}

const FENCE = /^\s*(```+|~~~+)\s*([\w+#.-]*)\s*$/;
const HEADING = /^(#{1,6})\s+(.*)$/;
const RULE = /^\s*([-*_])(\s*\1){2,}\s*$/;
const ITEM = /^(\s*)(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/;
const QUOTE = /^\s*>\s?/;
const TABLE = /^\s*\|?(\s*:?-+:?\s*\|)+(\s*:?-+:?\s*)?$/;

// [kind, source, extra] of each block; that alone decides how it looks.
export function blocks(text) {
  const out = [];
  const lines = text.split("\n");
  for (let i = 0; i < lines.length; ) {
    const line = lines[i];
    const fence = FENCE.exec(line);
    const heading = HEADING.exec(line);
    if (fence) {
      const from = ++i;
      while (i < lines.length && !lines[i].trimStart().startsWith(fence[1])) i++;
      out.push(["code", lines.slice(from, i++).join("\n"), fence[2]]);
    } else if (heading) {
      out.push(["heading", heading[2], heading[1].length]);
      i++;
    } else if (RULE.test(line)) {
      out.push(["rule", ""]);
      i++;
    } else if (line.trim()) {
      const kind = kindAt(lines, i);
      const from = i++;
      while (i < lines.length && goesOn(kind, lines, i)) i++;
      out.push([kind, lines.slice(from, i).join("\n")]);
    } else i++;
  }
  return out;
}

function kindAt(lines, i) {
  if (ITEM.test(lines[i])) return "list";
  if (QUOTE.test(lines[i])) return "quote";
  return lines[i].includes("|") && TABLE.test(lines[i + 1] ?? "") ? "table" : "paragraph";
}

function goesOn(kind, lines, i) {
  const line = lines[i];
  if (!line.trim() || FENCE.test(line) || HEADING.test(line)) return false;
  if (kind === "list") return ITEM.test(line) || /^\s{2,}/.test(line);
  if (kind === "table") return line.includes("|");
  return kindAt(lines, i) === kind;
}

const INLINE = new RegExp(
  [
    /\\([\\`*_{}[\]()#+\-.!|>~])/, // an escaped mark
    /(?<ticks>`+)([\s\S]+?)\k<ticks>/,
    /\*\*([^\n]+?)\*\*/,
    /(?<![\w*])\*([^\s*](?:[^*\n]*[^\s*])?)\*(?!\w)/,
    /(?<!\w)_([^\s_](?:[^_\n]*[^\s_])?)_(?!\w)/,
    /\[([^[\]\n]+)\]\((https?:\/\/[^\s()]+)\)/,
    /(https?:\/\/[^\s<>"')\]]*[^\s<>"')\].,;:!?])/,
    /([\uE000-\uF8FF])/, // a tool call
  ].map((part) => part.source).join("|"),
  "g",
);
const DEEPEST = 8; // quotes in quotes, lists in lists
const LONGEST = 20_000; // characters of one block in which marks are looked for

class Writer {
  constructor(toolAt, depth = 0) {
    this.toolAt = toolAt;
    this.depth = depth;
  }

  block([kind, source, extra]) {
    if (kind === "code") return this.code(source, extra);
    if (kind === "heading") return el(`h${Math.min(6, extra + 1)}`, {}, ...this.inline(source));
    if (kind === "rule") return el("hr");
    if (kind === "list") return this.list(source.split("\n"));
    if (kind === "quote") return el("blockquote", {}, ...this.blocks(source.replace(/^\s*>\s?/gm, "")));
    if (kind === "table") return this.table(source.split("\n"));
    return el("p", {}, ...this.inline(source));
  }

  // What stands within a quote or a list item.
  blocks(source) {
    if (!source.trim()) return [];
    if (this.depth >= DEEPEST) return [el("p", {}, ...this.inline(source))];
    const within = new Writer(this.toolAt, this.depth + 1);
    return blocks(source).map((block) => within.block(block));
  }

  code(source, language) {
    const text = this.plain(source);
    const copy = el("button", { type: "button" }, icon("copy"), "Copy code");
    copy.addEventListener("click", () => copyText(text, copy));
    const bar = el("div", { className: "bar" }, el("span", { textContent: language || "code" }), copy);
    const label = `${language || "Code"} block`;
    return el("figure", { className: "code", "aria-label": label }, bar, el("pre", { tabIndex: 0 }, el("code", { textContent: text })));
  }

  // A list; what is indented under an item is that item's own.
  list(lines) {
    const items = [];
    const [, first, number] = ITEM.exec(lines[0]);
    for (const line of lines) {
      const item = ITEM.exec(line);
      if (item && item[1].length <= first.length + 1) items.push([item[3], []]);
      else if (item || items.at(-1)[1].length) items.at(-1)[1].push(line.replace(/^\s{2}/, ""));
      else items.at(-1)[0] += `\n${line.trim()}`;
    }
    const written = items.map(([text, under]) => el("li", {}, ...this.inline(text), ...this.blocks(under.join("\n"))));
    const node = el(number ? "ol" : "ul", {}, ...written);
    if (number) node.start = Number(number);
    return node;
  }

  table([head, , ...rows]) {
    const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
    const width = cells(head).length;
    const row = (name, line) =>
      el("tr", {}, ...Array.from({ length: width }, (_, i) => el(name, {}, ...this.inline(cells(line)[i] ?? ""))));
    const body = el("tbody", {}, ...rows.map((line) => row("td", line)));
    const table = el("table", {}, el("thead", {}, row("th", head)), body);
    return el("div", { className: "wide", tabIndex: 0, role: "group", "aria-label": "Table" }, table);
  }

  inline(text, depth = 0) {
    const nodes = [];
    let end = 0;
    for (const match of depth > 4 || text.length > LONGEST ? [] : text.matchAll(INLINE)) {
      nodes.push(...broken(text.slice(end, match.index)), this.mark(match, depth + 1));
      end = match.index + match[0].length;
    }
    return [...nodes, ...broken(this.plain(text.slice(end)))];
  }

  mark([, escaped, ticks, code, bold, star, under, label, target, bare, tool], depth) {
    if (escaped) return escaped;
    if (ticks) return el("code", { textContent: this.plain(code.trim()) });
    if (bold) return el("strong", {}, ...this.inline(bold, depth));
    if (star || under) return el("em", {}, ...this.inline(star || under, depth));
    if (tool) return this.toolAt(tool)?.[0]() ?? "\uFFFD";
    const href = target || bare;
    return el("a", { href, title: href, textContent: label || bare, target: "_blank", rel: "noopener noreferrer" });
  }

  // The text with every tool call written out, for where no element may stand.
  plain(text) {
    return text.replace(/[\uE000-\uF8FF]/g, (c) => this.toolAt(c)?.[1] ?? "\uFFFD");
  }
}

const broken = (text) => text.split("\n").flatMap((line, i) => (i ? [el("br"), line] : [line])).filter((part) => part !== "");
