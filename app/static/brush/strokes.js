// It holds a mask while it is corrected: the label of every pixel, the strokes that change it, and the way back from each.

const MOST_KEPT = 64_000_000; // What strokes replaced may take this many bytes; where it takes more, the oldest stroke cannot be undone.

// Boxes are {left, top, right, bottom} in pixels, the last two outside; places are {x, y} in pixels, 0.5 the first one's centre.
export class Strokes {
  #before = null; // These are the labels before the stroke that is being made.
  #box = null; // That stroke has touched this.
  #label = 0;
  #done = []; // Each {box, values} is what a stroke replaced.
  #undone = []; // They are the same of strokes taken back.

  // values: the labels, row by row, which stay the caller's; draft: those that the changed pixels are counted against.
  constructor({ width, height, values }, draft = values) {
    this.width = width;
    this.height = height;
    this.values = values.slice();
    this.draft = draft;
  }

  get canUndo() {
    return this.#done.length > 0;
  }

  get canRedo() {
    return this.#undone.length > 0;
  }

  get isOpen() {
    return this.#before !== null;
  }

  // So many pixels differ from the draft.
  changed() {
    return this.values.reduce((count, label, at) => count + (label !== this.draft[at]), 0);
  }

  labelAt({ x, y }) {
    return this.values[Math.floor(y) * this.width + Math.floor(x)];
  }

  begin(label) {
    this.#label = label;
    this.#before = this.values.slice();
    this.#box = null;
  }

  // Draw on from one place to another with a round brush; gives back the box that it touched, null where that is nothing.
  draw(from, to, radius) {
    const [start, end] = [from, to].map(({ x, y }) => ({ x: Math.floor(x) + 0.5, y: Math.floor(y) + 0.5 }));
    const box = {
      left: Math.max(0, Math.floor(Math.min(start.x, end.x) - radius)),
      top: Math.max(0, Math.floor(Math.min(start.y, end.y) - radius)),
      right: Math.min(this.width, Math.ceil(Math.max(start.x, end.x) + radius)),
      bottom: Math.min(this.height, Math.ceil(Math.max(start.y, end.y) + radius)),
    };
    if (box.left >= box.right || box.top >= box.bottom) return null;
    for (let y = box.top; y < box.bottom; y++) {
      for (let x = box.left; x < box.right; x++) {
        if (squareDistance(x + 0.5, y + 0.5, start, end) <= radius * radius) this.values[y * this.width + x] = this.#label;
      }
    }
    this.#box = this.#box ? around(this.#box, box) : box;
    return box;
  }

  // The stroke is done, and can be undone where it changed something.
  end() {
    if (this.#box) {
      const values = this.#cut(this.#before, this.#box);
      const now = this.#cut(this.values, this.#box);
      if (values.some((label, at) => label !== now[at])) {
        this.#done.push({ box: this.#box, values });
        this.#undone = [];
        this.#forget();
      }
    }
    this.#before = null;
  }

  // The stroke was none; gives back what it had touched.
  cancel() {
    if (this.#box) this.#paste(this.#box, this.#cut(this.#before, this.#box));
    this.#before = null;
    return this.#box;
  }

  // Take the last stroke back, or make it again: gives back the box that changed, null where there is no such stroke.
  undo() {
    return this.#swap(this.#done, this.#undone);
  }

  redo() {
    return this.#swap(this.#undone, this.#done);
  }

  #swap(from, to) {
    const step = from.pop();
    if (!step) return null;
    to.push({ box: step.box, values: this.#cut(this.values, step.box) });
    this.#paste(step.box, step.values);
    return step.box;
  }

  #forget() {
    let kept = this.#done.reduce((sum, { values }) => sum + values.length, 0);
    while (kept > MOST_KEPT && this.#done.length > 1) kept -= this.#done.shift().values.length;
  }

  #cut(values, { left, top, right, bottom }) {
    const part = new Uint8Array((right - left) * (bottom - top));
    for (let y = top; y < bottom; y++) part.set(values.subarray(y * this.width + left, y * this.width + right), (y - top) * (right - left));
    return part;
  }

  #paste({ left, top, right, bottom }, part) {
    for (let y = top; y < bottom; y++) {
      this.values.set(part.subarray((y - top) * (right - left), (y - top + 1) * (right - left)), y * this.width + left);
    }
  }
}

function around(one, other) {
  return {
    left: Math.min(one.left, other.left), top: Math.min(one.top, other.top),
    right: Math.max(one.right, other.right), bottom: Math.max(one.bottom, other.bottom),
  };
}

// Give the distance of a point from the line between two places, squared.
function squareDistance(x, y, start, end) {
  const [across, down] = [end.x - start.x, end.y - start.y];
  const length = across * across + down * down;
  const along = length ? Math.min(1, Math.max(0, ((x - start.x) * across + (y - start.y) * down) / length)) : 0;
  return (x - start.x - along * across) ** 2 + (y - start.y - along * down) ** 2;
}
