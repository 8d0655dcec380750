// Saved searches: names and addresses, stored in this browser.

import { anchor, at, h, iconButton, say } from "./dom.js";
import { fromAddress, named, seeks, toAddress } from "./query.js";

let owner = "";
let asked = null;
let suggested = null; // address of the search for which a name was suggested last

/** go(asked): opens a saved search. */
export function prepare(go) {
  anchor(at("saved"), at("open-saved"));
  at("saved").addEventListener("toggle", (event) => {
    if (event.newState !== "open") return;
    const address = asked ? toAddress({ ...asked, pictures: [] }) : "";
    if (address !== suggested) at("save-name").value = savable() ? named({ ...asked, pictures: [] }) : "";
    suggested = address; // a name that the user typed for this search stays
    draw(go);
  });
  at("save-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = at("save-name").value.trim();
    if (!name || !seeks(asked)) return;
    const address = toAddress({ ...asked, pictures: [] });
    write([{ name, address }, ...read().filter((other) => other.name !== name)]);
    draw(go);
    say(`Saved: ${name}`);
  });
}

/** Sets the user whose searches are shown, and the search that can be saved. */
export function showSaved(name, query) {
  [owner, asked] = [name, query];
}

const place = () => `tbps.saved.${owner}`;

function read() {
  try {
    const held = JSON.parse(localStorage.getItem(place()) ?? "[]");
    return Array.isArray(held) ? held.filter(({ name, address }) => typeof name === "string" && typeof address === "string") : [];
  } catch {
    return []; // written by another program, or storage is disabled
  }
}

function write(searches) {
  try {
    localStorage.setItem(place(), JSON.stringify(searches));
  } catch {
    say("This browser does not store data for this page. Save the address as a bookmark instead.");
  }
}

const savable = () => asked !== null && seeks({ ...asked, pictures: [] });

function draw(go) {
  const can = savable();
  for (const element of at("save-form").querySelectorAll("input, button")) element.disabled = !can;
  at("save-hint").textContent = can ? (asked.pictures.length ? "Saved without the picture." : "") : "Search for something first.";
  const items = read().map(({ name, address }) => {
    const open = h("button", { type: "button", class: "link grow", onclick: () => { at("saved").hidePopover(); go(fromAddress(address).asked); } }, name);
    const remove = iconButton("trash", `Delete ${name}`, () => {
      write(read().filter((other) => other.name !== name));
      draw(go);
      at("save-name").focus();
    });
    return h("li", {}, open, remove);
  });
  at("saved-list").replaceChildren(...items);
}
