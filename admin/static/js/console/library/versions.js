// The versions of a document: the one that is used, and the former ones that can be put back.
import { address, ask, badge, bytes, button, call, el, get, icon, path, plain, t, toast, when } from "../base.js";

/** @typedef {import("../library.js").Doc} Doc @typedef {{number: number, size: number, by: string, replaced_at: string}} Version */

/** @param {HTMLElement} root @param {Doc} doc @param {boolean} writable @param {(doc: Doc) => Promise<void>} changed */
export async function drawVersions(root, doc, writable, changed) {
  /** @type {Version[]} */
  const versions = (await get(`${path("documents", doc.id)}/versions`)).items;
  const restore = (/** @type {Version} */ one) => ask(t("library_restore_title", { n: one.number }), [el("p", {}, t("library_restore_text"))], {
    label: t("library_restore"),
    act: async () => {
      const now = await call("POST", `${path("documents", doc.id)}/versions/${one.number}/restore`);
      toast(now.status === "indexed" ? t("library_restored", { n: one.number }) : t("library_chunk_soon"));
      await changed(now);
      return true;
    },
  });
  const line = (/** @type {Version} */ one) => el("tr", {}, el("td", {}, t("library_version_n", { n: one.number })), el("td", {}, plain(one.by) || "–"), el("td", { class: "end" }, bytes(one.size)), el("td", {}, when(one.replaced_at)),
    el("td", { class: "end" }, el("a", { class: "button small", href: address(`${path("documents", doc.id)}/versions/${one.number}/original`), download: true, "aria-label": t("library_version_download", { n: one.number }) }, icon("download"), t("library_download")),
      " ", writable ? button(t("library_restore"), () => void restore(one), { small: true, icon: "undo" }) : null));
  const now = el("tr", {}, el("td", {}, badge(t("library_current"), "good")), el("td", {}, plain(doc.by) || "–"), el("td", { class: "end" }, bytes(doc.size)), el("td", {}, t("library_not_replaced")),
    el("td", { class: "end" }, el("a", { class: "button small", href: address(`${path("documents", doc.id)}/original`), download: true, "aria-label": t("library_original") }, icon("download"), t("library_download"))));
  const head = ["library_version", "library_by", "library_size", "library_replaced", ""].map((key) => el("th", { scope: "col" }, key ? t(key) : el("span", { class: "hidden" }, t("actions"))));
  root.replaceChildren(
    el("p", { class: "soft small" }, t(versions.length ? "library_versions_text" : "library_versions_none")),
    el("div", { class: "table-wide", role: "region", tabindex: "0", "aria-label": t("library_tab_versions") }, el("table", { class: "table" }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, now, ...versions.map(line)))));
}
