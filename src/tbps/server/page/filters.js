// Filters (cameras, time, columns, a condition as text) with their chips, grouping and re-ranking.

import { anchor, at, h, icon, redraw } from "./dom.js";
import { count, span, time, title, value } from "./format.js";
import { chip } from "./parts.js";

const RERANKED = 100;
const GROUPS = [["tracklet", "One row per tracklet"], ["identity", "One row per person"]];
const PRESETS = [["Last hour", 3600], ["Last day", 86400], ["Last 7 days", 604800]];

let [asked, gallery, change] = [null, null, null];
const drawn = new Map(); // field -> value written to it last; text typed by the user stays until that value changes

/** Attaches the event handlers; changed(asked) is called with the new query. */
export function prepare(changed) {
  change = changed;
  for (const [popover, button] of [["cameras", "pick-camera"], ["times", "pick-time"], ["columns", "pick-column"]]) anchor(at(popover), at(button));
  at("cameras").addEventListener("change", (event) => {
    const boxes = [...at("cameras").querySelectorAll("input:checked")];
    const { camera: _, ...equals } = asked.equals;
    if (event.target.checked && event.target.value === "") change({ ...asked, cameras: [], equals: { ...equals, camera: null } });
    else change({ ...asked, cameras: [...boxes.map((box) => box.value).filter(Boolean), ...unknownCameras(asked)], equals });
  });
  at("times").addEventListener("submit", (event) => {
    event.preventDefault();
    times(at("since").value || null, at("until").value || null);
  });
  at("times-clear").addEventListener("click", () => {
    for (const id of ["since", "until"]) at(id).value = "";
    times(null, null);
  });
  at("column").addEventListener("change", showValues);
  at("column-none").addEventListener("change", () => { at("column-value").disabled = at("column-none").checked; });
  at("column-form").addEventListener("submit", addColumn);
  at("where-form").addEventListener("submit", (event) => {
    event.preventDefault();
    at("columns").hidePopover();
    change({ ...asked, where: at("where").value.trim() || null });
  });
  at("group").addEventListener("change", () => change({ ...asked, group: at("group").value || null }));
  at("rerank").addEventListener("change", () => change({ ...asked, rerank: at("rerank").checked ? RERANKED : 0 }));
}

/** Draws the controls for a query on a gallery. */
export function showFilters(query, held) {
  const other = gallery !== held;
  [asked, gallery] = [query, held];
  if (other) {
    showCameras();
    showTimes();
    showColumns();
  }
  for (const box of at("cameras").querySelectorAll("input")) {
    box.checked = box.value ? asked.cameras.includes(box.value) : asked.equals.camera === null;
  }
  fill("since", asked.since?.slice(0, 19) ?? "");
  fill("until", asked.until?.slice(0, 19) ?? "");
  fill("where", asked.where ?? "");
  at("group").value = asked.group ?? "";
  at("rerank").checked = asked.rerank > 0;
  redraw(at("filter-chips"), chips(), at("pick-camera"));
}

function fill(id, text) {
  if (drawn.get(id) === text) return;
  drawn.set(id, text);
  at(id).value = text;
}

/** Cameras in the query that no image of the gallery has. */
export const unknownCameras = (query) => (gallery ? query.cameras.filter((name) => !gallery.cameras.some((camera) => camera.name === name)) : []);

/** Whether a filter can use this column. */
export const isColumn = (name) => Boolean(gallery?.columns.some((column) => column.name === name));

function chips() {
  const made = asked.cameras.map((name) =>
    chip([icon("camera"), name], `Remove the filter: camera ${name}`, () => change({ ...asked, cameras: asked.cameras.filter((other) => other !== name) })));
  if (asked.since || asked.until) {
    const told = asked.since && asked.until ? span(asked.since, asked.until) : asked.since ? `from ${time(asked.since)}` : `before ${time(asked.until)}`;
    made.push(chip([icon("time"), told], "Remove the filter by time", () => change({ ...asked, since: null, until: null })));
  }
  for (const [column, wanted] of Object.entries(asked.equals)) {
    const { [column]: _, ...rest } = asked.equals;
    made.push(chip(`${title(column)}: ${value(wanted)}`, `Remove the filter: ${title(column)}`, () => change({ ...asked, equals: rest })));
  }
  if (asked.where) made.push(chip(h("code", {}, asked.where), "Remove the condition", () => change({ ...asked, where: null })));
  return made;
}

function showCameras() {
  const boxes = gallery.cameras.map(({ name, images }) =>
    h("label", { class: "check" }, h("input", { type: "checkbox", value: name ?? "" }), h("span", { class: "grow" }, name ?? "no camera"), h("span", { class: "hint" }, count(images))));
  const focus = at("cameras").contains(document.activeElement) ? document.activeElement.value : null;
  at("cameras").replaceChildren(...(boxes.length ? boxes : [h("p", { class: "hint" }, "No image of this gallery has a camera.")]));
  if (focus !== null) at("cameras").querySelector(`input[value="${CSS.escape(focus)}"]`)?.focus();
}

function showTimes() {
  const { first_seen: first, last_seen: last } = gallery;
  at("times-hint").textContent = first ? `Images from ${span(first, last)}` : "No image of this gallery has a time.";
  at("times-presets").replaceChildren(...(last ? PRESETS : []).map(([label, length]) =>
    h("button", { type: "button", class: "chip pick", onclick: () => times(earlier(last, length), null) }, label)));
}

const earlier = (text, length) => new Date(Date.parse(`${text.slice(0, 19)}Z`) - 1000 * length).toISOString().slice(0, 19);

function times(since, until) {
  at("times").hidePopover();
  change({ ...asked, since, until });
}

function showColumns() {
  const simple = gallery.columns.filter((column) => !["camera", "captured_at", "id"].includes(column.name));
  simple.sort((a, b) => (a.name === "source") - (b.name === "source"));
  const chosen = at("column").value;
  at("column").replaceChildren(...simple.map((column) => h("option", { value: column.name }, title(column.name))));
  if (simple.some((column) => column.name === chosen)) at("column").value = chosen;
  at("column-form").hidden = !simple.length;
  showValues();
  const names = new Set(gallery.columns.map((column) => column.name));
  const groups = GROUPS.filter(([name]) => names.has(name));
  const rest = gallery.columns.map((column) => column.name).filter((name) => !["id", "source", "captured_at", "tracklet", "identity"].includes(name));
  at("group").replaceChildren(
    h("option", { value: "" }, "Single images"),
    ...groups.map(([name, told]) => h("option", { value: name }, told)),
    ...(rest.length ? [h("optgroup", { label: "One row per value of" }, rest.map((name) => h("option", { value: name }, title(name))))] : []),
  );
}

function showValues() {
  const column = gallery.columns.find(({ name }) => name === at("column").value);
  const values = (column?.values ?? []).filter((held) => held !== null);
  at("column-values").replaceChildren(...values.map((held) => h("option", { value: value(held) })));
  at("column-value").placeholder = values.length ? value(values[0]) : "";
}

function addColumn(event) {
  event.preventDefault();
  const wanted = at("column-none").checked ? null : at("column-value").value.trim();
  if (wanted === "") return at("column-value").focus();
  at("columns").hidePopover();
  at("column-value").value = "";
  return change({ ...asked, equals: { ...asked.equals, [at("column").value]: wanted } });
}
