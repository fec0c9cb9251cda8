// A dialog that only shows something.
import { el, t } from "./base.js";

/** @param {string} title @param {...Node} content @returns {Promise<void>} when it is closed */
export function show(title, ...content) {
  const close = el("button", { type: "button", class: "button", onclick: () => dialog.close() }, t("close"));
  const dialog = el("dialog", { "aria-labelledby": "shown-title" }, el("h2", { id: "shown-title" }, title), el("div", { class: "stack" }, ...content), el("div", { class: "dialog-actions" }, close));
  document.body.append(dialog);
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => { dialog.remove(); resolve(); });
    dialog.showModal();
    close.focus();
  });
}
