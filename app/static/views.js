// Each view says what it asks the service for, and makes panes, legend and words of the answers.

import { forEachPixel } from "./arrays.js";
import { comparable, scoresOf } from "./asking.js";
import { average, disagreement, paintMap, resample } from "./maps.js";
import { IGNORED, paintRegions, placeOf } from "./regions.js";
import { ALL, askForJson, askForMap, mapRequest, maskRequest, pseudoLabelRequest } from "./requests.js";
import { knowSame } from "./served.js";

const LAYER_SIDE = 800; // A map's layer has this longer side in px.

// Each has a title; a kind of layer, "map" (threshold slider) or "mask" (legend); possible(served), whether it can be chosen; load(photo, state, served, options) -> {panes, requests, caption, regions, model}; the last two of masks alone.
export const VIEWS = {
  heatmap: {
    title: "Heatmap",
    kind: "map",
    possible: ({ cams }) => cams.length > 0,
    load: async (photo, state, served, options) => {
      const request = mapRequest(state, state.model, served);
      const map = await askForMap(photo, request, options);
      return {
        panes: [mapPane(photo, map, request.title, state.className)],
        requests: [request],
        caption: outsideTags(state) ?? scoreSentence(state, await scoresOf(photo, state, options)),
      };
    },
  },
  methods: {
    title: "Methods",
    kind: "map",
    possible: ({ cams }) => cams.length > 1,
    load: async (photo, state, served, options) => {
      const answers = await askAll(photo, state, served, options);
      if (!answers.length) return nothingToShow(state, served);
      return {
        panes: answers.map(({ request, map }) => mapPane(photo, map, request.title, state.className)),
        requests: answers.map(({ request }) => request),
        caption: outsideTags(state) ?? `Where each method looks for ${state.className}. ${unaware(state, served)}`,
      };
    },
  },
  disagreement: {
    title: "Disagreement",
    kind: "map",
    possible: ({ cams }) => cams.length > 1,
    load: async (photo, state, served, options) => {
      const answers = await askAll(photo, state, served, options);
      if (!answers.length) return nothingToShow(state, served);
      if (answers.length < 2) return nothingToCompare(photo, state, answers[0]);
      const measure = state.spread === "range" ? "largest minus smallest value" : "standard deviation";
      const map = disagreement(answers.map((answer) => enlarge(photo, answer.map)), state.spread);
      return {
        panes: [
          { ...mapPane(photo, map, `${answers.length} methods`, state.className, measure), name: `${state.className}-disagreement-${state.spread}` },
        ],
        requests: answers.map(({ request }) => request),
        caption: outsideTags(state) ??
          `Light where the methods differ about ${state.className}: ${measure}, on average ${average(map.values).toFixed(2)}. ` +
          unaware(state, served),
      };
    },
  },
  mask: {
    title: "Mask",
    kind: "mask",
    possible: ({ segmenters }) => segmenters.length > 0,
    load: async (photo, state, served, options) => {
      const result = await loadMask(photo, maskRequest(state, served), state.segmenter, state, served, options);
      return { ...result, caption: result.caption + otherClasses(state, served) };
    },
  },
  pseudoLabel: {
    title: "Pseudo-label",
    kind: "mask",
    possible: ({ cams }) => cams.length > 0,
    load: (photo, state, served, options) => {
      const model = state.model === ALL ? served.cams[0].pin : state.model;
      return loadMask(photo, pseudoLabelRequest(state, served), model, state, served, options);
    },
  },
};

// Load the maps of all methods that know the class, one request after the other.
async function askAll(photo, state, served, options) {
  const answers = [];
  const able = knowing(state, served);
  for (const { pin } of able) {
    options.progress(`Asking ${pin} (${answers.length + 1} of ${able.length}) …`);
    const request = mapRequest(state, pin, served);
    answers.push({ request, map: await askForMap(photo, request, options) });
  }
  return answers;
}

