// Adding images: uploads files and shows the progress of their indexing, here and in the top bar.

import { call, passes, pauseAfter, sentence, upload } from "./api.js";
import { at, closable, h, iconButton, say, show } from "./dom.js";
import { bytes, count, duration, several } from "./format.js";

const EVERY = 1000; // milliseconds between requests for the progress
const NAMED = 50; // largest number of skipped files listed per upload
const UNDER_WAY = ["waiting", "running"];

let files = [];
let jobs = [];
let limit = null;
let timer = 0;
let looks = 0; // number of requests, to recognise late answers
let failures = 0; // failed requests in a row
let on = {};

/** actions: added(): an upload has been indexed. */
export function prepare(actions) {
  on = actions;
  closable(at("indexing"));
  at("open-indexing").addEventListener("click", () => {
    at("indexing").showModal();
    look();
  });
  at("index-files").addEventListener("change", () => choose(at("index-files").files));
  const drop = at("index-drop");
  for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, () => drop.classList.add("over"));
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  at("index-form").addEventListener("submit", send);
  addEventListener("online", () => { if (failures) look(); });
}

/** Shows the panel to callers who may add images, with the cameras of the gallery as suggestions. */
export function showIndexing(session, gallery) {
  const may = ["curator", "administrator"].includes(session.role);
  show(at("open-indexing"), may);
  clearTimeout(timer);
  if (!may) return;
  limit = gallery?.limits?.upload_bytes ?? null;
  if (limit) at("index-limit").textContent = `or choose files: JPEG, PNG, WebP, zip, tar, MP4, MKV, MOV, AVI (at most ${bytes(limit)})`;
  at("index-cameras").replaceChildren(...(session.cameras ?? gallery?.cameras.map(({ name }) => name) ?? []).map((name) => h("option", { value: name })));
  look();
}

/** Adds files that were chosen, or dropped anywhere while the panel is open. */
export function choose(more) {
  files = [...files, ...more];
  const sum = files.reduce((total, file) => total + file.size, 0);
  at("index-error").textContent = limit && sum > limit ? `These files have ${bytes(sum)}; one upload may have ${bytes(limit)}. Remove some, or upload them in parts.` : "";
  at("index-go").disabled = !files.length || Boolean(at("index-error").textContent);
  at("index-chosen").replaceChildren(...files.map((file) => h("li", {}, h("span", { class: "grow" }, file.name), h("span", { class: "hint" }, bytes(file.size)),
    iconButton("close", `Remove ${file.name}`, () => { files = files.filter((other) => other !== file); choose([]); }))));
}

async function send(event) {
  event.preventDefault();
  if (!files.length) return;
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name);
  if (at("index-camera").value.trim()) form.append("camera", at("index-camera").value.trim());
  if (at("index-start").value) form.append("start", at("index-start").value);
  if (at("index-detect").checked) form.append("detect", "true");
  if (at("index-column").value.trim()) form.append("metadata", JSON.stringify({ [at("index-column").value.trim()]: at("index-value").value.trim() }));
  const bar = at("index-sending");
  at("index-error").textContent = "";
  at("index-go").disabled = true;
  show(bar, true);
  try {
    await upload("/v1/index", form, (share) => { bar.value = share; });
    files = [];
    at("index-files").value = "";
    choose([]);
    say("Uploaded. Indexing starts.");
    await look();
  } catch (error) {
    at("index-error").textContent = error.message;
    at("index-go").disabled = false;
  } finally {
    show(bar, false);
    bar.value = 0;
  }
}

