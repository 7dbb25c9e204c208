// The requests behind what is shown: for the page itself, for downloads, and for the command line.

import { address, askAbout } from "./service.js";
import { parseNpy } from "./arrays.js";
import { foregroundAbove } from "./thresholds.js";

export const ALL = "all"; // in the place of a model: the maps of all, fused
const KEPT_RESULTS = 60; // per photo
const LARGEST_MASK_PIXELS = 4_000_000; // larger photos get their mask at the size the model saw

const MAP_FORMATS = ["overlay", "png", "gray8", "gray16", "npy", "npz", "json", "coco", "hf"];
export const FORMAT_NAMES = {
  overlay: "Over the photo",
  png: "Colours",
  gray8: "8-bit grey",
  gray16: "16-bit grey",
  npy: "npy",
  npz: "npz",
  json: "JSON",
  coco: "COCO",
  hf: "Hugging Face",
};
const SUFFIXES = { overlay: "jpg", png: "png", gray8: "png", gray16: "png", npy: "npy", npz: "npz" };

export function scoresRequest(state) {
  return { path: "cam", parameters: { class: "all", ...modelParameter(state.model) } };
}

export function mapRequest(state, model) {
  const inference = state.conditional ? "class-conditional" : null;
  return {
    path: "cam",
    parameters: { class: state.className, ...modelParameter(model), ...tagsAndRefinement(state), inference },
    download: { threshold: state.threshold || null },
    name: `${state.className}-${model}`,
    title: model === ALL ? "all, fused" : model,
  };
}

export function maskRequest(state) {
  return {
    path: "segment",
    parameters: { model: state.segmenter, ...tagsAndRefinement(state) },
    name: `mask-${state.segmenter}`,
    title: state.segmenter,
  };
}

export function pseudoLabelRequest(state) {
  const inference = state.conditional ? "class-conditional" : null;
  return {
    path: "pseudo-label",
    parameters: {
      ...modelParameter(state.model),
      ...tagsAndRefinement(state),
      inference,
      background_threshold: state.background,
      foreground_threshold: foregroundAbove(state.background, state.foreground),
    },
    name: `pseudo-label-${state.model}`,
    title: state.model,
  };
}

// A map as {width, height, values, score}.
export function askForMap(photo, { path, parameters }, options) {
  return ask(photo, path, { ...parameters, format: "npy", size: "model" }, options, async (reply) => {
    const { shape: [height, width], values } = parseNpy(await reply.arrayBuffer());
    return { width, height, values, score: Number(reply.headers.get("X-Class-Score")) };
  });
}

// A description. Regions in it come as run lengths: the mask, its scores and its shares are one reply.
export function askForJson(photo, { path, parameters }, options) {
  const small = photo.width * photo.height <= LARGEST_MASK_PIXELS;
  const size = path !== "cam" && !small ? "model" : null;
  return ask(photo, path, { ...parameters, format: "json", size }, options, async (reply) => {
    const body = await reply.json();
    ({ width: photo.width, height: photo.height } = body.image);
    return body;
  });
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

// [{format, label, href, file}] of everything a request can be answered with.
export function downloadsOf(photo, { path, parameters, download, name }) {
  return MAP_FORMATS.map((format) => ({
    format,
    label: FORMAT_NAMES[format],
    href: address(path, { ...parameters, ...download, format, image: photo.id }),
    file: fileName(photo, name, format),
  }));
}

// The command that sends the photo and writes the answer to a file.
export function curlOf(photo, { path, parameters, download, name }, format) {
  const url = address(path, { ...parameters, ...download, format });
  const type = photo.file.type.startsWith("image/") ? photo.file.type : "image/jpeg";
  const words = ["curl", "--data-binary", `@${photo.name}`, "-H", `Content-Type: ${type}`, url];
  return [...words, "-o", fileName(photo, name, format)].map(quote).join(" ");
}

function fileName(photo, name, format) {
  const stem = photo.name.replace(/\.\w+$/, "");
  const suffix = SUFFIXES[format] ?? (format === "json" ? "json" : `${format}.json`);
  return `${stem}-${name}`.replace(/[^\p{L}\p{N}._-]+/gu, "-").replace(/^-+/, "") + `.${suffix}`;
}

// A word for a POSIX shell.
function quote(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replace(/'/g, "'\\''")}'`;
}

function modelParameter(model) {
  return model === ALL ? { fuse: ALL } : { model };
}

function tagsAndRefinement(state) {
  return { tags: state.tags.join(",") || null, refine: state.refine ? "pamr" : null };
}
