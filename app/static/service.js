// Requests go to the service from here: addresses, uploads, one more try where it is busy, and its problems as exceptions.

const LONGEST_WAIT_SECONDS = 30;

export class Problem extends Error {
  constructor(detail, kind = "", status = 0) {
    super(detail);
    this.kind = kind;
    this.status = status;
  }
}

// Give the address of a request, relative to the page so that a prefix set by a proxy stays.
export function address(path, parameters = {}) {
  const query = Object.entries(parameters)
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => `${name}=${encodeURIComponent(value).replace(/%2F/g, "/").replace(/%2C/g, ",").replace(/'/g, "%27")}`);
  return new URL(query.length ? `${path}?${query.join("&")}` : path, document.baseURI).href;
}

// Give the reply about a photo: by its id where the service keeps it, else with the photo itself.
export async function askAbout(photo, path, parameters, options = {}) {
  if (photo.id) {
    try {
      return await ask(address(path, { ...parameters, image: photo.id }), {}, options);
    } catch (problem) {
      if (problem.kind !== "unknown-image") throw problem;
      photo.id = null;
    }
  }
  const body = new FormData();
  body.append("file", photo.file, photo.name);
  const reply = await ask(address(path, parameters), { method: "POST", body }, options);
  photo.id = reply.headers.get("X-Image-Id");
  return reply;
}

// Give a successful reply. Where the service is busy, it is asked once more after the time it names.
export async function ask(url, request = {}, { signal, onBusy } = {}) {
  let reply = await send(url, request, signal);
  const seconds = Number(reply.headers.get("Retry-After"));
  if ([429, 503].includes(reply.status) && seconds > 0) {
    const wait = Math.min(seconds, LONGEST_WAIT_SECONDS);
    onBusy?.(wait);
    await pause(wait, signal);
    reply = await send(url, request, signal);
  }
  if (!reply.ok) throw await problemOf(reply);
  return reply;
}

async function send(url, request, signal) {
  try {
    return await fetch(url, { ...request, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const hint = request.body ? " The connection also ends so where a file is far too large." : "";
    throw new Problem(`The server cannot be reached, or it closed the connection.${hint}`);
  }
}

async function problemOf(reply) {
  const text = await reply.text();
  try {
    const problem = JSON.parse(text);
    return new Problem(problem.detail, problem.type.split(":").pop(), reply.status);
  } catch {
    return new Problem(`The server answered ${reply.status} ${reply.statusText}.`, "", reply.status);
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
