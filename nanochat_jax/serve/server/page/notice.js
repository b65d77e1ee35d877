// What the page itself has to say: a banner while something is wrong, a toast that goes by itself.

import { $, byTouch } from "./dom.js";

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
let toastCause;

// `undo`, where there is one, is offered as long as the words stand there. They go by themselves,
// with their close button, or with their `cause`, once there is nothing more to it.
export function toast(text, undo, cause = "") {
  const [label, button] = $("toast").children;
  toastCause = cause;
  $("toast").classList.add("shown");
  label.textContent = text;
  button.hidden = !undo;
  button.onclick = () => {
    closeToast();
    undo();
  };
  letPass();
}

export function dropToast(cause) {
  if (toastCause === cause) closeToast();
}

function letPass() {
  clearTimeout(toastEnd);
  toastEnd = setTimeout(closeToast, TOAST_MS);
}

function closeToast() {
  const [label, button] = $("toast").children;
  clearTimeout(toastEnd);
  toastCause = "";
  if ($("toast").contains(document.activeElement) && !byTouch()) $("message").focus(); // not lost with the button
  $("toast").classList.remove("shown");
  label.textContent = "";
  button.hidden = true;
}

// What is being read, or is about to be undone, does not go.
export function setUpToast() {
  $("toast").lastElementChild.addEventListener("click", closeToast);
  for (const begin of ["mouseenter", "focusin"]) $("toast").addEventListener(begin, () => clearTimeout(toastEnd));
  for (const end of ["mouseleave", "focusout"]) $("toast").addEventListener(end, () => toastIsShown() && letPass());
}

const toastIsShown = () => $("toast").classList.contains("shown");
