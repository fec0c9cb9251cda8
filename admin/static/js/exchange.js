// One question and its answer: while it is written, and afterwards.
import { announce, el, icon, iconButton, perFrame, plain, toast } from "./dom.js";
import { t, when } from "./i18n.js";
import { LiveMarkdown } from "./markdown.js";
import { Rating } from "./rating.js";
import { sanitise } from "./sanitise.js";
import { SourceList } from "./sources.js";

/**
 * @typedef {import("./sources.js").Source} Source
 * @typedef {{answer_id: string, question: string, html: string, text: string, answered: boolean, state: string, notice: string,
 *   sources: Source[], rating: {value: number, reason: string} | null, created_at?: string}} Exchange
 * @typedef {{regenerate: (view: ExchangeView) => void, retry: (view: ExchangeView) => void, moved: () => void}} Actions
 */

export class ExchangeView {
  /** @param {string} question @param {Actions} actions */
  constructor(question, actions) {
    this.question = question;
    this.actions = actions;
    this.answerId = "";
    this.text = "";
    this.words = el("span", {});
    this.status = el("div", { class: "status", hidden: true }, el("span", { class: "dots" }, el("i"), el("i"), el("i")), this.words);
    this.body = el("div", { class: "prose", dir: "auto" });
    this.tail = el("div", { class: "tail" });
    this.answer = el("article", { class: "answer", "aria-label": t("answer") }, this.status, this.body, this.tail);
    this.element = el("li", { class: "exchange" }, el("div", { class: "asked", dir: "auto" }, el("span", { class: "hidden" }, `${t("you_asked")} `), plain(question)), this.answer);
    this.live = new LiveMarkdown(this.body);
    this.draw = perFrame(() => {
      if (!this.answer.hasAttribute("aria-busy")) return;
      this.live.show(this.text);
      this.actions.moved();
    });
  }

  /** An exchange of earlier. @param {Exchange} record @param {Actions} actions */
  static of(record, actions) {
    const view = new ExchangeView(record.question, actions);
    view.settle(record);
    return view;
  }

  /** Wait for the first word. */
  begin() {
    this.text = "";
    this.live = new LiveMarkdown(this.body);
    this.body.replaceChildren();
    this.tail.replaceChildren();
    this.answer.setAttribute("aria-busy", "true");
    this.answer.classList.remove("refused", "failed");
    this.say(t("searching"));
  }

  /** @param {string} text */
  say(text) {
    this.words.textContent = plain(text);
    this.status.hidden = false;
    announce(text);
  }

  /** @param {number} n */
  found(n) {
    this.say(t("found_passages", { n }));
  }

  /** @param {string} text */
  append(text) {
    this.text += text;
    this.status.hidden = true;
    this.draw();
  }

  /** The answer as it is recorded. @param {Omit<Exchange, "question">} record */
  settle(record) {
    this.#end();
    this.answerId = record.answer_id;
    this.text = record.text;
    this.answer.classList.toggle("refused", !record.answered && record.state !== "stopped" && record.state !== "failed");
    const list = record.sources.length ? new SourceList(record.sources) : null;
    const html = sanitise(record.html ?? "");
    if (!html.hasChildNodes() && record.text) html.append(el("p", {}, plain(record.text)));
    list?.link(html);
    this.body.replaceChildren(html);
    this.tail.replaceChildren();
    if (record.state === "stopped") this.tail.append(note("stop", t("was_stopped")));
    if (record.state === "failed") this.#trouble(record.notice || t("was_failed"));
    else if (record.notice) this.tail.append(note("info", record.notice));
    if (list) this.tail.append(list.element);
    this.#offer(record);
  }

  /** It came to nothing. @param {string} reason */
  fail(reason) {
    this.#end();
    if (this.text) this.live.show(this.text);
    this.tail.replaceChildren();
    this.#trouble(reason);
    announce(reason);
  }

  /** Stopped by the person; what was written stays. */
  stop() {
    this.#end();
    this.live.show(this.text);
    this.tail.replaceChildren(note("stop", t("was_stopped")), el("div", { class: "actions" }, this.#regenerate()));
    announce(t("was_stopped"));
  }

  #end() {
    this.status.hidden = true;
    this.answer.removeAttribute("aria-busy");
  }

  /** @param {string} reason */
  #trouble(reason) {
    this.answer.classList.add("failed");
    this.tail.append(el("div", { class: "trouble" }, icon("warning"), el("span", {}, plain(reason)),
      el("button", { type: "button", class: "button small", onclick: () => this.actions.retry(this) }, t("try_again"))));
  }

  /** @param {Omit<Exchange, "question">} record */
  #offer(record) {
    const copy = iconButton("copy", t("copy"), () => void copyText(withSources(record), copy));
    const row = el("div", { class: "actions" });
    const rating = record.answer_id ? new Rating(record.answer_id, record.rating) : null;
    if (rating) row.append(...rating.buttons);
    if (record.text) row.append(copy);
    row.append(this.#regenerate());
    if (record.created_at) row.append(el("time", { datetime: record.created_at }, when(record.created_at)));
    this.tail.append(row);
    if (rating) this.tail.append(rating.form);
  }

  /** Shown under the last answer only, by the style sheet. */
  #regenerate() {
    return iconButton("refresh", t("regenerate"), () => this.actions.regenerate(this), { class: "icon-button regenerate" });
  }
}

/** @param {string} sign @param {string} text */
function note(sign, text) {
  return el("p", { class: "note" }, icon(sign), el("span", {}, plain(text)));
}

/** An answer as it is copied: with the sources its numbers stand for. @param {{text: string, sources: Source[]}} answer */
function withSources({ text, sources }) {
  const lines = sources.map((source) => `[${source.n}] ${[source.title || source.document, source.locator].filter(Boolean).join(", ")}`);
  return lines.length ? `${text.trimEnd()}\n\n${lines.join("\n")}\n` : text;
}

/** @param {string} text @param {HTMLElement} button */
async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el("textarea", { class: "hidden" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) return toast(t("copy_failed"), "bad");
  }
  button.replaceChildren(icon("check"));
  announce(t("copied"));
  setTimeout(() => button.replaceChildren(icon("copy")), 1800);
  return undefined;
}
