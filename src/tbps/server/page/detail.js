// Detail view of an image: metadata, timeline of its tracklet, why it was found, erasing.

import { call } from "./api.js";
import { at, closable, h, icon, iconButton, say } from "./dom.js";
import { count, duration, often, percent, relative, seconds, several, time, title, value } from "./format.js";
import { isColumn } from "./filters.js";
import { asJson } from "./query.js";

const STATED = new Set(["tracklet", "frame", "box_x", "box_y", "box_width", "box_height", "offset_seconds"]); // shown elsewhere
const DARKEST = 180; // alpha (0 to 255) of the dark overlay on regions that did not raise the score

let on = {};
let now = null; // {id, hit, group, answer, session, detail, why, lit, frame}

const dialog = () => at("detail");

/** actions: move(id), like(id), addLike(id), mark(id, which), markOf(id), only(column, value), closed(id), forgotten() */
export function prepare(actions) {
  on = actions;
  closable(dialog());
  dialog().addEventListener("close", () => {
    const { id } = now ?? {};
    now = null;
    on.closed(id);
  });
  dialog().addEventListener("keydown", pressed);
  closable(at("forget"));
  at("forget-form").addEventListener("submit", forget);
  at("forget-what").addEventListener("change", countForgotten);
}

export const isOpen = () => dialog().open;

export function closeDetail() {
  if (dialog().open) dialog().close();
}

/** Opens the detail view of an image, or switches an open one to it; `answer` is null without a search. */
export async function openDetail(id, answer, session) {
  if (now?.id === id && dialog().open) return;
  const hit = answer?.hits.find((other) => other.id === id) ?? null;
  const group = hit ? null : (answer?.hits.find((other) => other.group?.ids.includes(id)) ?? null);
  now = { id, hit, group, answer, session, detail: null, why: null, lit: true };
  draw();
  if (!dialog().open) dialog().showModal();
  dialog().querySelector(".frame").focus();
  await loadDetail(id);
}

async function loadDetail(id) {
  try {
    const detail = await call("GET", `/v1/images/${encodeURIComponent(id)}/detail`);
    if (now?.id !== id) return;
    now.detail = detail;
    draw();
    if (!dialog().contains(document.activeElement)) dialog().querySelector(".frame").focus(); // it was on "Try again"
  } catch (error) {
    if (now?.id !== id) return;
    dialog().querySelector(".about").replaceChildren(h("p", { class: "problem", role: "alert" }, error.message),
      h("button", { type: "button", class: "quiet", "data-keep": "again", onclick: () => loadDetail(id) }, "Try again"));
  }
}

/** Updates the buttons for marks. */
export function paintDetailMarks() {
  if (!now) return;
  const mark = on.markOf(now.id);
  for (const button of dialog().querySelectorAll("[data-mark]")) button.setAttribute("aria-pressed", String(button.dataset.mark === mark));
}

function draw() {
  const { id, hit, group, answer, detail } = now;
  const kept = document.activeElement?.dataset?.keep;
  const heading = hit ? `Result ${count(hit.rank)}` : group ? `Image of result ${count(group.rank)}` : "Image";
  const [before, after] = neighbours();
  const known = detail ?? hit ?? {};
  const track = timeLine();
  now.frame ??= frame(id, heading); // the element is reused, since browsers do not cache the image
  dialog().replaceChildren(
    h("header", { class: "title-bar" },
      h("h2", { id: "detail-title" }, heading),
      h("span", { class: "hint grow" }, [known.camera, time(known.captured_at)].filter(Boolean).join(" · ")),
      iconButton("back", "Previous result (←)", () => on.move(before), { disabled: !before, "data-keep": "before" }),
      iconButton("forth", "Next result (→)", () => on.move(after), { disabled: !after, "data-keep": "after" }),
      iconButton("close", "Close (Esc)", () => dialog().close(), { "data-keep": "close" })),
    h("div", { class: "detail-body" },
      h("figure", { class: "whole" },
        now.frame,
        h("figcaption", { class: "hint" })),
      h("div", { class: "about" }, actions(), why(), facts(), attributes(), erasing())),
    ...(track ? [track] : []));
  paintDetailMarks();
  if (now.why?.regions) showRegions();
  (kept && dialog().querySelector(`[data-keep="${kept}"]`))?.focus();
  if (answer === null) dialog().querySelectorAll("[data-needs-answer]").forEach((element) => element.remove());
}

