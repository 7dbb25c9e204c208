// Labels become a grey PNG whose pixel values are the labels, as the PNG specification has it. A canvas writes colours alone.

import { checksum } from "../checksum.js";

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const GREY_8_BITS = [8, 0, 0, 0, 0]; // They are depth, colour type, and the only compression, filtering and order of rows.
const UNFILTERED = 0; // It stands before every row.

export async function pngOf({ width, height, values }) {
  const rows = new Uint8Array((width + 1) * height);
  for (let y = 0; y < height; y++) {
    rows[y * (width + 1)] = UNFILTERED;
    rows.set(values.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  }
  const header = [...bytesOf(width), ...bytesOf(height), ...GREY_8_BITS];
  const packed = new Response(new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate")));
  const parts = [chunk("IHDR", header), chunk("IDAT", new Uint8Array(await packed.arrayBuffer())), chunk("IEND", [])];
  return new Blob([new Uint8Array(SIGNATURE), ...parts], { type: "image/png" });
}

// A chunk is a length, a name, the content, and the checksum of both.
function chunk(name, content) {
  const named = new Uint8Array([...new TextEncoder().encode(name), ...content]);
  return new Blob([new Uint8Array(bytesOf(content.length)), named, new Uint8Array(bytesOf(checksum(named)))]);
}

function bytesOf(number) {
  return [24, 16, 8, 0].map((shift) => (number >>> shift) & 255);
}
