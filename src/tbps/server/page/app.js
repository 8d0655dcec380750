// Main module of the page: shows the search that the address contains, and changes the address when the user acts.

import { ServiceError, call, insist, later, signedOut } from "./api.js";
import { at, closable, h, say, show, tell } from "./dom.js";
import { bringDraft, dropDrafts, keepDraft, prepare as prepareDrafts, showWords, stateWith, type, withDrafts } from "./drafts.js";
import { closeDetail, isOpen, openDetail, paintDetailMarks, prepare as prepareDetail } from "./detail.js";
import { pickPicture, prepare as prepareDropping } from "./dropping.js";
import { entryDraft, prepare as prepareEntry, withEntry } from "./entry.js";
import { isColumn, prepare as prepareFilters, showFilters, unknownCameras } from "./filters.js";
import { count, several } from "./format.js";
import { choose, prepare as prepareIndexing, showIndexing } from "./indexing.js";
import { mainOf, showParts } from "./parts.js";
import { keep, lost, together } from "./pictures.js";
import { fromAddress, hasFilter, named, query, seeks, toAddress, typed, withoutFilters } from "./query.js";
import {
  addHits, cardOf, claim, focusResult, focused, paintMarks, prepare as prepareResults, showAnswer, showElement, showMessage, showSkeletons,
} from "./results.js";
import { prepare as prepareSaved, showSaved } from "./saved.js";
import { again, further, search } from "./search.js";
import { prepare as prepareSession, session as currentSession, showAccount } from "./session.js";
import { startView } from "./start.js";

const KEPT = 10; // answers kept for going back
const PATIENCE = 250; // milliseconds until placeholders replace an old answer

let session = null;
let gallery = null;
let asked = query();
let shown = null;
let answer = null;
let running = null; // AbortController of the current search
let returning = null; // promise while history.back() is in progress; an entry pushed meanwhile would be lost
const pending = new Map(); // id -> "right", "wrong" or "none": marks that no search has used yet
const answers = new Map(); // address -> answer, for going back

// From the address to the page

/**
 * Shows the search in the address. `fresh`: asks the service even if an answer is kept; `moved`: the user went back or forward in the
 * history, so the unsent text of that history entry is restored.
 */
async function follow(fresh = false, moved = false) {
  const told = fromAddress(location.hash);
  const same = answer !== null && toAddress(told.asked) === toAddress(asked);
  ({ asked, shown } = told);
  if (!session) return;
  document.title = seeks(asked) ? `${named(asked)} – Person search` : "Person search";
  const kept = answers.get(toAddress(asked));
  if (moved && !same) bringDraft();
  if (!same || fresh) {
    pending.clear();
    drawMarks();
    running?.abort();
    drawControls();
    if (kept && !fresh) present(kept, kept.scroll ?? 0);
    else await run((options) => search(asked, options));
  }
  if (shown && session) openDetail(shown, answer, session);
  else closeDetail();
}

/** Searches for another query, as a new history entry. */
function go(next) {
  if (returning) return returning.then(() => go(next));
  const address = toAddress(next);
  leave();
  if (address === toAddress(asked)) history.replaceState(stateWith(), "", address);
  else history.pushState(stateWith(), "", address);
  return follow(true);
}

/** Searches for a changed query, including all unsent text. */
function refine(next) {
  const whole = withDrafts(next);
  keepDraft();
  return go(whole);
}

/** Searches for a new query, including the unsent text of a further description, but not that of the search box. */
function replace(next) {
  const whole = withEntry(next);
  keepDraft();
  dropDrafts();
  return go(whole);
}

/** Remembers the scroll position, unless the answer shown is an old one. */
function leave() {
  if (answer && toAddress(answer.asked) === toAddress(asked)) answer.scroll = scrollY;
}

/** Searches and shows the answer or the error. `focus`: moves the focus to the first result even if no result had it. */
async function run(ask, { focus = false } = {}) {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  if (!seeks(asked)) return showStart();
  if (lost(asked.pictures).length === asked.pictures.length && !seeks({ ...asked, pictures: [] })) {
    return stop("The picture is missing", "This search used a picture, which a link cannot contain. Choose or drop the picture again.", [["Choose a picture", pickPicture]]);
  }
  const hadFocus = focus || isOpen() || ["results", "further"].some((id) => at(id).contains(document.activeElement));
  waiting(true);
  const placeholders = setTimeout(showSkeletons, answer ? PATIENCE : 0);
  try {
    const found = await ask({ signal, busy: (wait) => showBusy(wait, signal) });
    if (signal.aborted) return null;
    clearTimeout(placeholders);
    present(found, 0);
    if (hadFocus) focusResult();
  } catch (error) {
    clearTimeout(placeholders);
    if (error.name !== "AbortError") failed(error);
  } finally {
    if (running?.signal === signal) waiting(false);
  }
  return null;
}

