// Regions of a mask on a canvas: filled, with a dark and a bright line where they end, and a place for each one's name.

const NAME_GRID = 160; // cells along the longer side, in which the places for names are sought

// Fill the regions, each {rle, color} with `color` as #rrggbb, and draw a line of full colour about each, a dark one beside it.
export function paintRegions(regions, forEachPixel, width, height, canvas) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  const owner = new Uint8Array(width * height); // 0: no region, else its number from 1
  regions.forEach(({ rle }, index) => forEachPixel(rle, (at) => {
    owner[at] = index + 1;
  }));
  const colours = regions.map(({ color }) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)));
  paint(new Uint32Array(picture.data.buffer), owner, colours, width, height);
  context.putImageData(picture, 0, 0);
}

const DARK = 0xe0000000;
const pixelOf = ([red, green, blue], opacity) => ((opacity << 24) | (blue << 16) | (green << 8) | red) >>> 0;

// A line is a five hundredth of the longer side wide, at least 1 px.
function paint(pixels, owner, colours, width, height) {
  const line = Math.max(1, Math.round(Math.max(width, height) / 500));
  const fills = [0, ...colours.map((colour) => pixelOf(colour, 150))];
  const lines = [0, ...colours.map((colour) => pixelOf(colour.map((part) => (2 * part + 255) / 3), 255))];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = y * width + x;
      const own = owner[at];
      if (!own) continue;
      const ends = (reach) =>
        (x >= reach && owner[at - reach] !== own) || (x + reach < width && owner[at + reach] !== own) ||
        (y >= reach && owner[at - reach * width] !== own) || (y + reach < height && owner[at + reach * width] !== own);
      pixels[at] = ends(line) ? DARK : ends(2 * line) ? lines[own] : fills[own];
    }
  }
}

// {x, y} for the name of a region, as shares of the sides: the place of a coarse grid that lies deepest in it.
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
