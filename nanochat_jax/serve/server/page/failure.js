// Why there is no reply, in words for people.

import { ServerError } from "./client.js";

const SAID = {
  queue_full: "Many people are asking just now. Retry in a moment.",
  rate_limit_exceeded: "That was too much within a minute from your address. Wait a moment, then Retry.",
  too_many_keys: "Too many wrong keys came from your address. Wait a minute, then Retry.",
  invalid_api_key: "This server asks for a key. Enter the key under Settings, then Retry.",
};

// `begun`: some of the reply had come.
export function failureText(error, begun) {
  if (error instanceof ServerError) return SAID[error.code] ?? sentence(error.message);
  return `The connection to the server was lost${begun ? "; what had come is kept" : ""}.`;
}

// The server's words as a sentence, without the name of the field they are about.
export function sentence(words) {
  const said = words.replace(/^messages: /, "");
  return `${said.slice(0, 1).toUpperCase()}${said.slice(1)}${/[.!?]$/.test(said) ? "" : "."}`;
}
