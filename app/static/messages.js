// Besides results the page says what it is doing, and what was refused.

import { byId, show } from "./elements.js";

const SHORT_MS = 2500;
let timer = 0;

// Say what goes on, with a moving bar; an empty text ends it.
export function busy(text) {
  clearTimeout(timer);
  byId("status").textContent = text;
  show("progress", Boolean(text));
  byId("main").ariaBusy = String(Boolean(text));
}

// Say something that passes.
export function say(text) {
  busy(text);
  show("progress", false);
  timer = setTimeout(() => busy(""), SHORT_MS);
}

// Say what was refused, and offer to try again where that may help. What is `lasting` is about other files than the one in
// view, so it stays when that one is shown.
export function complain(text, { retry = null, lasting = false } = {}) {
  byId("alert-text").textContent = text;
  byId("alert").dataset.lasting = String(lasting);
  show("alert-retry", Boolean(retry));
  byId("alert-retry").onclick = () => {
    calm();
    retry();
  };
  show("alert", true);
}

// Take the complaint away.
export function calm() {
  show("alert", false);
  byId("alert-text").textContent = "";
}

// Take the complaint away, unless it is to last.
export function settle() {
  if (byId("alert").dataset.lasting !== "true") calm();
}
