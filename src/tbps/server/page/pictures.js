// Pictures to search with. They are kept in memory while the page is open; addresses contain a key per picture.

const MOST = 4;
const held = new Map();

/** Keeps the pictures among these files, at most MOST; returns their keys. */
export function keep(files) {
  const pictures = [...files].filter((file) => file.type.startsWith("image/")).slice(0, MOST);
  return pictures.map((file) => {
    const key = crypto.getRandomValues(new Uint32Array(1))[0].toString(36);
    held.set(key, { file, address: URL.createObjectURL(file) });
    return key;
  });
}

/** {file, address} of a key; undefined if the page was reloaded since. */
export const picture = (key) => held.get(key);

export const lost = (keys) => keys.filter((key) => !held.has(key));

export const together = (before, added) => [...before.filter((key) => held.has(key)), ...added].slice(-MOST);
