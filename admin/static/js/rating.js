// 👍 and 👎 under an answer: given, changed, withdrawn, and with a reason where somebody wants to give one.
import { call, path } from "./api.js";
import { announce, el, iconButton, toast } from "./dom.js";
import { t } from "./i18n.js";

const REASONS = ["reason_wrong", "reason_incomplete", "reason_outdated", "reason_source"];

export class Rating {
  /** @param {string} answerId @param {{value: number, reason: string} | null} given */
  constructor(answerId, given) {
    this.where = `${path("answers", answerId)}/rating`;
    this.value = given?.value ?? 0;
    this.reason = given?.reason ?? "";
    this.up = iconButton("thumb-up", t("thumb_up"), () => this.#choose(1), { "data-thumb": "up" });
    this.down = iconButton("thumb-down", t("thumb_down"), () => this.#choose(-1), { "data-thumb": "down" });
    this.form = el("div", { class: "reason-place" });
    this.buttons = [this.up, this.down];
    this.#mark();
  }

  #mark() {
    this.up.setAttribute("aria-pressed", String(this.value === 1));
    this.down.setAttribute("aria-pressed", String(this.value === -1));
  }

  /** @param {1 | -1} value */
  async #choose(value) {
    const before = this.value;
    const wanted = before === value ? 0 : value;
    this.value = wanted;
    this.reason = "";
    this.#mark();
    this.form.replaceChildren();
    if (!(await this.#send())) {
      this.value = before;
      this.#mark();
    } else if (this.value === -1) {
      this.#ask();
    } else {
      announce(t(wanted ? "thanks" : "rating_withdrawn"));
    }
  }

  /** @returns {Promise<boolean>} whether the server has it */
  async #send() {
    this.buttons.forEach((button) => { button.disabled = true; });
    try {
      if (this.value) await call("PUT", this.where, { value: this.value, ...(this.reason ? { reason: this.reason } : {}) });
      else await call("DELETE", this.where);
      return true;
    } catch (error) {
      toast(/** @type {Error} */ (error).message, "bad");
      return false;
    } finally {
      this.buttons.forEach((button) => { button.disabled = false; });
    }
  }

  #ask() {
    const field = el("textarea", { rows: "2", maxlength: "2000", "aria-label": t("reason_label"), placeholder: t("reason_placeholder") });
    const fill = (/** @type {string} */ text) => { field.value = field.value ? `${field.value.trimEnd()} ${text}` : text; field.focus(); };
    const close = () => { this.form.replaceChildren(); this.down.focus(); };
    const form = el("form", {
      class: "reason",
      onsubmit: async (/** @type {Event} */ event) => {
        event.preventDefault();
        this.reason = field.value.trim();
        if (!this.reason || (await this.#send())) { close(); toast(t("thanks")); }
      },
      onkeydown: (/** @type {KeyboardEvent} */ event) => { if (event.key === "Escape") { event.stopPropagation(); close(); } },
    },
    el("p", {}, t("what_was_wrong")),
    el("div", { class: "chips" }, ...REASONS.map((key) => el("button", { type: "button", class: "chip", onclick: () => fill(t(key)) }, t(key)))),
    field,
    el("div", { class: "reason-actions" },
      el("button", { type: "button", class: "button small", onclick: close }, t("skip")),
      el("button", { type: "submit", class: "button small primary" }, t("send_reason"))));
    this.form.replaceChildren(form);
    field.focus();
  }
}
