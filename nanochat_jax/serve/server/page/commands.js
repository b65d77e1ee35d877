// The original's slash commands and two more: answered here, never sent to the server.

import { allowed, range } from "./store.js";

const SETTINGS = { temperature: "temperature", topk: "top_k", maxtokens: "max_tokens" };
const HELP = `/temperature [0-2]    how varied replies are
/topk [0-200]         sample among the k likeliest tokens; 0: among all
/maxtokens [1-4096]   how long a reply may become
/system [text]        what the assistant is told first in this chat
/clear                a new chat
/help                 this list
Without a value the first four tell what holds. A space before "/" sends the line as it is.`;

// The answer to show, "" for none, or null when `text` is a message for the model.
// `page`: settings, change(settings), system(text or undefined), clear().
export function runCommand(text, page) {
  const match = /^\/([a-z]+)(?:\s+([\s\S]*?))?\s*$/i.exec(text);
  if (!match) return null;
  const [name, value] = [match[1].toLowerCase(), match[2] || undefined];
  if (name === "help") return HELP;
  if (name === "clear") return page.clear() ?? "";
  if (name === "system") return page.system(value);
  if (!Object.hasOwn(SETTINGS, name)) return `There is no command /${name}.\n${HELP}`;
  const key = SETTINGS[name];
  if (value === undefined) return `${name} is ${page.settings[key]}`;
  if (!allowed(key, Number(value))) return `${name} must be ${expected(key)}, not ${value}`;
  page.change({ [key]: Number(value) });
  return `${name} set to ${Number(value)}`;
}

const expected = (key) => `a ${key === "temperature" ? "" : "whole "}number between ${range(key).join(" and ")}`;
