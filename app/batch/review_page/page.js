"use strict";
// Everything the page knows stands in #data. Texts go in as text: names are never read as HTML.

const data = JSON.parse(document.getElementById("data").textContent);
const KEY = `tag2mask-review-${data.id}`;
const STEP = 60; // So many photos are listed at a time.
const SHOWN = { accept: "accepted", retag: "tagged anew", reject: "rejected" };
const byId = (id) => document.getElementById(id);
const made = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const changed = JSON.parse(remembered() ?? "{}"); // A name leads to its choice, null to a choice taken back.
const choiceOf = (photo) => (photo.name in changed ? changed[photo.name] : photo.choice);
let listed = []; // The filters leave these photos.
let shown = null;
let length = STEP;

function remembered() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // This browser keeps nothing for pages of the disk.
  }
}

function addressOf(photo) {
  return `JPEGImages/${encodeURIComponent(photo.name)}.jpg`;
}

function wanted(photo) {
  const kind = choiceOf(photo)?.kind ?? "open";
  const state = byId("state").value;
  const label = byId("class").value;
  const name = data.classes[label];
  return (state === "all" || state === kind) && (!label || label in photo.found || photo.tags?.includes(name));
}

// List what the filters leave; the photo in view stays where it is still among them.
function filter() {
  listed = data.photos.filter(wanted);
  if (!listed.includes(shown)) [shown = null] = listed;
  length = Math.max(STEP, Math.ceil((listed.indexOf(shown) + 1) / STEP) * STEP);
  draw();
}

function draw() {
  byId("list").replaceChildren(...listed.slice(0, length).map(entry));
  byId("more").hidden = listed.length <= length;
  byId("photo").hidden = !shown;
  byId("nothing").hidden = Boolean(shown);
  const counts = Object.keys(SHOWN).map((kind) => [kind, data.photos.filter((photo) => choiceOf(photo)?.kind === kind).length]);
  const said = counts.filter(([, count]) => count).map(([kind, count]) => `${count} ${SHOWN[kind]}`);
  byId("progress").textContent = [`${listed.length} of ${data.photos.length} photos shown`, ...said].join(", ");
  if (shown) drawPhoto(shown);
}

function entry(photo) {
  const choice = choiceOf(photo);
  const button = made("button", { type: "button", className: "entry", ariaCurrent: String(photo === shown), onclick: () => show(photo) },
    made("img", { src: addressOf(photo), alt: "", loading: "lazy" }),
    made("span", { textContent: photo.name }),
    made("small", { textContent: choice ? SHOWN[choice.kind] : `quality ${photo.quality.toFixed(2)}` }));
  return made("li", {}, button);
}

