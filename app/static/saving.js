// What is saved is the picture as it is on the page, or an answer of the service, of one photo or of all of them in a ZIP.

import { bestOf, fitting, scoresOf } from "./asking.js";
import { drawOver } from "./drawing.js";
import { element } from "./elements.js";
import { decodePhoto, releaseBitmap } from "./photos.js";
import { askForFile, fileName, SHOWN } from "./requests.js";
import { VIEWS } from "./views.js";
import { zip } from "./zip.js";

const NAMES_PER_SIDE = 700; // At this many px of a photo's longer side a name is written as large as on the page.

// Give {files, missing} of photos, each with its own tags and, where none is chosen, its own best class. inView: {photo, result}
// of the one that is shown already.
export async function filesOfAll(photos, state, served, inView, opacity, progress) {
  const files = [];
  const missing = [];
  const options = { progress: () => {} };
  for (const [index, photo] of photos.entries()) {
    progress(photos.length > 1 ? `Saving ${index + 1} of ${photos.length} …` : "Saving …");
    try {
      const result = photo === inView.photo ? inView.result : await resultOf(photo, state, served, options);
      files.push(...(await filesOf(photo, result, state, opacity, options)));
    } catch (error) {
      missing.push(`${photo.name}: ${error.message}`);
    }
  }
  return { files, missing };
}

function resultOf(photo, state, served, options) {
  return fitting(photo, served, async () => {
    const local = { ...state, photo };
    const { kind, load } = VIEWS[state.view];
    if (!state.chosen && kind === "map") local.className = bestOf(await scoresOf(photo, state, options)).class;
    if (!photo.width) await measure(photo);
    return load(photo, local, served, options);
  });
}

// Learn the size of a photo that was never in view.
async function measure(photo) {
  await decodePhoto(photo);
  releaseBitmap(photo);
}

// Give the files of a photo: one of each request, or as shown of each pane. result: of the view; opacity: of the layers.
async function filesOf(photo, result, { format, threshold }, opacity, options) {
  if (format !== SHOWN) {
    const files = result.requests.map(async (request) => ({
      name: fileName(photo, request.name, format),
      blob: await askForFile(photo, request, format, options),
    }));
    return Promise.all(files);
  }
  const own = !photo.bitmap;
  await decodePhoto(photo);
  const files = result.panes.map(async (pane, index) => {
    pane.paint(threshold);
    const name = pane.name ?? result.requests[index].name;
    return { name: fileName(photo, name, SHOWN), blob: await asShown(photo, { ...pane, opacity }) };
  });
  const made = await Promise.all(files);
  if (own) releaseBitmap(photo);
  return made;
}

// Draw a pane at the photo's own size.
async function asShown(photo, pane) {
  const { width, height } = photo;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  if (photo.bitmap) context.drawImage(photo.bitmap, 0, 0, width, height);
  drawOver(context, pane, { left: 0, top: 0, width, height }, Math.max(1, Math.max(width, height) / NAMES_PER_SIDE));
  return canvas.convertToBlob({ type: "image/png" });
}

// Let the browser save one file as it is, several as an archive of that name.
export async function save(files, archive) {
  const one = files.length === 1 ? files[0] : { name: archive, blob: await zip(files) };
  const url = URL.createObjectURL(one.blob);
  element("a", { href: url, download: one.name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  return one.name;
}
