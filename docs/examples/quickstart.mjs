// Everything one photo has to give, from JavaScript (Node 18 or newer, or a browser):
// node docs/examples/quickstart.mjs [PHOTO] [SERVER]
import { readFile, writeFile } from "node:fs/promises";

const [photo = "tests/photos/cat.jpg", server = "http://localhost:8000"] = process.argv.slice(2);

process.on("uncaughtException", (error) => {
  console.error(error.cause?.message ?? error.message);
  process.exit(1);
});

// A refusal is a problem document (RFC 9457): `detail` says what is wrong and what to do.
async function ask(path, options) {
  const reply = await fetch(server + path, options);
  if (!reply.ok) throw new Error((await reply.json()).detail);
  return reply;
}

const form = new FormData();
form.append("file", new Blob([await readFile(photo)]), photo);
const found = await (await ask("/analyze", { method: "POST", body: form })).json();

for (const region of found.segment.classes) {
  console.log(`${region.class}: ${Math.round(100 * region.share)} % of the photo, score ${region.score.toFixed(2)}`);
}
const best = found.cam.classes.reduce((a, b) => (a.score >= b.score ? a : b));
console.log(`the classifier is surest of ${best.class} (${best.score.toFixed(2)})`);

const overlay = await ask(best.links.overlay);
await writeFile("heat.jpg", Buffer.from(await overlay.arrayBuffer()));
console.log(`heat.jpg by ${overlay.headers.get("x-model")}`);

// Asked again with its entity tag, an unchanged result costs nothing.
const again = await fetch(server + best.links.overlay, { headers: { "If-None-Match": overlay.headers.get("etag") } });
console.log(`again: ${again.status}`);
