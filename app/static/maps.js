// Maps (values in [0, 1], row by row) are computed with and coloured here.

// The service uses this polynomial of matplotlib's "inferno" as well; the constant term comes first, one triple per power.
const INFERNO = [
  [0.0002189403691192265, 0.001651004631001012, -0.01948089843709184],
  [0.1065134194856116, 0.5639564367884091, 3.932712388889277],
  [11.60249308247187, -3.972853965665698, -15.9423941062914],
  [-41.70399613139459, 17.43639888205313, 44.35414519872813],
  [77.162935699427, -33.40235894210092, -81.80730925738993],
  [-71.31942824499214, 32.62606426397723, 73.20951985803202],
  [25.13112622477341, -12.24266895238567, -23.07032500287172],
];

// They are 256 RGB triples, dark for 0 and light for 1.
export const HEAT = Array.from({ length: 256 }, (_, index) =>
  [0, 1, 2].map((channel) => {
    const value = INFERNO.reduceRight((sum, power) => sum * (index / 255) + power[channel], 0);
    return Math.round(255 * Math.min(1, Math.max(0, value)));
  }),
);

// Enlarge bilinearly, with pixel centres at halves, as the service enlarges its maps.
export function resample({ width, height, values }, newWidth, newHeight) {
  const columns = positions(width, newWidth);
  const rows = positions(height, newHeight);
  const result = new Float32Array(newWidth * newHeight);
  for (let y = 0; y < newHeight; y++) {
    const { low: top, high: bottom, part: down } = rows[y];
    for (let x = 0; x < newWidth; x++) {
      const { low, high, part } = columns[x];
      const above = values[top * width + low] * (1 - part) + values[top * width + high] * part;
      const below = values[bottom * width + low] * (1 - part) + values[bottom * width + high] * part;
      result[y * newWidth + x] = above * (1 - down) + below * down;
    }
  }
  return { width: newWidth, height: newHeight, values: result };
}

function positions(size, newSize) {
  return Array.from({ length: newSize }, (_, index) => {
    const exact = Math.min(size - 1, Math.max(0, ((index + 0.5) * size) / newSize - 0.5));
    const low = Math.floor(exact);
    return { low, high: Math.min(size - 1, low + 1), part: exact - low };
  });
}

// Give where maps of one size differ: per pixel the largest minus the smallest value, or the standard deviation.
export function disagreement(maps, measure) {
  const { width, height } = maps[0];
  const values = new Float32Array(width * height);
  for (let index = 0; index < values.length; index++) {
    const here = maps.map((map) => map.values[index]);
    if (measure === "range") {
      values[index] = Math.max(...here) - Math.min(...here);
    } else {
      const mean = average(here);
      values[index] = Math.sqrt(average(here.map((value) => (value - mean) ** 2)));
    }
  }
  return { width, height, values };
}

export function average(values) {
  let sum = 0;
  for (const value of values) sum += value;
  return sum / values.length;
}

// Draw a map in colours on a canvas: the higher the value, the more opaque; transparent where it does not exceed the threshold.
export function paintMap({ width, height, values }, threshold, canvas) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  const pixels = new Uint32Array(picture.data.buffer);
  const colours = HEAT.map(([red, green, blue], index) => (index << 24) | (blue << 16) | (green << 8) | red);
  for (let index = 0; index < values.length; index++) {
    const value = values[index];
    if (value > threshold) pixels[index] = colours[Math.round(255 * Math.min(1, value))];
  }
  context.putImageData(picture, 0, 0);
}
