// The page acts when a photo comes, a control moves or an answer arrives. What is shown stands in state.js.

import { correctedPanes, Correcting } from "./brush/correcting.js";
import { drawOffer, openTask } from "./brush/offer.js";
import { bestOf, fitting, isRefusal, scoresOf } from "./asking.js";
import { receiveControls } from "./controls.js";
import { byId, show } from "./elements.js";
import { keep, recall } from "./kept.js";
import { busy, calm, complain, say, settle } from "./messages.js";
import * as panel from "./panel.js";
import { decodePhoto, drawStrip, photoOf, releaseBitmap } from "./photos.js";
import { ALL, askForJson, maskRequest, scoresRequest } from "./requests.js";
import { filesOfAll, save } from "./saving.js";
import { askWhatIsServed, canFuse, classNamed, nearTo, ownThreshold } from "./served.js";
import { readAddress, state, writeAddress } from "./state.js";
import { drawThresholds } from "./thresholds.js";
import { Viewer } from "./viewer.js";
import { VIEWS } from "./views.js";
import { drawModels, drawWelcome, exampleFile } from "./welcome.js";

const viewer = new Viewer(byId("stage"));
let served = null;
let shown = null; // The view made this of the answers.
let scores = []; // They are those of the photo's classes, by the chosen model.
let running = new AbortController();
const correcting = new Correcting(viewer, () => {
  drawPhotos();
  present();
});

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
    const result = await fitting(photo, served, async () => {
      await decodePhoto(photo);
      if (signal.aborted) return null;
      if (!shown) showBare(photo);
      if (served.cams.length) await askForScores(photo, options);
      return VIEWS[state.view].load(photo, state, served, options);
    });
    if (signal.aborted) return;
    mark(photo, null);
    shown = result;
    settle();
    busy("");
    present();
  } catch (error) {
    if (signal.aborted) return;
    busy("");
    fail(photo, error);
  }
}

// Show the scores of all classes; where no class is chosen yet, or not one of them, the best is.
async function askForScores(photo, options) {
  const found = await scoresOf(photo, state, options);
  if (options.signal.aborted) return;
  scores = found;
  const known = scores.some((entry) => entry.class === state.className);
  if (!known || !state.chosen) state.className = bestOf(scores).class;
}

function fail(photo, error) {
  const refused = isRefusal(error) && !photo.id;
  if (refused) {
    mark(photo, error.message);
    viewer.clear(`There is nothing to show of ${photo.name}.`);
  } else showBare(photo);
  shown = null;
  byId("caption").textContent = "";
  const { message, status } = error;
  const passing = !status || status === 429 || status >= 500;
  if (refused) complain(`${photo.name}: ${message}`);
  else complain(message[0].toUpperCase() + message.slice(1), { retry: passing ? refresh : null });
  drawPanel();
}

// Send the photos that are not in view as well, one after the other: what the service refuses is told at once.
async function checkOthers(photos) {
  const refused = [];
  for (const photo of photos) {
    if (photo === state.photo || photo.id || photo.refused || !state.photos.includes(photo)) continue;
    try {
      const request = () => (served.cams.length ? scoresRequest(state) : maskRequest({ ...state, photo }, served));
      await fitting(photo, served, () => askForJson(photo, request(), {}));
    } catch (error) {
      if (!isRefusal(error) || photo.id) continue; // It is asked again when it is shown.
      mark(photo, error.message);
      refused.push(photo);
    }
  }
  if (!refused.length || state.photo?.refused) return;
  const reasons = refused.map(({ name, refused: reason }) => `${name}: ${reason}`);
  complain(reasons.length > 1 ? `${reasons.length} files were refused. ${reasons.join(" ")}` : reasons[0], { lasting: true });
}

// Show the photo without results, before they come and where there are none.
function showBare(photo) {
  if (photo.bitmap) viewer.show(photo, [{ title: photo.name, description: photo.name }], 1);
  else viewer.clear("");
}

// Note why the service refused a photo, null where it did not; its thumbnail tells.
function mark(photo, reason) {
  if (photo.refused === reason) return;
  photo.refused = reason;
  drawPhotos();
}

// Show the answers: photo, layers, controls.
function present() {
  repaint();
  const corrected = correctedPanes(state.photo, shown.model);
  if (shown.panes.length) viewer.show(state.photo, [...shown.panes, ...corrected], opacity());
  else viewer.clear("");
  byId("caption").textContent = [shown.caption, state.photo.shrunk, corrected.length ? "The brush goes on from your correction." : ""].filter(Boolean).join(" ");
  drawPanel();
}

// Colour the layers anew; no request is made.
function repaint() {
  for (const pane of shown?.panes ?? []) pane.paint(state.threshold);
  viewer.draw();
}

function opacity() {
  return state.opacity[VIEWS[state.view].kind];
}

