// What people do with the chat on screen: ask, ask otherwise, again, for more, go back to what was.

import { setAddress } from "./address.js";
import { isLive } from "./chat.js";
import { checkRoom, ServerError } from "./client.js";
import { runCommand, unknownCommand } from "./commands.js";
import { focusBox } from "./composer.js";
import { chat, draw, drawEnd, drawGrowth, keep, show, turnAt, warnOfStorage } from "./conversation.js";
import { $, el, iconButton } from "./dom.js";
import { failureText, sentence } from "./failure.js";
import { toast } from "./notice.js";
import { goOnWithReply, isRunning, startReply, stopReply } from "./reply.js";
import { excess, mayFill, requestFor } from "./request.js";
import { scoreReply } from "./scoring.js";
import { card, whenWell } from "./server.js";
import { changeSettings, settings } from "./settings.js";
import * as store from "./store.js";
import { placeOf, putAway, turnTo, withVersions } from "./versions.js";
import { copyButton, editMessage, paceOf, versionButtons } from "./view.js";

const TRIES = ["Who are you?", "What is 48 plus 37?", "Spell the word river."];
const ELSEWHERE = "A reply to this chat is coming in another tab: wait for it, or open a new chat.";

export function welcome() {
  const tries = TRIES.map((text) => {
    const button = el("button", { type: "button", textContent: text });
    button.addEventListener("click", () => send(text));
    return button;
  });
  const logo = el("img", { src: "/logo.svg", alt: "", width: 48, height: 48 });
  return el("div", { className: "welcome" }, logo, el("h2", { textContent: "What would you like to know?" }), el("div", {}, ...tries));
}

// Takes a message or a command; resolves to what is wrong with it, in words, or "".
export async function send(text) {
  if (isElsewhere()) return ELSEWHERE;
  if (unknownCommand(text)) return unknownCommand(text);
  const line = runCommand(text, commandPage());
  if (line !== null) {
    if (line) chat.messages.push({ role: "console", content: `${text.trim()}\n${line}` });
    if (line) keep();
    draw({ toEnd: true });
    return "";
  }
  return ask(text, () => [null]);
}

// Asks `text` as a version of what `make` takes out of the chat; resolves as `send` does.
async function ask(text, make) {
  const here = chat;
  const problem = excess(text, card?.limits) || (await overflow(text));
  if (problem) return problem;
  if (chat !== here) return "This was not sent: another chat was opened meanwhile.";
  const versions = make();
  chat.messages.push(withVersions({ role: "user", content: text }, versions));
  begin();
  return "";
}

// What is wrong with a message that the model cannot read to its end; the server counts its tokens.
async function overflow(text) {
  if (!card || !mayFill(text, chat.system, card.max_model_len)) return "";
  const system = chat.system ? [{ role: "system", content: chat.system }] : [];
  try {
    await checkRoom([...system, { role: "user", content: text }], settings.api_key);
  } catch (error) {
    if (!(error instanceof ServerError) || error.code !== "context_length_exceeded") return ""; // asking will tell
    return sentence(error.message.replace(/^the last/, "this")) + (chat.system ? " The system prompt counts, too." : "");
  }
  return "";
}

const commandPage = () => ({ settings, change: changeSettings, clear: startNew, system: tellSystem });

export function startNew() {
  setAddress(null);
  show(store.freshChat(true));
  focusBox();
}

function tellSystem(text) {
  if (text !== undefined) {
    chat.system = text;
    keep();
  }
  return chat.system ? `The system prompt is: ${chat.system}` : "There is no system prompt.";
}

function begin(versions) {
  setAddress(chat.id, true);
  startReply(chat, settings, TOLD, versions);
  draw({ toEnd: true });
}

const TOLD = { grew: drawGrowth, kept: warnOfStorage, ended };

function ended(reply, error) {
  const { message } = reply;
  if (error) {
    message.failure = failureText(error, message.parts.length > 0);
    if (!(error.status < 500 && error.status > 0)) whenWell();
  }
  const spoken = message.parts.map((part) => part.text).join("");
  $("status").textContent = error ? "" : message.finish === "stopped" ? "Stopped." : `Reply: ${spoken}`;
  drawEnd(reply.chat.id);
}

// What stands below a turn.

export function buttonsOf(message, place) {
  if (message.role === "console") return [];
  const [version, count] = placeOf(message);
  const others = count > 1 && !isRunning(chat.id) ? [versionButtons(version, count, (to, label) => turnBack(place, to, label))] : [];
  if (message.role === "user") return [...others, copyButton(message), editButton(place)];
  const said = message.parts.length > 0;
  const copy = said ? [copyButton(message)] : [];
  const pace = el("span", { className: "note", textContent: paceOf(message) });
  const again = iconButton("again", message.failure ? "Retry" : "Regenerate", () => regenerate(place));
  if (message.failure) again.append("Retry");
  const mend = message.failure && !said && chat.messages[place - 1]?.role === "user" ? [editButton(place - 1)] : [];
  for (const button of mend) button.append("Edit");
  return [...others, ...copy, again, ...mend, ...(wasCut(message, place) ? [goOnButton()] : []), pace];
}

const editButton = (place) => iconButton("pencil", "Edit", () => edit(place));

function goOnButton() {
  const button = el("button", { type: "button", className: "tiny more", textContent: "Continue" });
  button.addEventListener("click", goOn);
  return button;
}

function wasCut({ parts, finish, failure, full }, place) {
  const cut = ["length", "stopped", "left"].includes(finish) || failure || !finish;
  return place === chat.messages.length - 1 && parts.length > 0 && cut && !full;
}

function edit(place) {
  editMessage(turnAt(place), chat.messages[place].content, async (text) => {
    if (isElsewhere()) return ELSEWHERE;
    const problem = await ask(text, () => replaceFrom(place));
    if (!problem) focusBox();
    return problem;
  });
}

function regenerate(place) {
  if (isElsewhere()) return toast(ELSEWHERE, null, "chat");
  begin(replaceFrom(place));
}

function goOn() {
  if (isElsewhere()) return toast(ELSEWHERE, null, "chat");
  goOnWithReply(chat, settings, TOLD);
  draw({ toEnd: true });
}

// Makes room at `place` for another version; what was there stays one, unless it says nothing.
function replaceFrom(place) {
  stopReply(chat.id);
  return putAway(chat.messages, place);
}

function turnBack(place, number, label) {
  if (isElsewhere()) return toast(ELSEWHERE, null, "chat");
  turnTo(chat.messages, place, number);
  keep();
  draw();
  const arrows = [...turnAt(place).querySelectorAll(".versions button:enabled")];
  (arrows.find((arrow) => arrow.title === label) ?? arrows[0]).focus();
}

// Has the server say how likely each token of the reply at `place` is.
export async function score(place) {
  const [here, message] = [chat, chat.messages[place]];
  const { body } = requestFor({ ...here, messages: here.messages.slice(0, place + 1) }, settings, card?.limits);
  $("status").textContent = "Scoring the reply.";
  try {
    message.tokens = await scoreReply(body.messages, settings.api_key);
  } catch (error) {
    const why = error instanceof ServerError ? sentence(error.message) : "The server does not answer.";
    return toast(`Not scored: ${why}`, null, "chat");
  }
  warnOfStorage(store.saveChat(here));
  if (here === chat) draw();
}

// Another tab is receiving a reply to this very chat: writing to it now would lose one of the two.
function isElsewhere() {
  const kept = isRunning(chat.id) ? null : store.loadChat(chat.id);
  return kept !== null && isLive(kept);
}
