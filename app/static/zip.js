// Files go into one ZIP archive, stored as they are: pictures do not get smaller by packing them again.

import { checksum } from "./checksum.js";

const UTF8 = 0x0800; // This flag says that names are UTF-8.
const VERSION = 20;

// Make an archive of files, [{name, blob}]. Equal names get a number.
export async function zip(files) {
  const parts = [];
  const directory = [];
  const taken = new Set();
  let offset = 0;
  for (const { name, blob } of files) {
    const bytes = new Uint8Array(await blob.arrayBuffer());
    const path = new TextEncoder().encode(free(name, taken));
    const entry = [[2, VERSION], [2, UTF8], [2, 0], [2, 0], [2, 0x21], [4, checksum(bytes)], [4, bytes.length], [4, bytes.length], [2, path.length], [2, 0]];
    const header = record([[4, 0x04034b50], ...entry]);
    directory.push(record([[4, 0x02014b50], [2, VERSION], ...entry, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]]), path);
    parts.push(header, path, bytes);
    offset += header.length + path.length + bytes.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = record([[4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, size], [4, offset], [2, 0]]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

function free(name, taken) {
  const [, stem, suffix] = name.match(/^(.*?)((?:\.\w+){0,2})$/);
  let path = name;
  for (let number = 2; taken.has(path); number++) path = `${stem}-${number}${suffix}`;
  taken.add(path);
  return path;
}

// Write numbers of so many bytes each, lowest byte first.
function record(fields) {
  const bytes = new Uint8Array(fields.reduce((sum, [size]) => sum + size, 0));
  let at = 0;
  for (const [size, value] of fields) {
    for (let byte = 0; byte < size; byte++) bytes[at++] = (value >>> (8 * byte)) & 255;
  }
  return bytes;
}
