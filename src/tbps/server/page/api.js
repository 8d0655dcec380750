// Requests to the service, see /v1/openapi.json. If the service is busy, a request is repeated after the time in Retry-After.

const TRIES = 6;
const LONGEST_WAIT = 30;

/** An error answer; `message` is a sentence for the user. */
export class ServiceError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const signedOut = new EventTarget();

/**
 * Sends a request and returns the parsed JSON of the answer. `body`: an object (sent as JSON), a FormData, or undefined.
 * `busy(seconds)` is called before each wait for a busy service; `tries`: largest number of requests.
 */
export async function call(method, path, body = undefined, { signal, busy = () => {}, tries = TRIES } = {}) {
  for (let attempt = 1; ; attempt += 1) {
    const answer = await sent(method, path, body, signal);
    if (answer.ok) return answer.status === 204 ? null : read(answer);
    const wait = Number(answer.headers.get("Retry-After"));
    if (![429, 503].includes(answer.status) || !(wait > 0) || attempt >= tries) throw await failure(answer);
    const pause = Math.min(wait, LONGEST_WAIT);
    busy(pause);
    await later(pause, signal);
  }
}

/** Parses JSON; whole numbers beyond 2^53, which JavaScript would round, become strings. */
export function exactly(text) {
  const part = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
  return JSON.parse(text.replace(part, (found) => (/^-?\d+$/.test(found) && !Number.isSafeInteger(Number(found)) ? `"${found}"` : found)));
}

/** Whether an error may be temporary: the connection is lost, or the service is busy or has a problem. */
export const passes = (error) => !(error instanceof ServiceError) || error.status === 0 || error.status === 429 || error.status >= 500;

/** Seconds to wait before the next try after a number of failures. */
export const pauseAfter = (failures) => Math.min(2 ** (failures - 1), LONGEST_WAIT);

/**
 * Calls ask() until it succeeds and returns its result. The pauses increase, and end early when the browser is online again.
 * `lost(failures)` is called after each failure. Returns null if `goesOn()` becomes false or the user is signed out.
 */
export async function insist(ask, { goesOn = () => true, lost = () => {} } = {}) {
  for (let failures = 1; ; failures += 1) {
    try {
      return await ask();
    } catch (error) {
      if (error.status === 401 || !goesOn()) return null;
      if (!passes(error)) throw error;
      lost(failures);
    }
    await Promise.race([later(pauseAfter(failures)), new Promise((resolve) => { addEventListener("online", resolve, { once: true }); })]);
    if (!goesOn()) return null;
  }
}

async function read(answer) {
  try {
    return exactly(await answer.text());
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0, "unreadable", "The answer of the service is incomplete or unreadable. Try again.");
  }
}

async function sent(method, path, body, signal) {
  const headers = { Accept: "application/json", "X-Tbps": "1" };
  const isForm = body instanceof FormData;
  if (body !== undefined && !isForm) headers["Content-Type"] = "application/json";
  const content = body === undefined || isForm ? body : JSON.stringify(body);
  try {
    return await fetch(path, { method, headers, body: content, signal, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0, "unreachable", "The service cannot be reached. Check the connection, then try again.");
  }
}

async function failure(answer) {
  const told = await answer.json().catch(() => null);
  const message = told?.error?.message ?? `The service answered ${answer.status} ${answer.statusText}`.trim();
  const error = new ServiceError(answer.status, told?.error?.code ?? "", sentence(message));
  if (answer.status === 401) signedOut.dispatchEvent(new Event("signedout"));
  return error;
}

/** Sends a POST with a FormData and returns the parsed JSON. Calls `sending(share)` with the share sent so far, from 0 to 1. */
export function upload(path, form, sending) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.setRequestHeader("X-Tbps", "1");
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => event.lengthComputable && sending(event.loaded / event.total));
    request.addEventListener("error", () => reject(new ServiceError(0, "unreachable", "The upload was interrupted. Check the connection, then try again.")));
    request.addEventListener("load", () => {
      if (request.status < 300) return resolve(request.response);
      const told = request.response?.error;
      const wait = request.getResponseHeader("Retry-After");
      const busy = wait ? ` Try again in ${wait} s.` : "";
      if (request.status === 401) signedOut.dispatchEvent(new Event("signedout"));
      return reject(new ServiceError(request.status, told?.code ?? "", sentence(told?.message ?? `status ${request.status}`) + busy));
    });
    request.send(form);
  });
}

export function later(pause, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * pause);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("aborted", "AbortError"));
    });
  });
}

/** Formats a message as a sentence, with a capital letter and a full stop. */
export function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}
