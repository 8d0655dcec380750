// Signing in and out.

import { call } from "./api.js";
import { anchor, at, show } from "./dom.js";

const ROLES = {
  viewer: "Can search",
  curator: "Can search and add images",
  administrator: "Can search, add and erase images",
};

/** The current session, or null if signed out. */
export async function session() {
  try {
    return await call("GET", "/v1/session");
  } catch (error) {
    if (error.status === 401) return null;
    throw error;
  }
}

/** Attaches the event handlers. signedIn(session) is called after signing in, signedOut() after signing out. */
export function prepare(signedIn, signedOut) {
  anchor(at("account"), at("open-account"));
  at("signin-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    at("signin-error").textContent = "";
    const busy = (wait) => { at("signin-error").textContent = `Too many attempts; trying again in ${wait} s.`; };
    try {
      const opened = await call("POST", "/v1/session", { key: at("key").value.trim() }, { busy });
      at("key").value = "";
      at("signin-error").textContent = "";
      signedIn(opened);
    } catch (error) {
      at("signin-error").textContent = error.message;
      at("key").select();
    }
  });
  at("sign-out").addEventListener("click", async () => {
    at("account").hidePopover();
    await call("DELETE", "/v1/session").catch(() => null);
    signedOut();
  });
}

export function showAccount(opened) {
  const cameras = opened.cameras ? `; sees only ${opened.cameras.join(", ")}` : "";
  at("account-name").textContent = opened.open ? "No sign-in needed" : opened.name;
  at("account-role").textContent = opened.open ? "No access keys exist, so everybody on this machine has all rights." : `${ROLES[opened.role] ?? opened.role}${cameras}.`;
  show(at("sign-out"), !opened.open);
}
