// Search requests: the first page of an answer, further pages, and searches with marks.

import { call } from "./api.js";
import { picture } from "./pictures.js";
import { asJson, query } from "./query.js";

/** Requests the first page of the answer to `asked`; options as for `call`. */
export async function search(asked, options) {
  return begun(asked, await sent(asJson(asked), asked.pictures, options));
}

/** Requests the next page, from the same version of the gallery, adds it to the answer and returns its hits. */
export async function further(answer, options) {
  const page = await sent(answer.next, answer.asked.pictures, options);
  answer.hits.push(...page.hits);
  answer.next = page.next;
  return page.hits;
}

/** Requests the answer to a query with results marked right and wrong; `asked` of the answer contains the marks. */
export async function again(asked, right, wrong, options) {
  if (asked.pictures.length) {
    const marked = { ...asked, right: [...asked.right, ...right], wrong: [...asked.wrong, ...wrong] };
    return search(marked, options);
  }
  const page = await call("POST", "/v1/feedback", { query: asJson(asked), right, wrong }, options);
  return begun(merged(asked, page.query, right, wrong), page);
}

function sent(body, keys, options) {
  const files = keys.map(picture).filter(Boolean);
  if (!files.length) return call("POST", "/v1/search", body, options);
  const form = new FormData();
  for (const { file } of files) form.append("image", file, file.name || "picture");
  form.append("query", JSON.stringify(body));
  return call("POST", "/v1/similar", form, options);
}

function merged(asked, told, right, wrong) {
  return query({
    ...asked,
    right: told?.right ?? [...asked.right, ...right],
    wrong: told?.wrong ?? [...asked.wrong, ...wrong],
  });
}

function begun(asked, page) {
  const best = Math.max(...page.hits.map((hit) => hit.score), 0);
  return { ...page, asked, best };
}
