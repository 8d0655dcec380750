// Creation of elements. Values are inserted as text nodes and attribute values only, never as markup.

const SVG = "http://www.w3.org/2000/svg";

export const at = (id) => document.getElementById(id);

/**
 * Creates an element: h("button", {class: "x", onclick: f, "aria-label": "..."}, "text", child, [children]).
 * Properties and children that are null, undefined or false are skipped.
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function icon(name) {
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("class", "icon");
  drawing.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  drawing.append(use);
  return drawing;
}

/** A button with an icon and an accessible name. */
export function iconButton(name, label, onclick, properties = {}) {
  return h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...properties }, icon(name));
}

export function show(element, visible) {
  element.hidden = !visible;
}

/** Opens a popover below its button, within the window. */
export function anchor(popover, button) {
  popover.addEventListener("toggle", (event) => {
    const open = event.newState === "open";
    button.setAttribute("aria-expanded", String(open));
    if (!open) return;
    const from = button.getBoundingClientRect();
    const left = Math.max(8, Math.min(from.left, innerWidth - popover.offsetWidth - 8));
    popover.style.setProperty("left", `${left}px`);
    popover.style.setProperty("top", `${from.bottom + 6}px`);
    popover.style.setProperty("max-height", `${Math.max(160, innerHeight - from.bottom - 16)}px`);
  });
}

/** Closes a dialog on its close buttons and on a click outside it. */
export function closable(dialog) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
  });
}

/** Replaces the children. The focus stays at its position among the buttons and inputs, or moves to `fallback` if none is left. */
export function redraw(container, children, fallback = null) {
  const buttons = () => [...container.querySelectorAll("button, input")];
  const place = buttons().indexOf(document.activeElement);
  container.replaceChildren(...children);
  if (place >= 0) (buttons()[Math.min(place, buttons().length - 1)] ?? fallback)?.focus();
}

/** Shows a message for a few seconds; screen readers read it. */
export function say(text) {
  const place = at("toast");
  place.textContent = text;
  place.classList.add("shown");
  clearTimeout(say.timer);
  say.timer = setTimeout(() => place.classList.remove("shown"), 4000);
}

/** Announces a message to screen readers only. */
export function tell(text) {
  at("told").textContent = text;
}
