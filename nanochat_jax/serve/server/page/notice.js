// What the page itself has to say: a banner while something is wrong, a toast that goes by itself.

import { $ } from "./dom.js";

const TOAST_MS = 8000;
// `progress`: the share that is done of what is no trouble, only work.
export function banner(text, progress) {
  const [words, bar] = $("banner").children;
  $("banner").hidden = !text;
  $("banner").classList.toggle("calm", progress !== undefined);
  bar.hidden = progress === undefined;
  bar.value = progress ?? 0;
  if (words.textContent !== text) words.textContent = text;
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
