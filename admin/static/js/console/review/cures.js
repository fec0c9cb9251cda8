// What betters an answer: a curated one, a document, a corrected passage, other settings; then asking again and telling.
import { ask, attempt, button, call, card, el, form, get, row, stack, t, toast } from "../base.js";
import { curatedForm } from "./curated.js";
import { chunkAddress } from "./one.js";

/** @typedef {import("./one.js").Whole} Whole */

/** @param {Whole} found @param {string[]} kbs @param {(found: Whole) => void} draw @param {(values: Record<string, unknown>) => Promise<void>} patch */
export function cures(found, kbs, draw, patch) {
  const { review, entry } = found;
  const there = [...review.kbs.filter((one) => kbs.includes(one)), ...kbs.filter((one) => !review.kbs.includes(one))];
  const place = stack();
  const kind = review.cure.kind;
  /** @param {string} which @param {() => Node} content */
  const option = (which, content) => el("details", { class: "cure", name: "cure" }, el("summary", {}, el("strong", {}, t(`review_cure_${which}`)), el("span", { class: "soft small" }, t(`review_cure_${which}_hint`))), content());
  place.append(card(t("review_cures"),
    kind ? el("p", { class: "done" }, t(`review_done_${kind}`), " ", found.curated ? el("a", { href: `/console/review?tab=curated&curated=${found.curated.id}` }, t("review_show_curated")) : null) : null,
    found.curated ? null : option("curated", () => curatedForm({
      kbs: there,
      begin: { question: entry.standalone_question || entry.question, text: entry.answered ? unquoted(entry) : "", rests_on: cited(found, there[0]) },
      save: async (given) => { draw(await call("POST", `/reviews/${review.answer_id}/curated`, given)); toast(t("base_saved")); },
    })),
    option("document", () => documentForm(found, there, draw)),
    entry.passages.length ? option("chunk", () => el("ul", { class: "plain-list" }, ...entry.passages.map((one) => el("li", {}, el("a", { href: chunkAddress(one), onclick: () => void patch({ cure: { kind: "chunk", object: one.document_id } }) }, `[${one.n}] ${one.title || one.document}`))))) : null,
    option("settings", () => el("a", { class: "button small", href: `/console/playground?${new URLSearchParams({ kb: there[0] ?? "", q: entry.standalone_question || entry.question })}`, onclick: () => void patch({ cure: { kind: "settings", object: there[0] ?? "" } }) }, t("review_cure_settings")))));
  place.append(askingAgain(found, draw));
  if (found.can_post) place.append(posting(found, draw));
  return place;
}

/** An answer without the numbers of its sources; one that only quotes, without the marks of a quotation. @param {{text: string, engine: string}} entry */
function unquoted({ text, engine }) {
  const bare = text.replace(/\s*\[\d+\]/g, "");
  return engine === "extractive" ? bare.replace(/^> ?/gm, "").replace(/\*\*/g, "") : bare;
}

/** Documents of the knowledge base that the answer cites. @param {Whole} found @param {string} kb */
function cited({ entry }, kb) {
  const all = entry.passages.filter((one) => one.cited && one.kb === kb && !one.document.startsWith("curated/"));
  return [...new Map(all.map((one) => [one.document_id, { document_id: one.document_id, name: one.document, state: "same" }])).values()];
}

/** @param {Whole} found @param {string[]} kbs @param {(found: Whole) => void} draw */
function documentForm({ review, entry }, kbs, draw) {
  const made = form([
    { name: "kb", label: t("knowledge_base"), kind: "select", options: kbs, value: kbs[0] ?? "", required: true },
    { name: "name", label: t("review_document_name"), required: true, maxlength: 200 },
    { name: "text", label: t("review_document_text"), kind: "textarea", rows: 8, required: true, value: `# ${entry.standalone_question || entry.question}\n\n` },
  ]);
  const go = button(t("review_document_save"), async () => {
    if (!made.check()) return;
    go.setAttribute("disabled", "");
    const fresh = await attempt(() => call("POST", `/reviews/${review.answer_id}/document`, made.values()), t("review_document_added"));
    go.removeAttribute("disabled");
    if (fresh) draw(fresh);
  }, { primary: true });
  return stack(made.node, row(go));
}

/** @param {Whole} found @param {(found: Whole) => void} draw */
function askingAgain({ review }, draw) {
  const go = button(t("review_again"), async () => {
    go.setAttribute("disabled", "");
    go.textContent = t("review_asking");
    const fresh = await attempt(() => call("POST", `/reviews/${review.answer_id}/again`));
    if (fresh) draw(fresh);
    else { go.removeAttribute("disabled"); go.textContent = t("review_again"); }
  }, { primary: Boolean(review.cure.kind), icon: "refresh" });
  return card(t("review_again"), el("p", { class: "soft small" }, t("review_again_hint")), row(go));
}

/** @param {Whole} found @param {(found: Whole) => void} draw */
function posting({ review, again, curated, posted }, draw) {
  const text = curated?.text ?? (again?.answered ? unquoted(again) : "");
  const made = form([{ name: "text", label: t("review_post_text"), kind: "textarea", rows: 4, value: text, required: true, maxlength: 8000 }]);
  const send = () => {
    if (!made.check()) return;
    void ask(t("review_post"), [el("p", {}, t("review_post_sure")), el("blockquote", { class: "wrap small" }, made.values().text)], {
      label: t("review_post_send"),
      act: async () => { await call("POST", `/reviews/${review.answer_id}/reply`, made.values()); draw(await get(`/reviews/${review.answer_id}`)); return true; },
    });
  };
  return card(t("review_post"), el("p", { class: "soft small" }, t("review_post_hint")), posted ? el("p", { class: "done" }, t(`review_posted_${posted}`)) : null, made.node, row(button(t("review_post_send"), send, { icon: "send" })));
}
