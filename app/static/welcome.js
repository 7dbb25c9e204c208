// This is seen first: what the service knows, how good it is, and photos to try it on.

import { byId, element, show } from "./elements.js";
import { fusable, sentenceOf } from "./served.js";

const EXAMPLES = { "cat.jpg": "A cat", "astronaut.jpg": "A person", "coffee.jpg": "None of its classes" };
const LISTED = 24; // So many classes are listed.

// Say what the default models know and how good they are; `take(name)` is called for an example photo.
export function drawWelcome({ cams, segmenters, names }, take) {
  const listed = names.slice(0, LISTED).join(", ") + (names.length > LISTED ? " …" : "");
  byId("knows").textContent = `It knows ${names.length} classes: ${listed}.`;
  const best = segmenters[0] ?? cams[0];
  byId("good").textContent = `${best.pin}: ${sentenceOf(best)}`;
  byId("examples").replaceChildren(...Object.entries(EXAMPLES).map(([name, what]) => {
    const picture = element("img", { src: `static/examples/${name}`, alt: "", width: 132, height: 88 });
    return element("li", {}, element("button", { type: "button", onclick: () => take(name) }, picture, element("span", { textContent: what })));
  }));
  show("try", true);
}

// Give an example photo as a file, as if it had been chosen. Throws for a name that is none.
export async function exampleFile(name) {
  if (!(name in EXAMPLES)) throw new Error(`There is no example photo ${name}.`);
  const reply = await fetch(`static/examples/${name}`);
  return new File([await reply.blob()], name, { type: "image/jpeg" });
}

// Say whose maps are fused, and which models are left out.
function sentenceOfAll(cams) {
  const { fused, leftOut } = fusable(cams);
  const pins = (models) => models.map(({ pin }) => pin).join(", ");
  const without = leftOut.length ? ` Left out: ${pins(leftOut)}, of other classes.` : "";
  return `The maps of ${pins(fused)}, joined by where they agree.${without}`;
}

// Say what the chosen models are, beside their names.
export function drawModels({ cams, segmenters }, { model, segmenter }) {
  const cam = cams.find(({ pin }) => pin === model);
  byId("model-about").textContent = cam ? sentenceOf(cam) : sentenceOfAll(cams);
  const chosen = segmenters.find(({ pin }) => pin === segmenter);
  byId("segmenter-about").textContent = chosen ? sentenceOf(chosen) : "";
  byId("model").value = model;
  byId("segmenter").value = segmenter;
}
