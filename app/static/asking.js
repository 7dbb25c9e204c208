// Here the service is asked about any photo on the page, after it was made to fit: for its scores, and whatever else.

import { shrink } from "./photos.js";
import { askForJson, scoresRequest } from "./requests.js";

const TOO_LARGE = 413;
const REFUSALS = [400, TOO_LARGE, 415, 422];

export function isRefusal(error) {
  return REFUSALS.includes(error.status);
}

// Do something with a photo; where the service finds it too large, shrink it first.
export async function fitting(photo, { limits }, act) {
  if (photo.file.size > limits.max_upload_bytes) await shrink(photo, limits);
  try {
    return await act();
  } catch (error) {
    if (error.status !== TOO_LARGE || !(await shrink(photo, limits))) throw error;
    return act();
  }
}

// Give [{class, score, present}] of a photo; where its tags are known, they are what is present.
export async function scoresOf(photo, state, options) {
  const { classes } = await askForJson(photo, scoresRequest(state), options);
  return classes.map(({ class: name, score, present: found }) => {
    return { class: name, score, present: photo.tags.length ? photo.tags.includes(name) : found };
  });
}

export function bestOf(entries) {
  return [...entries].sort((one, other) => other.present - one.present || other.score - one.score)[0];
}