async function loadMask(photo, request, model, state, served, options) {
  const body = await askForJson(photo, request, options);
  const { classes } = await served.labelsOf(model);
  const colours = new Map(classes.map((entry) => [entry.class, entry.display_color]));
  const regions = body.classes.map((region) => ({
    ...region, color: colours.get(region.class), visible: true, place: placeOf(region, forEachPixel),
  }));
  const names = regions.map((region) => region.class).join(", ");
  const ignored = body.ignore?.rle ? ` ${(100 * body.ignore.share).toFixed(1)} % is ignored.` : "";
  if (ignored) regions.push({ ...body.ignore, class: "ignored", color: IGNORED, visible: true });
  const [height, width] = regions[0]?.rle.size ?? [photo.height, photo.width];
  const layer = document.createElement("canvas");
  const what = request.path === "segment" ? "Mask" : "Pseudo-label";
  return {
    panes: [
      {
        title: request.title,
        note: what.toLowerCase(),
        description: regions.length ? `${what}: ${regions.map((region) => region.class).join(", ")}` : `${what}: background alone`,
        layer,
        labels: () => regions.filter(({ visible, place }) => state.names && visible && place).map((region) => ({ text: region.class, ...region.place })),
        paint: () => paintRegions(regions.filter((region) => region.visible), forEachPixel, width, height, layer),
      },
    ],
    requests: [request],
    regions,
    model,
    caption: (names
      ? `${what} of ${names}, by ${request.title === ALL ? "all methods, fused" : request.title}.`
      : `${what}: no class was found${ignored ? "." : ", all is background."}`) + ignored,
  };
}

function nothingToShow(state, served) {
  const why = compared(state, served).length ? `None of the ticked methods knows ${state.className}.` : "No method is ticked.";
  return { panes: [], requests: [], caption: `${why} Tick one under Methods.` };
}

function nothingToCompare(photo, { className }, { request, map }) {
  return {
    panes: [mapPane(photo, map, request.title, className)],
    requests: [request],
    caption: `Only ${request.title} is ticked and knows ${className}: this is its heatmap, and nothing to compare it with.`,
  };
}

function mapPane(photo, map, title, className, measure = null) {
  const large = enlarge(photo, map);
  const layer = document.createElement("canvas");
  return {
    title,
    note: map.score === undefined ? measure : `score ${map.score.toFixed(2)}`,
    description: measure ? `Where ${title} differ about ${className}` : `Where ${title} looks for ${className}`,
    layer,
    paint: (threshold) => paintMap(large, threshold, layer),
    valueAt: ({ x, y }) =>
      large.values[Math.floor(y * large.height) * large.width + Math.floor(x * large.width)].toFixed(2),
  };
}

function enlarge(photo, map) {
  const scale = LAYER_SIDE / Math.max(photo.width, photo.height);
  const [width, height] = [photo.width, photo.height].map((side) => Math.max(1, Math.round(side * scale)));
  return map.width === width && map.height === height ? map : resample(map, width, height);
}

function knowing(state, served) {
  return compared(state, served).filter(({ classes }) => classes.includes(state.className));
}

// Give the methods to compare: those that are ticked.
export function compared(state, { cams }) {
  return cams.filter(({ pin }) => !state.without.includes(pin));
}

function otherClasses(state, served) {
  const segmenter = served.segmenters.find(({ pin }) => pin === state.segmenter);
  const cam = served.cams.find(({ pin }) => pin === state.model);
  return cam && !knowSame(cam, segmenter) ? ` ${segmenter.pin} knows other classes than ${cam.pin}.` : "";
}

function unaware(state, served) {
  const names = compared(state, served).filter((model) => !model.classes.includes(state.className)).map(({ pin }) => pin);
  return names.length ? `Without ${names.join(", ")}, which ${names.length > 1 ? "do" : "does"} not know this class.` : "";
}

function outsideTags({ photo: { tags }, className }) {
  return tags.length && !tags.includes(className) ? `${className} is not among the tags, so its map is empty.` : null;
}

function scoreSentence({ model, className }, entries) {
  const { score, threshold, present } = entries.find((entry) => entry.class === className);
  const who = model === ALL ? "All methods together give" : `${model} gives`;
  const [given, least] = comparable(score, threshold);
  const counts = least ? `, so it counts as ${present ? "present" : "absent"}: its threshold is ${least}` : "";
  return `${who} ${className} a score of ${given}${counts}.`;
}
