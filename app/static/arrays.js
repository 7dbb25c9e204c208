// What the service sends as numbers becomes typed arrays: numpy's file format, and COCO's compressed run lengths.

const ARRAY_TYPES = { "<f4": Float32Array, "|u1": Uint8Array };

// A map comes as npy at the size the model saw it: some 200 KB of exact float32 values, however large the photo, where a
// 16-bit PNG of the photo's size would have to be inflated, unfiltered and unpacked by hand (a canvas keeps 8 bits of it).
export function parseNpy(buffer) {
  const bytes = new DataView(buffer);
  if (bytes.getUint32(0) !== 0x934e554d) throw new Error("not an npy file");
  const long = bytes.getUint8(6) > 1;
  const start = long ? 12 : 10;
  const end = start + (long ? bytes.getUint32(8, true) : bytes.getUint16(8, true));
  const header = new TextDecoder("latin1").decode(new Uint8Array(buffer, start, end - start));
  const type = ARRAY_TYPES[header.match(/'descr': *'([^']*)'/)[1]];
  const shape = header.match(/'shape': *\(([^)]*)\)/)[1].split(",").filter((part) => part.trim()).map(Number);
  if (!type || header.includes("'fortran_order': True")) throw new Error(`an array of another kind: ${header}`);
  return { shape, values: new type(buffer.slice(end)) };
}

// Call mark(index) for every pixel of a region, index counting along the rows; `size` is [height, width].
export function forEachPixel({ size: [height, width], counts }, mark) {
  let position = 0;
  runLengths(counts).forEach((length, index) => {
    for (const end = position + length; position < end; position++) {
      if (index % 2) mark((position % height) * width + Math.floor(position / height));
    }
  });
}

// The runs are of 0 and 1 in turn, down the columns. Each number takes characters of 5 bits, lowest first, with a bit for "more
// follow" and a sign; from the third on it is the difference to the run two before.
function runLengths(text) {
  const runs = [];
  for (let at = 0; at < text.length; ) {
    let value = 0;
    let shift = 0;
    let code;
    do {
      code = text.charCodeAt(at++) - 48;
      value |= (code & 31) << shift;
      shift += 5;
    } while (code & 32);
    if (code & 16) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}
