// Requests are behind what is shown: for the page itself, for what is saved, and for the command line.

import { address, askAbout } from "./service.js";
import { parseNpy } from "./arrays.js";
import { foregroundAbove } from "./thresholds.js";

export const ALL = "all"; // In the place of a model it means the maps of all, fused.
export const SHOWN = "shown"; // It is a format of the page's own: the picture as it is on the page.
const KEPT_RESULTS = 60; // So many results of each photo are kept.
const LARGEST_MASK_PIXELS = 4_000_000; // Larger photos get their mask at the size the model saw.

export const FORMAT_NAMES = {
  shown: "Picture as shown (PNG)",
  overlay: "Over the photo (JPEG)",
  png: "Labels or colours (PNG)",
  gray8: "Grey, 8 bits (PNG)",
  gray16: "Grey, 16 bits (PNG)",
  npy: "numpy (npy)",
  npz: "numpy, everything (npz)",
  json: "JSON",
  coco: "COCO",
  hf: "Hugging Face",
};
const SUFFIXES = { shown: "png", overlay: "jpg", png: "png", gray8: "png", gray16: "png", npy: "npy", npz: "npz" };

export function scoresRequest(state) {
  return { path: "cam", parameters: { class: "all", ...modelParameter(state.model) } };
}

export function mapRequest(state, model, served) {
  return {
    path: "cam",
    parameters: {
      class: state.className,
      ...modelParameter(model),
      ...tagsAndRefinement(state, served.classesOf(model)),
      inference: inferenceOf(state),
    },
    download: () => ({ threshold: state.threshold || null }), // It is asked when it is saved: the slider asks the service nothing.
    name: `${state.className}-${model}`,
    title: model === ALL ? "all, fused" : model,
  };
}

export function maskRequest(state, served) {
  return {
    path: "segment",
    parameters: {
      model: state.segmenter,
      ...tagsAndRefinement(state, served.classesOf(state.segmenter)),
      threshold: state.maskThreshold || null,
      smallest_region: state.smallest || null,
    },
    name: `mask-${state.segmenter}`,
    title: state.segmenter,
  };
}

export function pseudoLabelRequest(state, served) {
  return {
    path: "pseudo-label",
    parameters: {
      ...modelParameter(state.model),
      ...tagsAndRefinement(state, served.classesOf(state.model)),
      inference: inferenceOf(state),
      background_threshold: state.background,
      foreground_threshold: foregroundAbove(state.background, state.foreground),
      smallest_region: state.smallest || null,
    },
    name: `pseudo-label-${state.model}`,
    title: state.model,
  };
}

// Give a map as {width, height, values, score}.
export function askForMap(photo, { path, parameters }, options) {
  return ask(photo, path, { ...parameters, format: "npy", size: "model" }, options, async (reply) => {
    const { shape: [height, width], values } = parseNpy(await reply.arrayBuffer());
    return { width, height, values, score: Number(reply.headers.get("X-Class-Score")) };
  });
}

// Give a description. Regions in it come as run lengths: the mask, its scores and its shares are one reply.
export function askForJson(photo, { path, parameters }, options) {
  const small = photo.width * photo.height <= LARGEST_MASK_PIXELS;
  const size = path !== "cam" && !small ? "model" : null;
  return ask(photo, path, { ...parameters, format: "json", size }, options, async (reply) => {
    const body = await reply.json();
    ({ width: photo.width, height: photo.height } = body.image);
    return body;
  });
}

// Give the labels of a mask at the photo's own size, as {width, height, values}.
export async function askForLabels(photo, { path, parameters }, options) {
  const reply = await askAbout(photo, path, { ...parameters, format: "npy" }, options);
  const { shape: [height, width], values } = parseNpy(await reply.arrayBuffer());
  return { width, height, values };
}

async function ask(photo, path, parameters, options, read) {
  const key = address(path, parameters);
  if (!photo.results.has(key)) {
    const reply = await askAbout(photo, path, parameters, options);
    photo.results.set(key, await read(reply));
    if (photo.results.size > KEPT_RESULTS) photo.results.delete(photo.results.keys().next().value);
  }
  return photo.results.get(key);
}

// Give the answer to a request as a file of that format.
export async function askForFile(photo, { path, parameters, download }, format, options) {
  const reply = await askAbout(photo, path, { ...parameters, ...download?.(), format }, options);
  return reply.blob();
}

// Give the command that sends the photo and writes the answer to a file.
export function curlOf(photo, { path, parameters, download, name }, format) {
  const sent = format === SHOWN ? "overlay" : format;
  const url = address(path, { ...parameters, ...download?.(), format: sent });
  const type = photo.file.type.startsWith("image/") ? photo.file.type : "image/jpeg";
  const words = ["curl", "--data-binary", `@${photo.name}`, "-H", `Content-Type: ${type}`, url];
  return [...words, "-o", fileName(photo, name, sent)].map(quote).join(" ");
}

// Give a name that says the photo, what is saved of it, by which model and in which format: PHOTO-mask-deeplab-4-gray8.png.
export function fileName(photo, name, format) {
  const stem = photo.name.replace(/\.\w+$/, "");
  const suffix = SUFFIXES[format] ?? (format === "json" ? "json" : `${format}.json`);
  const kind = suffix === "png" && format !== "png" ? `-${format}` : "";
  return `${stem}-${name}${kind}`.replace(/[^\p{L}\p{N}._-]+/gu, "-").replace(/^-+/, "") + `.${suffix}`;
}

// Write a word for a POSIX shell.
function quote(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replace(/'/g, "'\\''")}'`;
}

function modelParameter(model) {
  return model === ALL ? { fuse: ALL } : { model };
}

function inferenceOf(state) {
  return state.conditional ? "class-conditional" : null;
}

// Give those of the photo's tags that the model knows: another would be refused.
function tagsAndRefinement({ photo, refine }, classes) {
  const tags = photo.tags.filter((tag) => classes.includes(tag));
  return { tags: tags.join(",") || null, refine: refine ? "pamr" : null };
}
