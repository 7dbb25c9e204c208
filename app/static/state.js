// One object says what is shown and how; the address carries what is not as it was at the start.

import { ALL, SHOWN } from "./requests.js";
import { canFuse, segmenterFor } from "./served.js";
import { VIEWS } from "./views.js";

export const state = {
  photos: [],
  photo: null, // It is the one in view; its tags are its own.
  view: "heatmap",
  className: null,
  chosen: false, // It tells whether somebody chose the class; otherwise the best of every photo is shown.
  model: null,
  segmenter: null,
  without: [], // These methods are not compared.
  refine: false,
  conditional: false,
  threshold: 0, // It is that of a heatmap.
  background: null, // These are the pseudo-label's thresholds, as in thresholds.js.
  foreground: null,
  maskThreshold: 0,
  smallest: 0, // A region of a mask must have this share of the photo.
  opacity: { map: 0.85, mask: 0.85 },
  spread: "range",
  names: true, // They stand on regions.
  format: SHOWN,
  allClasses: false,
};

const isShare = (value) => value >= 0 && value <= 1;
const share = (key) => ({ of: () => state[key], to: (text) => isShare(Number(text)) && { [key]: Number(text) } });
const flag = (key) => ({ of: () => state[key] || null, to: (text) => ({ [key]: text === "true" }) });

// For each name in the address it says how it is read from the state, and what a text there changes, if it means anything.
const FIELDS = {
  view: { of: () => state.view, to: (text, served) => VIEWS[text]?.possible(served) && { view: text } },
  class: {
    of: () => (state.chosen ? state.className : null),
    to: (text, { names }) => names.includes(text) && { className: text, chosen: true },
  },
  model: {
    of: () => state.model,
    to: (text, served) =>
      (served.cams.some(({ pin }) => pin === text) || (text === ALL && canFuse(served))) &&
      { model: text, segmenter: segmenterFor(served, text) },
  },
  segmenter: { of: () => state.segmenter, to: (text, { segmenters }) => segmenters.some(({ pin }) => pin === text) && { segmenter: text } },
  without: {
    of: () => state.without.join(",") || null,
    to: (text, { cams }) => ({ without: text.split(",").filter((each) => cams.some(({ pin }) => pin === each)) }),
  },
  refine: flag("refine"),
  conditional: flag("conditional"),
  threshold: share("threshold"),
  background: share("background"),
  foreground: share("foreground"),
  maskThreshold: share("maskThreshold"),
  smallest: share("smallest"),
  spread: { of: () => state.spread, to: (text) => ["range", "deviation"].includes(text) && { spread: text } },
  format: { of: () => state.format, to: (text) => ({ format: text }) },
};
let start = {};

// Note what the state is at the start, then take over what the address says.
export function readAddress(served) {
  start = written();
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const [name, text] of asked) Object.assign(state, FIELDS[name]?.to(text, served) || {});
  return asked.get("example")?.split(",") ?? [];
}

// Let the address say what differs from the start, and which example photos are on the page.
export function writeAddress() {
  const changed = Object.entries(written()).filter(([name, text]) => text !== null && text !== start[name]);
  const query = new URLSearchParams(changed);
  const examples = state.photos.map(({ example }) => example).filter(Boolean);
  if (examples.length) query.set("example", examples.join(","));
  const hash = query.toString().replaceAll("%2F", "/").replaceAll("%2C", ",");
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
}

function written() {
  return Object.fromEntries(Object.entries(FIELDS).map(([name, { of }]) => [name, of() === null ? null : String(of())]));
}
