// A corrected mask is sent to the service, and a photo to Label Studio.

import { askForFile } from "../requests.js";
import { address, ask } from "../service.js";
import { pngOf } from "./png.js";

const ID_LETTERS = 8; // So many letters of a photo's id stand behind a name that another photo has.

// Save the mask of a photo, and give what the service says of it. request and model are those of the draft.
export async function sendCorrection(photo, request, model, mask, changed) {
  const body = await pngOf(mask);
  const send = (name) => put(photo, request, "correction", { name, model, pixels_changed: changed }, body);
  try {
    return await send(photo.name);
  } catch (problem) {
    if (problem.kind !== "name-taken") throw problem;
    return send(`${photo.name.replace(/\.\w+$/, "")}-${photo.id.slice(0, ID_LETTERS)}`);
  }
}

// Make a task of a photo in Label Studio and show it in a tab of its own.
export async function openInLabelStudio(photo, request) {
  const tab = open("", "_blank"); // It is opened now, because a browser refuses it later.
  if (tab) tab.opener = null;
  try {
    photo.task ??= (await put(photo, request, "label-studio/task", {})).url;
    if (tab) tab.location = photo.task;
    else location = photo.task;
  } catch (problem) {
    tab?.close();
    throw problem;
  }
}

// Send a PUT about a photo, which is sent first where the service does not keep it (any more).
async function put(photo, request, path, query, body) {
  const send = async () => {
    if (!photo.id) await askForFile(photo, request, "json", {});
    return (await ask(address(path, { image: photo.id, ...query }), { method: "PUT", body })).json();
  };
  try {
    return await send();
  } catch (problem) {
    if (problem.kind !== "unknown-image") throw problem;
    photo.id = null;
    return send();
  }
}
