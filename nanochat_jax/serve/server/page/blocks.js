// Markdown as tokens of `marked`, one for each block. Of that library only what reads is used, never
// what writes HTML; and tags are no markup here: they are the text that they are.

import { Lexer, Tokenizer } from "./vendor/marked-18.2.1/marked.esm.js";

const DEEPEST = 8; // quotes in quotes, lists in lists: each level costs a level of JavaScript's stack
const LONGEST = 20_000; // characters of one paragraph in which marks are looked for

class Reader extends Tokenizer {
  depth = 0;

  html() {}

  tag() {}

  blockquote(source) {
    return this.within(() => super.blockquote(source));
  }

  list(source) {
    return this.within(() => super.list(source));
  }

  within(read) {
    if (this.depth >= DEEPEST) return undefined;
    this.depth++;
    const token = read();
    this.depth--;
    return token;
  }

  // Between digits a star is a product: 2*3*4.
  emStrong(source, masked, before) {
    return /\d/.test(before) && /^\*\d/.test(source) ? undefined : super.emStrong(source, masked, before);
  }

  // A line over dashes is a heading; but at the very end, where a list or a rule may be coming, not yet.
  lheading(source) {
    const token = super.lheading(source);
    return token?.raw.length === source.length && !source.endsWith("\n") ? undefined : token;
  }
}

class Blocks extends Lexer {
  constructor() {
    super({ gfm: true, breaks: true, tokenizer: new Reader() });
  }

  inlineTokens(source, tokens = []) {
    if (source.length <= LONGEST) return super.inlineTokens(source, tokens);
    tokens.push({ type: "text", raw: source, text: source });
    return tokens;
  }
}

// {source, tokens, linked} of `text`; a `linked` text names addresses in one place and uses them in
// others. Given what was read of the same text when it was shorter, only its end is read again.
export function readMarkdown(text, earlier) {
  const source = text.replace(/\r\n?/g, "\n");
  const linked = source.includes("]:");
  const settled = !linked && earlier && source.startsWith(earlier.source) ? earlier.tokens.slice(0, open(earlier.tokens)) : [];
  const from = settled.reduce((length, token) => length + token.raw.length, 0);
  return { source, linked, tokens: [...settled, ...new Blocks().lex(source.slice(from))] };
}

// Where the last two blocks begin: whatever follows cannot change those before them.
function open(tokens) {
  let at = tokens.length;
  for (let blocks = 0; at > 0 && blocks < 2; ) if (tokens[--at].type !== "space") blocks++;
  return at;
}
