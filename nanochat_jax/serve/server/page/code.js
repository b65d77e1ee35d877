// A block of code: its language, a button that copies it, the code in colours.

import { coloured } from "./colours.js";
import { copyText, el, icon } from "./dom.js";

// `info` is what stands behind the fence: `python title="a.py"`, `{r}`, `{.js .numbered}`.
export function codeBlock(text, info = "") {
  const language = /[^\s{},:.=]+/.exec(info)?.[0] ?? "";
  const title = /\b(?:title|file|filename)=["']?([^"'\s}]+)/.exec(info)?.[1];
  const copy = el("button", { type: "button" }, icon("copy"), "Copy code");
  copy.addEventListener("click", () => copyText(text, copy));
  const name = el("span", { textContent: [language || "code", title].filter(Boolean).join(" · ") });
  const code = el("pre", { tabIndex: 0 }, el("code", {}, ...coloured(text, language)));
  return el("figure", { className: "code", dir: "ltr", "aria-label": `${language || "Code"} block` }, el("div", { className: "bar" }, name, copy), code);
}
