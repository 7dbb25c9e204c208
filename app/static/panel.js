// The controls beside the photo: class chips, legend, tags, downloads. They show the state and report what is wanted.

import { byId, element, show } from "./elements.js";
import { curlOf, downloadsOf } from "./requests.js";

const FEW_CHIPS = 8;
const MANY_CHIPS = 200;

// Chips of {class, score, present}, the present ones first; few at first, all on request.
export function drawChips(scores, state, { choose, toggleAll }) {
  const wanted = byId("find-class").value.trim().toLowerCase();
  const sorted = [...scores].sort((one, other) => other.present - one.present || other.score - one.score);
  const few = sorted.filter((entry, index) => entry.present || index < FEW_CHIPS || entry.class === state.className);
  const matching = sorted.filter((entry) => entry.class.toLowerCase().includes(wanted)).slice(0, MANY_CHIPS);
  const focused = document.activeElement?.dataset?.class;
  const chips = (state.allClasses ? matching : few).map((entry) => {
    const score = entry.score.toFixed(2);
    const chip = element("button", {
      type: "button",
      className: `chip${entry.present ? " present" : ""}`,
      ariaPressed: String(entry.class === state.className),
      ariaLabel: `${entry.class}, score ${score}, ${entry.present ? "present" : "not present"}`,
      onclick: () => choose(entry.class),
    }, element("span", { textContent: entry.class }), element("small", { textContent: score }));
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

// One row per region, whose box shows or hides it.
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

// The tags in use, each with a button that takes it out.
export function drawTags(tags, remove) {
  byId("tags").replaceChildren(
    ...tags.map((tag) =>
      element("li", {}, element("span", { textContent: tag }), element("button", {
        type: "button",
        ariaLabel: `Remove the tag ${tag}`,
        textContent: "×",
        onclick: () => remove(tag),
      })),
    ),
  );
}

// The tags typed into the field: on Enter, a comma, or the choice of a suggestion.
export function receiveTags(add) {
  const field = byId("tag");
  const take = () => {
    const words = field.value.split(",").map((word) => word.trim()).filter(Boolean);
    field.value = "";
    if (words.length) add(words);
  };
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === ",") {
      event.preventDefault();
      take();
    }
  });
  field.addEventListener("input", (event) => {
    if (event.inputType === "insertReplacementText" || !event.inputType) take(); // a suggestion was chosen
  });
  field.addEventListener("change", take);
}

// Everything that is shown, in every format, and as commands.
export function drawDownloads(photo, requests, shownFormat) {
  const groups = requests.map((request) => {
    const links = downloadsOf(photo, request).map(({ label, href, file }) =>
      element("a", { href, download: file, textContent: label }));
    const title = requests.length > 1 ? [element("b", { textContent: request.title })] : [];
    return element("li", {}, ...title, ...links);
  });
  byId("downloads").replaceChildren(...groups);
  byId("curl").value = requests.map((request) => curlOf(photo, request, shownFormat)).join("\n");
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

// Options of a selection, as [value, text].
export function drawOptions(id, options, chosen) {
  byId(id).replaceChildren(
    ...options.map(([value, text]) => element("option", { value, textContent: text, selected: value === chosen })),
  );
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