function drawPhoto(photo) {
  const choice = choiceOf(photo);
  byId("name").textContent = photo.name;
  byId("verdict").textContent = choice ? SHOWN[choice.kind] + (choice.tags.length ? `: ${choice.tags.join(", ")}` : "") : "";
  byId("verdict").className = choice?.kind ?? "";
  byId("picture").src = addressOf(photo);
  const names = Object.keys(photo.found).map((label) => data.classes[label]);
  byId("picture").alt = `${photo.name}, labelled ${names.join(", ") || "background"}`;
  const tags = photo.tags ? `Tags: ${photo.tags.join(", ") || "none"}.` : "";
  byId("why").replaceChildren(...photo.why.map((textContent) => made("li", { textContent })));
  byId("legend").replaceChildren(...legend(photo), ...(tags ? [made("li", { textContent: tags })] : []));
  for (const button of document.querySelectorAll("[data-choice]")) {
    button.ariaPressed = String(button.dataset.choice === (choice?.kind ?? "undo"));
  }
  byId("tagging").hidden = true;
  drawRegions(photo);
  byId("list").querySelector("[aria-current=true]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function legend(photo) {
  return Object.entries(photo.found).map(([label, share]) => {
    const swatch = made("i");
    swatch.style.background = data.colours[label];
    return made("li", {}, swatch, `${data.classes[label]} ${(100 * share).toFixed(1)} %`);
  });
}

// Fill each region, with a dark and a light line about it, and write its name into its middle.
function drawRegions(photo) {
  const [width, height] = photo.size;
  const svg = byId("regions");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  byId("stage").style.width = `min(100%, ${(58 * width) / height}vh)`;
  const drawn = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const parts = Object.entries(photo.paths).flatMap(([label, [d]]) => {
    const colour = data.colours[label] ?? "#e0e0c0";
    const line = { d, fill: "none", "vector-effect": "non-scaling-stroke" };
    return [
      drawn("path", { d, fill: colour, "fill-rule": "evenodd", "fill-opacity": byId("fill").value / 100 }),
      drawn("path", { ...line, stroke: "#000", "stroke-opacity": 0.75, "stroke-width": 4 }),
      drawn("path", { ...line, stroke: colour, "stroke-width": 2 }),
    ];
  });
  svg.replaceChildren(...parts);
  for (const [label, [, x, y]] of Object.entries(photo.paths)) {
    const name = drawn("text", { x, y, "font-size": (15 * width) / svg.clientWidth });
    name.textContent = data.classes[label] ?? "ignored";
    svg.append(name);
  }
}

function show(photo) {
  if (!photo) return;
  shown = photo;
  length = Math.max(length, Math.ceil((listed.indexOf(photo) + 1) / STEP) * STEP);
  draw();
}

// Note a choice and go to the next photo.
function choose(kind, tags = []) {
  if (!shown) return;
  const next = listed[listed.indexOf(shown) + 1] ?? listed[listed.indexOf(shown) - 1] ?? null;
  changed[shown.name] = kind === "undo" ? null : { kind, tags };
  try {
    localStorage.setItem(KEY, JSON.stringify(changed));
  } catch {
    // they hold until the page is closed, then
  }
  if (kind !== "undo") shown = next;
  filter();
}

function startTagging() {
  if (!shown) return;
  byId("tagging").hidden = false;
  const known = choiceOf(shown)?.kind === "retag" ? choiceOf(shown).tags : shown.tags;
  byId("tags").value = (known ?? Object.keys(shown.found).map((label) => data.classes[label])).join(", ");
  byId("wrong").textContent = "";
  byId("tags").select();
}

function tagAnew(event) {
  event.preventDefault();
  const names = Object.values(data.classes);
  const typed = byId("tags").value.split(",").map((word) => word.trim()).filter(Boolean);
  const tags = typed.map((word) => names.find((name) => name.toLowerCase() === word.toLowerCase()) ?? null);
  const unknown = typed.filter((_, index) => tags[index] === null);
  if (unknown.length) {
    byId("wrong").textContent = `${unknown.join(", ")}: not a class of this model. It knows ${names.slice(0, 40).join(", ")}.`;
    return;
  }
  byId("photo").focus();
  choose("retag", [...new Set(tags)]);
}

function save() {
  const field = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const rows = data.photos.filter(choiceOf).map((photo) => {
    const { kind, tags } = choiceOf(photo);
    return [photo.name, kind, tags.join(";")].map(field).join(",");
  });
  const file = new Blob([["name,choice,classes", ...rows, ""].join("\r\n")], { type: "text/csv" });
  const link = made("a", { href: URL.createObjectURL(file), download: "choices.csv" });
  link.click();
  byId("progress").textContent = `${rows.length} choices saved as choices.csv: put the file beside this page.`;
}

const compare = (bare) => byId("stage").classList.toggle("bare", bare);
const KEYS = { a: () => choose("accept"), r: () => choose("reject"), t: startTagging, u: () => choose("undo") };
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=range]), select");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const at = listed.indexOf(shown);
  const key = event.key.toLowerCase();
  if (key in KEYS) KEYS[key]();
  else if (event.target.matches("input")) return;
  else if (key === "arrowright" || key === "j") show(listed[at + 1]);
  else if (key === "arrowleft" || key === "k") show(listed[at - 1]);
  else if (key === " " && !event.target.matches("button")) compare(true);
  else return;
  event.preventDefault();
});
document.addEventListener("keyup", (event) => event.key === " " && compare(false));
for (const name of ["pointerdown", "keydown"]) byId("compare").addEventListener(name, () => compare(true));
for (const name of ["pointerup", "pointerleave", "keyup", "blur"]) byId("compare").addEventListener(name, () => compare(false));
for (const button of document.querySelectorAll("[data-choice]")) {
  button.onclick = () => (button.dataset.choice === "retag" ? startTagging() : choose(button.dataset.choice));
}
byId("tagging").onsubmit = tagAnew;
byId("cancel").onclick = () => {
  byId("tagging").hidden = true;
};
byId("tags").addEventListener("keydown", (event) => event.key === "Escape" && byId("cancel").click());
byId("more").onclick = () => {
  length += STEP;
  draw();
};
byId("fill").oninput = () => drawRegions(shown);
byId("save").onclick = save;
for (const id of ["class", "state"]) byId(id).onchange = filter;
byId("class").replaceChildren(new Option("all", ""), ...Object.entries(data.classes).map(([label, name]) => new Option(name, label)));
byId("known").replaceChildren(...Object.values(data.classes).map((name) => new Option(name, name)));
filter();
