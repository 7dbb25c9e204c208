// Photos outlive a reload: the browser keeps them for this tab (IndexedDB), for a day at most.

const DAY_MS = 86_400_000;
const TAB = "tag2mask-tab";

let opened = null;

// Keep the photos as they are now, in their order, with their tags.
export async function keep(photos) {
  await work("readwrite", (store) => {
    const entries = photos.map(({ file, name, tags, example }) => ({ file, name, tags, example }));
    store.put({ entries, at: Date.now() }, tab());
  });
}

// Give [{file, name, tags, example}] that this tab had; what other tabs left behind long ago is thrown away.
export async function recall() {
  const [kept, keys] = (await work("readwrite", (store) => [store.get(tab()), store.getAllKeys()])) ?? [];
  for (const key of keys ?? []) {
    if (Number(key.split("-")[0]) < Date.now() - DAY_MS) await work("readwrite", (store) => store.delete(key));
  }
  return kept?.entries ?? [];
}

// Give the name of this tab, which begins with when it was opened.
function tab() {
  let name = sessionStorage.getItem(TAB);
  if (!name) {
    name = `${Date.now()}-${Math.random().toString(36).slice(2)}`;
    sessionStorage.setItem(TAB, name);
  }
  return name;
}

// Do something with the store, whose results come once all is done; nothing where the browser keeps nothing for the page.
async function work(mode, act) {
  try {
    opened ??= await open();
    return await new Promise((resolve, reject) => {
      const transaction = opened.transaction("photos", mode);
      const asked = act(transaction.objectStore("photos"));
      transaction.oncomplete = () => resolve(Array.isArray(asked) ? asked.map(({ result }) => result) : undefined);
      transaction.onabort = () => reject(transaction.error);
    });
  } catch {
    return undefined; // It is a private window, or the disk is full: the page works without.
  }
}

function open() {
  return new Promise((resolve, reject) => {
    const asked = indexedDB.open("tag2mask", 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore("photos");
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
}
