// The service serves models: here is what each is and how good, and how classes are written and coloured.

import { ALL } from "./requests.js";
import { address, ask } from "./service.js";

const METHODS = {
  cam: "shows where the classifier's last layer speaks for a class",
  "grad-cam": "weighs the classifier's features by how much a class depends on them",
  drs: "holds down the strongest places, so that a map spreads over the whole thing (DRS)",
  amr: "adds a second branch that looks at what the first leaves out (AMR)",
  joined: "reads one network in three ways and adds their maps (CAM, LPCAM, ReCAM)",
  edam: "makes a mask for each class inside the classifier (EDAM)",
};
const SEGMENTERS = { deeplabv2: "DeepLab V2", deeplabv3: "DeepLab V3", deeplabv3plus: "DeepLab V3+" };

// {cams, segmenters, limits, names, classesOf, labelsOf}: models in the order of use, the default first, each with its `pin`
// (NAME/VERSION). names: all classes that any of them knows. labelsOf(pin): what GET /classes says of one.
export async function askWhatIsServed(options) {
  const body = await (await ask(address("models"), {}, options)).json();
  const limits = await (await ask(address("static/limits.json"), {}, options)).json();
  const models = body.models
    .map((model) => ({ ...model, pin: `${model.name}/${model.version}` }))
    .sort((one, other) => other.default - one.default);
  const cams = models.filter(({ task }) => task === "cam");
  const classes = new Map();

  async function labelsOf(pin) {
    if (!classes.has(pin)) {
      const reply = await ask(address("classes", { model: pin }), {}, options);
      classes.set(pin, await reply.json());
    }
    return classes.get(pin);
  }

  return {
    cams,
    segmenters: models.filter(({ task }) => task === "segmentation"),
    limits,
    synonyms: synonymsOf(models, limits.synonyms),
    names: [...new Set(models.flatMap(({ classes }) => classes))],
    classesOf: (pin) => (models.find((model) => model.pin === pin) ?? cams[0])?.classes ?? [],
    labelsOf,
  };
}

// Give the background threshold that a cam model has of itself. Of all, fused, it is that of the first by name, as the service has it.
export function ownThreshold({ cams }, model) {
  const card = model === ALL ? fusable(cams).fused[0] : cams.find(({ pin }) => pin === model);
  return card?.background_threshold ?? 0;
}

// Give the cam models that are fused where all are to be, by the service's rule: the newest of every name that knows the same classes
// as the default, sorted by name; and those that are left out.
export function fusable(cams) {
  const newest = cams.filter((model) => !cams.some(({ name, version }) => name === model.name && version > model.version));
  const byName = newest.sort((one, other) => (one.name < other.name ? -1 : 1));
  return { fused: byName.filter((model) => knowSame(model, cams[0])), leftOut: byName.filter((model) => !knowSame(model, cams[0])) };
}

// Tell whether the maps of several cam models can be fused.
export function canFuse({ cams }) {
  const { fused } = fusable(cams);
  return fused.length > 1 && fused.length <= 8;
}

// Give the segmenter for a cam model: one of the same classes where there is one, the default first.
export function segmenterFor({ cams, segmenters }, pin) {
  const model = cams.find((each) => each.pin === pin) ?? cams[0];
  return (segmenters.find((each) => model && knowSame(each, model)) ?? segmenters[0])?.pin ?? null;
}

export function knowSame(one, other) {
  return JSON.stringify(one.classes) === JSON.stringify(other.classes);
}

// Say how good a model is, as a share: the mean IoU of its masks, or of its maps where the tags are given. Null where unknown.
export function figureOf({ figures, task }) {
  return figures?.[task === "cam" ? "cam_miou" : "miou"] ?? null;
}

// Say what a model is and how good, in one sentence, from its card.
export function sentenceOf(model) {
  const { task, method, backbone, measured_on: where, figures = {} } = model;
  const network = backbone.replace("timm/tf_", "").replaceAll("_", "-");
  const figure = figureOf(model);
  const measured = where ? ` on ${where}` : "";
  if (task === "cam") {
    const what = `It ${METHODS[method] ?? `makes heatmaps by ${method}`}, on ${network}`;
    const good = figure === null ? "no figures came with it" :
      `told the tags, its maps share ${Math.round(figure)} % of their area with the things on average (mean IoU${measured})`;
    return `${what}; ${good}.`;
  }
  const what = `It is ${SEGMENTERS[method] ?? method} on ${network}`;
  const told = figures.tagged_miou ? `, ${Math.round(figures.tagged_miou)} % where it is told the tags` : "";
  const good = figure === null ? "no figures came with it" :
    `its masks share ${Math.round(figure)} % of their area with the things on average (mean IoU${measured})${told}`;
  return `${what}; ${good}.`;
}

// Give the class that somebody means, by the service's rule: as it is written, in any case, by a usual word; null for none.
export function classNamed(written, { names, synonyms }) {
  const folded = fold(written);
  const meant = new Set(synonyms.filter((group) => group.includes(folded)).flat());
  return names.find((name) => name === written) ?? names.find((name) => fold(name) === folded) ??
    names.find((name) => meant.has(fold(name))) ?? null;
}

// Give groups of words for one class: those of the models' own cards first, then the usual ones.
function synonymsOf(models, usual) {
  const own = models.flatMap((model) => Object.entries(model.synonyms ?? {}).map(([name, words]) => [name, ...words]));
  return [...own, ...usual].map((group) => group.map(fold));
}

// Give known classes that are written much like it.
export function nearTo(written, names) {
  const near = (name) => distance(fold(name), fold(written)) <= Math.max(1, Math.floor(name.length / 3));
  return names.filter(near).slice(0, 3);
}

function fold(name) {
  return name.normalize("NFKC").toLowerCase().replace(/[\s_/-]+/g, "");
}

// Count letters to change, add or leave out, and neighbours to swap.
function distance(one, other) {
  const rows = [[...Array(other.length + 1).keys()]];
  for (let i = 1; i <= one.length; i++) {
    rows.push([i]);
    for (let j = 1; j <= other.length; j++) {
      const changed = rows[i - 1][j - 1] + (one[i - 1] !== other[j - 1]);
      const swapped = i > 1 && j > 1 && one[i - 1] === other[j - 2] && one[i - 2] === other[j - 1] ? rows[i - 2][j - 2] + 1 : Infinity;
      rows[i].push(Math.min(changed, swapped, rows[i - 1][j] + 1, rows[i][j - 1] + 1));
    }
  }
  return rows[one.length][other.length];
}
