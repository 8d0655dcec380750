// Queries: as typed text, in the address of the page, and as JSON for the service (see tbps.gallery.Query).
//
// An address cannot contain pictures. It contains a key per picture, and `pictures.js` keeps the files.

export const PAGE = 24;
const NEGATIVE_WEIGHT = 0.5;
const WEIGHT = /(?<!\\)\^(\d+(?:\.\d*)?|\.\d+)\s*$/;
const LISTS = ["right", "wrong"];
const WORDS = ["since", "until", "where", "group"];

const NOTHING = {
  texts: [], like: [], pictures: [], right: [], wrong: [], cameras: [], equals: {},
  since: null, until: null, where: null, group: null, rerank: 0,
};

export const query = (parts = {}) => ({ ...NOTHING, ...parts });

/** Parses a typed description: "-backpack" is avoided, "a red coat^2" has weight 2; a backslash makes either sign literal. */
export function phrase(argument) {
  let text = argument;
  let weight = 1;
  const avoided = text.trimStart().startsWith("-");
  if (avoided) {
    text = text.trimStart().slice(1);
    weight = NEGATIVE_WEIGHT;
  }
  const found = WEIGHT.exec(text);
  if (found) {
    text = text.slice(0, found.index);
    weight = Number(found[1]);
  }
  text = text.replaceAll("\\^", "^");
  return { text: text.startsWith("\\-") ? text.slice(1) : text, weight: avoided ? -weight : weight };
}

/** Formats a description as typed text; the inverse of `phrase`. */
export function typed({ text, weight }) {
  const literal = (text.trimStart().startsWith("-") ? text.replace("-", "\\-").trimStart() : text).replaceAll("^", "\\^");
  const usual = weight < 0 ? NEGATIVE_WEIGHT : 1;
  return `${weight < 0 ? "-" : ""}${literal}${Math.abs(weight) === usual ? "" : `^${Math.abs(weight)}`}`;
}

export const sameText = (one, other) => one.text === other.text && one.weight === other.weight;

/** Parses the descriptions in a line: a single one, or several in double quotes as on a command line: "a red coat" "-backpack". */
export function phrases(line) {
  const quoted = /^\s*(?:"[^"]+"\s*)+$/.test(line) ? [...line.matchAll(/"([^"]+)"/g)].map((match) => match[1]) : [line];
  return quoted.filter((text) => text.trim()).map((text) => phrase(text.trim()));
}

const weighted = (id, weight) => (weight === 1 ? id : `${id}^${weight}`);

export function toAddress(asked, shown = null) {
  const parts = new URLSearchParams();
  for (const text of asked.texts) parts.append("q", typed(text));
  for (const example of asked.like) parts.append("like", weighted(example.id, example.weight));
  for (const key of asked.pictures) parts.append("picture", key);
  for (const name of LISTS) for (const id of asked[name]) parts.append(name, id);
  for (const name of asked.cameras) parts.append("camera", name);
  for (const [column, value] of Object.entries(asked.equals)) {
    if (value === null) parts.append("without", column);
    else parts.append("is", `${column}=${value}`);
  }
  for (const name of WORDS) if (asked[name]) parts.append(name, asked[name]);
  if (asked.rerank) parts.append("rerank", asked.rerank);
  if (shown) parts.append("show", shown);
  const text = parts.toString();
  return text ? `#${text}` : location.pathname;
}

/** Parses an address to {asked, shown}; invalid parts are ignored. */
export function fromAddress(hash) {
  const parts = new URLSearchParams(hash.replace(/^#/, ""));
  const equals = {};
  for (const text of parts.getAll("is")) {
    const sign = text.indexOf("=");
    if (sign > 0) equals[text.slice(0, sign)] = text.slice(sign + 1);
  }
  for (const column of parts.getAll("without")) equals[column] = null;
  const asked = query({
    texts: parts.getAll("q").map(phrase),
    like: parts.getAll("like").map((text) => {
      const { text: id, weight } = phrase(text);
      return { id, weight };
    }),
    pictures: parts.getAll("picture"),
    cameras: parts.getAll("camera"),
    equals,
    rerank: Math.min(1000, Math.max(0, Math.trunc(Number(parts.get("rerank"))) || 0)),
  });
  for (const name of LISTS) asked[name] = parts.getAll(name);
  for (const name of WORDS) asked[name] = parts.get(name) || null;
  return { asked, shown: parts.get("show") };
}

/** The query as JSON for the service. */
export function asJson(asked) {
  const { pictures: _, ...rest } = asked;
  return { ...rest, k: PAGE };
}

/** Whether the query contains anything to search for besides filters and images marked as wrong. */
export const seeks = (asked) =>
  asked.texts.length + asked.like.length + asked.pictures.length + asked.right.length > 0;

export const hasFilter = (asked) =>
  Boolean(asked.cameras.length || asked.since || asked.until || asked.where || Object.keys(asked.equals).length);

export const withoutFilters = (asked) => ({ ...asked, cameras: [], since: null, until: null, where: null, equals: {} });

/** Short name of a query for titles and saved searches. */
export function named(asked) {
  const parts = asked.texts.map(typed);
  if (asked.pictures.length) parts.push(asked.pictures.length > 1 ? `${asked.pictures.length} pictures` : "a picture");
  if (asked.like.length) parts.push("like a result");
  if (!parts.length && asked.right.length) parts.push("marked results");
  return [...parts, ...asked.cameras].join(", ");
}
