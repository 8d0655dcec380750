// What is typed but not yet searched with: in the search box, and in the line of a further description.
//
// Every step of the history keeps its own (in history.state), so that going back, going forth and reloading bring it back.

import { at } from "./dom.js";
import { closeEntry, entryDraft, openEntry, withEntry } from "./entry.js";
import { withLine } from "./parts.js";

const PAUSE = 250; // milliseconds without a key after which a step is written; browsers limit how often that may be done

let timer = 0;

const words = () => at("words");

/** changed(): called when something is typed. */
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

/** Writes words into the search box as if they were typed. */
export function type(text) {
  words().value = text;
  words().dataset.edited = "1";
  keepSoon();
}

/** Shows what is sought in the search box, unless something else was typed there. */
export function showWords(text) {
  if (isEdited() && words().value !== text) return;
  delete words().dataset.edited;
  if (words().value !== text) words().value = text;
}

/** The query with all that is typed; the search box and the line of a description hold nothing unsent afterwards. */
export function withDrafts(asked) {
  const line = isEdited() ? withLine(asked, words().value) : asked;
  delete words().dataset.edited;
  return withEntry(line);
}

/** Forgets what is typed. */
export function dropDrafts() {
  delete words().dataset.edited;
  closeEntry();
}

/** A state for the history: `more`, and what is typed now. */
export function stateWith(more = {}) {
  clearTimeout(timer);
  return { ...more, draft: { words: isEdited() ? words().value : null, entry: entryDraft() } };
}

export function keepDraft() {
  history.replaceState(stateWith(history.state ?? {}), "", location.href);
}

/** Shows what was typed at this step of the history, instead of what is typed now. */
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
