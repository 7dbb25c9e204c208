// The page: its state, and what happens when a photo comes, a control moves or an answer arrives.

import { byId, show } from "./elements.js";
import { busy, calm, complain, say } from "./messages.js";
import { decodePhoto, drawStrip, photoOf, receiveFiles, releaseBitmap } from "./photos.js";
import { ALL, askForJson, scoresRequest } from "./requests.js";
import { askWhatIsServed, canFuse, ownThreshold } from "./served.js";
import * as panel from "./panel.js";
import { drawThresholds, foregroundAbove, receiveThresholds } from "./thresholds.js";
import { Viewer, STEP } from "./viewer.js";
import { VIEWS } from "./views.js";

const state = {
  photos: [],
  photo: null,
  view: "heatmap",
  className: null,
  model: null,
  segmenter: null,
  tags: [],
  refine: false,
  conditional: false,
  threshold: 0,
  background: null, // the pseudo-label's thresholds, as in thresholds.js
  foreground: null,
  opacity: { map: 0.85, mask: 0.55 }, // as the service's own overlays
  spread: "range",
  allClasses: false,
};
const viewer = new Viewer(byId("stage"));
let served = null;
let shown = null; // what the view made of the answers
let scores = []; // of the photo's classes, by the chosen model
let running = new AbortController();

// Ask for what the state wants to show and show it; an earlier question still open is dropped.
async function refresh() {
  const { photo } = state;
  running.abort();
  if (!photo) return;
  running = new AbortController();
  const { signal } = running;
  const options = { signal, onBusy: (seconds) => busy(`The service is busy; trying again in ${seconds} s …`), progress: busy };
  const slow = state.conditional && state.view !== "mask";
  busy(slow ? "Class-conditional inference takes a while …" : photo.id ? "Working …" : `Sending ${photo.name} …`);
  try {
    await decodePhoto(photo);
    if (signal.aborted) return;
    if (!shown) showBare(photo);
    if (served.cams.length) await askForScores(photo, options);
    const result = await VIEWS[state.view].load(photo, state, served, options);
    if (signal.aborted) return;
    mark(photo, false);
    shown = result;
    calm();
    busy("");
    present();
  } catch (error) {
    if (signal.aborted) return;
    busy("");
    fail(photo, error);
  }
}

// The scores of all classes; where no class is chosen yet, or not one of them, the best is.
async function askForScores(photo, options) {
  const body = await askForJson(photo, scoresRequest(state), options);
  if (options.signal.aborted) return;
  scores = body.classes.map(({ class: name, score, present: found }) => {
    return { class: name, score, present: state.tags.length ? state.tags.includes(name) : found };
  });
  const known = scores.some((entry) => entry.class === state.className);
  if (!known || !state.chosen) {
    const best = [...scores].sort((one, other) => other.present - one.present || other.score - one.score);
    state.className = best[0].class;
  }
}

function fail(photo, error) {
  const refused = [400, 413, 415, 422].includes(error.status) && !photo.id;
  if (refused) {
    mark(photo, true);
    viewer.clear(`There is nothing to show of ${photo.name}.`);
  } else showBare(photo);
  shown = null;
  byId("caption").textContent = "";
  const { message, status } = error;
  const passing = !status || status === 429 || status >= 500;
  if (refused) complain(`${photo.name}: ${message}`);
  else complain(message[0].toUpperCase() + message.slice(1), passing ? refresh : null);
  drawPanel();
}

// The photo without results, before they come and where there are none.
function showBare(photo) {
  if (photo.bitmap) viewer.show(photo, [{ title: photo.name, description: photo.name }], 1);
  else viewer.clear("");
}

// Note whether the service refused a photo, which its thumbnail tells.
function mark(photo, refused) {
  if (photo.refused === refused) return;
  photo.refused = refused;
  drawPhotos();
}

// Show the answers: photo, layers, controls.
function present() {
  repaint();
  viewer.show(state.photo, shown.panes, opacity());
  byId("caption").textContent = shown.caption;
  drawPanel();
}

// Colour the layers anew; no request is made.
function repaint() {
  for (const pane of shown?.panes ?? []) pane.paint(state.threshold);
}

function opacity() {
  return state.opacity[VIEWS[state.view].kind];
}

function drawPanel() {
  const { kind, shownFormat } = VIEWS[state.view];
  const ofMaps = kind === "map";
  byId("work").classList.toggle("refused", state.photo.refused);
  panel.drawTabs(
    Object.entries(VIEWS).filter(([, view]) => view.possible(served)).map(([key, view]) => [key, view.title]),
    state.view,
    (view) => change({ view }),
  );
  panel.drawChips(scores, state, {
    choose: (className) => change({ className, chosen: true }),
    toggleAll: () => {
      state.allClasses = !state.allClasses;
      byId("find-class").value = "";
      drawPanel();
    },
  });
  panel.drawTags(state.tags, (tag) => {
    setTags(state.tags.filter((each) => each !== tag));
    byId("tag").focus();
  });
  panel.drawLegend(shown?.regions ?? [], () => {
    repaint();
    viewer.draw();
  });
  show("classes-section", ofMaps && scores.length > 0);
  show("take-section", Boolean(shown));
  show("legend-section", !ofMaps && Boolean(shown?.regions));
  show("thresholds-section", state.view === "pseudoLabel");
  show("threshold-row", ofMaps);
  show("spread-row", state.view === "disagreement");
  show("model-row", ["heatmap", "pseudoLabel"].includes(state.view));
  show("segmenter-row", state.view === "mask");
  show("conditional-row", state.view !== "mask");
  drawSliders();
  if (shown) panel.drawDownloads(state.photo, shown.requests, shownFormat);
}

