// These are drawn over the photo on a canvas: a layer with its names, and rings about a place.

// Draw the layer of a pane and its names, where the photo lies on the canvas; `unit` is the length of a CSS pixel there.
export function drawOver(context, { layer, opacity, labels }, { left, top, width, height }, unit) {
  context.globalAlpha = opacity;
  context.drawImage(layer, left, top, width, height);
  context.globalAlpha = 1;
  context.font = `600 ${13 * unit}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineJoin = "round";
  for (const { text, x, y } of labels?.() ?? []) {
    const half = context.measureText(text).width / 2 + 4 * unit;
    const across = Math.min(Math.max(left + x * width, left + half), left + width - half);
    context.lineWidth = 4 * unit;
    context.strokeStyle = "#000c";
    context.strokeText(text, across, top + y * height);
    context.fillStyle = "#fff";
    context.fillText(text, across, top + y * height);
  }
}

// Draw circles in one another, each in a colour of its own, the first one outside.
export function drawRing(context, x, y, radius, colours) {
  context.lineWidth = 1.5 * devicePixelRatio;
  colours.forEach((colour, index) => {
    context.strokeStyle = colour;
    context.beginPath();
    context.arc(x, y, Math.max(0, radius - index * context.lineWidth), 0, 2 * Math.PI);
    context.stroke();
  });
}
