// Here the mask in view is corrected, from the draft to the mask that is saved.

import { byId, show } from "../elements.js";
import { busy, complain, say } from "../messages.js";
import { IGNORED, paintLabels, withLines } from "../regions.js";
import { askForLabels } from "../requests.js";
import { drawBar, drawClasses, receiveBar } from "./bar.js";
import { Brush } from "./brush.js";
import { sendCorrection } from "./sending.js";
import { Strokes } from "./strokes.js";

const FIRST_SIZE = 0.4;
const SIZE_STEP = 0.06; // One press of a key changes the size by this much.
const BARE = "#8a8f8d"; // The ring that erases has this colour.
const ESCAPE = "Escape";

export class Correcting {
  #viewer;
  #ended;
  #brush = null; // It is null while nothing is corrected.
  #draft = null; // It is {photo, request, model}.
  #layer = null; // It is a canvas.
  #colours = new Map(); // Each label has its colour; the background has none.
  #names = new Map(); // Each label has its class.
  #size = FIRST_SIZE;

  // ended(): called when the mask is saved or left.
  constructor(viewer, ended) {
    this.#viewer = viewer;
    this.#ended = ended;
    receiveBar({
      choose: (label) => this.#set({ label, erasing: false }),
      erase: (erasing) => this.#set({ erasing }),
      resize: (size) => this.#set({ size }),
      undo: () => this.#step("undo"),
      redo: () => this.#step("redo"),
      save: () => this.#save(),
      leave: () => this.#leave(),
    });
    document.addEventListener("keydown", (event) => this.#shortcut(event));
    byId("stage").addEventListener("blur", () => this.#brush?.strokes.isOpen && this.#brush.end());
    addEventListener("beforeunload", (event) => this.#brush?.strokes.canUndo && event.preventDefault());
  }

  get active() {
    return this.#brush !== null;
  }

  // Start from the mask of a photo that is shown, or from what was saved of it, with the classes of its model.
  async begin(photo, { requests: [request], model }, served, opacity) {
    busy("Getting the mask …");
    try {
      const [mask, labels] = await Promise.all([askForLabels(photo, request, {}), served.labelsOf(model)]);
      const saved = photo.corrected?.model === model ? photo.corrected.values : mask.values;
      this.#draft = { photo, request, model };
      this.#take(new Strokes({ ...mask, values: saved }, mask.values), labels, photo.tags);
      busy("");
      this.#open(photo, opacity);
    } catch (error) {
      busy("");
      complain(error.message);
    }
  }

  // Take a brush of the class that has most of the photo.
  #take(strokes, { classes, background, ignore }, tags) {
    const pixels = new Uint32Array(256); // They are counted for every label.
    for (const label of strokes.values) pixels[label]++;
    const painted = classes.map(({ label, class: name, display_color: color }) => {
      return { label, name, color, listed: pixels[label] > 0 || tags.includes(name) };
    });
    const chosen = painted.reduce((best, entry) => (worth(entry, pixels) > worth(best, pixels) ? entry : best)).label;
    painted.push({ label: ignore, name: "ignored", color: IGNORED, listed: pixels[ignore] > 0 });
    this.#colours = new Map(painted.map(({ label, color }) => [label, color]));
    this.#names = new Map([[background, "background"], ...painted.map(({ label, name }) => [label, name])]);
    this.#brush = new Brush(strokes, {
      label: chosen, erased: background, size: this.#size,
      colourOf: (label) => this.#colours.get(label) ?? BARE,
      painted: (box) => this.#paint(box),
    });
    drawClasses(painted, chosen);
  }