/** Requests the progress. Repeats while an upload is being indexed, and after failures until a request succeeds. */
async function look() {
  clearTimeout(timer);
  looks += 1;
  const number = looks;
  let found;
  try {
    found = (await call("GET", "/v1/index", undefined, { tries: 1 })).jobs;
  } catch (error) {
    if (number === looks) failed(error);
    return;
  }
  if (number !== looks) return;
  failures = 0;
  at("jobs-error").textContent = "";
  const before = new Set(jobs.filter(isUnderWay).map((job) => job.id));
  jobs = found;
  draw();
  const under = jobs.filter(isUnderWay);
  const label = under.length ? under.map(progressOf)[0] : "Add images";
  at("indexing-label").textContent = label;
  at("open-indexing").classList.toggle("busy", under.length > 0);
  if (jobs.some((job) => before.has(job.id) && !isUnderWay(job))) on.added();
  if (under.length) timer = setTimeout(look, EVERY);
}

function failed(error) {
  if (error.status === 401) return; // the page reloads and asks to sign in
  if (!passes(error)) {
    at("jobs-error").textContent = error.message;
    return;
  }
  failures += 1;
  const lost = error.status > 0 ? `The service has a problem (status ${error.status})` : "Connection lost";
  at("jobs-error").textContent = `${lost}, trying again. This list may be out of date.`;
  if (jobs.some(isUnderWay)) at("indexing-label").textContent = "Trying again";
  timer = setTimeout(look, 1000 * pauseAfter(failures));
}

const isUnderWay = (job) => UNDER_WAY.includes(job.state);

const progressOf = (job) => (job.total ? `Indexing ${Math.floor((100 * job.done) / job.total)} %` : job.state === "waiting" ? "Waiting" : "Indexing");

function draw() {
  const open = new Set([...at("jobs").querySelectorAll("details[open]")].map((element) => element.dataset.job));
  const focus = document.activeElement?.closest("#jobs li")?.dataset.job;
  at("jobs").replaceChildren(...(jobs.length ? jobs.map((job) => drawn(job, open.has(job.id))) : [h("li", { class: "hint" }, "No uploads yet.")]));
  if (focus) at("jobs").querySelector(`li[data-job="${CSS.escape(focus)}"] button, li[data-job="${CSS.escape(focus)}"] summary`)?.focus();
}

function drawn(job, open) {
  const bar = isUnderWay(job)
    ? h("progress", { "aria-label": progressOf(job), ...(job.total ? { max: job.total, value: String(job.done) } : {}) })
    : null;
  if (bar && job.total) bar.value = job.done;
  return h("li", { "data-job": job.id, class: job.state },
    h("div", { class: "job-head" },
      h("strong", {}, { waiting: "Waiting", running: "Indexing", done: "Done", failed: "Failed", cancelled: "Cancelled" }[job.state] ?? job.state),
      h("span", { class: "grow" }, told(job)),
      isUnderWay(job) ? h("button", { type: "button", class: "quiet small-button", onclick: () => cancel(job) }, "Cancel") : null),
    bar,
    job.message ? h("p", { class: job.state === "failed" ? "problem" : "hint" }, sentence(job.message)) : null,
    job.skipped.length ? skipped(job, open) : null);
}

function told(job) {
  if (job.state === "waiting") return "for earlier uploads to finish";
  const parts = [`${count(job.done)}${job.total ? ` of ${count(job.total)}` : ""}`];
  if (job.state === "running" && job.rate) parts.push(`${job.rate.toFixed(job.rate < 10 ? 1 : 0)} per second`);
  if (job.state === "running" && job.seconds_left !== null) parts.push(`${duration(job.seconds_left)} left`);
  parts.push(`${several(job.added, "image")} added`);
  return parts.join(" · ");
}

function skipped(job, open) {
  const names = job.skipped.slice(0, NAMED).map(({ name, reason }) => h("li", {}, h("code", {}, name), ` ${reason}`));
  const rest = job.skipped.length - names.length;
  const made = h("details", { "data-job": job.id }, h("summary", {}, `${several(job.skipped.length, "file")} skipped`),
    h("ul", {}, names, rest > 0 ? h("li", { class: "hint" }, `and ${count(rest)} more`) : null));
  made.open = open;
  return made;
}

async function cancel(job) {
  try {
    await call("DELETE", `/v1/index/${encodeURIComponent(job.id)}`);
  } catch (error) {
    say(error.message);
  }
  await look();
}
