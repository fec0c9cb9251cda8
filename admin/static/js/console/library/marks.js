// Small things that the list and the document both show: its state, its kind, where it came from; and what can be done to it.
import { ask, attempt, badge, button, call, confirmDeletion, el, form, path, plain, t, toast } from "../base.js";

/** @typedef {import("../library.js").Doc} Doc */

const KINDS = {
  "application/pdf": "PDF",
  "text/markdown": "Markdown",
  "text/html": "HTML",
  "text/csv": "CSV",
  "application/json": "JSON",
  "application/epub+zip": "EPUB",
  "message/rfc822": "E-mail",
  "application/rtf": "RTF",
  "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "Word",
  "application/vnd.openxmlformats-officedocument.presentationml.presentation": "PowerPoint",
  "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "Excel",
  "application/vnd.oasis.opendocument.text": "OpenDocument",
};

/** @param {string} type a media type */
export function kind(type) {
  const known = /** @type {Record<string, string>} */ (KINDS)[type];
  return known ?? (type === "text/plain" ? t("library_kind_text") : plain(type) || t("library_kind_unknown"));
}

/** @param {Doc} doc */
export function state(doc) {
  if (doc.status === "working" || doc.status === "queued") return badge(doc.status === "queued" ? t("library_queued") : t(`library_at_${doc.stage}`), "busy");
  const tones = /** @type {Record<string, import("../base.js").Tone>} */ ({ indexed: "good", failed: "bad", disabled: "warn" });
  return badge(t(`library_${doc.status}`), tones[doc.status] ?? "");
}

/** @param {string} source @param {string} [named] */
export function origin(source, named) {
  if (["upload", "folder", "web", "curated"].includes(source)) return t(`library_from_${source}`);
  return plain(named || source) || t("library_from_unknown");
}

/**
 * Change documents, and say what came of it.
 * @param {string} kb @param {string} change @param {{ids?: string[], all?: Record<string, any>}} which @param {string} [into]
 */
export async function change(kb, change, which, into = "") {
  const done = await call("POST", `${path("kbs", kb)}/documents/changes`, { change, into, ...which });
  if (done.done) toast(t(`library_done_${change}`, { n: done.done }));
  if (done.left_out_total) leftOut(done);
  return done;
}

/** @param {{left_out: {name: string, reason: string}[], left_out_total: number}} done */
function leftOut(done) {
  const lines = done.left_out.slice(0, 20).map((one) => el("li", {}, el("bdi", {}, plain(one.name)), ": ", plain(one.reason)));
  const rest = done.left_out_total - lines.length;
  void ask(t("library_left_out", { n: done.left_out_total }), [el("ul", { class: "left-out" }, ...lines), rest > 0 ? el("p", { class: "soft" }, t("library_more", { n: rest })) : null],
    { label: t("close"), act: () => true });
}

/**
 * The buttons for documents; `after` is called when something was changed.
 * @param {{name: string, can_edit: boolean}[]} kbs @param {string} kb @param {() => {ids?: string[], all?: Record<string, any>}} which @param {number} n
 * @param {string[]} wanted @param {() => void} after
 */
export function actions(kbs, kb, which, n, wanted, after) {
  const act = (/** @type {string} */ one) => () => void attempt(async () => { await change(kb, one, which()); after(); });
  /** @type {Record<string, () => Node>} */
  const made = {
    retry: () => button(t("library_retry"), act("retry"), { small: true, icon: "refresh" }),
    reread: () => button(t("library_reread"), act("reread"), { small: true, icon: "refresh", title: t("library_reread_hint") }),
    cancel: () => button(t("library_cancel"), act("cancel"), { small: true, icon: "stop" }),
    enable: () => button(t("library_enable"), act("enable"), { small: true, icon: "check" }),
    disable: () => button(t("library_disable"), () => void sure("disable"), { small: true, icon: "eye" }),
    move: () => button(t("library_move"), () => void move(), { small: true, icon: "folder" }),
    delete: () => button(t("delete"), () => void sure("delete"), { small: true, danger: true, icon: "trash" }),
  };
  const sure = (/** @type {string} */ one) => confirmDeletion(t(`library_${one}_title`, { n }), t(`library_${one}_text`, { n, kb }), t(one === "delete" ? "delete" : "library_disable"), async () => {
    await change(kb, one, which());
    after();
  });
  const move = async () => {
    const others = kbs.filter((one) => one.can_edit && one.name !== kb).map((one) => one.name);
    if (!others.length) return toast(t("library_move_nowhere"), "bad");
    const fields = form([{ name: "into", label: t("library_move_into"), kind: "select", options: others }]);
    return ask(t("library_move_title", { n }), [el("p", {}, t("library_move_text")), fields.node], {
      label: t("library_move_now"),
      act: async () => {
        const done = await call("POST", `${path("kbs", kb)}/documents/changes`, { change: "move", into: fields.values().into, ...which() });
        if (done.done) toast(t("library_done_move", { n: done.done }));
        setTimeout(() => { if (done.left_out_total) leftOut(done); after(); });
        return true;
      },
    });
  };
  return wanted.map((one) => made[one]());
}
