// The box a question is written in.
import { byId } from "./dom.js";

const DRAFT = "kvasir.draft";

export class Composer {
  /** @param {{ask: (text: string) => void, stop: () => void}} actions */
  constructor(actions) {
    this.actions = actions;
    this.busy = false;
    this.field = byId("question");
    this.send = byId("send");
    this.stopper = byId("stop");
    byId("composer").addEventListener("submit", (/** @type {Event} */ event) => { event.preventDefault(); this.#submit(); });
    this.field.addEventListener("input", () => this.#changed());
    this.field.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      // Enter that ends a word of an input method is not a question's end; 229 is how older ones say so.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.#submit();
    });
    this.stopper.addEventListener("click", actions.stop);
    document.addEventListener("keydown", (event) => this.#shortcut(event));
    this.write(sessionStorage.getItem(DRAFT) ?? "");
  }

  /** @param {KeyboardEvent} event */
  #shortcut(event) {
    const writing = event.target instanceof Element && event.target.closest("input, textarea, select, [contenteditable], dialog");
    if (event.key === "/" && !writing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      this.field.focus();
    }
    if (event.key === "Escape" && this.busy && !event.isComposing) this.actions.stop();
  }

  #submit() {
    const text = this.field.value.trim();
    if (!text || this.busy) return;
    this.write("");
    this.actions.ask(text);
  }

  /** Ready for typing, where that does not raise a phone's keyboard over the page. */
  focus() {
    if (matchMedia("(hover: hover)").matches) this.field.focus();
  }

  /** Put `text` into the box. @param {string} text */
  write(text) {
    this.field.value = text;
    this.#changed();
  }

  /** While an answer is being written the box offers to stop it. @param {boolean} busy */
  setBusy(busy) {
    const held = document.activeElement === this.send || document.activeElement === this.stopper;
    this.busy = busy;
    this.send.hidden = busy;
    this.stopper.hidden = !busy;
    if (held) this.focus();
  }

  #changed() {
    this.field.style.height = "auto";
    this.field.style.height = `${Math.min(this.field.scrollHeight + 2, window.innerHeight * 0.4)}px`;
    this.send.disabled = !this.field.value.trim();
    sessionStorage.setItem(DRAFT, this.field.value);
  }
}
