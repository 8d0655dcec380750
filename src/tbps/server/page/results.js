// Results as a grid of images or as one row per group; keyboard; placeholders and messages.

import { at, h, icon, iconButton } from "./dom.js";
import { briefly, count, often, oneIn, percent, relative, several, span, time, title, value } from "./format.js";

const STRIP = 12; // images per row of a group
const SKELETONS = 24;
const ROOM = 2; // grid columns that the calibration line needs beside results

let on = {};

/** actions: open(id), like(id), mark(id, "right" | "wrong"), markOf(id), only(column, value) */
export function prepare(actions) {
  on = actions;
  const place = at("results");
  place.addEventListener("keydown", moved);
  new ResizeObserver(placeLine).observe(place);
  place.addEventListener("focusin", (event) => {
    const card = event.target.closest(".card");
    if (card) makeCurrent(card);
  });
}

export function showAnswer(answer) {
  const list = h("ul", { class: answer.asked.group ? "rows" : "grid", role: "list" });
  at("results").replaceChildren(list);
  add(list, answer, answer.hits);
  placeLine();
  const first = place().querySelector(".card");
  if (first) makeCurrent(first);
}

/** Adds hits of a further page and returns the first new card. */
export function addHits(answer, hits) {
  add(place().firstElementChild, answer, hits);
  placeLine();
  return cardOf(hits[0].id);
}

export function showSkeletons() {
  const cards = Array.from({ length: SKELETONS }, () => h("li", { class: "card skeleton" }, h("div", { class: "crop" }), h("p")));
  place().replaceChildren(h("ul", { class: "grid", "aria-hidden": "true" }, cards));
}

/** Shows a message instead of results; buttons: [label, action] pairs. */
export function showMessage(heading, text, buttons = [], look = "") {
  const made = buttons.map(([label, action], number) =>
    h("button", { type: "button", class: number ? "quiet" : "primary", onclick: action }, label));
  const role = look === "failure" ? "alert" : null;
  place().replaceChildren(h("div", { class: `message ${look}`, role }, h("h2", {}, heading), h("p", {}, text), h("div", { class: "buttons" }, made)));
}

export function showElement(element) {
  place().replaceChildren(element);
}

export function focusResult(id) {
  const card = (id && cardOf(id)) || place().querySelector(".card[data-id]");
  card?.querySelector(".crop").focus();
  return Boolean(card);
}

export const cardOf = (id) => place().querySelector(`.card[data-id="${CSS.escape(id)}"]`);

/** Id of the focused result. */
export const focused = () => document.activeElement?.closest?.(".card[data-id]")?.dataset.id;

export function paintMarks() {
  for (const card of cards()) paint(card);
}

const place = () => at("results");
const cards = () => [...place().querySelectorAll(".card[data-id]")];

function add(list, answer, hits) {
  if (answer.line?.hits === 0 && hits[0]?.rank === 1) list.append(lineAcross(answer.line));
  for (const hit of hits) {
    list.append(hit.group ? row(hit, answer) : card(hit, answer));
    if (answer.line && answer.line.hits === hit.rank) list.append(lineAcross(answer.line));
  }
}

/** Text of the calibration's estimate for the best results; `which` describes them, such as "above this line". */
export function claim(line, which = "") {
  if (!line.hits) return `Even the best result is right only ${often(line.share)} times`;
  const [best, where] = which ? ["", ` ${which}`] : ["best ", ""];
  if (line.hits === 1) return `The ${best}result${where} is right ${often(line.share)} times`;
  return `About ${oneIn(line.share)} of the ${best}${count(line.hits)} results${where} are right`;
}

function lineAcross(line) {
  return h("li", { class: "line", title: "Estimate by the calibration of the model. It does not say whether the person is in the gallery at all." },
    h("span", { class: "across" }, claim(line, "above this line")),
    line.hits ? h("span", { class: "beside" }, claim(line, "before this line"), h("small", {}, "estimate by the calibration of the model; later results are less likely to be right")) : null);
}

/** Places the calibration line in the free columns of an incomplete row, if there is room. */
function placeLine() {
  const line = place().querySelector(".grid > .line");
  if (!line) return;
  const columns = getComputedStyle(line.parentElement).gridTemplateColumns.split(" ").length;
  const used = [...line.parentElement.children].indexOf(line) % columns;
  const beside = used > 0 && columns - used >= ROOM;
  line.classList.toggle("is-beside", beside);
  line.style.setProperty("grid-column", beside ? `${used + 1} / -1` : "1 / -1");
}

function card(hit, answer, { id = hit.id, image = hit.image, label = null, plain = false } = {}) {
  const share = relative(hit.score, answer.best);
  const told = label ?? `Result ${hit.rank}, ${percent(share)} of the best score${where(hit)}`;
  const facts = plain ? null : h("div", { class: "facts" },
    h("div", { class: "score", title: `Cosine similarity ${hit.score.toFixed(3)}` },
      h("span", { class: "rank" }, count(hit.rank)), h("span", {}, percent(share)),
      hit.chance === null || hit.chance === undefined ? null : h("span", { class: "chance", title: `Right ${often(hit.chance)} times: estimate by the calibration of the model` }, briefly(hit.chance))),
    bar(share),
    h("p", { class: "camera", title: hit.camera ?? "" }, hit.camera ?? ""),
    h("p", { class: "time" }, time(hit.captured_at)));
  const made = h("li", { class: "card", "data-id": id, "data-label": told },
    h("div", { class: "shot" },
      h("button", { type: "button", class: "crop", tabindex: "-1", "aria-label": told, onclick: () => on.open(id) }, photo(image)),
      h("span", { class: "badge", "aria-hidden": "true" }),
      h("div", { class: "acts", role: "group", "aria-label": `Result ${hit.rank}` },
        iconButton("right", "Right (r)", () => on.mark(id, "right"), { "data-mark": "right", tabindex: "-1" }),
        iconButton("close", "Wrong (w)", () => on.mark(id, "wrong"), { "data-mark": "wrong", tabindex: "-1" }),
        iconButton("like", "More like this (m)", () => on.like(id), { tabindex: "-1" }))),
    facts);
  paint(made);
  return made;
}

