// The line in which a further description is typed: one to add, one to avoid, or one to change.
//
// It is one element that is never drawn anew: redrawing the chips around it takes neither its text nor the focus, nor what an input
// method is still composing.

import { at, show } from "./dom.js";
import { phrases, sameText, typed } from "./query.js";

const KINDS = {
  also: ["Description; a minus avoids, ^2 weighs twice", "black backpack"],
  avoid: ["Description to avoid; ^2 weighs twice", "backpack"],
  change: ["Description; a minus avoids, ^2 weighs twice", ""],
};

let now = null; // {kind, text}: text is the description that is being changed, or null
let on = {};

const input = () => at("entry");

/** search(): the line is to be searched with; redraw(): it opened or closed. */
export function prepare(actions) {
  on = actions;
  for (const kind of ["also", "avoid"]) at(kind).addEventListener("click", () => beginEntry({ kind, text: null, line: "" }));
  input().addEventListener("keydown", (event) => {
    if (event.isComposing || event.keyCode === 229) return; // the Enter and Esc of an input method
    if (event.key === "Enter") {
      if (hasWords()) on.search();
      else leave();
    } else if (event.key === "Escape") leave();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  input().addEventListener("blur", (event) => {
    // Closing moves the buttons beside it, so that a click on one of them would miss it.
    if (now && !hasWords() && !event.relatedTarget?.closest("#parts")) closeEntry();
  });
}

/** Opens the line to type there; what was typed there before is searched with first. */
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

/** The query with what is typed in the line, which closes. */
export function withEntry(asked) {
  if (!now) return asked;
  const { kind, text } = now;
  const line = input().value;
  const added = hasWords() ? read(kind, line) : [];
  closeEntry();
  if (!added.length) return asked;
  return { ...asked, texts: [...asked.texts.filter((other) => !text || !sameText(other, text)), ...added] };
}

/** Whether there is something to search with that is not searched with already. */
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