function frame(id, heading) {
  return h("div", { class: "frame", tabindex: "-1", role: "group", "aria-label": heading, "data-keep": "frame" },
    h("img", { src: `/v1/images/${encodeURIComponent(id)}`, alt: `${heading}: whole image` }),
    h("canvas", { class: "regions", "aria-hidden": "true", hidden: true }));
}

function neighbours() {
  const hits = now.answer?.hits ?? [];
  const number = hits.findIndex((hit) => hit.id === (now.hit ?? now.group)?.id);
  return number < 0 ? [null, null] : [hits[number - 1]?.id, hits[number + 1]?.id];
}

function actions() {
  const { id } = now;
  const button = (drawing, label, action, more = {}) => h("button", { type: "button", class: "quiet", onclick: action, ...more }, icon(drawing), label);
  return h("div", { class: "actions" },
    button("right", "Right", () => on.mark(id, "right"), { "data-mark": "right", "data-needs-answer": true, title: "Mark as right (r)", "data-keep": "right" }),
    button("close", "Wrong", () => on.mark(id, "wrong"), { "data-mark": "wrong", "data-needs-answer": true, title: "Mark as wrong (w)", "data-keep": "wrong" }),
    button("like", "More like this", () => on.like(id), { title: "Search for images like this one (m)" }),
    button("plus", "Add to the search", () => on.addLike(id), { "data-needs-answer": true, title: "Search for the description and images like this one" }));
}

function facts() {
  const { hit, answer, detail } = now;
  const known = detail ?? hit ?? {};
  const score = hit ? `${percent(relative(hit.score, answer.best))} of the best, cosine similarity ${hit.score.toFixed(3)}` : null;
  const chance = hit?.chance === null || hit?.chance === undefined ? null : often(hit.chance);
  const rows = [
    ["Score", score], ["Chance to be right", chance], ["Camera", filterable("camera", known.camera)], ["Time (UTC)", time(known.captured_at)],
    ["Identity", filterable("identity", known.identity)], ["Tracklet", filterable("tracklet", detail?.tracklet)],
    ["Frame", detail?.frame], ["Box", box(detail?.box)], ["Source", known.source], ["Id", h("code", {}, now.id)],
  ];
  return h("dl", { class: "facts-list two" }, rows.filter(([, held]) => held !== null && held !== undefined && held !== "").map(([name, held]) =>
    h("div", {}, h("dt", {}, name), h("dd", {}, held instanceof Node ? held : value(held)))));
}

const box = (numbers) => (Array.isArray(numbers) ? numbers.map((number) => Math.round(number)).join(", ") : numbers);

/** Renders a value as a button that restricts the search to that value, or as text if it cannot be filtered. */
function filterable(column, held) {
  if (held === null || held === undefined || held === "") return null;
  const text = value(held);
  const name = column.replaceAll(".", "_");
  if (typeof held === "object" || !(name === "camera" || isColumn(name))) return text;
  return h("button", { type: "button", class: "link", title: `Search only images with ${title(column)} ${text}`, onclick: () => on.only(name, held) }, text);
}

function attributes() {
  const known = Object.entries(now.detail?.attributes ?? now.hit?.attributes ?? {}).filter(([name, held]) => !STATED.has(name) && held !== null);
  if (!known.length) return null;
  const simple = known.filter(([, held]) => typeof held !== "object");
  const nested = Object.fromEntries(known.filter(([, held]) => typeof held === "object"));
  return h("section", {}, h("h3", {}, "Attributes"),
    h("dl", { class: "facts-list two" }, simple.map(([name, held]) => h("div", {}, h("dt", {}, title(name)), h("dd", {}, filterable(name, held))))),
    Object.keys(nested).length ? h("details", { class: "raw" }, h("summary", {}, `Further metadata: ${Object.keys(nested).map(title).join(", ")}`), h("pre", {}, h("code", {}, JSON.stringify(nested, null, 2)))) : null);
}

// Explanation