function present(found, scroll) {
  answer = found;
  asked = found.asked;
  const address = toAddress(asked);
  answers.delete(address);
  answers.set(address, found);
  if (answers.size > KEPT) answers.delete(answers.keys().next().value);
  waiting(false);
  if (found.hits.length) showAnswer(found);
  else showEmpty();
  drawSummary();
  drawMore();
  drawMarks();
  scrollTo(0, scroll);
}

function showStart() {
  answer = null;
  waiting(false);
  drawSummary();
  drawMore();
  showElement(startView(gallery, {
    seek: (text) => replace(query({ ...asked, texts: [{ text, weight: 1 }] })),
    add: (words) => {
      type(`${at("words").value} ${words}`.trim());
      at("words").focus();
      drawClear();
    },
    pick: pickPicture,
  }));
}

function showEmpty() {
  if (!hasFilter(asked)) return showEmptyGallery();
  return showMessage("No image matches these filters", "Remove filters to see more images. The description stays.",
    [["Remove all filters", () => refine(withoutFilters(asked))]]);
}

function showEmptyGallery() {
  stop("This gallery has no images yet", "Add pictures, archives or videos; then you can search them.", [], "");
}

function failed(error) {
  if (error.status === 401) return;
  if (!(error instanceof ServiceError)) throw error;
  if (error.code === "empty") return showEmptyGallery();
  const heading = error.status === 0 ? "No connection" : error.status >= 500 || error.status === 429 ? "The service has a problem" : "This search is not possible";
  const refused = error.status >= 400 && error.status < 429;
  const again = refused ? [["Change the description", () => at("words").select()]] : [["Try again", () => follow(true)]];
  stop(heading, error.message, [...(refused ? fewerFilters() : []), ...again]);
}

/** Buttons that remove filters; first for cameras and the grouping column that the gallery does not have (mistyped in a link). */
function fewerFilters() {
  const cameras = unknownCameras(asked).map((name) => [
    `Search without camera ${name}`, () => refine({ ...asked, cameras: asked.cameras.filter((other) => other !== name) }),
  ]);
  const group = asked.group && !isColumn(asked.group) ? [["Show single images", () => refine({ ...asked, group: null })]] : [];
  return [...cameras, ...group, ...(hasFilter(asked) ? [["Remove all filters", () => refine(withoutFilters(asked))]] : [])];
}

function stop(heading, text, buttons, look = "failure") {
  answer = null;
  waiting(false);
  drawSummary();
  drawMore();
  showMessage(heading, text, buttons, look);
}

async function showBusy(wait, signal) {
  const told = at("count");
  show(at("summary"), true);
  at("claim").replaceChildren();
  told.replaceChildren("The service is busy. Trying again in ", h("span", {}, `${wait} s`), ". ",
    h("button", { type: "button", class: "link", onclick: () => { running?.abort(); stop("Stopped", "The service was busy.", [["Try again", () => follow(true)]]); } }, "Stop"));
  for (let left = wait - 1; left > 0; left -= 1) {
    try {
      await later(1, signal);
    } catch {
      return;
    }
    const number = told.querySelector("span");
    if (number) number.textContent = `${left} s`;
  }
}

function waiting(is) {
  at("results").setAttribute("aria-busy", String(is));
}

// Parts of the page around the results

function drawControls() {
  const main = mainOf(asked);
  showWords(main ? typed(main) : "");
  drawClear();
  drawParts();
  if (gallery) showFilters(asked, gallery);
  showSaved(session?.name ?? "", asked);
}

function drawParts() {
  showParts(asked, refine);
  show(at("parts"), seeks(asked) || entryDraft() !== null);
}

function drawClear() {
  show(at("clear"), Boolean(at("words").value) || seeks(asked));
}

function drawSummary() {
  show(at("summary"), Boolean(answer?.hits.length));
  show(at("notices"), Boolean(answer?.notices.length));
  if (!answer) return at("count").replaceChildren();
  const unit = answer.asked.group ? ["group", "groups"] : ["image", "images"];
  const total = several(answer.total, ...unit);
  const all = answer.hits.length === answer.total ? `${total}, best first` : `${count(answer.hits.length)} of ${total}, best first`;
  at("count").textContent = answer.hits.length ? all : "No results";
  at("claim").textContent = answer.line?.hits ? claim(answer.line) : "";
  const notices = [...answer.notices, ...(answer.approximate ? ["This gallery is large, so the search is approximate: it may miss some images. The scores are exact."] : [])];
  show(at("notices"), notices.length > 0);
  return at("notices").replaceChildren(...notices.map((text) => h("li", {}, text)));
}

