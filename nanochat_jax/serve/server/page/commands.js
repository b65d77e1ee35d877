// The words that begin with a slash: answered here, never sent to the server. The terminal reads the
// same list (serve/commands.py).

import WORDS from "./commands.json" with { type: "json" };
import { allowed, BIASES, biasesOf } from "./store.js";

export const COMMANDS = WORDS.filter(({ only }) => !only || only === "page");

export const usage = ({ word, value }) => `/${word}${value ? ` [${value}]` : ""}`;

const HELP = [
  ...COMMANDS.map((command) => usage(command).padEnd(25) + command.does),
  "Without its value a command shows what holds. A space before the slash makes the line a message.",
].join("\n");

const known = (name) => COMMANDS.find(({ word }) => word === name);

// [name in lower case, value or undefined] of a line that calls a command, or null.
function called(text) {
  const match = /^\/([a-z]+)(?:\s+([\s\S]*?))?\s*$/i.exec(text);
  return match && [match[1].toLowerCase(), match[2] || undefined];
}

// What to say of a line that calls a command that there is not; "" of any other.
export function unknownCommand(text) {
  const name = called(text)?.[0];
  if (!name || known(name)) return "";
  const near = COMMANDS.map(({ word }) => word).find((word) => apart(name, word) <= Math.max(1, word.length / 3));
  return `There is no command /${name}${near ? `: did you mean /${near}?` : "."} A space before the slash sends the line as it is.`;
}

// How many letters must change to make one word of the other (Levenshtein).
function apart(one, other) {
  let row = [...Array(other.length + 1).keys()];
  for (const [i, letter] of [...one].entries()) {
    const next = [i + 1];
    for (const [j, wanted] of [...other].entries()) next.push(Math.min(row[j] + (letter !== wanted), row[j + 1] + 1, next[j] + 1));
    row = next;
  }
  return row.at(-1);
}

// The answer to show, "" for none, or null when `text` is a message for the model.
// `page`: settings, change(settings), system(text or undefined), clear().
export function runCommand(text, page) {
  const [name, value] = called(text) ?? [];
  const command = known(name);
  if (!command) return null;
  if (name === "help") return HELP;
  if (name === "clear") return page.clear() ?? "";
  if (name === "system") return page.system(value === "-" ? "" : value);
  return name === "bias" ? setBiases(value, page) : setNumber(command, value, page);
}

function setNumber({ word, setting, low, high, whole }, value, page) {
  if (value === undefined) return `${word}: ${page.settings[setting] ?? "as the server has it"}`;
  if (!allowed(setting, Number(value))) return `${word} must be a ${whole ? "whole " : ""}number from ${low} to ${high}, not “${value}”`;
  page.change({ [setting]: Number(value) });
  return `${word}: ${Number(value)}`;
}

function setBiases(value, page) {
  const text = value === "-" ? "" : value ?? page.settings.logit_bias;
  if (!biasesOf(text)) return `${BIASES}, not “${value}”`;
  if (value !== undefined) page.change({ logit_bias: text });
  return `bias: ${text || "none"}`;
}
