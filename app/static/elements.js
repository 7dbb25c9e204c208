// Elements are made and found here. Text goes in as text: names of classes, files and models are never read as HTML.

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function byId(id) {
  return document.getElementById(id);
}

export function show(id, visible) {
  byId(id).hidden = !visible;
}
