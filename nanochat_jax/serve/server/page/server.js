// What the page knows of its server: how it is, which model answers, what it takes in one request.

import { health, model } from "./client.js";
import { banner, dropToast, toast } from "./notice.js";
import { settings } from "./settings.js";

const SAID = {
  loading: "The model is loading…",
  draining: "The server is going down; trying again…",
  failed: "The model has failed; the server's log says why.",
  gone: "The server does not answer; trying again…",
};
const LOADING_MS = 700; // between looks while something moves
const [FIRST_MS, LAST_MS] = [500, 5000]; // and while nothing does

export let card = null; // {id, max_model_len, limits}, or null while it is not known
let watch = null;
let well = () => {};

// `listener` gets the card whenever the server is found to be well.
export const onWell = (listener) => (well = listener);

// Waits until the server answers, and says meanwhile what it does instead.
export const whenWell = () => (watch ??= look().finally(() => (watch = null)));

async function look() {
  let trouble = "";
  for (let wait = FIRST_MS; ; wait = Math.min(wait * 1.5, LAST_MS)) {
    const { status, progress } = await health();
    if (status === "ok") break;
    trouble = SAID[status] ? status : "gone";
    dropToast("well");
    banner(SAID[trouble], trouble === "loading" ? (progress ?? 0) : undefined);
    await new Promise((resolve) => setTimeout(resolve, trouble === "loading" ? LOADING_MS : wait));
  }
  if (trouble) banner("");
  if (trouble) toast(trouble === "loading" ? "The model is ready." : "Connected.", null, "well");
  card = await model(settings.api_key);
  well(card);
}
