// The documents of one knowledge base: found, paged, watched while they are read, downloaded, deleted.
import { address, call, get, path } from "./api.js";
import { confirmDeletion } from "./dialog.js";
import { el, icon, iconButton, plain, toast } from "./dom.js";
import { number, size, t, when } from "./i18n.js";

/**
 * @typedef {{id: string, name: string, title: string, media_type: string, size: number, status: string, stage: string,
 *   reason: string | null, chunks: number, created_at: string, updated_at: string}} Doc
 */

const PAGE = 50;
const STATES = ["indexed", "working", "queued", "failed"];

export class DocumentTable {
  /** @param {string} kb @param {boolean} writable @param {() => void} changed */
  constructor(kb, writable, changed) {
    this.kb = kb;
    this.writable = writable;
    this.changed = changed;
    this.offset = 0;
    this.timer = 0;
    this.closed = false;
    this.text = el("input", { type: "search", autocomplete: "off", placeholder: t("search_documents"), "aria-label": t("search_documents"), oninput: () => this.#later() });
    this.state = el("select", { "aria-label": t("status"), onchange: () => this.#restart() }, new Option(t("any_status"), ""), ...STATES.map((state) => new Option(t(`status_${state}`), state)));
    this.rows = el("tbody");
    this.pager = el("nav", { class: "pager", "aria-label": t("pages") });
    const head = ["document", "status", "size", "chunks", "changed"].map((key) => el("th", { scope: "col" }, t(key)));
    const table = el("table", { class: "documents" }, el("thead", {}, el("tr", {}, ...head, el("th", { scope: "col" }, el("span", { class: "hidden" }, t("actions"))))), this.rows);
    this.element = el("section", { class: "listing", "aria-label": t("documents") }, el("div", { class: "tools" }, this.text, this.state), table, this.pager);
    void this.refresh();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
  }

  #later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#restart(), 250);
  }

  #restart() {
    this.offset = 0;
    void this.refresh();
  }

  async refresh() {
    clearTimeout(this.timer);
    const wanted = new URLSearchParams({ limit: String(PAGE), offset: String(this.offset) });
    if (this.text.value.trim()) wanted.set("text", this.text.value.trim());
    if (this.state.value) wanted.set("status", this.state.value);
    let found;
    try {
      found = await get(`${path("kbs", this.kb, "documents")}?${wanted}`);
    } catch (error) {
      if (!this.closed) this.#message(/** @type {Error} */ (error).message, true);
      return;
    }
    if (this.closed) return;
    this.#draw(found.items, found.total);
    const busy = found.items.some((/** @type {Doc} */ doc) => doc.status === "working" || doc.status === "queued");
    if (busy) this.timer = setTimeout(() => void this.refresh(), 2000);
  }

  /** @param {string} text @param {boolean} [again] */
  #message(text, again = false) {
    const retry = again ? el("button", { type: "button", class: "button small", onclick: () => this.refresh() }, t("try_again")) : null;
    this.rows.replaceChildren(el("tr", { class: "message" }, el("td", { colspan: "6" }, text, " ", retry)));
    this.pager.replaceChildren();
  }

  /** @param {Doc[]} docs @param {number} total */
  #draw(docs, total) {
    if (!docs.length) return this.#message(t(this.text.value || this.state.value ? "nothing_found" : "no_documents"));
    this.rows.replaceChildren(...docs.map((doc) => this.#row(doc)));
    const last = this.offset + docs.length;
    const turn = (/** @type {string} */ key, /** @type {number} */ to, /** @type {boolean} */ possible) =>
      el("button", { type: "button", class: "button small", disabled: !possible, onclick: () => { this.offset = to; void this.refresh(); } }, t(key));
    const range = el("span", {}, t("range", { from: this.offset + 1, to: last, total }));
    this.pager.replaceChildren(...(total > PAGE ? [range, turn("previous", Math.max(0, this.offset - PAGE), this.offset > 0), turn("next", last, last < total)] : []));
    return undefined;
  }

  /** @param {Doc} doc */
  #row(doc) {
    const title = plain(doc.title) || plain(doc.name);
    const file = title === plain(doc.name) ? null : el("small", {}, el("bdi", {}, plain(doc.name)));
    const reason = doc.reason ? el("small", { class: doc.status === "failed" ? "why bad" : "why" }, plain(doc.reason)) : null;
    const cell = (/** @type {string} */ key, /** @type {(Node | string)[]} */ ...children) => el("td", { "data-label": t(key), class: key === "chunks" ? "named" : null }, ...children);
    return el("tr", {},
      el("th", { scope: "row" }, el("div", { class: "what" }, icon("document"), el("span", {}, el("bdi", {}, title), file, reason))),
      cell("status", statusBadge(doc)), cell("size", size(doc.size)), cell("chunks", number(doc.chunks)), cell("changed", when(doc.updated_at)),
      el("td", { class: "row-actions" },
        el("a", { class: "icon-button", href: address(`${path("documents", doc.id)}/original`), download: true, "aria-label": t("download_x", { title }), title: t("download_original") }, icon("download")),
        this.writable ? iconButton("trash", t("delete_x", { title }), () => void this.#remove(doc, title)) : null));
  }

  /** @param {Doc} doc @param {string} title */
  #remove(doc, title) {
    return confirmDeletion(t("delete_document"), t("delete_document_text", { title }), t("delete"), async () => {
      await call("DELETE", path("documents", doc.id));
      toast(t("document_deleted", { title }));
      this.changed();
    });
  }
}

/** @param {Doc} doc */
function statusBadge(doc) {
  const text = doc.status === "working" ? t(`stage_${doc.stage}`) : t(`status_${doc.status}`);
  return el("span", { class: `state ${doc.status}` }, icon({ indexed: "check", failed: "warning" }[doc.status] ?? "dot"), text);
}
