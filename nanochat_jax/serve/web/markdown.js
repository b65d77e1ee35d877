// Markdown as DOM nodes. Text only ever becomes text nodes: nothing a model or a person writes can
// become an element, an attribute or a request of its own.

export function el(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("aria-")) node.setAttribute(key, value);
    else node[key] = value;
  }
  node.append(...children);
  return node;
}

// [kind, source, ...] of each block; a block's source is all that decides how it looks.
export function blocks(text) {
  const out = [];
  const lines = text.split("\n");
  let i = 0;
  while (i < lines.length) {
    const line = lines[i];
    const fence = /^\s*(```+|~~~+)\s*([\w+#.-]*)\s*$/.exec(line);
    if (fence) {
      const inside = [];
      for (i++; i < lines.length && !lines[i].trimStart().startsWith(fence[1]); i++) inside.push(lines[i]);
      i++;
      out.push(["code", inside.join("\n"), fence[2]]);
    } else if (!line.trim()) {
      i++;
    } else if (/^#{1,6}\s/.test(line)) {
      out.push(["heading", line.replace(/^#+\s+/, ""), Math.min(4, /^#+/.exec(line)[0].length)]);
      i++;
    } else if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) {
      out.push(["rule", ""]);
      i++;
    } else {
      const kind = kindOf(line);
      const taken = [];
      while (i < lines.length && lines[i].trim() && belongs(kind, lines[i], taken.length)) taken.push(lines[i++]);
      out.push([kind, taken.join("\n")]);
    }
  }
  return out;
}

const BULLET = /^\s*[-*+]\s+/;
const NUMBER = /^\s*\d{1,9}[.)]\s+/;
const QUOTE = /^\s*>\s?/;

function kindOf(line) {
  if (BULLET.test(line)) return "bullets";
  if (NUMBER.test(line)) return "numbers";
  return QUOTE.test(line) ? "quote" : "paragraph";
}

function belongs(kind, line, count) {
  if (count === 0) return true;
  if (/^\s*(```|~~~)|^#{1,6}\s/.test(line)) return false;
  if (kind === "bullets" || kind === "numbers") return kindOf(line) === kind || /^\s{2,}/.test(line);
  return kindOf(line) === kind;
}

export function renderBlock([kind, source, extra]) {
  if (kind === "code") return codeBlock(source, extra);
  if (kind === "heading") return el(`h${extra}`, {}, ...inline(source));
  if (kind === "rule") return el("hr");
  if (kind === "bullets") return list("ul", source, BULLET);
  if (kind === "numbers") return list("ol", source, NUMBER);
  if (kind === "quote") return el("blockquote", {}, ...inline(source.replace(/^\s*>\s?/gm, "")));
  return el("p", {}, ...inline(source));
}

function list(name, source, marker) {
  const items = [];
  for (const line of source.split("\n")) {
    if (marker.test(line)) items.push(line.replace(marker, ""));
    else items[items.length - 1] += "\n" + line.trim();
  }
  const node = el(name, {}, ...items.map((item) => el("li", {}, ...inline(item))));
  const first = /\d+/.exec(source);
  if (name === "ol" && first) node.start = Number(first[0]);
  return node;
}

function codeBlock(source, language) {
  const copy = el("button", { type: "button", textContent: "Copy code" });
  copy.addEventListener("click", () => copyText(source, copy));
  const bar = el("div", { className: "bar" }, el("span", { textContent: language || "code" }), copy);
  return el("pre", {}, bar, el("code", { textContent: source }));
}

const INLINE = /(`+)([\s\S]+?)\1|\*\*([^\n]+?)\*\*|(?<![\w*])\*([^\s*](?:[^*\n]*[^\s*])?)\*(?!\w)|(?<!\w)_([^\s_](?:[^_\n]*[^\s_])?)_(?!\w)|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)|(https?:\/\/[^\s<>"')\]]+)/g;

function inline(text, depth = 0) {
  const nodes = [];
  let end = 0;
  for (const match of depth > 4 ? [] : text.matchAll(INLINE)) {
    if (match.index > end) nodes.push(...plain(text.slice(end, match.index)));
    nodes.push(mark(match, depth + 1));
    end = match.index + match[0].length;
  }
  if (end < text.length) nodes.push(...plain(text.slice(end)));
  return nodes;
}

function mark([, ticks, code, bold, star, under, label, target, bare], depth) {
  if (ticks) return el("code", { textContent: code.trim() });
  if (bold) return el("strong", {}, ...inline(bold, depth));
  if (star || under) return el("em", {}, ...inline(star || under, depth));
  const href = target || bare;
  return el("a", { href, textContent: label || bare, target: "_blank", rel: "noopener noreferrer" });
}

function plain(text) {
  return text.split("\n").flatMap((line, i) => (i ? [el("br"), line] : [line])).filter((part) => part !== "");
}

export async function copyText(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = copyOldWay(text) ? "Copied" : "Cannot copy here";
  }
  setTimeout(() => (button.textContent = before), 1200);
}

// Pages on plain http from another machine have no clipboard object.
function copyOldWay(text) {
  const box = el("textarea", { value: text, className: "hidden" });
  document.body.prepend(box);
  box.select();
  const done = document.execCommand("copy");
  box.remove();
  return done;
}

// Shows `text` in `node`, touching only the blocks that changed since the last call.
export function showMarkdown(node, text) {
  const wanted = blocks(text);
  const keys = wanted.map((block) => JSON.stringify(block));
  const have = node.blockKeys || [];
  let same = 0;
  while (same < have.length && have[same] === keys[same]) same++;
  while (node.childNodes.length > same) node.lastChild.remove();
  node.append(...wanted.slice(same).map(renderBlock));
  node.blockKeys = keys;
}
