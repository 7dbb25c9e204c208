// Regions of a mask are drawn on a canvas: filled, with a dark and a bright line where they end, and a place for each one's name.

export const IGNORED = "#e0e0c0"; // The service paints the label 255 so.
const NAME_GRID = 160; // Places for names are sought in this many cells along the longer side.

// Fill the regions, each {rle, color} with `color` as #rrggbb, and draw a line of full colour about each, a dark one beside it.
export function paintRegions(regions, forEachPixel, width, height, canvas) {
  canvas.width = width;
  canvas.height = height;
  const values = new Uint8Array(width * height); // 0 is no region, any other its number from 1.
  regions.forEach(({ rle }, index) => forEachPixel(rle, (at) => {
    values[at] = index + 1;
  }));
  const colours = new Map(regions.map(({ color }, index) => [index + 1, color]));
  paintLabels(canvas.getContext("2d"), { values, width, height }, colours, { left: 0, top: 0, right: width, bottom: height });
}

const DARK = 0xe0000000;
const pixelOf = ([red, green, blue], opacity) => ((opacity << 24) | (blue << 16) | (green << 8) | red) >>> 0;

// Draw what of labels lies in a box, label -> colour as #rrggbb; 0 is left out. A line is a five hundredth of the longer side
// wide, at least 1 px.
export function paintLabels(context, { values, width, height }, colours, { left, top, right, bottom }) {
  const picture = context.createImageData(right - left, bottom - top);
  const pixels = new Uint32Array(picture.data.buffer);
  const line = lineOf(width, height);
  const [fills, lines] = [new Uint32Array(256), new Uint32Array(256)];
  for (const [label, colour] of colours) {
    const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
    fills[label] = pixelOf(parts, 150);
    lines[label] = pixelOf(parts.map((part) => (2 * part + 255) / 3), 255);
  }
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++) {
      const at = y * width + x;
      const own = values[at];
      if (!own) continue;
      const ends = (reach) =>
        (x >= reach && values[at - reach] !== own) || (x + reach < width && values[at + reach] !== own) ||
        (y >= reach && values[at - reach * width] !== own) || (y + reach < height && values[at + reach * width] !== own);
      pixels[(y - top) * (right - left) + x - left] = ends(line) ? DARK : ends(2 * line) ? lines[own] : fills[own];
    }
  }
  context.putImageData(picture, left, top);
}

// A change in a box changes the lines about it, too.
export function withLines({ left, top, right, bottom }, { width, height }) {
  const reach = 2 * lineOf(width, height);
  return {
    left: Math.max(0, left - reach), top: Math.max(0, top - reach),
    right: Math.min(width, right + reach), bottom: Math.min(height, bottom + reach),
  };
}

function lineOf(width, height) {
  return Math.max(1, Math.round(Math.max(width, height) / 500));
}

// Give {x, y} for the name of a region, as shares of the sides: the place of a coarse grid that lies deepest in it.
export function placeOf({ rle }, forEachPixel) {
  const [height, width] = rle.size;
  const cell = Math.max(1, Math.ceil(Math.max(width, height) / NAME_GRID));
  const [columns, rows] = [width, height].map((side) => Math.ceil(side / cell));
  const depth = new Float32Array(columns * rows);
  forEachPixel(rle, (at) => {
    depth[Math.floor(Math.floor(at / width) / cell) * columns + Math.floor((at % width) / cell)] = Infinity;
  });
  const next = (x, y) => (x < 0 || y < 0 || x >= columns || y >= rows ? 0 : depth[y * columns + x]);
  const step = (x, y, sign) => {
    const at = y * columns + x;
    depth[at] = Math.min(depth[at], next(x - sign, y) + 1, next(x, y - sign) + 1);
  };
  for (let y = 0; y < rows; y++) for (let x = 0; x < columns; x++) step(x, y, 1);
  for (let y = rows - 1; y >= 0; y--) for (let x = columns - 1; x >= 0; x--) step(x, y, -1);
  const deepest = depth.reduce((best, value, at) => (value > depth[best] ? at : best), 0);
  return { x: ((deepest % columns) + 0.5) / columns, y: (Math.floor(deepest / columns) + 0.5) / rows };
}
