// Questions put in a dialog of the browser's own: focus stays inside, Escape closes it.
import { el } from "./dom.js";
import { t } from "./i18n.js";

/**
 * Show `content` with its buttons; resolves when the dialog is closed.
 * @param {string} title @param {(Node | null)[]} content
 * @param {{label: string, danger?: boolean, act: () => Promise<boolean> | boolean}} main `act` says whether the dialog is done
 */
export function ask(title, content, main) {
  const error = el("p", { class: "form-error", role: "alert", hidden: true });
  const go = el("button", { type: "submit", class: `button primary${main.danger ? " danger" : ""}` }, main.label);
  const cancel = el("button", { type: "button", class: "button", onclick: () => dialog.close() }, t("cancel"));
  const heading = el("h2", { id: "dialog-title" }, title);
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    error.hidden = true;
    go.disabled = true;
    try {
      if (await main.act()) dialog.close();
    } catch (problem) {
      error.textContent = /** @type {Error} */ (problem).message;
      error.hidden = false;
    } finally {
      go.disabled = false;
    }
  };
  const form = el("form", { novalidate: true, onsubmit: submit }, heading, error, ...content, el("div", { class: "dialog-actions" }, cancel, go));
  const dialog = el("dialog", { "aria-labelledby": "dialog-title" }, form);
  document.body.append(dialog);
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => { dialog.remove(); resolve(undefined); });
    dialog.addEventListener("keydown", (event) => event.stopPropagation());
    dialog.showModal();
    const first = /** @type {HTMLElement | null} */ (dialog.querySelector("input, textarea, select"));
    (first ?? cancel).focus();
  });
}

/** @param {string} title @param {string} text @param {string} label @param {() => Promise<unknown>} act */
export function confirmDeletion(title, text, label, act) {
  return ask(title, [el("p", {}, text)], { label, danger: true, act: async () => { await act(); return true; } });
}