function where(hit) {
  const chance = hit.chance === null || hit.chance === undefined ? "" : `, right ${often(hit.chance)} times`;
  return `${chance}${hit.camera ? `, camera ${hit.camera}` : ""}${hit.captured_at ? `, ${time(hit.captured_at)}` : ""}`;
}

/** Renders a group: its best image, followed by the others in a strip. */
function row(hit, answer) {
  const { column, count: many, ids, value: held } = hit.group;
  const share = relative(hit.score, answer.best);
  const others = ids.filter((id) => id !== hit.id).slice(0, STRIP - 1);
  const called = held === null ? `without ${title(column)}` : `${title(column)} ${value(held)}`;
  const left = many - others.length - 1;
  const strip = [
    card(hit, answer, { label: `Result ${hit.rank}, ${called}, ${several(many, "image")}, ${percent(share)} of the best score${where(hit)}`, plain: true }),
    ...others.map((id, number) => card(hit, answer, {
      id, image: `/v1/images/${encodeURIComponent(id)}`, plain: true,
      label: `Result ${hit.rank}, image ${number + 2} of ${count(many)}`,
    })),
  ];
  return h("li", { class: "row" },
    h("div", { class: "row-head" },
      h("span", { class: "rank" }, count(hit.rank)),
      h("div", { class: "row-score", title: `Cosine similarity ${hit.score.toFixed(3)}` }, h("span", {}, percent(share)), bar(share)),
      h("strong", {}, called),
      h("span", {}, several(many, "image")),
      hit.camera ? h("span", {}, icon("camera"), hit.camera) : null,
      h("span", { class: "time" }, span(hit.group.first_seen, hit.group.last_seen)),
      hit.chance === null || hit.chance === undefined ? null : h("span", { class: "chance" }, `right ${often(hit.chance)}`)),
    h("ul", { class: "strip", role: "list", "aria-label": called }, strip,
      left > 0 && held !== null ? h("li", { class: "rest" }, h("button", { type: "button", class: "quiet", onclick: () => on.only(column, held) }, `${count(left)} more`)) : null));
}

function bar(share) {
  const filled = h("span");
  filled.style.setProperty("width", percent(share).replace(" ", ""));
  return h("div", { class: "bar", "aria-hidden": "true" }, filled);
}

function photo(address) {
  const image = h("img", { src: address, alt: "", loading: "lazy", decoding: "async", width: 128, height: 256 });
  image.addEventListener("error", () => image.closest(".shot")?.classList.add("missing"));
  return image;
}

function paint(made) {
  const mark = on.markOf(made.dataset.id);
  made.classList.toggle("is-right", mark === "right");
  made.classList.toggle("is-wrong", mark === "wrong");
  made.querySelector(".badge").replaceChildren(...(mark ? [icon(mark === "right" ? "right" : "close")] : []));
  made.querySelector(".crop").setAttribute("aria-label", `${made.dataset.label}${mark ? `, marked as ${mark}` : ""}`);
  for (const button of made.querySelectorAll("[data-mark]")) button.setAttribute("aria-pressed", String(button.dataset.mark === mark));
}

/** Puts one result with its buttons in the tab order, and takes the others out. */
function makeCurrent(card) {
  for (const other of place().querySelectorAll(".card.current")) {
    other.classList.remove("current");
    for (const button of other.querySelectorAll("button")) button.tabIndex = -1;
  }
  card.classList.add("current");
  for (const button of card.querySelectorAll("button")) button.tabIndex = 0;
}

function moved(event) {
  const here = event.target.closest(".card[data-id]");
  if (!here || event.ctrlKey || event.metaKey || event.altKey) return;
  const all = cards();
  const number = all.indexOf(here);
  const to = {
    ArrowRight: () => all[number + 1],
    ArrowLeft: () => all[number - 1],
    Home: () => all[0],
    End: () => all.at(-1),
    ArrowDown: () => beyond(all, here, 1),
    ArrowUp: () => beyond(all, here, -1),
  }[event.key]?.();
  if (to) {
    event.preventDefault();
    to.querySelector(".crop").focus();
  } else if (event.key === "ArrowDown") {
    event.preventDefault();
    document.querySelector("#further button")?.focus();
  } else if (event.key === "ArrowUp") {
    event.preventDefault();
    at("words").focus();
  }
}

/** Finds the horizontally nearest card in the next row of cards below (direction 1) or above (-1). */
function beyond(all, here, direction) {
  const from = here.getBoundingClientRect();
  const middle = (box) => box.left + box.width / 2;
  let [nearest, line, distance] = [null, null, Infinity];
  const ordered = direction > 0 ? all.slice(all.indexOf(here) + 1) : all.slice(0, all.indexOf(here)).reverse();
  for (const card of ordered) {
    const box = card.getBoundingClientRect();
    if (Math.abs(box.top - from.top) < 4) continue;
    line ??= box.top;
    if (Math.abs(box.top - line) > 4) break;
    const away = Math.abs(middle(box) - middle(from));
    if (away < distance) [nearest, distance] = [card, away];
  }
  return nearest;
}
