// The brush: what a pointer or the keys do on the photo becomes strokes on the mask.

const SMALLEST = 0.5; // In px of the photo: the brush then covers one pixel.
const LARGEST_SHARE = 0.15; // The largest brush has this radius, as a share of the photo's longer side.
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const JUST_INSIDE = 1e-9; // It is a share of a side.

export class Brush {
  #from = null; // The stroke is drawn up to this place, in pixels.

  // label: what is painted; erased: what is painted where `erasing`; size: from 0 to 1; painted(box): called for what changed.
  constructor(strokes, { label, erased, size, colourOf, painted }) {
    Object.assign(this, { strokes, label, erased, size, colourOf, painted, erasing: false });
  }

  // The size is a share of the photo's longer side; small sizes are finely graded.
  get radius() {
    return this.pixels / Math.max(this.strokes.width, this.strokes.height);
  }

  // The radius is in pixels of the photo.
  get pixels() {
    return Math.max(SMALLEST, LARGEST_SHARE * this.size ** 2 * Math.max(this.strokes.width, this.strokes.height));
  }

  get colour() {
    return this.colourOf(this.erasing ? this.erased : this.label);
  }

  begin(place) {
    if (this.strokes.isOpen) this.end(); // The keys had put it down.
    this.strokes.begin(this.erasing ? this.erased : this.label);
    this.#from = null;
    this.move(place);
  }

  move(place) {
    const to = this.pixelAt(place);
    const box = this.strokes.draw(this.#from ?? to, to, this.pixels);
    this.#from = to;
    if (box) this.painted(box);
  }

  end() {
    this.strokes.end();
    this.painted(null);
  }

  cancel() {
    this.painted(this.strokes.cancel());
  }

  // Arrows move the brush, by its radius or with Shift by a pixel; Enter puts it down and lifts it. Where it goes meanwhile is
  // painted. Gives back the new place, null for any other key.
  key(event, place) {
    if (event.ctrlKey || event.metaKey || event.altKey) return null;
    if (event.key === "Enter") {
      if (this.strokes.isOpen) this.end();
      else this.begin(place);
      return place;
    }
    if (!(event.key in MOVES)) return null;
    const step = event.shiftKey ? 1 : Math.max(1, Math.round(this.pixels));
    const [across, down] = MOVES[event.key];
    const next = {
      x: inside(place.x + (across * step) / this.strokes.width),
      y: inside(place.y + (down * step) / this.strokes.height),
    };
    if (this.strokes.isOpen) this.move(next);
    return next;
  }

  pixelAt({ x, y }) {
    return { x: x * this.strokes.width, y: y * this.strokes.height };
  }
}

function inside(share) {
  return Math.min(1 - JUST_INSIDE, Math.max(0, share));
}
