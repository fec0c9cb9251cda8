// What the login and set-up pages share.
import { byId } from "./dom.js";
import { languageSwitch, t, translate } from "./i18n.js";

/** @param {string} title @param {() => Promise<void>} submit throws an error with a sentence to show */
export function openDoor(title, submit) {
  translate();
  document.title = `${t(title)} · Kvasir`;
  byId("language").append(languageSwitch());
  const reveal = byId("reveal");
  reveal.addEventListener("click", () => {
    const shown = byId("password").type === "text";
    for (const id of ["password", "again"]) if (byId(id)) byId(id).type = shown ? "password" : "text";
    reveal.setAttribute("aria-pressed", String(!shown));
  });
  const form = byId("form");
  const error = byId("error");
  const button = form.querySelector("[type=submit]");
  form.addEventListener("submit", async (/** @type {Event} */ event) => {
    event.preventDefault();
    error.hidden = true;
    button.disabled = true;
    try {
      await submit();
    } catch (problem) {
      error.textContent = /** @type {Error} */ (problem).message;
      error.hidden = false;
    } finally {
      button.disabled = false;
    }
  });
}

/** `next` where it is a page of this site, else the chat. @param {string | null | undefined} next */
export function localPath(next) {
  if (!next || !next.startsWith("/")) return "/";
  const url = new URL(next, location.origin);
  return url.origin === location.origin && !next.startsWith("//") ? url.pathname + url.search + url.hash : "/";
}