function drawMore() {
  at("further").replaceChildren(...(answer?.next ? [h("button", { type: "button", class: "quiet", onclick: more }, "More results")] : []));
}

async function more(event) {
  const current = answer;
  const button = event.currentTarget;
  button.disabled = true;
  button.textContent = "Loading…";
  try {
    const hits = await further(current, { busy: (wait) => { button.textContent = `Busy, trying again in ${wait} s…`; } });
    if (answer !== current) return;
    const first = addHits(current, hits);
    drawSummary();
    drawMore();
    first.querySelector(".crop").focus({ preventScroll: true });
  } catch (error) {
    at("further").replaceChildren(h("p", { class: "problem", role: "alert" }, error.message),
      h("button", { type: "button", class: "quiet", onclick: more }, "Try again"),
      h("button", { type: "button", class: "quiet", onclick: () => follow(true) }, "Repeat the search"));
  }
}

// Marks

const applied = (id) => (asked.right.includes(id) ? "right" : asked.wrong.includes(id) ? "wrong" : null);

function markOf(id) {
  const waitingMark = pending.get(id);
  return waitingMark === "none" ? null : (waitingMark ?? applied(id));
}

function mark(id, which) {
  const wanted = markOf(id) === which ? "none" : which;
  if ((applied(id) ?? "none") === wanted) pending.delete(id);
  else pending.set(id, wanted);
  drawMarks();
  tell(wanted === "none" ? "Mark removed." : `Marked as ${wanted}.`);
}

function drawMarks() {
  paintMarks();
  paintDetailMarks();
  const number = (which) => [...pending.values()].filter((held) => held === which).length;
  const parts = [["right", "right"], ["wrong", "wrong"], ["none", "unmarked"]].filter(([which]) => number(which)).map(([which, told]) => `${number(which)} ${told}`);
  at("marks-text").textContent = parts.join(", ");
  show(at("marks"), pending.size > 0);
}

async function searchAgain() {
  await returning;
  if (!pending.size) return;
  asked = withDrafts(asked);
  keepDraft();
  const ids = (which) => [...pending].filter(([, held]) => held === which).map(([id]) => id);
  const untouched = (list) => list.filter((id) => !pending.has(id));
  const base = { ...asked, right: untouched(asked.right), wrong: untouched(asked.wrong) };
  const [right, wrong] = [ids("right"), ids("wrong")];
  if (!seeks({ ...base, right: [...base.right, ...right] })) return say("Mark at least one result as right, or describe the person.");
  shown = null;
  closeDetail();
  leave();
  const next = { ...base, right: [...base.right, ...right], wrong: [...base.wrong, ...wrong] };
  history.pushState(stateWith(), "", toAddress(next));
  asked = next;
  pending.clear();
  drawMarks();
  drawControls();
  await run((options) => again(base, right, wrong, options), { focus: true });
}

// Opening a result

function open(id) {
  if (returning) return returning.then(() => open(id));
  const step = shown ? "replaceState" : "pushState";
  leave();
  if (!shown) keepDraft();
  history[step](stateWith({ opened: shown ? history.state?.opened : true }), "", toAddress(asked, id));
  shown = id;
  return openDetail(id, answer, session);
}

function detailClosed(id) {
  if (!shown) return;
  shown = null;
  if (history.state?.opened) goBack();
  else history.replaceState(stateWith(), "", toAddress(asked));
  if (id && cardOf(id)) focusResult(id);
}

function goBack() {
  returning = new Promise((resolve) => { addEventListener("popstate", resolve, { once: true }); }).then(() => { returning = null; });
  history.back();
}

/** Query for images like this one, instead of the current descriptions; the filters stay. */
const alike = (id) => query({ ...asked, texts: [], pictures: [], right: [], wrong: [], like: [{ id, weight: 1 }] });

const like = (id) => replace(alike(id));

/** Query restricted to one value of a column, showing single images. */
const narrowed = (column, held) => ({
  ...asked, group: null, ...(column === "camera" ? { cameras: [held] } : { equals: { ...asked.equals, [column]: held } }),
});

/** Leaves the detail view for a query, adding one history entry instead of two. */
function fromDetail(leading, next) {
  shown = null;
  closeDetail();
  return leading(next);
}

// Pictures