  #open(photo, opacity) {
    const { strokes } = this.#brush;
    this.#layer = Object.assign(document.createElement("canvas"), { width: strokes.width, height: strokes.height });
    const valueAt = ({ x, y }) => this.#names.get(strokes.labelAt(this.#brush.pixelAt({ x, y })));
    const pane = { title: this.#draft.request.title, note: "correction", description: `The mask of ${photo.name} to be corrected`, layer: this.#layer, valueAt };
    this.#toggle(true);
    this.#viewer.show(photo, [pane], opacity);
    this.#paint({ left: 0, top: 0, right: strokes.width, bottom: strokes.height });
    const brush = this.#brush;
    this.#viewer.use({
      get radius() { return brush.radius; },
      get colour() { return brush.colour; },
      begin: (place) => brush.begin(place),
      move: (place) => brush.move(place),
      end: () => brush.end(),
      cancel: () => brush.cancel(),
      key: (event, place) => this.#key(event, place),
    });
    byId("stage").focus();
  }

  // While a mask is corrected the page shows the brush in the place of the views, and none of the other controls.
  #toggle(correcting) {
    byId("work").classList.toggle("correcting", correcting);
    for (const id of ["brush", "brush-end"]) show(id, correcting);
    byId("strip").inert = correcting;
    byId("stage").setAttribute("aria-describedby", correcting ? "brush-keys" : "stage-keys");
    byId("caption").textContent = "";
    if (correcting) byId("brush").scrollIntoView({ block: "nearest" });
  }

  // Draw what a stroke has changed, and say how far the mask is from the draft once the stroke is done.
  #paint(box) {
    const { strokes } = this.#brush;
    if (box) paintLabels(this.#layer.getContext("2d"), strokes, this.#colours, withLines(box, strokes));
    this.#viewer.draw();
    drawBar(this.#brush);
    if (strokes.isOpen) return;
    const changed = strokes.changed();
    byId("caption").textContent = changed ? `${changed.toLocaleString("en")} pixels differ from the draft.` : "This is the model's draft. Paint what it missed, erase what is wrong.";
  }

  #set(changes) {
    Object.assign(this.#brush, changes);
    this.#brush.size = this.#size = Math.min(1, Math.max(0, this.#brush.size));
    drawBar(this.#brush);
    this.#viewer.draw();
  }

  #step(way) {
    const { strokes } = this.#brush;
    if (strokes.isOpen) this.#brush.end();
    const box = strokes[way]();
    if (box) this.#paint(box);
  }

  // Do what a key does on the photo; give back the place of the brush then, null for a key that is none of the brush's.
  #key(event, place) {
    const moved = this.#brush.key(event, place);
    if (moved) return moved;
    if ((event.ctrlKey || event.metaKey) && !event.altKey) return null; // With Alt it is AltGr, by which some write brackets.
    const acts = {
      b: () => this.#set({ erasing: false }),
      e: () => this.#set({ erasing: true }),
      "[": () => this.#set({ size: this.#size - SIZE_STEP }),
      "]": () => this.#set({ size: this.#size + SIZE_STEP }),
      [ESCAPE]: () => this.#brush.strokes.isOpen && this.#brush.cancel(),
    };
    const option = byId("brush-class").options[Number(event.key) - 1];
    if (option) this.#set({ label: Number(option.value), erasing: false });
    else if (event.key in acts) acts[event.key]();
    else return null;
    return place;
  }

  #shortcut(event) {
    if (!this.active || !(event.ctrlKey || event.metaKey) || event.altKey) return;
    const way = { z: event.shiftKey ? "redo" : "undo", y: "redo" }[event.key.toLowerCase()];
    if (!way) return;
    event.preventDefault();
    this.#step(way);
  }

  async #save() {
    const { photo, request, model } = this.#draft;
    const { strokes } = this.#brush;
    if (strokes.isOpen) this.#brush.end();
    busy("Saving …");
    byId("brush-save").disabled = true;
    try {
      const { name } = await sendCorrection(photo, request, model, strokes, strokes.changed());
      photo.corrected = { model, values: strokes.values, layer: this.#layer };
      this.#end();
      say(`The correction of ${name} is saved.`);
    } catch (error) {
      busy("");
      complain(`The correction is not saved: ${error.message}`);
    }
    byId("brush-save").disabled = false;
  }

  #leave() {
    if (this.#brush.strokes.canUndo && !confirm("Leave without saving? The strokes are lost.")) return;
    this.#end();
  }

  #end() {
    this.#brush = null;
    this.#viewer.use(null);
    this.#toggle(false);
    this.#ended();
    byId("correct").focus({ preventScroll: true });
  }
}

// Give what was saved of a photo, beside the draft; nothing where it is of another model.
export function correctedPanes({ name, corrected }, model) {
  if (!corrected || corrected.model !== model) return [];
  return [{ title: "Corrected", note: "yours", description: `The mask of ${name} as you corrected it`, layer: corrected.layer }];
}

// A class that is there goes before a tag that is not, and that before the others.
function worth({ label, listed }, pixels) {
  return pixels[label] + (listed ? 1 : 0);
}
