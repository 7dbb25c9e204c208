// What the service serves: its models and their classes' colours.

import { ALL } from "./requests.js";
import { address, ask } from "./service.js";

// {cams, segmenters, coloursOf}: models in the order of use, the default first, each with its `pin` (NAME/VERSION).
export async function askWhatIsServed(options) {
  const body = await (await ask(address("models"), {}, options)).json();
  const models = body.models
    .map((model) => ({ ...model, pin: `${model.name}/${model.version}` }))
    .sort((one, other) => other.default - one.default);
  const colours = new Map();

  async function coloursOf(pin) {
    if (!colours.has(pin)) {
      const reply = await ask(address("classes", { model: pin }), {}, options);
      colours.set(pin, new Map((await reply.json()).classes.map((entry) => [entry.class, entry.color])));
    }
    return colours.get(pin);
  }

  return {
    cams: models.filter(({ task }) => task === "cam"),
    segmenters: models.filter(({ task }) => task === "segmentation"),
    coloursOf,
  };
}

// The background threshold that a cam model has of itself. Of all, fused, it is that of the first by name, as the service has it.
export function ownThreshold({ cams }, model) {
  const [first] = cams.map(({ name }) => name).sort();
  const newest = cams.filter(({ name }) => name === first).sort((one, other) => other.version - one.version);
  const card = model === ALL ? newest[0] : cams.find(({ pin }) => pin === model);
  return card?.background_threshold ?? 0;
}

// Whether the maps of all cam models can be fused: by the service's rule, the newest of every name, of the same classes.
export function canFuse({ cams }) {
  const names = new Set(cams.map(({ name }) => name));
  const same = cams.every(({ classes }) => JSON.stringify(classes) === JSON.stringify(cams[0].classes));
  return names.size > 1 && names.size <= 8 && same;
}