function why() {
  const { answer } = now;
  if (!answer) return null;
  const asked = answer.asked;
  if (!asked.texts.length && !asked.like.length && !asked.right.length) {
    return h("section", { class: "why" }, h("h3", {}, "Why"), h("p", { class: "hint" }, "Only searches by description or by images of the gallery can be explained."));
  }
  const place = h("section", { class: "why", "aria-label": "Why this result" }, h("h3", {}, "Why"));
  if (now.why) explain(place, now.why);
  else place.append(h("button", { type: "button", class: "quiet", id: "ask-why", "data-keep": "why", title: "Show which words and image regions contributed to the score (e)", onclick: askWhy }, icon("why"), "Why this result?"));
  return place;
}

async function askWhy() {
  const current = now;
  const button = at("ask-why");
  if (!current || !button || button.getAttribute("aria-busy")) return;
  button.setAttribute("aria-busy", "true");
  button.parentElement.querySelector(".problem")?.remove();
  button.lastChild.textContent = "Loading…";
  const say503 = (wait) => { button.lastChild.textContent = `Busy, trying again in ${wait} s…`; };
  try {
    const answer = await call("POST", "/v1/explain", { query: asJson(current.answer.asked), id: current.id }, { busy: say503 });
    if (now !== current) return;
    now.why = answer;
    const place = dialog().querySelector(".why");
    place.replaceChildren(h("h3", {}, "Why"));
    explain(place, answer);
    if (answer.regions) showRegions();
    place.querySelector("[data-keep=regions]")?.focus();
  } catch (error) {
    if (now !== current) return;
    button.removeAttribute("aria-busy");
    button.lastChild.textContent = "Try again";
    button.before(h("p", { class: "problem", role: "alert" }, error.message));
  }
}

function explain(place, told) {
  const strongest = Math.max(...told.words.map((word) => Math.abs(word.weight)), 1e-9);
  const texts = [...new Set(told.words.map((word) => word.text))];
  for (const text of texts) {
    const words = told.words.filter((word) => word.text === text).map((word) => explainedWord(word, strongest));
    place.append(h("p", { class: "words" }, words));
  }
  if (texts.length) place.append(h("p", { class: "hint" }, "Darker words raised the score more; dashed words lowered it."));
  place.append(...(told.notices ?? []).map((text) => h("p", { class: "hint" }, text)));
  if (!told.regions) return;
  const shown = h("input", { type: "checkbox", "data-keep": "regions" });
  shown.checked = now.lit;
  shown.addEventListener("change", () => {
    now.lit = shown.checked;
    showRegions();
  });
  place.append(h("label", { class: "check" }, shown, "Highlight the regions that raised the score"));
}

function explainedWord({ word, weight }, strongest) {
  const share = Math.abs(weight) / strongest;
  const made = h("span", { class: `word ${weight < 0 ? "against" : ""}`, title: weight.toFixed(3) }, word,
    h("span", { class: "unseen" }, ` (${weight < 0 ? "lowered the score, " : ""}${percent(share)}) `));
  made.style.setProperty("--share", share.toFixed(3));
  return made;
}

/** Darkens regions that contributed little to the score. */
function showRegions() {
  const { rows, columns, weights } = now.why.regions;
  const visible = now.lit;
  const canvas = dialog().querySelector(".regions");
  canvas.hidden = !visible;
  dialog().querySelector("figcaption").textContent = visible ? `Highlighted: regions that raised the score (${rows} × ${columns} grid)` : "";
  canvas.width = columns;
  canvas.height = rows;
  const pen = canvas.getContext("2d");
  const pixels = pen.createImageData(columns, rows);
  weights.flat().forEach((weight, number) => { pixels.data[4 * number + 3] = Math.round(DARKEST * (1 - Math.max(0, Math.min(1, weight)))); });
  pen.putImageData(pixels, 0, 0);
}

// The tracklet

