// The photos on the page are chosen, dropped or pasted files; a strip of thumbnails switches between them.

import { element } from "./elements.js";

// It is one photo. `id` is the service's name for it, `results` what was asked about it so far; `example` its name among the
// page's own photos, null for any other.
export function photoOf(file, { name = file.name || "photo", tags = [], example = null } = {}) {
  return {
    file,
    name,
    tags,
    example,
    url: URL.createObjectURL(file),
    id: null,
    bitmap: null,
    width: 0,
    height: 0,
    results: new Map(),
    refused: false,
    task: null, // Its task in Label Studio has this address.
    corrected: null, // {model, values, layer} is what was saved of it by the brush.
    shrunk: null, // It says what was done to it where it was too large for the service.
  };
}

const QUALITY = 0.92; // A photo is shrunk to a JPEG of this quality.
const LESS = 0.8; // From one try to the next a side shrinks to this share.

// Make a photo as small as the service takes it. Nothing is done where the browser cannot read it.
export async function shrink(photo, { max_upload_bytes: bytes, max_image_pixels: pixels }) {
  if (photo.shrunk) return false;
  let whole;
  try {
    whole = await createImageBitmap(photo.file);
  } catch {
    return false;
  }
  const { width, height } = whole;
  let factor = Math.min(1, Math.sqrt(pixels / (width * height)));
  let file;
  do {
    const canvas = new OffscreenCanvas(Math.max(1, Math.floor(width * factor)), Math.max(1, Math.floor(height * factor)));
    canvas.getContext("2d").drawImage(whole, 0, 0, canvas.width, canvas.height);
    file = await canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY });
    photo.shrunk = `${photo.name} was shrunk from ${width} × ${height} px (${megabytes(photo.file.size)}) to ${canvas.width} × ` +
      `${canvas.height} px (${megabytes(file.size)}): the service takes ${megabytes(bytes)} and ${Math.round(pixels / 1e6)} million pixels.`;
    factor *= LESS;
  } while (file.size > bytes && factor > 0.01);
  whole.close();
  releaseBitmap(photo);
  photo.file = file;
  return true;
}

function megabytes(bytes) {
  return bytes < 1e5 ? `${Math.max(1, Math.round(bytes / 1000))} KB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

// Decode for drawing. What the browser cannot read the service may; then only the results are shown.
export async function decodePhoto(photo) {
  if (photo.bitmap) return;
  try {
    photo.bitmap = await createImageBitmap(photo.file);
    photo.width = photo.bitmap.width;
    photo.height = photo.bitmap.height;
  } catch {
    photo.bitmap = null;
  }
}

// Give back the memory of a photo that is no longer in view.
export function releaseBitmap(photo) {
  photo?.bitmap?.close();
  if (photo) photo.bitmap = null;
}

// Call `take(files)` for everything chosen with `input`, dropped anywhere or pasted.
export function receiveFiles(input, take) {
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = "";
  });
  let depth = 0; // A dragged file has entered this many elements.
  const over = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("dragging", depth > 0);
  };
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => holdsFiles(event) && over(1));
  document.addEventListener("dragleave", (event) => holdsFiles(event) && over(-1));
  document.addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    over(-depth);
    take([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) take(files);
  });
}

// Draw thumbnails: one button per photo that shows it, and one that removes it.
export function drawStrip(list, photos, shown, { select, remove }) {
  const items = photos.map((photo) => {
    const picture = element("img", { src: photo.url, alt: "", onerror: () => picture.classList.add("unreadable") });
    const state = photo.refused ? "refused" : photo.corrected ? "corrected" : "";
    const name = [photo.name, state].filter(Boolean).join(", ");
    const button = element("button", {
      type: "button",
      className: `thumbnail ${state}`,
      ariaLabel: `Show ${name}`,
      ariaCurrent: String(photo === shown),
      title: photo.name,
      onclick: () => select(photo),
    }, picture);
    const cross = element("button", {
      type: "button",
      className: "remove",
      ariaLabel: `Remove ${photo.name}`,
      onclick: () => remove(photo),
    }, "×");
    return element("li", {}, button, cross);
  });
  const focused = list.contains(document.activeElement);
  list.replaceChildren(...items);
  if (focused) list.querySelector("[aria-current='true']")?.focus();
}
