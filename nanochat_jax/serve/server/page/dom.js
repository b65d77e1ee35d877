// Elements, icons and the clipboard. Text only ever becomes text nodes and attributes set by name.

export const $ = (id) => document.getElementById(id);

// A finger, and a keyboard that covers half of the page when a field has the focus.
export const byTouch = () => matchMedia("(hover: none) and (pointer: coarse)").matches;

// Enter; by touch it makes a new line, as Shift+Enter does everywhere, for there is no Shift+Enter.
export const isSendKey = ({ key, shiftKey, isComposing, ctrlKey, metaKey }) =>
  key === "Enter" && !shiftKey && !isComposing && (!byTouch() || ctrlKey || metaKey);

export function el(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("aria-")) node.setAttribute(key, value);
    else node[key] = value;
  }
  node.append(...children);
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

// An icon of the page itself (index.html): drawn without asking the server.
export function icon(name, className = "icon") {
  const node = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  node.setAttribute("class", className);
  node.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#icon-${name}`);
  node.append(use);
  return node;
}

// A small button of an icon. Its name is what screen readers say and what the pointer is shown.
export function iconButton(name, label, run, full = label) {
  const button = el("button", { type: "button", className: "tiny", title: full, "aria-label": full }, icon(name));
  button.addEventListener("click", (event) => run(event.currentTarget));
  return button;
}

// Copies, and says on the button and aloud whether it went well.
export async function copyText(text, button) {
  const done = (await copied(text)) ? "Copied" : "Cannot copy here";
  $("status").textContent = done;
  if (button.dataset.busy) return;
  const before = [...button.childNodes];
  button.dataset.busy = "yes";
  button.replaceChildren(done);
  setTimeout(() => {
    button.replaceChildren(...before);
    delete button.dataset.busy;
  }, 1200);
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedOldWay(text);
  }
}

// Pages on plain http from another machine have no clipboard object.
function copiedOldWay(text) {
  const box = el("textarea", { value: text });
  document.body.prepend(box);
  box.select();
  const done = document.execCommand("copy");
  box.remove();
  return done;
}
