// These are the controls beside the photo: class chips, legend, tags, downloads. They show the state and report what is wanted.

import { comparable } from "./asking.js";
import { byId, element, show } from "./elements.js";
import { curlOf, FORMAT_NAMES } from "./requests.js";
import { figureOf, sentenceOf } from "./served.js";

const FEW_CHIPS = 8;
const MANY_CHIPS = 200;

// Draw chips of {class, score, threshold, present}, the present ones first; few at first, all on request.
export function drawChips(scores, state, { choose, toggleAll }) {
  const wanted = byId("find-class").value.trim().toLowerCase();
  const sorted = [...scores].sort((one, other) => other.present - one.present || other.score - one.score);
  const few = sorted.filter((entry, index) => entry.present || index < FEW_CHIPS || entry.class === state.className);
  const matching = sorted.filter((entry) => entry.class.toLowerCase().includes(wanted)).slice(0, MANY_CHIPS);
  const focused = document.activeElement?.dataset?.class;
  const chips = (state.allClasses ? matching : few).map((entry) => {
    const [score, threshold] = comparable(entry.score, entry.threshold);
    const presence = `${entry.present ? "present" : "not present"}${threshold ? `, threshold ${threshold}` : ""}`;
    const chip = element("button", {
      type: "button",
      className: `chip${entry.present ? " present" : ""}`,
      ariaPressed: String(entry.class === state.className),
      ariaLabel: `${entry.class}, score ${score}, ${presence}`,
      onclick: () => choose(entry.class),
    }, element("span", { textContent: entry.class }), element("small", { textContent: threshold ? `${score} ${entry.present ? "≥" : "<"} ${threshold}` : score }));
    chip.dataset.class = entry.class;
    chip.style.setProperty("--score", `${Math.round(100 * Math.min(1, Math.max(0, entry.score)))}%`);
    return chip;
  });
  byId("chips").replaceChildren(...chips);
  chips.find((chip) => chip.dataset.class === focused)?.focus();
  const more = byId("all-classes");
  more.textContent = state.allClasses ? "Fewer" : `All ${scores.length} classes`;
  more.ariaExpanded = String(state.allClasses);
  more.onclick = toggleAll;
  more.hidden = !state.allClasses && few.length === scores.length;
  show("find-class", state.allClasses && scores.length > FEW_CHIPS);
}

// Say which chips are filled.
export function drawPresence({ photo }) {
  byId("presence").textContent = photo.tags.length ? "Filled: the tags." :
    "Filled: present. The score reaches the threshold behind it, which is the class's own.";
}

// Draw one row per region, whose box shows or hides it.
export function drawLegend(regions, changed) {
  const rows = regions.map((region) => {
    const box = element("input", { type: "checkbox", checked: region.visible });
    box.addEventListener("change", () => {
      region.visible = box.checked;
      changed();
    });
    const swatch = element("i", { className: "swatch", ariaHidden: "true" });
    swatch.style.backgroundColor = region.color;
    const share = element("small", { textContent: `${(100 * region.share).toFixed(1)} %` });
    const score = element("small", { textContent: region.score === undefined ? "" : `score ${region.score.toFixed(2)}` });
    return element("li", {}, element("label", {}, box, swatch, element("span", { textContent: region.class }), share, score));
  });
  byId("legend").replaceChildren(...(rows.length ? rows : [element("li", { className: "hint", textContent: "background alone" })]));
}

// Draw the photo's tags, each with a button that takes it out; one that the model does not know is marked.
export function drawTags(tags, classes, remove) {
  byId("tags").replaceChildren(
    ...tags.map((tag) => {
      const known = classes.includes(tag);
      return element("li", { className: known ? "" : "unknown", title: known ? "" : "The chosen model does not know this class." },
        element("span", { textContent: tag }), element("button", {
          type: "button",
          ariaLabel: `Remove the tag ${tag}`,
          textContent: "×",
          onclick: () => remove(tag),
        }));
    }),
  );
  const strange = tags.filter((tag) => !classes.includes(tag));
  byId("tag-unsent").textContent = strange.length ? `The chosen model does not know ${strange.join(", ")} and is not told.` : "";
}

// Take the tags typed into the field, on Enter, a comma, or the choice of a suggestion. What `add(words)` gives back stays there.
export function receiveTags(add) {
  const field = byId("tag");
  const take = () => {
    const words = field.value.split(",").map((word) => word.trim()).filter(Boolean);
    if (words.length) field.value = add(words).join(", ");
  };
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === ",") {
      event.preventDefault();
      take();
    }
  });
  field.addEventListener("input", (event) => {
    sayOfTag("");
    if (event.inputType === "insertReplacementText" || !event.inputType) take(); // A suggestion was chosen.
  });
  field.addEventListener("change", take);
}

// Say why a tag was not taken, beside the field; an empty text says nothing.
export function sayOfTag(text) {
  byId("tag-error").textContent = text;
  byId("tag").ariaInvalid = String(Boolean(text));
}

