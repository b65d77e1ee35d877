// What every chat is asked with: the panel, the theme, and the switch of the token inspector.

import { $, byTouch } from "./dom.js";
import { dropToast, toast } from "./notice.js";
import * as store from "./store.js";

const NEXT_THEME = { "": "dark", dark: "light", light: "" };

export let settings = store.loadSettings();

export function changeSettings(changes) {
  settings = { ...settings, ...changes };
  store.saveSettings(settings);
  showSettings();
}

// What another tab changed.
export function reloadSettings() {
  settings = store.loadSettings();
  showSettings();
}

function showSettings() {
  for (const name of [...store.numbers, "logit_bias", "api_key"]) $(name).value = settings[name] ?? "";
  $("inspect").setAttribute("aria-pressed", String(settings.inspect));
  $("legend").hidden = !settings.inspect;
  const theme = settings.theme;
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  $("theme").title = `Theme: ${theme || "as the system"}`;
  $("theme").setAttribute("aria-label", $("theme").title);
  $("reset-settings").disabled = Object.entries(store.defaults()).every(([name, value]) => settings[name] === value);
}

// A refusal stays until its own field holds what is allowed.
const cause = (input) => `range of ${input.id}`;

function numberChanged({ target: input }) {
  const value = input.value !== "" ? Number(input.value) : input.validity.badInput ? NaN : null;
  dropToast(cause(input));
  if (store.allowed(input.id, value)) return changeSettings({ [input.id]: value });
  toast(`${input.dataset.name} must be between ${input.min} and ${input.max}; ${settings[input.id] ?? "the server's"} stays.`, null, cause(input));
  input.value = settings[input.id] ?? "";
}

function biasesChanged({ target: input }) {
  dropToast(cause(input));
  if (store.biasesOf(input.value)) return changeSettings({ logit_bias: input.value.trim() });
  toast(`${store.BIASES}.`, null, cause(input));
  input.value = settings.logit_bias;
}

function openPanel(open) {
  $("settings").hidden = !open;
  if (!open) for (const input of $("settings").querySelectorAll("input")) dropToast(cause(input));
  $("open-settings").setAttribute("aria-expanded", String(open));
  if (open) (byTouch() ? $("close-settings") : $("system")).focus(); // no keyboard that nobody asked for
}

function closePanel() {
  openPanel(false);
  $("open-settings").focus();
}

function reset() {
  const before = Object.fromEntries(Object.keys(store.defaults()).map((name) => [name, settings[name]]));
  changeSettings(store.defaults());
  $("close-settings").focus(); // the button has nothing more to do
  toast("Replies are chosen by the defaults again.", () => changeSettings(before));
}

// `onInspect` is called when the inspector is switched.
export function setUpSettings(onInspect) {
  for (const name of store.numbers) {
    [$(name).min, $(name).max] = store.range(name);
    $(name).addEventListener("change", numberChanged);
  }
  $("logit_bias").addEventListener("change", biasesChanged);
  $("api_key").addEventListener("change", () => changeSettings({ api_key: $("api_key").value.trim() }));
  $("theme").addEventListener("click", () => changeSettings({ theme: NEXT_THEME[settings.theme] }));
  $("inspect").addEventListener("click", () => {
    changeSettings({ inspect: !settings.inspect });
    onInspect();
  });
  $("open-settings").addEventListener("click", () => openPanel($("settings").hidden));
  $("settings").addEventListener("submit", (event) => event.preventDefault());
  $("close-settings").addEventListener("click", closePanel);
  $("reset-settings").addEventListener("click", reset);
  $("settings").addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    closePanel();
  });
  // Who goes on behind the panel, by pointer or by Tab, does not have it in front of them.
  for (const event of ["pointerdown", "focusin"])
    addEventListener(event, ({ target }) => {
      if (!$("settings").hidden && !target.closest?.("#settings, #open-settings, #toast")) openPanel(false);
    });
  showSettings();
}
