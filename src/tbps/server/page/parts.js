// Chips below the search box: further descriptions, pictures, example images, marks.

import { at, h, icon, redraw } from "./dom.js";
import { beginEntry, changing } from "./entry.js";
import { several } from "./format.js";
import { lost, picture } from "./pictures.js";
import { phrases, sameText, typed } from "./query.js";

/** The description shown in the search box: the first one with a positive weight. */
export const mainOf = (asked) => asked.texts.find((text) => text.weight > 0) ?? null;

const others = (asked) => {
  const main = mainOf(asked);
  return asked.texts.filter((text) => text !== main);
};

/** Returns the query with its main description replaced by a line of the search box. */
export function withLine(asked, line) {
  return { ...asked, texts: [...phrases(line), ...others(asked)] };
}

/** Draws the chips; change(asked) is called when one is removed. */
export function showParts(asked, change) {
  const remove = (name, item) => () => change({ ...asked, [name]: asked[name].filter((other) => other !== item) });
  const gone = lost(asked.pictures);
  const chips = [
    ...others(asked).filter((text) => !changing() || !sameText(text, changing())).map((text) => textChip(asked, text, change)),
    ...asked.pictures.filter(picture).map((key) => chip([thumbnail(picture(key).address), "Picture"], "Remove the picture", remove("pictures", key))),
    ...asked.like.map((example) => chip(
      [thumbnail(`/v1/images/${encodeURIComponent(example.id)}`), example.weight < 0 ? "Unlike this" : "Like this"],
      "Remove the example image", remove("like", example))),
    asked.right.length ? chip([icon("right"), `${several(asked.right.length, "result")} right`], "Remove the marks for right results", () => change({ ...asked, right: [] }), "is-right") : null,
    asked.wrong.length ? chip([icon("close"), `${several(asked.wrong.length, "result")} wrong`], "Remove the marks for wrong results", () => change({ ...asked, wrong: [] }), "is-wrong") : null,
  ].filter(Boolean);
  const notes = [
    asked.pictures.some(picture) ? h("span", { class: "hint" }, "A link to this search does not contain the picture.") : null,
    gone.length ? h("span", { class: "problem" }, "This search used a picture, which a link cannot contain: drop it again.") : null,
  ];
  at("parts").classList.toggle("many", chips.length > 0);
  redraw(at("parts-chips"), chips, at("words"));
  at("parts-notes").replaceChildren(...notes.filter(Boolean));
}

function textChip(asked, text, change) {
  const avoided = text.weight < 0;
  const weight = Math.abs(text.weight);
  const strength = weight === (avoided ? 0.5 : 1) ? null : h("span", { class: "weight" }, `×${weight}`);
  const without = asked.texts.filter((other) => other !== text);
  const edit = h("button", { type: "button", class: "chip-text", title: "Change" }, icon(avoided ? "minus" : "plus"), text.text, strength);
  edit.setAttribute("aria-label", `Change: ${avoided ? "avoided" : "wanted"}, ${text.text}`);
  edit.addEventListener("click", () => beginEntry({ kind: "change", text, line: typed(text) }));
  return h("span", { class: `chip ${avoided ? "avoid" : ""}` }, edit, remover(`Remove ${text.text}`, () => change({ ...asked, texts: without })));
}

export function chip(content, label, onremove, look = "") {
  return h("span", { class: `chip ${look}` }, h("span", { class: "chip-text" }, content), remover(label, onremove));
}

const remover = (label, onclick) => h("button", { type: "button", class: "chip-remove", "aria-label": label, title: label, onclick }, icon("close"));

const thumbnail = (address) => h("img", { src: address, alt: "", width: 14, height: 28 });