function timeLine() {
  const members = now.detail?.tracklet_members ?? [];
  if (members.length < 2) return null;
  const times = members.map((member) => (member.captured_at ? seconds(member.captured_at) : null));
  const known = times.filter((moment) => moment !== null);
  const [first, length] = [Math.min(...known), Math.max(...known) - Math.min(...known)];
  const place = (number) => (length > 0 && times[number] !== null ? (times[number] - first) / length : number / (members.length - 1));
  const dots = members.map((member, number) => {
    const dot = h("span", { class: `dot ${member.id === now.id ? "here" : ""}` });
    dot.style.setProperty("left", `${100 * place(number)}%`);
    return dot;
  });
  const crops = members.map((member, number) => {
    const after = times[number] === null || !known.length ? "" : `+${(times[number] - first).toFixed(1)} s`;
    const label = `Image ${number + 1} of ${members.length}${member.captured_at ? `, ${time(member.captured_at)}` : ""}`;
    const button = h("button", {
      type: "button", class: "moment", "aria-label": label, title: label, "aria-current": member.id === now.id ? "true" : null,
      "data-keep": `moment-${member.id}`, onclick: () => on.move(member.id),
    }, h("img", { src: member.image, alt: "", loading: "lazy", decoding: "async", width: 48, height: 96 }), h("span", {}, after));
    for (const [kind, lit] of [["mouseenter", true], ["mouseleave", false], ["focus", true], ["blur", false]]) {
      button.addEventListener(kind, () => dots[number].classList.toggle("lit", lit));
    }
    return h("li", {}, button);
  });
  return h("section", { class: "track", "aria-label": "Timeline of the tracklet" },
    h("h3", {}, "Timeline ", h("span", { class: "hint", title: "A tracklet is one person followed through one video" }, `${several(members.length, "image")} of one tracklet${length > 0 ? `, ${duration(length)}` : ""}`)),
    h("div", { class: "axis", "aria-hidden": "true" }, dots),
    h("div", { class: "axis-ends hint", "aria-hidden": "true" }, h("span", {}, time(members[0].captured_at)), h("span", {}, time(members.at(-1).captured_at))),
    h("ol", { class: "moments", role: "list" }, crops));
}

// Erasing

function erasing() {
  if (now.session?.role !== "administrator" || !now.detail) return null;
  return h("div", { class: "erasing" }, h("button", { type: "button", class: "quiet small-button", onclick: askForget }, icon("trash"), "Erase…"));
}

function choices() {
  const { id, detail } = now;
  const members = detail.tracklet_members.map((member) => member.id);
  return [
    ["This image", { ids: [id] }],
    members.length > 1 ? [`Its tracklet (${several(members.length, "image")})`, { ids: members }] : null,
    detail.identity === null || detail.identity === undefined ? null : [`All images of identity ${detail.identity}`, { identity: detail.identity }],
  ].filter(Boolean);
}

function askForget() {
  const made = choices().map(([label, what], number) => {
    const choice = h("input", { type: "radio", name: "what", value: JSON.stringify(what) });
    choice.checked = number === 0;
    return h("label", { class: "check" }, choice, label);
  });
  at("forget-what").replaceChildren(h("legend", {}, "What to erase"), ...made);
  at("forget").showModal();
  countForgotten();
}

const chosen = () => JSON.parse(at("forget-what").querySelector("input:checked").value);

async function countForgotten() {
  at("forget-go").disabled = true;
  at("forget-count").textContent = "Counting…";
  const what = chosen();
  const isOld = () => JSON.stringify(what) !== JSON.stringify(chosen());
  try {
    const { images } = await call("POST", "/v1/forget", { ...what, dry_run: true });
    if (isOld()) return;
    at("forget-count").textContent = `${several(images, "image")} will be erased.`;
    at("forget-go").replaceChildren(`Erase ${several(images, "image")}`);
    at("forget-go").disabled = images === 0;
  } catch (error) {
    if (!isOld()) at("forget-count").textContent = error.message;
  }
}

async function forget(event) {
  event.preventDefault();
  at("forget-go").disabled = true;
  try {
    const { images } = await call("POST", "/v1/forget", { ...chosen(), dry_run: false });
    at("forget").close();
    dialog().close();
    say(`${several(images, "image")} erased.`);
    on.forgotten();
  } catch (error) {
    at("forget-count").textContent = error.message;
    at("forget-go").disabled = false; // to try again
  }
}

function pressed(event) {
  if (!now || event.ctrlKey || event.metaKey || event.altKey) return;
  const [before, after] = neighbours();
  const { id, answer } = now;
  const action = {
    ArrowLeft: before && (() => on.move(before)),
    ArrowRight: after && (() => on.move(after)),
    r: answer && (() => on.mark(id, "right")),
    w: answer && (() => on.mark(id, "wrong")),
    m: () => on.like(id),
    e: askWhy,
  }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}