function drawPanel() {
  const { photo, view } = state;
  const ofMaps = VIEWS[view].kind === "map";
  const comparing = ["methods", "disagreement"].includes(view);
  byId("work").classList.toggle("refused", Boolean(photo.refused));
  panel.drawTabs(
    Object.entries(VIEWS).filter(([, each]) => each.possible(served)).map(([key, each]) => [key, each.title]),
    view,
    (key) => change({ view: key }),
  );
  panel.drawTags(photo.tags, served.classesOf(view === "mask" ? state.segmenter : state.model), (tag) => {
    setTags(photo.tags.filter((each) => each !== tag));
    byId("tag").focus();
  });
  panel.drawChips(scores, state, {
    choose: (className) => change({ className, chosen: true }),
    toggleAll: () => {
      state.allClasses = !state.allClasses;
      byId("find-class").value = "";
      drawPanel();
    },
  });
  panel.drawPresence(state);
  panel.drawLegend(shown?.regions ?? [], repaint);
  panel.drawMethods(served.cams, state.without, (without) => change({ without }));
  drawModels(served, state);
  show("classes-section", ofMaps && scores.length > 0);
  drawOffer(served.limits, shown);
  show("take-section", Boolean(shown?.requests.length));
  show("legend-section", !ofMaps && Boolean(shown?.regions));
  show("thresholds-section", view === "pseudoLabel");
  show("threshold-row", ofMaps);
  show("mask-threshold-row", view === "mask");
  show("smallest-row", !ofMaps);
  show("names-row", !ofMaps);
  show("spread-row", view === "disagreement");
  show("model-row", ["heatmap", "pseudoLabel"].includes(view));
  show("methods-row", comparing);
  show("segmenter-row", view === "mask");
  show("conditional-row", view !== "mask");
  drawSliders();
  if (shown?.requests.length) panel.drawSaving(photo, shown.requests, state.format, state.photos.filter(({ refused }) => !refused).length);
}

function drawPhotos() {
  drawStrip(byId("strip"), state.photos, state.photo, { select, remove });
}

function drawSliders() {
  panel.drawSliders(state, opacity());
  drawThresholds(state, ownThreshold(served, state.model));
}

function change(changes) {
  Object.assign(state, changes);
  writeAddress();
  drawPanel();
  refresh();
}

function setTags(tags) {
  state.photo.tags = [...new Set(tags)];
  keep(state.photos);
  change({ chosen: tags.length ? tags.includes(state.className) : state.chosen });
}

// Add what is a class, whatever its case; give back the words that are none, and say so beside the field.
function addTags(words) {
  const found = words.map((word) => [word, classNamed(word, served)]);
  const unknown = found.filter(([, name]) => !name).map(([word]) => word);
  const near = unknown.flatMap((word) => nearTo(word, served.names));
  const hint = near.length ? `Did you mean ${near.join(" or ")}?` : `They know ${served.names.slice(0, 30).join(", ")}.`;
  panel.sayOfTag(unknown.length ? `${unknown.join(", ")}: no class of these models. ${hint}` : "");
  const names = found.flatMap(([, name]) => name ?? []);
  if (names.length) setTags([...state.photo.tags, ...names]);
  return unknown;
}

function select(photo) {
  leave();
  calm();
  panel.sayOfTag("");
  byId("tag").value = "";
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
  keep(state.photos);
  if (photo !== state.photo) {
    drawPhotos();
    drawPanel();
  } else if (state.photos.length) {
    select(state.photos[Math.min(at, state.photos.length - 1)]);
  } else {
    running.abort();
    leave();
    state.photo = null;
    writeAddress();
    busy("");
    calm();
    atWork(false);
    byId("choose").focus();
  }
}

async function take(files) {
  if (!files.length) return;
  if (correcting.active) {
    say("Save the correction first, or cancel it.");
    return;
  }
  if (!served) await start();
  if (served) add(files.map((file) => photoOf(file)));
}

// Take photos into the page and show the first of them.
function add(photos) {
  state.photos.push(...photos);
  keep(state.photos);
  const first = byId("work").hidden;
  atWork(true);
  select(photos[0]);
  if (first) byId("main").focus({ preventScroll: true });
  checkOthers(photos);
}

async function takeExample(name) {
  try {
    add([photoOf(await exampleFile(name), { example: name })]);
  } catch (error) {
    complain(error.message);
  }
}

// Correct the mask in view by brush.
function correct() {
  running.abort();
  correcting.begin(state.photo, shown, served, opacity());
}

function atWork(working) {
  show("welcome", !working);
  show("work", working);
  show("add", working);
}

// Save what is shown of the photo in view, or of all photos.
async function saveShown(photos) {
  const inView = { photo: state.photo, result: shown };
  const { files, missing } = await filesOfAll(photos, state, served, inView, opacity(), busy);
  if (photos.includes(state.photo)) await decodePhoto(state.photo);
  if (files.length) say(`${await save(files, `tag2mask-${state.view}.zip`)} is saved.`);
  else busy("");
  if (missing.length) complain(`Not saved: ${missing.join(" ")}`);
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
    complain(error.message, { retry: start });
    return;
  }
  state.model = served.cams[0]?.pin ?? null;
  state.segmenter = served.segmenters[0]?.pin ?? null;
  state.view = Object.keys(VIEWS).find((key) => VIEWS[key].possible(served));
  const examples = readAddress(served);
  panel.drawServed(served, canFuse(served), ALL);
  drawWelcome(served, takeExample);
  const kept = await recall();
  if (state.photos.length) return; // One came in meanwhile.
  if (kept.length) add(kept.map(({ file, ...rest }) => photoOf(file, rest)));
  else for (const name of examples) await takeExample(name);
}

receiveControls({
  viewer, change, take, correct, addTags, drawPanel, drawSliders, repaint,
  opacityKind: () => VIEWS[state.view].kind,
  opacityOf: opacity,
  openTask: () => openTask(state.photo, shown),
  served: () => served,
  save: () => saveShown([state.photo]),
  saveAll: () => saveShown(state.photos.filter(({ refused }) => !refused)),
});
start();