function takePictures(files) {
  const keys = keep(files);
  if (!keys.length) return say("This file is not a picture. Use JPEG, PNG or WebP.");
  return refine({ ...asked, pictures: together(asked.pictures, keys) });
}

// Keyboard

function prepareKeys() {
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || !session) return;
    if (event.target.closest("input, select, textarea")) return;
    const anyDialog = document.querySelector("dialog[open]");
    if (event.key === "s" && pending.size && (!anyDialog || isOpen())) return taken(event, searchAgain);
    if (anyDialog) return;
    if (event.key === "/") return taken(event, () => at("words").select());
    if (event.key === "?") return taken(event, () => at("keys").showModal());
    const id = focused();
    if (!id) return;
    if (event.key === "r") taken(event, () => mark(id, "right"));
    if (event.key === "w") taken(event, () => mark(id, "wrong"));
    if (event.key === "m") taken(event, () => like(id));
  });
  at("words").addEventListener("keydown", (event) => {
    if (event.isComposing || event.keyCode === 229) return; // keys of an input method editor
    if (event.key === "ArrowDown" && focusResult()) event.preventDefault();
    if (event.key === "Escape") at("words").blur();
  });
  at("open-keys").addEventListener("click", () => at("keys").showModal());
  at("skip").addEventListener("click", () => focusResult() || at("results").focus());
  closable(at("keys"));
}

function taken(event, action) {
  event.preventDefault();
  action();
}

// Signing in and out

async function signedIn(opened) {
  session = opened;
  show(at("signin"), false);
  for (const id of ["search", "tools", "refine"]) show(at(id), true);
  showAccount(session);
  lookAtGallery();
  bringDraft();
  at("words").focus();
  await follow(true);
}

/** Reloads the page, so that no data of the former user remains in it. The address is kept, except after signing out. */
function leaveSession() {
  session = null;
  location.reload();
}

function signOut() {
  dropDrafts();
  history.replaceState(null, "", location.pathname);
  leaveSession();
}

async function lookAtGallery() {
  const current = session;
  const found = await insist(() => call("GET", "/v1/gallery", undefined, { tries: 1 }), {
    goesOn: () => session === current,
    lost: (failures) => {
      if (failures === 1) showIndexing(session, gallery);
      if (failures === 1) say("The content of the gallery could not be loaded; trying again.");
    },
  }).catch((error) => { say(error.message); return null; });
  if (!session || found === null) return;
  gallery = found;
  showIndexing(session, gallery);
  drawControls();
  if (!seeks(asked)) showStart();
}

async function begin() {
  history.scrollRestoration = "manual";
  prepareResults({ open, like, mark, markOf, only: (column, held) => refine(narrowed(column, held)) });
  prepareDrafts(drawClear);
  prepareEntry({ search: () => refine(asked), redraw: drawParts });
  prepareFilters(refine);
  prepareDetail({
    move: open, mark, markOf, closed: detailClosed, only: (column, held) => fromDetail(refine, narrowed(column, held)),
    like: (id) => fromDetail(replace, alike(id)),
    addLike: (id) => fromDetail(refine, { ...asked, like: [...asked.like.filter((example) => example.id !== id), { id, weight: 1 }] }),
    forgotten: () => { answers.clear(); lookAtGallery(); follow(true); },
  });
  prepareIndexing({ added: () => { answers.clear(); lookAtGallery(); } });
  prepareSaved(replace);
  prepareSession(signedIn, signOut);
  prepareDropping((files) => (at("indexing").open ? choose(files) : takePictures(files)), () => session !== null);
  prepareKeys();
  at("search").addEventListener("submit", (event) => {
    event.preventDefault();
    type(at("words").value);
    refine(asked);
  });
  at("clear").addEventListener("click", () => {
    keepDraft();
    dropDrafts();
    at("words").value = "";
    go({ ...query(), cameras: asked.cameras, since: asked.since, until: asked.until, equals: asked.equals, where: asked.where, group: asked.group });
    at("words").focus();
  });
  at("marks-clear").addEventListener("click", () => { pending.clear(); drawMarks(); focusResult(); });
  at("marks-search").addEventListener("click", searchAgain);
  addEventListener("popstate", () => { leave(); follow(false, true); });
  signedOut.addEventListener("signedout", () => { if (session) leaveSession(); });
  try {
    const opened = await currentSession();
    if (opened) await signedIn(opened);
    else {
      show(at("signin"), true);
      at("key").focus();
    }
  } catch (error) {
    showMessage("The service does not answer", error.message, [["Try again", () => location.reload()]], "failure");
  }
}

begin();
