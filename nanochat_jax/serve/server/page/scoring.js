// Scores of a reply that came without: the server reads the chat up to its end once more, and says
// how likely each token was.

import { ask } from "./client.js";
import { toToken } from "./tokens.js";

const MOST_ALTERNATIVES = 5;
const TOOL_ANSWER = ["<|output_start|>", "<|output_end|>"];

// The tokens of the last of `messages` (as the API has them), a reply; throws as `ask` does.
export async function scoreReply(messages, key) {
  const { tokens } = await ask("/tokenize", { messages }, key);
  // They end so: assistant_start, the reply, assistant_end, assistant_start.
  const reply = tokens.lastIndexOf(tokens.at(-1), -2) + 1;
  const body = { prompt: tokens.slice(0, -2), echo: true, max_tokens: 0, logprobs: MOST_ALTERNATIVES };
  const { choices } = await ask("/v1/completions", body, key);
  return tokensOf(choices[0].logprobs).slice(reply);
}

function tokensOf({ tokens, token_logprobs, top_logprobs }) {
  let forced = false;
  return tokens.map((text, i) => {
    if (text === TOOL_ANSWER[0]) forced = true;
    const token = toToken(text, token_logprobs[i] ?? 0, forced, likeliest(top_logprobs[i] ?? {}));
    if (text === TOOL_ANSWER[1]) forced = false;
    return token;
  });
}

const likeliest = (scores) => Object.entries(scores).sort(([, a], [, b]) => b - a);