// Draw the methods to compare, each with a box, what it is and how good.
export function drawMethods(cams, without, change) {
  const rows = cams.map((model) => {
    const box = element("input", { type: "checkbox", checked: !without.includes(model.pin), id: `method-${model.pin}` });
    box.addEventListener("change", () => change(box.checked ? without.filter((pin) => pin !== model.pin) : [...without, model.pin]));
    const label = element("label", { className: "check", title: sentenceOf(model) }, box,
      element("span", { textContent: model.pin }), element("small", { textContent: shortFigure(model) }));
    return element("li", {}, label);
  });
  const focused = document.activeElement?.id;
  byId("methods").replaceChildren(...rows);
  if (focused?.startsWith("method-")) byId(focused)?.focus();
}

// Give the models to choose from, as [value, text], each with its figure.
export function optionsOf(models) {
  return models.map((model) => [model.pin, [model.pin, shortFigure(model)].filter(Boolean).join(" – ")]);
}

function shortFigure(model) {
  const figure = figureOf(model);
  return figure === null ? "" : `${model.task === "cam" ? "maps" : "masks"} ${Math.round(figure)} %`;
}

// Offer what can be saved of what is shown, and the same as commands.
export function drawSaving(photo, requests, format, photoCount) {
  drawOptions("format", Object.entries(FORMAT_NAMES), format);
  byId("save").textContent = requests.length > 1 && format !== "shown" ? `Save ${requests.length} files` : "Save";
  byId("save-all").textContent = `All ${photoCount} photos as ZIP`;
  show("save-all", photoCount > 1);
  byId("curl").value = requests.map((request) => curlOf(photo, request, format)).join("\n");
}

// Copy the commands; where the browser withholds its clipboard (pages without TLS), mark them for copying by hand.
export async function copyCommands() {
  const field = byId("curl");
  field.select();
  try {
    await navigator.clipboard.writeText(field.value);
    return "Copied.";
  } catch {
    return document.execCommand("copy") ? "Copied." : "The commands are marked: copy them with the keyboard.";
  }
}

// Fill a selection with options, as [value, text].
export function drawOptions(id, options, chosen) {
  byId(id).replaceChildren(
    ...options.map(([value, text]) => element("option", { value, textContent: text, selected: value === chosen })),
  );
}

// Fill the selections of models and classes.
export function drawServed({ cams, segmenters, names }, fusable, all) {
  drawOptions("model", fusable ? [...optionsOf(cams), [all, "all, fused"]] : optionsOf(cams), cams[0]?.pin);
  drawOptions("segmenter", optionsOf(segmenters), segmenters[0]?.pin);
  byId("class-names").replaceChildren(...names.map((name) => new Option(name, name)));
}

// Set the sliders and boxes as the state has them; those of the pseudo-label are drawn in thresholds.js.
export function drawSliders({ threshold, maskThreshold, smallest, names, refine, conditional, spread }, opacity) {
  const set = (id, value, text) => {
    byId(id).value = value;
    byId(`${id}-value`).textContent = text;
    byId(id).ariaValueText = text;
  };
  set("opacity", Math.round(100 * opacity), `${Math.round(100 * opacity)} %`);
  set("threshold", Math.round(100 * threshold), threshold.toFixed(2));
  byId("threshold").style.setProperty("--at", `${100 * threshold}%`);
  set("mask-threshold", Math.round(100 * maskThreshold), maskThreshold.toFixed(2));
  set("smallest", Math.round(1000 * smallest), smallest ? `${(100 * smallest).toFixed(1)} % of the photo` : "all are shown");
  for (const [id, checked] of Object.entries({ names, refine, conditional })) byId(id).checked = checked;
  byId("spread").value = spread;
}

// Tabs as the ARIA practice has them: one is in the tab order, the arrow keys, Home and End walk.
export function drawTabs(views, chosen, choose) {
  const tabs = views.map(([key, title]) => {
    const tab = element("button", {
      type: "button",
      id: `tab-${key}`,
      role: "tab",
      textContent: title,
      ariaSelected: String(key === chosen),
      tabIndex: key === chosen ? 0 : -1,
      onclick: () => choose(key),
    });
    tab.setAttribute("aria-controls", "stage");
    return tab;
  });
  const list = byId("tabs");
  list.onkeydown = (event) => {
    const at = tabs.indexOf(document.activeElement);
    const last = tabs.length - 1;
    const next = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at ? at - 1 : last, Home: 0, End: last }[event.key];
    if (at < 0 || next === undefined) return;
    event.preventDefault();
    choose(views[next][0]);
    byId(`tab-${views[next][0]}`).focus();
  };
  const focused = list.contains(document.activeElement);
  list.replaceChildren(...tabs);
  byId("stage").setAttribute("aria-labelledby", `tab-${chosen}`);
  if (focused) byId(`tab-${chosen}`).focus();
}
