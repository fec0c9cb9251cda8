// The documents of one knowledge base: how many there are, what is added, and a table to find and change them in.
import { ask, badge, bar, bytes, button, card, el, empty, form, get, number, path, plain, query, row, stack, t, table, when } from "../base.js";
import { actions, change, kind, origin, state } from "./marks.js";
import { Uploads } from "./uploads.js";

/** @typedef {import("../library.js").Doc} Doc @typedef {import("../library.js").Kb} Kb */

const FILTERS = ["status", "kind", "source", "text"];
const WATCH_MS = 2500;
const QUIET_TICKS = 6;
const STATES = ["indexed", "working", "queued", "failed", "disabled"];

/**
 * @param {HTMLElement} root @param {Kb} kb @param {{kbs: Kb[], me: {max_file_mb: number}, open: (doc: Doc) => void}} page
 * @returns {Promise<() => void>} ends it
 */
export async function drawList(root, kb, { kbs, me, open }) {
  const where = `${path("kbs", kb.name)}/documents`;
  let summary = await get(`${where}/summary`);
  const quota = el("div", { class: "quota" });
  const filters = el("div", { class: "toolbar", role: "search" });
  const uploads = kb.can_edit ? uploadsOf(kb.name, me.max_file_mb, () => void refresh().catch(() => undefined)) : null;
  uploads?.open(!summary.documents);

  const wanted = () => ({ ...Object.fromEntries(FILTERS.map((one) => [one, query.get(one)])), duplicates: query.get("duplicates") === "1" });
  const narrowed = () => FILTERS.some((one) => query.get(one)) || query.get("duplicates") === "1";
  const list = table({
    label: t("library_documents"),
    sort: "name",
    pageSize: 50,
    columns: [
      { title: t("library_name"), sort: "name", cell: title },
      { title: t("state"), sort: "status", cell: (/** @type {Doc} */ doc) => el("span", { class: "marks" }, state(doc), ...flags(doc)) },
      { title: t("library_kind"), cell: (/** @type {Doc} */ doc) => el("span", { class: "nowrap" }, kind(doc.media_type)) },
      { title: t("library_size"), sort: "size", end: true, cell: (/** @type {Doc} */ doc) => el("span", { class: "nowrap" }, bytes(doc.size)) },
      { title: t("library_chunks"), sort: "chunks", end: true, cell: (/** @type {Doc} */ doc) => number(doc.chunks) },
      { title: t("library_by"), cell: (/** @type {Doc} */ doc) => plain(doc.by) || origin(doc.source_id ? "" : doc.source.startsWith("http") ? "web" : doc.source, sourceName(doc)) },
      { title: t("library_changed"), sort: "updated_at", cell: (/** @type {Doc} */ doc) => when(doc.updated_at) },
    ],
    load: async ({ limit, offset, sort }) => get(`${where}?${parameters(limit, offset, sort)}`),
    onRow: open,
    empty: nothing,
    select: kb.can_edit ? (chosen) => actions(kbs, kb.name, () => ({ ids: chosen.map((doc) => doc.id) }), chosen.length, fitting(chosen), () => void refresh()) : undefined,
  });

  /** @param {number} limit @param {number} offset @param {string} sort */
  function parameters(limit, offset, sort) {
    const all = new URLSearchParams({ limit: String(limit), offset: String(offset), sort: sort.replace("-", ""), descending: String(sort.startsWith("-")) });
    for (const [key, value] of Object.entries(wanted())) if (value) all.set(key, String(value));
    return all;
  }

  /** @param {Doc} doc */
  function sourceName(doc) {
    return summary.sources.find((/** @type {{value: string}} */ one) => one.value === doc.source_id)?.name;
  }

  function nothing() {
    if (narrowed()) return empty(t("nothing_found"), t("library_nothing_text"), button(t("library_all"), () => { for (const one of [...FILTERS, "duplicates"]) query.set({ [one]: "" }); drawFilters(); void list.restart(); }));
    return empty(t("library_none"), t(kb.can_edit ? "library_none_text" : "library_none_read"));
  }

  function drawQuota() {
    const share = (/** @type {number} */ n, /** @type {number} */ most) => (most ? n / most : 0);
    const line = (/** @type {string} */ label, /** @type {number} */ n, /** @type {number} */ most, /** @type {string} */ text) =>
      el("div", { class: share(n, most) > 0.9 ? "quota-line full" : "quota-line" }, el("span", {}, label), bar(share(n, most), text));
    quota.replaceChildren(
      line(t("library_documents"), summary.documents, summary.max_documents, t("library_of", { n: number(summary.documents), most: number(summary.max_documents) })),
      line(t("library_originals"), summary.bytes, summary.max_bytes, t("library_of", { n: bytes(summary.bytes), most: bytes(summary.max_bytes) })),
      ...(summary.version_bytes ? [el("p", { class: "soft small" }, t("library_versions_size", { size: bytes(summary.version_bytes) }))] : []));
  }

  function drawFilters() {
    /** @type {number | undefined} */
    let timer;
    const text = /** @type {HTMLInputElement} */ (el("input", { type: "search", autocomplete: "off", placeholder: t("library_search"), "aria-label": t("library_search"), value: query.get("text"),
      oninput: () => { clearTimeout(timer); timer = setTimeout(() => { query.set({ text: text.value.trim() }); void list.restart(); }, 250); } }));
    const choice = (/** @type {string} */ key, /** @type {string} */ label, /** @type {{value: string, documents: number}[]} */ counts, /** @type {(value: any) => string} */ say) => {
      const now = query.get(key);
      const all = counts.some((one) => one.value === now) || !now ? counts : [...counts, { value: now, documents: 0 }];
      const select = /** @type {HTMLSelectElement} */ (el("select", { "aria-label": label, onchange: () => { query.set({ [key]: select.value }); void list.restart(); } },
        el("option", { value: "" }, t("library_any", { what: label })), ...all.map((one) => el("option", { value: one.value }, `${say(one)} (${number(one.documents)})`))));
      select.value = now;
      return select;
    };
    const twice = el("button", { type: "button", class: "choice", "aria-pressed": String(query.get("duplicates") === "1"), onclick: () => { query.set({ duplicates: query.get("duplicates") === "1" ? "" : "1" }); drawFilters(); void list.restart(); } },
      t("library_duplicates", { n: number(summary.duplicates) }));
    filters.replaceChildren(text,
      choice("status", t("state"), sortedStates(), (one) => t(`library_${one.value}`)),
      choice("kind", t("library_kind"), summary.kinds, (one) => kind(one.value)),
      choice("source", t("library_source"), summary.sources, (one) => origin(one.value, one.name)),
      ...(summary.duplicates || query.get("duplicates") === "1" ? [twice] : []),
      ...(kb.can_edit && summary.documents ? [button(t("library_change_all"), () => void changeAll(), { small: true })] : []));
  }

  const sortedStates = () => [...summary.statuses].sort((a, b) => STATES.indexOf(a.value) - STATES.indexOf(b.value));

  /** Change all that the list shows, also on its other pages. */
  async function changeAll() {
    const page = await get(`${where}?${parameters(1, 0, "name")}`);
    const doings = ["retry", "reread", "cancel", "disable", "enable", "delete"];
    const fields = form([{ name: "change", label: t("library_what"), kind: "select", options: /** @type {[string, string][]} */ (doings.map((one) => [one, t(`library_all_${one}`)])) }]);
    await ask(t("library_change_title", { n: page.total }), [el("p", {}, t(narrowed() ? "library_change_shown" : "library_change_every", { kb: kb.name })), fields.node], {
      label: t("library_change_now"),
      danger: true,
      act: async () => {
        await change(kb.name, fields.values().change, { all: wanted() });
        await refresh();
        return true;
      },
    });
  }

  async function refresh() {
    summary = await get(`${where}/summary`);
    drawQuota();
    if (!filters.contains(document.activeElement)) drawFilters();
    await list.reload();
  }

  drawQuota();
  drawFilters();
  root.replaceChildren(...[card(null, quota), uploads?.node, stack(filters, list.node)].filter((one) => one !== undefined && one !== null));
  const busy = () => summary.statuses.some((/** @type {{value: string}} */ one) => one.value === "queued" || one.value === "working");
  // While somebody moves about in the table it is left alone: what they are about to press must not move away.
  let ticks = 0;
  const watcher = setInterval(() => {
    ticks += 1;
    if ((busy() || ticks % QUIET_TICKS === 0) && !document.hidden && !list.node.contains(document.activeElement)) void refresh().catch(() => undefined);
  }, WATCH_MS);
  const dropping = new AbortController();
  if (uploads) {
    // A file dropped beside the field is taken too: else the browser would leave the page and show it.
    document.addEventListener("dragover", (event) => event.preventDefault(), { signal: dropping.signal });
    document.addEventListener("drop", (event) => { event.preventDefault(); void uploads.dropped(event.dataTransfer); }, { signal: dropping.signal });
  }
  return () => { clearInterval(watcher); dropping.abort(); };
}

