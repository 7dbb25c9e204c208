// Panes side by side show one photo, each under a layer of its own; zoom and pan are shared.

import { drawOver, drawRing } from "./drawing.js";

const MAX_ZOOM = 16;
export const STEP = 1.4; // One press of a zoom button or key zooms by this factor.
const CAPTION_HEIGHT = 30; // A pane's caption has this height in px, as in page.css.
const MIDDLE = 1; // A mouse calls its middle button so.
const GAP = 10; // Panes lie this many px apart, as in page.css.
const NARROW = matchMedia("(max-width: 820px)");

export class Viewer {
  #stage;
  #photo = null; // It is {bitmap or null, width, height}.
  #panes = []; // They are {title, note, layer, opacity, valueAt} and the elements that show them.
  #view = { zoom: 1, x: 0.5, y: 0.5 }; // x and y say what of the photo stands in the middle of a pane, as share of its sides.
  #pointers = new Map();
  #bare = false; // It tells whether the photo is shown without its layers.
  #cursor = null; // It is the place pointed at, as share of the photo's sides.
  #tool = null; // It draws on the photo, as `use` has it.
  #stroke = null; // This pointer draws.

  constructor(stage) {
    this.#stage = stage;
    new ResizeObserver(() => this.#arrange()).observe(stage.parentElement);
    NARROW.addEventListener("change", () => this.#arrange());
    stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    stage.addEventListener("pointerdown", (event) => this.#down(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => this.#up(event));
    stage.addEventListener("mousedown", (event) => this.#tool && event.button === MIDDLE && event.preventDefault()); // The page must not scroll by itself.
    stage.addEventListener("keyup", (event) => event.key === " " && this.compare(false));
    stage.addEventListener("blur", () => this.compare(false));
    stage.addEventListener("pointerleave", () => this.#point(null));
    stage.addEventListener("dblclick", (event) => this.#tool || this.zoom(this.#view.zoom > 1 ? 0 : 3, this.#placeOf(event)));
    stage.addEventListener("keydown", (event) => this.#key(event));
  }

  // Show the photo, and the panes over it, with this opacity of the layers. The part in view stays as long as the photo does.
  show(photo, panes, opacity) {
    if (photo !== this.#photo) this.#view = { zoom: 1, x: 0.5, y: 0.5 };
    this.#photo = photo;
    this.#panes = panes.map((pane) => ({ ...pane, opacity, ...paneElements(pane) }));
    this.#stage.replaceChildren(...this.#panes.map((pane) => pane.figure));
    this.#arrange();
  }

  // Let a tool draw on the photo, null for none: {radius, colour, begin(place), move(place), end(), cancel(), key(event, place)}.
  // Places are shares of the photo's sides, the radius one of its longer side; `key` gives back the place where the cursor is
  // then, null for a key that is not the tool's. Two fingers, or the mouse with Shift or its middle button, move the photo.
  use(tool) {
    this.#tool = tool;
    this.#cursor = null;
    this.#stage.classList.toggle("drawing", Boolean(tool));
    this.draw();
  }

  // Show nothing but a sentence.
  clear(sentence) {
    this.#photo = null;
    this.#panes = [];
    const paragraph = document.createElement("p");
    paragraph.textContent = sentence;
    this.#stage.replaceChildren(paragraph);
    this.#stage.removeAttribute("style");
  }

  // Draw again, with this opacity of the layers.
  draw(opacity) {
    this.#stage.classList.toggle("zoomed", this.#view.zoom > 1);
    if (opacity !== undefined) for (const pane of this.#panes) pane.opacity = opacity;
    for (const pane of this.#panes) this.#drawPane(pane);
  }

  // Show the photo alone while it is compared with what lies over it.
  compare(bare) {
    if (bare === this.#bare) return;
    this.#bare = bare;
    this.draw();
  }

  // Zoom by a factor about a place; factor 0 shows the whole photo.
  zoom(factor, place = null) {
    const { zoom, x, y } = this.#view;
    const next = factor ? Math.min(MAX_ZOOM, Math.max(1, zoom * factor)) : 1;
    const about = place ?? { x, y };
    this.#view = { zoom: next, x: about.x + ((x - about.x) * zoom) / next, y: about.y + ((y - about.y) * zoom) / next };
    this.draw();
  }

  // Choose columns and heights that show the photo as large as the stage allows.
  #arrange() {
    if (!this.#photo || !this.#panes.length) return;
    const { width, height } = this.#photo;
    const count = this.#panes.length;
    const stage = this.#stage;
    stage.style.removeProperty("height");
    const room = stage.getBoundingClientRect();
    const wide = (columns) => (room.width - GAP * (columns - 1)) / columns;
    let columns = 1;
    if (NARROW.matches) {
      const tall = Math.min((wide(1) * height) / width, innerHeight * (count > 1 ? 0.45 : 0.6)) + CAPTION_HEIGHT;
      stage.style.height = `${Math.round(count * tall + GAP * (count - 1))}px`;
    } else {
      const scale = (number) => {
        const rows = Math.ceil(count / number);
        const tall = (room.height - GAP * (rows - 1)) / rows - CAPTION_HEIGHT;
        return Math.min(wide(number) / width, tall / height);
      };
      for (let number = 2; number <= count; number++) if (scale(number) > scale(columns)) columns = number;
    }
    stage.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    for (const pane of this.#panes) {
      const box = pane.canvas.getBoundingClientRect();
      pane.canvas.width = Math.max(1, Math.round(box.width * devicePixelRatio));
      pane.canvas.height = Math.max(1, Math.round(box.height * devicePixelRatio));
    }
    this.draw();
  }

  // Give the pixels of the canvas per pixel of the photo, and where the photo's corner lies; the view is kept within the photo.
  #placement(canvas) {
    const { width, height } = this.#photo;
    const scale = Math.min(canvas.width / width, canvas.height / height) * this.#view.zoom;
    for (const [axis, size, room] of [["x", width * scale, canvas.width], ["y", height * scale, canvas.height]]) {
      const half = Math.min(0.5, room / size / 2);
      this.#view[axis] = Math.min(1 - half, Math.max(half, this.#view[axis]));
    }
    const left = canvas.width / 2 - this.#view.x * width * scale;
    const top = canvas.height / 2 - this.#view.y * height * scale;
    return { left, top, width: width * scale, height: height * scale };
  }

  #drawPane(pane) {
    const { canvas, layer } = pane;
    const context = canvas.getContext("2d");
    const { left, top, width, height } = this.#placement(canvas);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    if (this.#photo.bitmap) {
      context.drawImage(this.#photo.bitmap, left, top, width, height);
    } else {
      context.fillStyle = "#777";
      context.fillRect(left, top, width, height);
    }
    if (layer && !this.#bare) drawOver(context, pane, { left, top, width, height }, devicePixelRatio);
    if (this.#cursor && this.#tool) {
      const radius = Math.max(2 * devicePixelRatio, this.#tool.radius * Math.max(width, height));
      drawRing(context, left + this.#cursor.x * width, top + this.#cursor.y * height, radius, ["#000c", "#fff", this.#tool.colour]);
    }
    if (this.#cursor && this.#panes.length > 1) {
      drawRing(context, left + this.#cursor.x * width, top + this.#cursor.y * height, 6 * devicePixelRatio, ["#000a", "#fff"]);
    }
  }

  // Give the place of the photo under a pointer, as share of its sides; null beside every pane, unless a stroke has led there.
  #placeOf(event, anywhere = false) {
    const pane = this.#panes.find(({ figure }) => {
      const box = figure.getBoundingClientRect();
      return event.clientX >= box.left && event.clientX < box.right && event.clientY >= box.top && event.clientY < box.bottom;
    }) ?? (anywhere ? this.#panes[0] : null);
    if (!pane) return null;
    const box = pane.canvas.getBoundingClientRect();
    const { left, top, width, height } = this.#placement(pane.canvas);
    return {
      x: ((event.clientX - box.left) * devicePixelRatio - left) / width,
      y: ((event.clientY - box.top) * devicePixelRatio - top) / height,
    };
  }

  #point(place) {
    const inside = place && place.x >= 0 && place.x < 1 && place.y >= 0 && place.y < 1;
    this.#cursor = inside ? place : null;
    for (const pane of this.#panes) pane.readout.textContent = inside ? (pane.valueAt?.(place) ?? "") : "";
    if (this.#panes.length > 1 || this.#tool) this.draw();
  }

  // Bring a place into view, where the photo is zoomed.
  #reveal({ x, y }) {
    const half = 0.4 / this.#view.zoom;
    this.#view.x = Math.min(Math.max(this.#view.x, x - half), x + half);
    this.#view.y = Math.min(Math.max(this.#view.y, y - half), y + half);
  }

  #wheel(event) {
    if (!this.#panes.length || (NARROW.matches && !event.ctrlKey)) return;
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0018)), this.#placeOf(event));
  }

  #down(event) {
    this.#pointers.set(event.pointerId, event);
    this.#stage.setPointerCapture(event.pointerId);
    if (!this.#tool) return;
    if (this.#stroke !== null) this.#finish("cancel"); // A second finger moves the photo.
    else if (this.#pointers.size === 1 && !event.button && !event.shiftKey) {
      const place = this.#placeOf(event);
      if (!place) return;
      this.#stroke = event.pointerId;
      this.#tool.begin(place);
      this.#point(place);
    }
  }

  #up(event) {
    this.#pointers.delete(event.pointerId);
    if (event.pointerId === this.#stroke) this.#finish(event.type === "pointerup" ? "end" : "cancel");
    if (event.pointerType === "touch") this.#point(null);
  }

  // End the stroke that is being made, or call it off.
  #finish(how) {
    this.#stroke = null;
    this.#tool?.[how]();
  }

  #move(event) {
    const before = this.#pointers.get(event.pointerId);
    if (event.pointerId === this.#stroke) {
      const passed = event.getCoalescedEvents();
      for (const each of passed.length ? passed : [event]) this.#tool.move(this.#placeOf(each, true));
    }
    if (!before || event.pointerId === this.#stroke) {
      this.#point(this.#placeOf(event));
      return;
    }
    const other = [...this.#pointers.values()].find(({ pointerId }) => pointerId !== event.pointerId);
    const canvas = this.#panes[0]?.canvas;
    if (!canvas) return;
    const { width, height } = this.#placement(canvas);
    const share = other ? 0.5 : 1; // Of two fingers each moves the photo by half.
    this.#view.x -= (share * (event.clientX - before.clientX) * devicePixelRatio) / width;
    this.#view.y -= (share * (event.clientY - before.clientY) * devicePixelRatio) / height;
    this.#pointers.set(event.pointerId, event);
    if (other) this.zoom(distance(event, other) / Math.max(1, distance(before, other)));
    else this.draw();
  }

  #key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const place = this.#panes.length && this.#tool?.key(event, this.#cursor ?? { x: this.#view.x, y: this.#view.y });
    if (place) {
      this.#reveal(place);
      this.#point(place);
      event.preventDefault();
    }
    if (place || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in moves && this.#view.zoom > 1) {
      const [x, y] = moves[event.key];
      this.#view.x += (0.1 * x) / this.#view.zoom;
      this.#view.y += (0.1 * y) / this.#view.zoom;
      this.draw();
    } else if (["+", "=", "-", "0"].includes(event.key)) {
      this.zoom({ "+": STEP, "=": STEP, "-": 1 / STEP, 0: 0 }[event.key]);
    } else if (event.key === " ") {
      this.compare(true);
    } else return;
    event.preventDefault();
  }
}

function paneElements({ title, note, description }) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const [name, aside, readout] = ["b", "span", "output"].map((tag) => document.createElement(tag));
  name.textContent = title;
  aside.textContent = note ?? "";
  caption.append(name, aside, readout);
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", description);
  figure.append(caption, canvas);
  return { figure, canvas, readout };
}

function distance(one, other) {
  return Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
}
