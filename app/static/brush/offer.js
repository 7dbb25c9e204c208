// The mask in view may be corrected by the brush, or in Label Studio.

import { show } from "../elements.js";
import { busy, complain } from "../messages.js";
import { openInLabelStudio } from "./sending.js";

// result: what the view shows. It is to be the mask of one model: several, fused, have no draft of their own.
export function drawOffer({ corrections, label_studio: labelStudio }, result) {
  const ofOneModel = Boolean(result?.model) && result.requests[0].title === result.model;
  show("correct-section", (corrections || labelStudio) && ofOneModel);
  show("correct", corrections);
  show("label-studio", labelStudio);
}

export async function openTask(photo, { requests: [request] }) {
  busy("Opening it in Label Studio …");
  try {
    await openInLabelStudio(photo, request);
    busy("");
  } catch (error) {
    busy("");
    complain(error.message);
  }
}
