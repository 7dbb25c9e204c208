// The brush has these controls above the photo: class, paint or erase, size, steps, save.

import { byId, element } from "../elements.js";

// Offer the classes to paint, {label, name, listed}; those that are listed come first.
export function drawClasses(classes, chosen) {
  const option = ({ label, name }) => element("option", { value: label, textContent: name, selected: label === chosen });
  const group = (label, entries) => (entries.length ? [element("optgroup", { label }, ...entries.map(option))] : []);
  byId("brush-class").replaceChildren(
    ...group("In this photo", classes.filter(({ listed }) => listed)),
    ...group("Others", classes.filter(({ listed }) => !listed)),
  );
}

// Show what the brush is now, and how far the mask is from the draft.
export function drawBar({ label, erasing, size, pixels, colour, strokes }) {
  byId("brush-class").value = label;
  byId("brush-swatch").style.backgroundColor = colour;
  byId("brush-paint").ariaPressed = String(!erasing);
  byId("brush-erase").ariaPressed = String(erasing);
  const across = Math.max(1, Math.round(2 * pixels));
  byId("brush-size").value = Math.round(100 * size);
  byId("brush-size").ariaValueText = byId("brush-size-value").textContent = `${across} px`;
  byId("brush-undo").disabled = !strokes.canUndo;
  byId("brush-redo").disabled = !strokes.canRedo;
}

// Call what is wanted: choose(label), erase(whether), resize(size), undo(), redo(), save(), leave().
export function receiveBar({ choose, erase, resize, undo, redo, save, leave }) {
  byId("brush-class").addEventListener("change", ({ target }) => choose(Number(target.value)));
  byId("brush-paint").addEventListener("click", () => erase(false));
  byId("brush-erase").addEventListener("click", () => erase(true));
  byId("brush-size").addEventListener("input", ({ target }) => resize(target.value / 100));
  for (const [id, act] of Object.entries({ undo, redo, save, leave })) byId(`brush-${id}`).addEventListener("click", act);
}
