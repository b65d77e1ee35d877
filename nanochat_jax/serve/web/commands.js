// The original's slash commands: answered here, never sent to the server.

const RANGES = { temperature: ["temperature", 0, 2], topk: ["top_k", 1, 200] };
const HELP = `/temperature [0-2]   how varied replies are
/topk [1-200]        sample among the k likeliest tokens
/clear               a new chat
/help                this list`;

// The line to answer with, or null when `text` is a message for the model.
export function runCommand(text, settings, save, clear) {
  const match = /^\/(\w+)(?:\s+(\S+))?\s*$/.exec(text);
  if (!match) return null;
  const [, name, value] = match;
  if (name === "help") return HELP;
  if (name === "clear") {
    clear();
    return "";
  }
  if (!RANGES[name]) return `There is no command /${name}.\n${HELP}`;
  const [key, low, high] = RANGES[name];
  if (value === undefined) return `${name} is ${settings[key]}`;
  const number = Number(value);
  const whole = key !== "top_k" || Number.isInteger(number);
  if (!whole || !(number >= low && number <= high)) return `${name} must lie between ${low} and ${high}, not ${value}`;
  save({ [key]: number });
  return `${name} set to ${number}`;
}
