// Unsent text of the search box and of the input line of a further description.
//
// It is stored with each history entry (in history.state), so that going back, going forward and reloading restore it.

import { at } from "./dom.js";
import { closeEntry, entryDraft, openEntry, withEntry } from "./entry.js";
import { withLine } from "./parts.js";

const PAUSE = 250; // milliseconds without input until the state is written; browsers limit how often that is allowed

let timer = 0;

const words = () => at("words");

/** changed(): called on input. */
export function prepare(changed) {
  words().addEventListener("input", () => {
    words().dataset.edited = "1";
    changed();
    keepSoon();
  });
  at("entry").addEventListener("input", keepSoon);
  addEventListener("pagehide", keepDraft);
}

export const isEdited = () => words().dataset.edited === "1";

/** Puts text into the search box as if the user had typed it. */
export function type(text) {
  words().value = text;
  words().dataset.edited = "1";
  keepSoon();
}

/** Shows the description of the query in the search box, unless the box contains unsent text. */
export function showWords(text) {
  if (isEdited() && words().value !== text) return;
  delete words().dataset.edited;
  if (words().value !== text) words().value = text;
}

/** Returns the query with all unsent text added; the text counts as sent afterwards. */
export function withDrafts(asked) {
  const line = isEdited() ? withLine(asked, words().value) : asked;
  delete words().dataset.edited;
  return withEntry(line);
}

/** Drops unsent text. */
export function dropDrafts() {
  delete words().dataset.edited;
  closeEntry();
}

/** Returns a state for the history: the properties of `more`, and the unsent text. */
export function stateWith(more = {}) {
  clearTimeout(timer);
  return { ...more, draft: { words: isEdited() ? words().value : null, entry: entryDraft() } };
}

export function keepDraft() {
  history.replaceState(stateWith(history.state ?? {}), "", location.href);
}

/** Restores the unsent text of the current history entry. */
export function bringDraft() {
  clearTimeout(timer);
  dropDrafts();
  const draft = history.state?.draft;
  if (!draft) return;
  if (draft.words !== null) type(draft.words);
  if (draft.entry) openEntry(draft.entry);
}

function keepSoon() {
  clearTimeout(timer);
  timer = setTimeout(keepDraft, PAUSE);
}
