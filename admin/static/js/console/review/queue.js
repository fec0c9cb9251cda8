// The list of what is to be looked at.
import { address, attempt, badge, button, call, el, empty, form, get, query, t, table, when } from "../base.js";
import { selection } from "../selection.js";

/**
 * @typedef {{answer_id: string, question: string, answer: string, answered: boolean, kbs: string[], platform: string, channel: string, person: string, name: string, asked_at: string,
 *   complaints: {person: string, name: string, reason: string, at: string}[], escalation: {person: string, at: string, resolved_by: string | null} | null, state: string,
 *   assignee: string | null, assignee_name: string, labels: string[], note: string, cure: Record<string, string>, updated_by: string, updated_at: string | null}} Review
 */

export const LABELS = ["wrong_passage", "missing_document", "wrong_answer", "unclear_question", "out_of_scope"];
const STATES = /** @type {const} */ (["open", "new", "working", "solved", "every"]);

/** @param {HTMLElement} root @param {() => unknown} show draws the page anew */
export async function drawQueue(root, show) {
  const own = { state: query.get("state") || "open", why: query.get("why"), label: query.get("label"), assignee: query.get("assignee"), text: query.get("text") };
  const states = el("div", { class: "choices", role: "group", "aria-label": t("state") });
  /** @type {Record<string, number>} */
  let counts = {};
  /** @param {Record<string, string>} values */
  const set = (values) => {
    Object.assign(own, values);
    query.set({ ...own, state: own.state === "open" ? "" : own.state, offset: "" });
    drawStates();
    void list.restart();
  };
  const drawStates = () => states.replaceChildren(...STATES.map((one) => {
    const open = (counts.new ?? 0) + (counts.working ?? 0);
    const count = one === "open" ? open : one === "every" ? open + (counts.solved ?? 0) : counts[one] ?? 0;
    return el("button", { type: "button", class: "choice", "aria-pressed": String(own.state === one), onclick: () => set({ state: one }) }, `${t(`review_${one}`)} ${count}`);
  }));
  const parameters = () => {
    const found = chosen.parameters();
    for (const one of own.state === "open" ? ["new", "working"] : own.state === "every" ? [] : [own.state]) found.append("state", one);
    for (const key of /** @type {const} */ (["why", "label", "assignee", "text"])) if (own[key]) found.set(key, own[key]);
    return found;
  };
  const chosen = selection(() => list.restart(), { usual: "90" });
  const people = (await get("/reviews/people")).items;
  const filters = form([
    { name: "why", label: t("review_why"), kind: "select", value: own.why, options: [["", t("review_why_all")], ["down", t("review_why_down")], ["unanswered", t("review_why_unanswered")]], onchange: (value) => set({ why: value }) },
    { name: "label", label: t("review_label"), kind: "select", value: own.label, options: [["", t("review_any")], ...LABELS.map((one) => /** @type {[string, string]} */ ([one, t(`review_${one}`)]))], onchange: (value) => set({ label: value }) },
    { name: "assignee", label: t("review_assignee"), kind: "select", value: own.assignee, options: [["", t("review_any")], ["none", t("review_nobody")], ...people.map((/** @type {{id: string, name: string}} */ one) => [one.id, one.name])], onchange: (value) => set({ assignee: value }) },
    { name: "text", label: t("review_find"), value: own.text, onchange: (value) => set({ text: value.trim() }) },
  ]);
  filters.node.classList.add("toolbar", "review-filters");
  const exporting = (/** @type {string} */ format) => el("button", { type: "button", class: "button small", onclick: () => location.assign(address(`/reviews/export?${parameters()}&format=${format}`)) }, `${t("review_export")} ${format.toUpperCase()}`);
  /** @type {ReturnType<typeof table<Review>>} */
  const list = table({
    label: t("review_tab"),
    key: (item) => item.answer_id,
    columns: [
      { title: t("review_question"), cell: (item) => item.question },
      { title: t("review_why"), cell: (item) => el("span", { class: "badges" }, ...reasons(item)) },
      { title: t("review_where"), cell: (item) => el("span", {}, item.kbs.join(", "), el("br"), el("span", { class: "soft small" }, item.platform)) },
      { title: t("review_when"), cell: (item) => when(item.asked_at) },
      { title: t("state"), cell: (item) => el("span", { class: "badges" }, stateBadge(item.state), ...item.labels.map((one) => badge(t(`review_${one}`)))) },
      { title: t("review_assignee"), cell: (item) => item.assignee_name || "–" },
    ],
    load: async ({ limit, offset }) => {
      const page = await get(`/reviews?${parameters()}&limit=${limit}&offset=${offset}`);
      counts = page.counts;
      drawStates();
      return page;
    },
    empty: () => empty(t("review_empty"), t("review_empty_text")),
    select: (some) => ["solved", "working"].map((state) => button(t(`review_many_${state}`), async () => {
      await attempt(() => call("POST", "/reviews/states", { answers: some.map((item) => item.answer_id), state }), t("base_saved"));
      await list.restart();
    }, { small: true })),
    onRow: (item) => { query.set({ answer: item.answer_id }, true); void show(); },
  });
  const isWide = matchMedia("(min-width: 52rem)").matches;
  const folded = el("details", { class: "review-fold", open: isWide || Boolean(own.why || own.label || own.assignee || own.text) }, el("summary", {}, t("review_filters")), chosen.node, filters.node);
  root.replaceChildren(folded, el("div", { class: "toolbar" }, states, el("div", { class: "push toolbar" }, exporting("csv"), exporting("jsonl"))), list.node);
  drawStates();
  await chosen.open();
}

/** @param {string} state */
export function stateBadge(state) {
  return badge(t(`review_${state}`), state === "solved" ? "good" : state === "working" ? "busy" : "warn");
}

/** Why it is in the list. @param {Review} item */
export function reasons(item) {
  return [
    item.complaints.length ? badge(`👎 ${item.complaints.length}`, "bad") : null,
    item.answered ? null : badge(t("review_unanswered"), "warn"),
    item.escalation && !item.escalation.resolved_by ? badge(t("review_human"), "busy") : null,
  ];
}
