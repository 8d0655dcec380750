// Input line for adding, avoiding or changing a further description.
//
// The element is never replaced, so that redrawing the chips around it preserves its text, its focus and the composition of an input
// method editor.

import { at, show } from "./dom.js";
import { phrases, sameText, typed } from "./query.js";

const KINDS = {
  also: ["Description; start with - to avoid, end with ^2 to count twice", "black backpack"],
  avoid: ["Description to avoid; end with ^2 to count twice", "backpack"],
  change: ["Description; start with - to avoid, end with ^2 to count twice", ""],
};

let now = null; // {kind, text}: text is the description that is being changed, or null
let on = {};

const input = () => at("entry");

/** actions: search(): search with the line; redraw(): the line was opened or closed. */
export function prepare(actions) {
  on = actions;
  for (const kind of ["also", "avoid"]) at(kind).addEventListener("click", () => beginEntry({ kind, text: null, line: "" }));
  input().addEventListener("keydown", (event) => {
    if (event.isComposing || event.keyCode === 229) return; // Enter and Esc of an input method editor
    if (event.key === "Enter") {
      if (hasWords()) on.search();
      else leave();
    } else if (event.key === "Escape") leave();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  input().addEventListener("blur", (event) => {
    // Do not close on a click on a button beside the line: closing would move the button before the click reaches it.
    if (now && !hasWords() && !event.relatedTarget?.closest("#parts")) closeEntry();
  });
}

/** Opens the line and focuses it; if it contains unsent text, that is searched for first. */
export function beginEntry(entry) {
  if (entryDraft()) on.search();
  openEntry(entry);
  input().focus();
}

/** Shows the line: {kind, text, line}. */
export function openEntry({ kind, text, line }) {
  const [label, example] = KINDS[kind];
  now = { kind, text };
  input().value = line;
  input().setAttribute("aria-label", label);
  input().placeholder = example;
  input().classList.toggle("avoid", kind === "avoid");
  draw();
}

export function closeEntry() {
  now = null;
  input().value = "";
  draw();
}

/** The description that is being changed. */
export const changing = () => now?.text ?? null;

export const entryDraft = () => (now && hasWords() ? { ...now, line: input().value } : null);

/** Returns the query with the unsent text of the line added; closes the line. */
export function withEntry(asked) {
  if (!now) return asked;
  const { kind, text } = now;
  const line = input().value;
  const added = hasWords() ? read(kind, line) : [];
  closeEntry();
  if (!added.length) return asked;
  return { ...asked, texts: [...asked.texts.filter((other) => !text || !sameText(other, text)), ...added] };
}

/** Whether the line has text that the query does not contain yet. */
function hasWords() {
  const line = input().value;
  return Boolean(line.replace(/^\s*-/, "").trim()) && !(now?.text && line === typed(now.text));
}

function read(kind, line) {
  const found = phrases(line);
  if (kind !== "avoid") return found;
  return found.map((each) => (each.weight < 0 ? each : phrases(`-${typed(each)}`)[0]));
}

function leave() {
  const button = now ? at(now.kind) : null;
  closeEntry();
  (button ?? at("words")).focus();
}

function draw() {
  show(input(), now !== null);
  for (const kind of ["also", "avoid"]) show(at(kind), now?.kind !== kind);
  on.redraw();
}
