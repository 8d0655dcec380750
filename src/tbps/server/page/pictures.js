// Pictures to search with: they live as long as the page does, under keys that an address can hold.

const MOST = 4;
const held = new Map();

/** Keys of the pictures among these files, at most MOST. */
export function keep(files) {
  const pictures = [...files].filter((file) => file.type.startsWith("image/")).slice(0, MOST);
  return pictures.map((file) => {
    const key = crypto.getRandomValues(new Uint32Array(1))[0].toString(36);
    held.set(key, { file, address: URL.createObjectURL(file) });
    return key;
  });
}

/** {file, address} of a key, undefined for one of an earlier visit. */
export const picture = (key) => held.get(key);

export const lost = (keys) => keys.filter((key) => !held.has(key));

export const together = (before, added) => [...before.filter((key) => held.has(key)), ...added].slice(-MOST);
