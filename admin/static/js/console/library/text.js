// The text of a document chunk by chunk, as it is searched; chunks are edited, added, disabled and deleted here.
import { attempt, badge, button, call, confirmDeletion, el, empty, form, get, iconButton, number, path, plain, query, row, stack, t, toast, when } from "../base.js";

/**
 * @typedef {import("../library.js").Doc} Doc
 * @typedef {{id: string, action: string, original: string, text: string, applied: boolean, by: string, created_at: string}} Override
 * @typedef {{number: number | null, text: string, headings: string[], locator: string, content_hash: string, tokens: number, overlap: number, override: Override | null}} Chunk
 */

const PAGE = 50;
const LONGEST = 20000;

/** @param {HTMLElement} root @param {Doc} doc @param {boolean} writable @param {(doc: Partial<Doc>) => void} changed */
export async function drawText(root, doc, writable, changed) {
  const where = path("documents", doc.id);
  let wanted = query.get("chunk") ? Number(query.get("chunk")) : -1;
  let offset = wanted > 0 ? Math.floor(wanted / PAGE) * PAGE : 0;
  let size = 0;
  const body = el("div", { class: "stack" });
  const changes = el("div", { class: "stack", hidden: true });
  root.replaceChildren(changes, body);

  /** Do something, and show the document as it is then. @param {() => Promise<Doc>} act @param {string} words */
  const make = async (act, words) => {
    const now = await act();
    changed(now);
    toast(now.status === "indexed" ? t(words) : t("library_chunk_soon"));
    if (!changes.hidden) await drawChanges();
    await load();
  };

  async function load() {
    const page = await get(`${where}/text?limit=${PAGE}&offset=${offset}`);
    if (!page.items.length && offset) { offset = Math.max(0, offset - PAGE); return load(); }
    size = page.chunk_size;
    draw(page.items, page.total);
    const at = page.items.findIndex((/** @type {Chunk} */ chunk) => chunk.number === wanted);
    if (at >= 0) body.querySelectorAll(".chunks > li")[at]?.scrollIntoView({ block: "center" });
    wanted = -1;
    return undefined;
  }

  /** @param {Chunk[]} chunks @param {number} total */
  function draw(chunks, total) {
    const last = offset + chunks.length;
    const turn = (/** @type {string} */ words, /** @type {number} */ to, /** @type {boolean} */ possible) => button(t(words), () => { offset = to; void attempt(load).then(() => root.scrollIntoView({ block: "start" })); }, { small: true, disabled: !possible });
    const pager = total > PAGE ? el("nav", { class: "pager", "aria-label": t("base_pages") }, el("span", {}, t("base_range", { from: offset + 1, to: last, total })),
      turn("base_previous", offset - PAGE, offset > 0), turn("base_next", offset + PAGE, last < total)) : null;
    const tools = row(el("p", { class: "soft small" }, t("library_text_hint", { n: size })), el("span", { class: "push" }),
      button(t("library_show_changes"), () => void attempt(toggleChanges), { small: true, icon: "undo" }),
      writable ? button(t("library_add_end"), () => write(tail, "", async (text) => make(() => call("POST", `${where}/chunks`, { after: null, text }), "library_chunk_added")), { small: true, icon: "plus" }) : null);
    const tail = el("div", {});
    const list = chunks.length ? el("ol", { class: "chunks" }, ...chunks.map(line)) : empty(t("library_no_text"), t(doc.status === "failed" ? "library_no_text_failed" : "library_no_text_text"));
    body.replaceChildren(...[tools, tail, list, pager].filter((one) => one !== null));
  }

  /** @param {Chunk} chunk */
  function line(chunk) {
    const off = chunk.number === null;
    const action = chunk.override?.action ?? "";
    const editor = el("div", {});
    const below = el("div", {});
    const text = el("div", { class: "chunk-text", dir: "auto" }, ...(chunk.overlap ? [el("mark", { title: t("library_overlap_hint") }, plain(chunk.text.slice(0, chunk.overlap))), el("span", { class: "hidden" }, ` (${t("library_overlap_hint")}) `)] : []), plain(chunk.text.slice(chunk.overlap)));
    const heading = chunk.headings.map(plain).join(" › ");
    const seen = { seen: chunk.content_hash };
    const one = `${where}/chunks/${chunk.number}`;
    const buttons = !writable ? [] : off ? [undo(chunk, "library_enable")] : [
      iconButton("pencil", t("library_edit_x", { n: label(chunk) }), () => write(editor, chunk.text, async (text) => make(() => call("PATCH", one, { ...seen, text }), "library_chunk_saved"), text)),
      iconButton("plus", t("library_add_x", { n: label(chunk) }), () => write(below, "", async (text) => make(() => call("POST", `${where}/chunks`, { ...seen, after: chunk.number, text }), "library_chunk_added"))),
      action === "add" ? null : iconButton("eye", t("library_disable_x", { n: label(chunk) }), () => void attempt(() => make(() => call("DELETE", `${one}?${new URLSearchParams(seen)}`), "library_chunk_off"))),
      iconButton("trash", t("library_delete_x", { n: label(chunk) }), () => void confirmDeletion(t("library_delete_chunk"), t(action === "add" ? "library_delete_added_text" : "library_delete_chunk_text"), t("delete"),
        () => make(() => call("DELETE", `${one}?${new URLSearchParams({ ...seen, for_good: "true" })}`), "library_chunk_deleted"))),
      action === "edit" ? undo(chunk, "library_undo") : null,
    ].filter((button) => button !== null);
    const marks = [action && !off ? badge(t(`library_was_${action}`), "busy") : null, chunk.tokens > size && !off ? badge(t("library_too_long"), "warn") : null];
    return el("li", { class: off ? "chunk off" : "chunk" },
      el("div", { class: "chunk-head" }, el("strong", {}, off ? t("library_left") : `#${label(chunk)}`), heading ? el("span", { class: "soft" }, heading) : null, chunk.locator ? el("span", { class: "soft" }, plain(chunk.locator)) : null,
        el("span", { class: "soft small" }, t("library_tokens", { n: chunk.tokens })), ...marks, el("span", { class: "push" }), ...buttons),
      text, editor,
      action === "edit" && chunk.override ? el("details", {}, el("summary", {}, t("library_as_read")), el("div", { class: "chunk-text soft" }, plain(chunk.override.original))) : null,
      below);
  }

  /** @param {Chunk} chunk */
  const label = (chunk) => number((chunk.number ?? 0) + 1);

  /** @param {Chunk} chunk @param {string} words */
  function undo(chunk, words) {
    return button(t(words), () => void attempt(() => make(() => call("DELETE", `${where}/overrides/${chunk.override?.id}`), "library_undone")), { small: true, icon: "undo" });
  }

  // ---------------------------------------------------------------- all changes
  async function toggleChanges() {
    changes.hidden = !changes.hidden;
    if (!changes.hidden) await drawChanges();
  }

  async function drawChanges() {
    /** @type {Override[]} */
    const all = (await get(`${where}/overrides`)).items;
    const lines = all.map((one) => el("li", { class: "change" },
      row(badge(t(`library_was_${one.action}`), one.applied ? "" : "warn"), one.applied ? null : el("strong", {}, t("library_not_applied")), el("span", { class: "soft small" }, plain(one.by), " · ", when(one.created_at)), el("span", { class: "push" }),
        writable ? button(t("library_undo"), () => void attempt(() => make(() => call("DELETE", `${where}/overrides/${one.id}`), "library_undone")), { small: true, icon: "undo" }) : null),
      one.action === "add" ? null : el("div", { class: "chunk-text soft" }, plain(one.original)),
      one.text ? el("div", { class: "chunk-text" }, plain(one.text)) : null));
    changes.replaceChildren(el("section", { class: "card" }, el("h3", {}, t("library_all_changes")), lines.length ? el("ul", { class: "changes" }, ...lines) : el("p", { class: "soft" }, t("library_no_changes"))));
  }

  await load();
}

/**
 * A field for the text of a chunk, where `place` is. @param {HTMLElement} place @param {string} text @param {(text: string) => Promise<unknown>} save @param {HTMLElement} [instead] hidden meanwhile
 */
function write(place, text, save, instead) {
  const fields = form([{ name: "text", label: t("library_chunk_label"), kind: "textarea", rows: Math.min(14, 3 + Math.ceil(text.length / 120)), value: text, hint: t("library_chunk_hint"), maxlength: LONGEST }]);
  const close = () => { place.replaceChildren(); if (instead) instead.hidden = false; };
  const keep = button(t("save"), async () => {
    const text = fields.values().text.trim();
    fields.showError("text", text ? "" : t("library_chunk_empty"));
    if (!text) return;
    keep.disabled = true;
    try {
      await save(text);
      close();
    } catch (error) {
      fields.showError("text", /** @type {Error} */ (error).message);
    } finally {
      keep.disabled = false;
    }
  }, { primary: true, small: true });
  if (instead) instead.hidden = true;
  place.replaceChildren(stack(fields.node, row(keep, button(t("cancel"), close, { small: true }))));
  /** @type {HTMLElement | undefined} */ (fields.input("text"))?.focus();
}
