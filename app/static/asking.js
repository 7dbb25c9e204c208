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

// Give [{class, score, threshold, present}] of a photo: a class is present whose score reaches its threshold. Where tags are known,
// they are what is present, and the thresholds are null.
export async function scoresOf(photo, state, options) {
  const { classes } = await askForJson(photo, scoresRequest(state), options);
  const tagged = photo.tags.length > 0;
  return classes.map(({ class: name, score, present, presence_threshold: threshold }) =>
    ({ class: name, score, threshold: tagged ? null : threshold, present: tagged ? photo.tags.includes(name) : present }));
}

export function bestOf(entries) {
  return [...entries].sort((one, other) => other.present - one.present || other.score - one.score)[0];
}

// Write a score and its threshold, if there is one, with as many digits as tell them apart.
export function comparable(score, threshold) {
  const digits = threshold !== null && score.toFixed(2) === threshold.toFixed(2) ? 4 : 2;
  return [score.toFixed(digits), threshold?.toFixed(digits)];
}
