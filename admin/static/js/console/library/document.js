// One document: what can be done with it, and its text, versions and details in tabs.
import { address, attempt, button, bytes, call, el, facts, failure, get, icon, number, path, plain, query, row, t, tabs, toast, when } from "../base.js";
import { actions, kind, origin, state } from "./marks.js";
import { drawText } from "./text.js";
import { drawVersions } from "./versions.js";

/** @typedef {import("../library.js").Doc} Doc @typedef {import("../library.js").Kb} Kb
 * @typedef {Doc & {metadata: Record<string, any>, same: {id: string, name: string}[]}} Whole */

const WATCH_MS = 1500;

/**
 * @param {HTMLElement} root @param {string} id @param {{kbs: Kb[], leave: () => void}} page
 * @returns {Promise<() => void>} ends it
 */
export async function drawDocument(root, id, { kbs, leave }) {
  const back = el("button", { type: "button", class: "link-button back", onclick: leave }, `← ${t("library_back")}`);
  /** @type {Whole} */
  let doc;
  try {
    doc = await get(path("documents", id));
  } catch (error) {
    root.replaceChildren(back, failure(error, leave));
    return () => {};
  }
  const kb = kbs.find((one) => one.name === doc.kb);
  const writable = Boolean(kb?.can_edit);
  const head = el("div", { class: "doc-head" });
  const notice = el("div", { class: "stack" });
  const parts = tabs([
    { name: "text", title: t("library_tab_text"), draw: (body) => drawText(body, doc, writable, update) },
    { name: "versions", title: t("library_tab_versions"), draw: (body) => drawVersions(body, doc, writable, async (now) => { update(now); await parts.choose("versions"); }) },
    { name: "details", title: t("library_tab_details"), draw: async (body) => drawDetails(body, await get(path("documents", id))) },
  ]);

  /** @param {Partial<Whole>} now */
  function update(now) {
    doc = { ...doc, ...now };
    draw();
  }

  function draw() {
    const download = el("a", { class: "button small", href: address(`${path("documents", doc.id)}/original`), download: true }, icon("download"), t("library_original"));
    const after = () => void again().catch(leave);
    head.replaceChildren(
      row(el("h2", {}, el("bdi", {}, plain(doc.title) || plain(doc.name))), state(doc)),
      el("p", { class: "soft small" }, el("bdi", {}, plain(doc.name)), " · ", kind(doc.media_type), " · ", bytes(doc.size), " · ", t("library_n_chunks", { n: doc.chunks })),
      row(download, writable && doc.source.startsWith("http") && !doc.source_id ? button(t("library_fetch_again"), () => void attempt(fetchAgain), { small: true, icon: "link" }) : null, ...(writable ? actions(kbs, doc.kb, () => ({ ids: [doc.id] }), 1, doings(doc), after) : [])));
    notice.replaceChildren(...[
      doc.reason ? el("p", { class: doc.status === "failed" ? "form-error" : "note" }, plain(doc.reason)) : null,
      doc.status === "disabled" ? el("p", { class: "note" }, t("library_disabled_note")) : null,
      doc.changes_lost ? el("p", { class: "note" }, t("library_lost_note", { n: doc.changes_lost })) : null,
    ].filter((one) => one !== null));
  }

  async function fetchAgain() {
    const ticket = await call("POST", `${path("kbs", doc.kb)}/documents/url`, { url: doc.source });
    toast(t(ticket.documents.length ? "library_fetched" : "library_fetched_same"));
    await again();
  }

  /** What it is now; leaves where it is gone. */
  async function again() {
    const before = doc.status;
    const fresh = await get(path("documents", id));
    const moved = fresh.kb !== doc.kb;
    update(fresh);
    if (moved) query.set({ kb: fresh.kb });
    if (before !== fresh.status && fresh.status === "indexed") await parts.choose(query.get("tab"));
  }

  draw();
  root.replaceChildren(back, head, notice, parts.node);
  const watcher = setInterval(() => { if ((doc.status === "queued" || doc.status === "working") && !document.hidden) void again().catch(() => undefined); }, WATCH_MS);
  return () => clearInterval(watcher);
}

/** @param {Doc} doc */
function doings(doc) {
  if (doc.status === "disabled") return ["enable", "delete"];
  if (doc.status === "queued" || doc.status === "working") return ["cancel", "delete"];
  return [doc.status === "failed" ? "retry" : "reread", "disable", "move", "delete"];
}

/** @param {HTMLElement} body @param {Whole} doc */
function drawDetails(body, doc) {
  const link = doc.source.startsWith("http") ? el("a", { href: doc.source, rel: "noopener noreferrer", target: "_blank" }, plain(doc.source)) : origin(doc.source);
  const same = doc.same.map((one) => el("li", {}, el("a", { href: `/console/library?${new URLSearchParams({ kb: doc.kb, doc: one.id })}` }, el("bdi", {}, plain(one.name)))));
  body.replaceChildren(el("section", { class: "card" }, facts([
    [t("library_name"), el("bdi", {}, plain(doc.name))],
    [t("library_title"), plain(doc.title) || null],
    [t("knowledge_base"), plain(doc.kb)],
    [t("library_kind"), `${kind(doc.media_type)} (${plain(doc.media_type)})`],
    [t("library_size"), bytes(doc.size)],
    [t("library_source"), link],
    [t("library_by"), plain(doc.by) || null],
    [t("library_created"), when(doc.created_at)],
    [t("library_changed"), when(doc.updated_at)],
    [t("library_chunks"), number(doc.chunks)],
    ...Object.entries(doc.metadata).map(([key, value]) => /** @type {[string, string]} */ ([plain(key), plain(String(value))])),
  ])), el("section", { class: "card" }, el("h3", {}, t("library_same")), same.length ? el("ul", { class: "left-out" }, ...same) : el("p", { class: "soft" }, t("library_same_none"))));
}

