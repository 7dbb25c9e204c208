// The photos on the page: chosen, dropped or pasted files, and the strip of thumbnails that switches between them.

import { element } from "./elements.js";

// One photo. `id` is the service's name for it, `results` what was asked about it so far.
export function photoOf(file) {
  return {
    file,
    name: file.name || "photo",
    url: URL.createObjectURL(file),
    id: null,
    bitmap: null,
    width: 0,
    height: 0,
    results: new Map(),
    refused: false,
  };
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
  let depth = 0; // of the elements a dragged file has entered
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

// Thumbnails: one button per photo that shows it, and one that removes it.
export function drawStrip(list, photos, shown, { select, remove }) {
  const items = photos.map((photo) => {
    const picture = element("img", { src: photo.url, alt: "", onerror: () => picture.classList.add("unreadable") });
    const name = photo.refused ? `${photo.name}, refused` : photo.name;
    const button = element("button", {
      type: "button",
      className: `thumbnail${photo.refused ? " refused" : ""}`,
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
  list.classList.toggle("single", photos.length < 2);
}
