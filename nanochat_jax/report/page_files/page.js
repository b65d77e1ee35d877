"use strict";
// The page is whole without this: it adds the value under the pointer, and ways through rollouts.

const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Of each curve the point nearest to the pointer: [name, [x, y in pixels, step, value as text]].
function nearest(curves, x) {
  return curves.map(([name, points]) => {
    const near = (a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a);
    return [name, points.reduce(near)];
  });
}

function watch(svg) {
  const curves = JSON.parse(svg.dataset.curves);
  const pointer = svg.appendChild(element("g", { class: "pointer" }));
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  svg.parentElement.append(tip);

  function show(event) {
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    const found = nearest(curves, (event.clientX - box.left) * scale);
    const [, [x, , step]] = found[0];
    const top = Math.min(...found.map(([, point]) => point[1]));
    pointer.replaceChildren(
      element("line", { x1: x, x2: x, y1: 12, y2: svg.viewBox.baseVal.height - 26 }),
      ...found.map(([, [cx, cy]]) => element("circle", { cx, cy, r: 4 })),
    );
    const told = found.map(([name, point]) => (found.length > 1 ? `${name} ` : "") + point[3]);
    tip.textContent = `step ${step}: ${told.join(", ")}`;
    tip.hidden = false;
    const half = tip.offsetWidth / 2;
    const frame = svg.parentElement.getBoundingClientRect();
    const left = box.left - frame.left + x / scale;
    tip.style.left = `${Math.min(frame.width - half - 4, Math.max(half + 4, left))}px`;
    tip.style.top = `${box.top - frame.top + top / scale - 10}px`;
  }
  function hide() {
    pointer.replaceChildren();
    tip.hidden = true;
  }
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", hide);
}

// Shows the step that the address names, else the last one, and no other.
function openStep() {
  const steps = [...document.querySelectorAll(".step")];
  const chosen = steps.find((step) => `#${step.id}` === location.hash) ?? steps.at(-1);
  for (const step of steps) step.open = step === chosen;
  for (const cell of document.querySelectorAll(".strip a")) {
    cell.classList.toggle("open", cell.getAttribute("href") === `#${chosen?.id}`);
  }
}

// A link to the answers of a kind unfolds them.
function openNamed() {
  const named = location.hash.startsWith("#says-") && document.getElementById(location.hash.slice(1));
  if (!named) return;
  named.open = true;
  named.scrollIntoView();
}

function choose(button) {
  for (const other of document.querySelectorAll(".choices button")) {
    other.setAttribute("aria-pressed", String(other === button));
  }
  document.getElementById("rollouts").dataset.only = button.dataset.show;
}

document.querySelectorAll("svg[data-curves]").forEach(watch);
document.querySelectorAll(".choices button").forEach((button) => {
  button.addEventListener("click", () => choose(button));
});
document.getElementById("rollouts")?.classList.add("live");
for (const show of [openStep, openNamed]) {
  addEventListener("hashchange", show);
  show();
}
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("section > details:not(.step, .answers-of)")) part.open = true;
});
