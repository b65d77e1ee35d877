// What the page itself has to say: a banner while something is wrong, a toast that goes by itself.

import { health } from "./client.js";
import { $ } from "./dom.js";

const TOAST_MS = 8000;
const TROUBLE = {
  loading: "The model is still loading…",
  draining: "The server is going down; trying again…",
  failed: "The model has failed; the server's log says why.",
  gone: "The server does not answer; trying again…",
};

export function banner(text) {
  $("banner").hidden = !text;
  if ($("banner").textContent !== text) $("banner").textContent = text;
}

let toastEnd;

// `undo`, where there is one, is offered as long as the words stand there.
export function toast(text, undo) {
  const [label, button] = $("toast").children;
  label.textContent = text;
  button.hidden = !undo;
  button.onclick = () => {
    closeToast();
    undo();
  };
  $("toast").classList.add("shown");
  clearTimeout(toastEnd);
  toastEnd = setTimeout(closeToast, TOAST_MS);
}

function closeToast() {
  const [label, button] = $("toast").children;
  $("toast").classList.remove("shown");
  label.textContent = "";
  button.hidden = true;
}

let watching = false;
let well = () => {};

// `listener` is called whenever the server is found to be well.
export const onWell = (listener) => (well = listener);

// Says what is wrong with the server until nothing is.
export async function watchHealth() {
  if (watching) return;
  watching = true;
  let trouble = false;
  for (let wait = 500; ; wait = Math.min(wait * 1.5, 5000)) {
    const state = await health();
    if (state === "ok") break;
    trouble = true;
    banner(TROUBLE[state] ?? TROUBLE.gone);
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
  watching = false;
  if (trouble) {
    banner("");
    toast("Connected.");
  }
  well();
}