function drawPhotos() {
  drawStrip(byId("strip"), state.photos, state.photo, { select, remove });
}

function drawSliders() {
  const percent = Math.round(100 * opacity());
  byId("opacity").value = percent;
  byId("opacity-value").textContent = `${percent} %`;
  byId("threshold").value = Math.round(100 * state.threshold);
  byId("threshold").style.setProperty("--at", `${100 * state.threshold}%`);
  byId("threshold-value").textContent = state.threshold.toFixed(2);
  drawThresholds(state, ownThreshold(served, state.model));
}

function change(changes) {
  Object.assign(state, changes);
  drawPanel();
  refresh();
}

function setTags(tags) {
  change({ tags: [...new Set(tags)], chosen: tags.length ? tags.includes(state.className) : state.chosen });
}

function select(photo) {
  leave();
  calm();
  change({ photo, chosen: false });
  drawPhotos();
}

// Let go of the photo in view.
function leave() {
  viewer.clear("");
  releaseBitmap(state.photo);
  shown = null;
  scores = [];
}

function remove(photo) {
  const at = state.photos.indexOf(photo);
  state.photos.splice(at, 1);
  URL.revokeObjectURL(photo.url);
  if (photo !== state.photo) {
    drawPhotos();
  } else if (state.photos.length) {
    select(state.photos[Math.min(at, state.photos.length - 1)]);
  } else {
    running.abort();
    leave();
    state.photo = null;
    busy("");
    calm();
    atWork(false);
    byId("choose").focus();
  }
}

async function take(files) {
  if (!files.length) return;
  if (!served) await start();
  if (!served) return;
  const photos = files.map(photoOf);
  state.photos.push(...photos);
  const first = byId("work").hidden;
  atWork(true);
  select(photos[0]);
  if (first) byId("main").focus({ preventScroll: true });
}

function atWork(working) {
  show("welcome", !working);
  show("work", working);
  show("add", working);
}

// Learn what is served. The page can be looked at before, and photos come in after.
async function start() {
  try {
    const found = await askWhatIsServed({ onBusy: () => busy("The models are being loaded …") });
    busy("");
    calm();
    served = found;
  } catch (error) {
    busy("");
    complain(error.message, start);
    return;
  }
  state.model = served.cams[0]?.pin ?? null;
  state.segmenter = served.segmenters[0]?.pin ?? null;
  state.view = Object.keys(VIEWS).find((key) => VIEWS[key].possible(served));
  const models = served.cams.map(({ pin }) => [pin, pin]);
  panel.drawOptions("model", canFuse(served) ? [...models, [ALL, "all, fused"]] : models, state.model);
  panel.drawOptions("segmenter", served.segmenters.map(({ pin }) => [pin, pin]), state.segmenter);
  const names = new Set([...served.cams, ...served.segmenters].flatMap(({ classes }) => classes));
  byId("class-names").replaceChildren(...[...names].map((name) => new Option(name, name)));
}

for (const id of ["add", "choose"]) byId(id).addEventListener("click", () => byId("files").click());
receiveFiles(byId("files"), take);
panel.receiveTags((words) => setTags([...state.tags, ...words]));
byId("alert-close").addEventListener("click", calm);
byId("find-class").addEventListener("input", drawPanel);
byId("opacity").addEventListener("input", (event) => {
  state.opacity[VIEWS[state.view].kind] = event.target.value / 100;
  drawSliders();
  viewer.draw(opacity());
});
byId("threshold").addEventListener("input", (event) => {
  state.threshold = event.target.value / 100;
  drawSliders();
  repaint();
  viewer.draw();
});
byId("threshold").addEventListener("change", drawPanel); // downloads and commands carry the threshold
receiveThresholds((changes) => {
  Object.assign(state, changes);
  drawSliders();
}, change);
byId("model").addEventListener("change", ({ target: { value: model } }) => {
  const low = state.background ?? ownThreshold(served, model);
  change({ model, foreground: foregroundAbove(low, state.foreground) });
});
byId("segmenter").addEventListener("change", (event) => change({ segmenter: event.target.value }));
byId("spread").addEventListener("change", (event) => change({ spread: event.target.value }));
byId("refine").addEventListener("change", (event) => change({ refine: event.target.checked }));
byId("conditional").addEventListener("change", (event) => change({ conditional: event.target.checked }));
byId("copy").addEventListener("click", async () => say(await panel.copyCommands()));
byId("zoom-in").addEventListener("click", () => viewer.zoom(STEP));
byId("zoom-out").addEventListener("click", () => viewer.zoom(1 / STEP));
byId("zoom-fit").addEventListener("click", () => viewer.zoom(0));
start();
