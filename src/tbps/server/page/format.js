// Formatting of numbers and times. Times are UTC, as in the gallery.

export const count = (number) => Number(number).toLocaleString("en");

export const several = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** "2024-05-01T08:31:05.120" -> "2024-05-01 08:31:05" */
export function time(text) {
  return text ? text.replace("T", " ").replace(/(:\d\d)\.\d+/, "$1").replace(/([+]00:00|Z)$/, "") : "";
}

/** Formats a period between two times; if both are on the same day, the date is written once. */
export function span(first, last) {
  if (!first || !last) return time(first || last);
  const [a, b] = [time(first), time(last)];
  if (a === b) return a;
  return a.slice(0, 10) === b.slice(0, 10) ? `${a} – ${b.slice(11)}` : `${a} – ${b}`;
}

export const seconds = (text) => Date.parse(/Z|[+-]\d\d:\d\d$/.test(text) ? text : `${text}Z`) / 1000;

export function duration(value) {
  if (value < 1) return "under a second";
  if (value < 90) return several(Math.round(value), "second");
  if (value < 5400) return several(Math.round(value / 60), "minute");
  return `${(value / 3600).toFixed(1)} hours`;
}

export function bytes(number) {
  return number < 1e6 ? `${Math.ceil(number / 1e3)} kB` : number < 1e9 ? `${Math.round(number / 1e6)} MB` : `${(number / 1e9).toFixed(1)} GB`;
}

/** 0.34 -> "1 in 3"; above one half as "3 in 4". */
export function oneIn(chance) {
  if (chance > 0.5) {
    const of = Math.min(Math.round(1 / Math.max(1 - chance, 0.01)), 100);
    return `${of - 1} in ${of}`;
  }
  return chance > 0.001 ? `1 in ${Math.min(Math.round(1 / Math.max(chance, 1e-9)), 1000)}` : "under 1 in 1000";
}

/** "about 1 in 3" */
export const often = (chance) => `${chance > 0.001 ? "about " : ""}${oneIn(chance)}`;

/** "1 in 3", or "rarely" */
export const briefly = (chance) => (chance > 0.001 ? oneIn(chance) : "rarely");

/** A score relative to the best one, in [0, 1]. */
export const relative = (score, best) => (best > 0 ? Math.max(0, Math.min(1, score / best)) : 0);

export const percent = (share) => `${Math.round(100 * share)} %`;

/** "upper_colour" -> "upper colour" */
export const title = (column) => column.replaceAll("_", " ").replaceAll(".", " ");

/** Formats a value of a column as text. */
export const value = (held) =>
  held === null || held === undefined ? "none" : typeof held === "object" ? JSON.stringify(held) : String(held);
