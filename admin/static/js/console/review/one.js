// One answer under review: what was asked and said, why, and the ways to better it.
import { attempt, badge, button, call, card, el, facts, form, get, name, query, row, stack, t, when } from "../base.js";
import { sanitise } from "../../sanitise.js";
import { cures } from "./cures.js";
import { LABELS, reasons, stateBadge } from "./queue.js";

/**
 * @typedef {import("./queue.js").Review} Review
 * @typedef {{n: number, kb: string, document_id: string, document: string, title: string, chunk: number, locator: string, score: number, text: string, cited: boolean}} Passage
 * @typedef {{answer_id: string, question: string, standalone_question: string, html: string, text: string, answered: boolean, notice: string, engine: string, model: string, passages: Passage[], prompt: {role: string, text: string}[], evidence: number | null, created_at: string}} Entry
 * @typedef {{review: Review & {conversation_id: string | null}, entry: Entry, again: Entry | null, curated: import("./curated.js").Curated | null, place: {platform: string, channel: string}, link: string, can_post: boolean, posted: string}} Whole
 */

/** @param {HTMLElement} root @param {string} id @param {import("../base.js").Me} me @param {() => unknown} show */
export async function drawOne(root, id, me, show) {
  const back = () => { query.set({ answer: "" }, true); void show(); };
  const people = (await get("/reviews/people")).items;
  /** @type {Whole} */
  const whole = await get(`/reviews/${encodeURIComponent(id)}`);
  const kbs = (await get("/kbs")).items.map((/** @type {{name: string}} */ one) => one.name);
  /** @param {Whole} found */
  const draw = (found) => {
    const patch = async (/** @type {Record<string, unknown>} */ values) => {
      const fresh = await attempt(() => call("PATCH", `/reviews/${id}`, values), t("base_saved"));
      if (fresh) draw(fresh);
    };
    root.replaceChildren(stack(
      row(button(t("review_back"), back, { small: true, icon: "undo" })),
      el("div", { class: "review-columns" },
        stack(asked(found), again(found), passages(found.entry), prompt(found.entry)),
        stack(cures(found, kbs, draw, patch), handling(found, people, me, patch)))));
  };
  draw(whole);
}

/** @param {Whole} found */
function asked({ review, entry, link, again: after }) {
  const escalation = review.escalation;
  const links = [
    link ? el("a", { class: "button small", href: link, target: "_blank", rel: "noopener noreferrer" }, t("review_thread")) : null,
    review.conversation_id ? el("a", { class: "button small", href: `/console/conversations?id=${review.conversation_id}` }, t("review_conversation")) : null,
  ];
  return card(el("h2", { class: "card-title wrap" }, entry.question),
    el("p", { class: "badges" }, stateBadge(review.state), ...reasons(review), el("span", { class: "soft small" }, t("review_asked_by", { person: review.name || review.person }), " · ", review.platform, " · ", review.kbs.join(", "), " · ", when(review.asked_at))),
    entry.standalone_question && entry.standalone_question !== entry.question ? el("p", { class: "soft small" }, t("review_standalone", { question: entry.standalone_question })) : null,
    after ? null : answer(entry),
    review.complaints.length ? stack(el("h3", {}, t("review_complaints")), el("ul", { class: "plain-list" }, ...review.complaints.map((one) => el("li", {}, "👎 ", one.reason || el("span", { class: "soft" }, t("review_no_reason")), " ", el("span", { class: "soft small" }, "— ", name(one.name || one.person), " · ", when(one.at)))))) : null,
    escalation ? el("p", {}, badge("✋", "busy"), " ", escalation.resolved_by ? t("review_human_done", { person: escalation.person, by: escalation.resolved_by }) : t("review_human_open", { person: escalation.person })) : null,
    links.some(Boolean) ? row(...links) : null);
}

/** @param {Entry} entry */
function answer(entry) {
  const text = el("div", { class: "prose review-answer" });
  text.append(sanitise(entry.html));
  return stack(text, entry.notice ? el("p", { class: "soft small" }, entry.notice) : null, el("p", { class: "soft small" }, entry.engine === "curated" ? t("review_curated_edit") : t("review_written_by", { engine: [entry.engine, entry.model].filter(Boolean).join(" · ") || "–" })));
}

