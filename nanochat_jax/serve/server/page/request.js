// What a request for a reply holds, and what would be too much for one. `limits` are the server's
// (/v1/models), counted as it counts: in characters of Unicode; null while they are not known.

import { isSpoken, wire } from "./chat.js";
import { biasesOf, numbers } from "./store.js";

// {body, place}: the request, and the place in the chat of the first message that is read when the
// server leaves the first `dropped` of it out as well; 0 when all are. `goOn`: the last message is a
// reply that was cut, of which more is wanted.
export function requestFor(chat, settings, limits, goOn = false) {
  const system = chat.system ? [{ role: "system", content: chat.system }] : [];
  const asked = chat.messages.filter((message, i) => isSpoken(message) && !isUnanswered(chat.messages, i));
  const [first] = asked;
  while (limits && tooMuch([...system, ...asked.map(wire)], limits)) {
    const next = asked.findIndex(({ role }, i) => i > 0 && role === "user");
    if (next < 0) break;
    asked.splice(0, next);
  }
  const body = { messages: [...system, ...asked.map(wire)] };
  for (const name of numbers) if (settings[name] !== null) body[name] = settings[name];
  if (settings.logit_bias) body.logit_bias = biasesOf(settings.logit_bias);
  Object.assign(body, { stream: true, stream_options: { include_usage: true } });
  if (goOn) body.continue_final_message = true;
  if (goOn ? chat.messages.at(-1).tokens : settings.inspect) Object.assign(body, { logprobs: true, top_logprobs: 5 });
  return { body, place: (dropped) => (asked[dropped] === first ? 0 : chat.messages.indexOf(asked[dropped])) };
}

// A message that nothing answered was refused or lost: sent along it would be refused again.
function isUnanswered(messages, i) {
  const next = messages.slice(i + 1).find(({ role }) => role !== "console");
  return messages[i].role === "user" && Boolean(next?.failure) && !next.parts.length;
}

const count = (text) => [...text].length;
const lengthOf = ({ content }) => (typeof content === "string" ? count(content) : content.reduce((n, part) => n + count(part.text), 0));

function tooMuch(messages, limits) {
  const lengths = messages.map(lengthOf);
  const whole = lengths.reduce((n, length) => n + length, 0);
  return messages.length > limits.messages || whole > limits.chat_characters || Math.max(...lengths) > limits.message_characters;
}

// What is wrong with a message of this text, in words, or "".
export function excess(text, limits) {
  const most = limits?.message_characters ?? Infinity;
  if (text.length <= most || count(text) <= most) return "";
  const [has, may] = [count(text), most].map((n) => n.toLocaleString("en"));
  return `This message has ${has} characters, the server takes ${may}: shorten it, or send it in parts.`;
}

const MARKERS = 8; // tokens around a message, and more

// Whether a message of this text may fill a context of so many tokens: none has less than a byte.
export function mayFill(text, system, context) {
  return new TextEncoder().encode(system + text).length + MARKERS > context;
}
