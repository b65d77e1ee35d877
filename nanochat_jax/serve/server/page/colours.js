// Code as text nodes and coloured spans. Of `highlight.js` only what reads is used.

import { el } from "./dom.js";
import bash from "./vendor/highlight-11.12.0/bash.min.js";
import c from "./vendor/highlight-11.12.0/c.min.js";
import hljs from "./vendor/highlight-11.12.0/core.min.js";
import cpp from "./vendor/highlight-11.12.0/cpp.min.js";
import css from "./vendor/highlight-11.12.0/css.min.js";
import diff from "./vendor/highlight-11.12.0/diff.min.js";
import go from "./vendor/highlight-11.12.0/go.min.js";
import java from "./vendor/highlight-11.12.0/java.min.js";
import javascript from "./vendor/highlight-11.12.0/javascript.min.js";
import json from "./vendor/highlight-11.12.0/json.min.js";
import python from "./vendor/highlight-11.12.0/python.min.js";
import rust from "./vendor/highlight-11.12.0/rust.min.js";
import sql from "./vendor/highlight-11.12.0/sql.min.js";
import typescript from "./vendor/highlight-11.12.0/typescript.min.js";
import xml from "./vendor/highlight-11.12.0/xml.min.js";
import yaml from "./vendor/highlight-11.12.0/yaml.min.js";

const LANGUAGES = { bash, c, cpp, css, diff, go, java, javascript, json, python, rust, sql, typescript, xml, yaml };
const LONGEST = 8000; // characters: some texts cost the square of their length
for (const [name, grammar] of Object.entries(LANGUAGES)) hljs.registerLanguage(name, grammar);

// `code` as nodes; text alone where the language is not known.
export function coloured(code, language) {
  if (code.length > LONGEST || !hljs.getLanguage(language)) return [code];
  return nodes(hljs.highlight(code, { language, ignoreIllegals: true })._emitter.rootNode);
}

const nodes = ({ children }) => children.map((child) => (typeof child === "string" ? child : node(child)));

// "title.function" and the like: the first word is the class.
const node = ({ scope, ...rest }) => el("span", { className: scope ? `code-${scope.split(".")[0]}` : "" }, ...nodes(rest));
