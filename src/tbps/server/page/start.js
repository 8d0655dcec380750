// Start view before the first search: how to describe a person, examples, content of the gallery.

import { h } from "./dom.js";
import { count, several, span } from "./format.js";

const EXAMPLES = [
  "a woman in a red coat with a black backpack",
  "a man wearing a black t-shirt and jeans",
  "a person in a green top and grey trousers",
  "a woman in a blue dress",
  "a man in a white shirt with a shoulder bag",
];
const BLOCKS = [
  ["Who", ["a woman", "a man", "a person"]],
  ["Upper body", ["in a red coat", "in a striped shirt", "in a blue jacket"]],
  ["Legs and feet", ["and black trousers", "and jeans", "with white shoes"]],
  ["Carrying", ["with a backpack", "carrying a handbag", "with an umbrella"]],
];

/** seek(text): searches for an example; add(words): appends words to the search box; pick(): chooses a picture. */
export function startView(gallery, { seek, add, pick }) {
  const example = (text) => h("button", { type: "button", class: "chip example", onclick: () => seek(text) }, text);
  const block = ([name, words]) => h("div", {}, h("dt", {}, name), h("dd", { class: "chips" }, words.map((text) =>
    h("button", { type: "button", class: "chip", "aria-label": `Add: ${text}`, onclick: () => add(text) }, text))));
  return h("div", { class: "start" },
    h("h2", {}, "Describe a person, find them"),
    h("p", { class: "lead" }, "Write it like the caption of a picture: who the person is, what they wear from top to bottom, what they carry."),
    h("div", { class: "chips examples", role: "group", "aria-label": "Examples" }, EXAMPLES.map(example)),
    h("dl", { class: "blocks" }, BLOCKS.map(block)),
    h("p", { class: "hint" }, "Or ", h("button", { type: "button", class: "link", onclick: pick }, "search with a picture"), ": drop or paste one anywhere on this page."),
    gallery ? holds(gallery) : null);
}

function holds(gallery) {
  const facts = [several(gallery.images, "image")];
  if (gallery.cameras.length) facts.push(several(gallery.cameras.length, "camera"));
  if (gallery.first_seen) facts.push(span(gallery.first_seen, gallery.last_seen));
  if (gallery.blurred) facts.push("faces are blurred");
  return h("p", { class: "holds" }, gallery.images ? facts.join(" · ") : `This gallery has ${count(0)} images so far.`);
}
