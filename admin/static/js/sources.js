// Where an answer comes from: its numbered sources, each unfolding to the passage in its place in the document.
import { address, get, path } from "./api.js";
import { el, icon, name, plain } from "./dom.js";
import { percent, t } from "./i18n.js";
import { sanitise } from "./sanitise.js";

/**
 * @typedef {{n: number, kb: string, document_id: string, document: string, title: string, chunk: number, locator: string,
 *   headings: string[], score: number, text: string}} Source
 * @typedef {{number: number, text: string, headings: string[], locator: string, html: string}} Piece
 */

let made = 0;

/** The sources under an answer. */
export class SourceList {
  /** @param {Source[]} sources */
  constructor(sources) {
    this.views = new Map(sources.map((source) => [source.n, new SourceView(source)]));
    const items = [...this.views.values()].map((view) => view.element);
    this.element = el("section", { class: "sources", "aria-label": t("sources") }, el("h3", {}, t("sources")), el("ol", {}, ...items));
  }

  /** Turn «[1]» in an answer's text into buttons that unfold source 1. @param {Node} root */
  link(root) {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    /** @type {Text[]} */
    const found = [];
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const text = /** @type {Text} */ (node);
      if (/\[\d/.test(text.data) && !text.parentElement?.closest("pre, code, button")) found.push(text);
    }
    for (const text of found) this.#replace(text);
  }

  /** @param {Text} text */
  #replace(text) {
    const parts = text.data.split(/(\[\d{1,2}(?:\s*[,，、]\s*\d{1,2})*\])/);
    const nodes = parts.flatMap((part, i) => (i % 2 ? this.#marks(part) : [part]));
    const anchor = text.parentElement?.closest("a");
    if (anchor && anchor.textContent?.trim() === text.data.trim()) anchor.replaceWith(...nodes);
    else text.replaceWith(...nodes);
  }

  /** @param {string} part e.g. «[1, 3]» @returns {(Node | string)[]} */
  #marks(part) {
    const views = (part.match(/\d+/g) ?? []).map((n) => this.views.get(Number(n)));
    if (views.some((view) => !view)) return [part];
    return views.map((view) => /** @type {SourceView} */ (view).mark());
  }
}

class SourceView {
  /** @param {Source} source */
  constructor(source) {
    this.source = source;
    /** @type {Map<number, Piece>} */
    this.pieces = new Map();
    this.ended = false;
    const id = `passage-${(made += 1)}`;
    this.panel = el("div", { class: "source-panel", id, hidden: true });
    const heading = (source.headings ?? []).at(-1);
    const where = [source.locator, heading === source.title ? "" : heading].filter(Boolean).map((part) => plain(String(part))).join(" · ");
    this.toggle = el("button", { type: "button", class: "source-toggle", "aria-expanded": "false", "aria-controls": id, onclick: () => this.open(this.panel.hidden) },
      el("span", { class: "source-n" }, String(source.n)),
      el("span", { class: "source-name" }, name(source.title || source.document), where ? el("small", {}, el("bdi", {}, where)) : null),
      icon("chevron"));
    this.element = el("li", { class: "source" }, this.toggle, this.panel);
  }

  /** A button that stands for this source inside the answer. */
  mark() {
    const label = t("source_n", { n: this.source.n, title: this.source.title || this.source.document });
    return el("button", { type: "button", class: "cite", "aria-label": label, title: label, onclick: () => this.show() }, String(this.source.n));
  }

  show() {
    this.open(true);
    this.toggle.focus({ preventScroll: true });
    this.element.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  /** @param {boolean} wanted */
  open(wanted) {
    this.panel.hidden = !wanted;
    this.toggle.setAttribute("aria-expanded", String(wanted));
    if (wanted && !this.panel.hasChildNodes()) void this.#load(this.source.chunk);
  }

  /** Fetch the neighbourhood of chunk `around`, and draw all there is so far. @param {number} around */
  async #load(around) {
    if (!this.pieces.size) this.panel.replaceChildren(el("p", { class: "quiet" }, t("loading")));
    try {
      const isFirst = !this.pieces.size;
      const { items } = await get(`${path("documents", this.source.document_id)}/chunks?around=${around}`);
      for (const item of items) this.pieces.set(item.number, item);
      // As many neighbours come from behind as from before, unless the document ends.
      const behind = items.filter((/** @type {Piece} */ item) => item.number > around).length;
      const ahead = items.filter((/** @type {Piece} */ item) => item.number < around).length;
      this.ended ||= !behind || behind < ahead;
      this.#draw();
      if (isFirst) this.#reveal();
    } catch (error) {
      this.#lost(/** @type {Error} */ (error).message);
    }
  }

  /** Bring the passage itself into sight, and with it the panel. */
  #reveal() {
    const hit = /** @type {HTMLElement | null} */ (this.panel.querySelector(".pieces .hit"));
    if (hit?.parentElement) hit.parentElement.scrollTop = hit.offsetTop - 56;
    this.element.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  /** The document has gone or changed: what was cited is still known. @param {string} reason */
  #lost(reason) {
    this.panel.replaceChildren(this.#foot(), el("p", { class: "quiet" }, reason), el("div", { class: "piece hit" }, el("div", { class: "piece-text" }, plain(this.source.text))));
  }

  #draw() {
    const pieces = [...this.pieces.values()].sort((a, b) => a.number - b.number);
    if (!this.pieces.has(this.source.chunk)) return this.#lost(t("passage_changed"));
    const list = el("div", { class: "pieces" });
    let path = "";
    for (const piece of pieces) {
      const heading = (piece.headings ?? []).map(plain).join(" › ");
      if (heading && heading !== path) list.append(el("p", { class: "piece-path" }, el("bdi", {}, heading)));
      path = heading;
      list.append(this.#piece(piece));
    }
    const first = pieces[0].number;
    const last = pieces[pieces.length - 1].number;
    const more = (/** @type {string} */ key, /** @type {number} */ n) => el("button", { type: "button", class: "more", onclick: () => this.#load(n) }, t(key));
    this.panel.replaceChildren(this.#foot(), ...(first > 0 ? [more("show_before", first)] : []), list, ...(this.ended ? [] : [more("show_after", last)]));
    return undefined;
  }

  /** @param {Piece} piece */
  #piece(piece) {
    const hit = piece.number === this.source.chunk;
    const body = piece.html ? el("div", { class: "piece-text prose" }, sanitise(piece.html)) : el("div", { class: "piece-text" }, plain(piece.text));
    return el("div", { class: hit ? "piece hit" : "piece", role: hit ? "mark" : null },
      hit ? el("p", { class: "piece-note" }, t("cited_passage"), piece.locator ? ` · ${plain(piece.locator)}` : "") : null, body);
  }

  #foot() {
    const { document_id, document: file, kb, score } = this.source;
    const original = address(`${path("documents", document_id)}/original`);
    return el("div", { class: "source-foot" },
      el("span", {}, icon("document"), name(file)),
      el("span", {}, icon("library"), name(kb)),
      typeof score === "number" ? el("span", {}, t("match", { share: percent(score) })) : null,
      el("a", { href: original, download: true, class: "download" }, icon("download"), t("download_original")));
  }
}