/** Before and after, side by side. @param {Whole} found */
function again({ entry, again: after }) {
  if (!after) return null;
  return el("section", { class: "review-again", "aria-label": `${t("review_before")} / ${t("review_after")}` },
    card(t("review_before"), answer(entry)),
    card(el("h2", { class: "card-title badges" }, t("review_after"), after.answered ? badge("✓", "good") : badge(t("review_unanswered"), "warn")), answer(after), el("p", { class: "soft small" }, when(after.created_at))));
}

/** @param {Entry} entry */
function passages(entry) {
  const list = entry.passages.map((one) => el("details", { class: "passage" },
    el("summary", {}, el("strong", {}, `[${one.n}] `), name(one.title || one.document), " ", one.cited ? badge(t("review_cited"), "good") : null, " ", el("span", { class: "soft small" }, [one.locator, t("review_score", { score: one.score.toFixed(2) })].filter(Boolean).join(" · "))),
    el("p", { class: "wrap small" }, one.text),
    el("a", { class: "small", href: chunkAddress(one) }, one.document)));
  return card(t("review_passages", { n: entry.passages.length }), ...(list.length ? list : [el("p", { class: "soft" }, t("review_no_passages"))]),
    entry.evidence === null ? null : facts([[t("review_evidence"), entry.evidence.toFixed(2)]]));
}

/** Where the library shows a passage. @param {Passage} one */
export function chunkAddress(one) {
  return `/console/library?${new URLSearchParams({ kb: one.kb, doc: one.document_id, chunk: String(one.chunk) })}`;
}

/** @param {Entry} entry */
function prompt(entry) {
  if (!entry.prompt.length) return null;
  return card(null, el("details", {}, el("summary", {}, t("review_prompt")), ...entry.prompt.map((turn) => stack(el("h3", { class: "small soft" }, turn.role), el("pre", { class: "wrap", tabindex: "0" }, turn.text)))));
}

/** @param {Whole} found @param {{id: string, name: string}[]} people @param {import("../base.js").Me} me @param {(values: Record<string, unknown>) => Promise<void>} patch */
function handling({ review }, people, me, patch) {
  const mine = people.find((one) => one.name === me.name);
  const given = form([
    { name: "state", label: t("state"), kind: "select", value: review.state, options: ["new", "working", "solved"].map((one) => [one, t(`review_${one}`)]), onchange: (value) => void patch({ state: value }) },
    { name: "assignee", label: t("review_assignee"), kind: "select", value: review.assignee ?? "", options: [["", t("review_nobody_yet")], ...people.map((one) => /** @type {[string, string]} */ ([one.id, one.name]))], onchange: (value) => void patch({ assignee: value }) },
  ]);
  const labels = form(LABELS.map((one) => ({ name: one, label: t(`review_${one}`), kind: "checkbox", value: review.labels.includes(one), onchange: () => void patch({ labels: LABELS.filter((label) => labels.values()[label]) }) })));
  const note = form([{ name: "note", label: t("review_note"), kind: "textarea", rows: 3, value: review.note, maxlength: 4000 }]);
  return card(t("review_handling"),
    given.node,
    row(
      mine && review.assignee !== mine.id ? button(t("review_take"), () => void patch({ assignee: mine.id, ...(review.state === "new" ? { state: "working" } : {}) }), { small: true }) : null,
      review.state === "solved" ? button(t("review_reopen"), () => void patch({ state: "working" }), { small: true }) : button(t("review_solve"), () => void patch({ state: "solved" }), { small: true, icon: "check" })),
    el("fieldset", { class: "review-labels" }, el("legend", {}, t("review_labels")), labels.node),
    note.node,
    row(button(t("save_changes"), () => void patch(note.values()), { small: true })),
    review.updated_by ? el("p", { class: "soft small" }, t("review_changed", { by: review.updated_by }), " · ", when(review.updated_at)) : null);
}
