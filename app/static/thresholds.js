// The pseudo-label has two thresholds: at or below the first a pixel is background, above the second it gets a class,
// between the two it is ignored. Null in the state means what the service does of itself: the model's first threshold, and
// a second one equal to it. A second one that the first has passed is not sent; it holds again once the first lies below it.

import { byId, show } from "./elements.js";

// Draw both sliders; `own` is the model's threshold.
export function drawThresholds(state, own) {
  const low = state.background ?? own;
  const high = Math.max(low, state.foreground ?? low);
  for (const [id, value] of [["background", low], ["foreground", high]]) {
    byId(id).value = Math.round(100 * value);
    byId(id).ariaValueText = value.toFixed(2);
    byId(`${id}-value`).textContent = value.toFixed(2);
  }
  byId("thresholds-section").style.setProperty("--low", low);
  byId("thresholds-section").style.setProperty("--high", high);
  show("thresholds-reset", state.background !== null || state.foreground !== null);
}

// Give the second threshold where it lies above the first, else null.
export function foregroundAbove(low, foreground) {
  return foreground > low ? foreground : null;
}

// Call `move(changes)` while a slider moves, `settle(changes)` once it rests. The second cannot be moved below the first.
export function receiveThresholds(move, settle) {
  const changes = {
    background: (background) => ({ background }),
    foreground: (foreground) => ({ foreground: foregroundAbove(byId("background").value / 100, foreground) }),
  };
  for (const id of ["background", "foreground"]) {
    byId(id).addEventListener("input", () => move(changes[id](byId(id).value / 100)));
    byId(id).addEventListener("change", () => settle(changes[id](byId(id).value / 100)));
  }
  byId("thresholds-reset").addEventListener("click", () => {
    settle({ background: null, foreground: null });
    byId("background").focus();
  });
}