/** @type {Map<string, Uploads>} */
const known = new Map();

/** What is being sent to a knowledge base goes on while another part of the page is seen. @param {string} kb @param {number} limitMb @param {() => void} changed */
function uploadsOf(kb, limitMb, changed) {
  const uploads = known.get(kb) ?? new Uploads(kb, limitMb);
  known.set(kb, uploads);
  uploads.changed = changed;
  return uploads;
}

/** What can be done to at least one of them. @param {Doc[]} docs */
function fitting(docs) {
  const some = (/** @type {(doc: Doc) => boolean} */ test) => docs.some(test);
  return [
    some((doc) => doc.status === "failed") && "retry",
    some((doc) => doc.status === "indexed") && "reread",
    some((doc) => doc.status === "queued" || doc.status === "working") && "cancel",
    some((doc) => doc.status === "disabled") && "enable",
    some((doc) => doc.status !== "disabled") && "disable",
    "move",
    "delete",
  ].filter((one) => one !== false);
}

/** @param {Doc} doc */
function title(doc) {
  const said = plain(doc.title) || plain(doc.name);
  return el("span", { class: "doc-title" }, el("bdi", {}, said),
    said === plain(doc.name) ? null : el("small", {}, el("bdi", {}, plain(doc.name))),
    doc.reason ? el("small", { class: doc.status === "failed" ? "why bad" : "why" }, plain(doc.reason)) : null);
}

/** @param {Doc} doc */
function flags(doc) {
  return [
    doc.copies ? badge(t("library_copies", { n: doc.copies })) : null,
    doc.changes ? badge(t("library_changes", { n: doc.changes })) : null,
    doc.changes_lost ? badge(t("library_lost", { n: doc.changes_lost }), "warn") : null,
    doc.status === "failed" && doc.is_live ? badge(t("library_former_live"), "warn") : null,
  ];
}

