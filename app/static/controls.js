// The controls of the page: each tells the page what somebody wants. What they show is drawn in panel.js.

import { byId } from "./elements.js";
import { calm, say } from "./messages.js";
import * as panel from "./panel.js";
import { receiveFiles } from "./photos.js";
import { ownThreshold, segmenterFor } from "./served.js";
import { state, writeAddress } from "./state.js";
import { foregroundAbove, receiveThresholds } from "./thresholds.js";
import { STEP } from "./viewer.js";

// page: what the controls may ask for, as page.js passes it.
export function receiveControls(page) {
  for (const id of ["add", "choose"]) byId(id).addEventListener("click", () => byId("files").click());
  receiveFiles(byId("files"), page.take);
  panel.receiveTags(page.addTags);
  byId("alert-close").addEventListener("click", calm);
  byId("find-class").addEventListener("input", page.drawPanel);
  receiveLook(page);
  receiveMethod(page);
  byId("format").addEventListener("change", ({ target }) => {
    state.format = target.value;
    writeAddress();
    page.drawPanel();
  });
  byId("correct").addEventListener("click", page.correct);
  byId("label-studio").addEventListener("click", page.openTask);
  byId("save").addEventListener("click", page.save);
  byId("save-all").addEventListener("click", page.saveAll);
  byId("copy").addEventListener("click", async () => say(await panel.copyCommands()));
  addEventListener("hashchange", () => location.reload()); // The address was typed or followed, and not written by the page.
}

// These change the picture alone, without a question to the service.
function receiveLook({ viewer, drawSliders, drawPanel, repaint, opacityKind, opacityOf }) {
  byId("opacity").addEventListener("input", ({ target }) => {
    state.opacity[opacityKind()] = target.value / 100;
    drawSliders();
    viewer.draw(opacityOf());
  });
  byId("threshold").addEventListener("input", ({ target }) => {
    state.threshold = target.value / 100;
    drawSliders();
    repaint();
    drawPanel(); // What is saved, and the commands, carry the threshold.
  });
  byId("threshold").addEventListener("change", writeAddress);
  byId("names").addEventListener("change", ({ target }) => {
    state.names = target.checked;
    viewer.draw();
  });
  const compare = byId("compare");
  for (const name of ["pointerdown", "keydown"]) compare.addEventListener(name, (event) => event.key !== "Tab" && viewer.compare(true));
  for (const name of ["pointerup", "pointerleave", "keyup", "blur"]) compare.addEventListener(name, () => viewer.compare(false));
  byId("zoom-in").addEventListener("click", () => viewer.zoom(STEP));
  byId("zoom-out").addEventListener("click", () => viewer.zoom(1 / STEP));
  byId("zoom-fit").addEventListener("click", () => viewer.zoom(0));
}

// For these the service is asked anew.
function receiveMethod({ change, drawSliders, served }) {
  receiveThresholds((changes) => {
    Object.assign(state, changes);
    drawSliders();
  }, change);
  for (const [id, key, scale] of [["mask-threshold", "maskThreshold", 100], ["smallest", "smallest", 1000]]) {
    byId(id).addEventListener("input", ({ target }) => {
      state[key] = target.value / scale;
      drawSliders();
    });
    byId(id).addEventListener("change", ({ target }) => change({ [key]: target.value / scale }));
  }
  byId("model").addEventListener("change", ({ target: { value: model } }) => {
    const low = state.background ?? ownThreshold(served(), model);
    change({ model, segmenter: segmenterFor(served(), model), foreground: foregroundAbove(low, state.foreground) });
  });
  byId("segmenter").addEventListener("change", ({ target }) => change({ segmenter: target.value }));
  byId("spread").addEventListener("change", ({ target }) => change({ spread: target.value }));
  byId("refine").addEventListener("change", ({ target }) => change({ refine: target.checked }));
  byId("conditional").addEventListener("change", ({ target }) => change({ conditional: target.checked }));
}
