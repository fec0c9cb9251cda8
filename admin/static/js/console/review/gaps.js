// Gaps: unanswered questions put together by what they are about.
import { badge, button, call, confirmDeletion, el, empty, get, query, t, table, when } from "../base.js";
import { selection } from "../selection.js";

/** @typedef {{question: string, size: number, people: number, kbs: string[], first_at: string, last_at: string, weeks: number[], trend: number, answers: string[], questions: string[]}} Gap */

/** @param {HTMLElement} root @param {() => unknown} show */
export async function drawGaps(root, show) {
  const intro = el("p", { class: "soft" });
  const chosen = selection(() => list.restart(), { usual: "90" });
  /** @type {ReturnType<typeof table<Gap>>} */
  const list = table({
    label: t("review_tab_gaps"),
    key: (gap) => gap.answers[0],
    columns: [
      { title: t("review_gap"), cell: (gap) => gap.question },
      { title: t("review_gap_size"), cell: (gap) => String(gap.size), end: true },
      { title: t("review_gap_people"), cell: (gap) => String(gap.people), end: true },
      { title: t("knowledge_base"), cell: (gap) => gap.kbs.join(", ") },
      { title: t("review_gap_weeks"), cell: trend },
      { title: t("review_gap_last"), cell: (gap) => when(gap.last_at) },
      { title: t("review_gap_wordings"), cell: (gap) => (gap.questions.length < 2 ? "–" : el("details", {}, el("summary", {}, t("review_gap_others", { n: gap.questions.length })), el("ul", { class: "plain-list" }, ...gap.questions.slice(0, 30).map((one) => el("li", {}, one))))) },
    ],
    load: async ({ limit, offset }) => {
      const page = await get(`/reviews/gaps?${chosen.parameters()}&limit=${limit}&offset=${offset}`);
      intro.textContent = page.total ? t("review_gaps_intro", { n: page.questions }) : "";
      return page;
    },
    empty: () => empty(t("review_gaps_empty"), t("review_gaps_empty_text")),
    select: (some) => [button(t("review_many_solved"), () => void confirmDeletion(t("review_gap_solve"), t("review_gap_solve_text", { n: some.reduce((sum, gap) => sum + gap.size, 0) }), t("review_many_solved"), async () => {
      await call("POST", "/reviews/states", { answers: some.flatMap((gap) => gap.answers).slice(0, 1000), state: "solved" });
      await list.restart();
    }), { small: true })],
    onRow: (gap) => { query.set({ answer: gap.answers[0] }, true); void show(); },
  });
  const folded = el("details", { class: "review-fold", open: matchMedia("(min-width: 52rem)").matches }, el("summary", {}, t("review_filters")), chosen.node);
  root.replaceChildren(folded, intro, list.node);
  await chosen.open();
}

/** Bars of the last weeks, and whether it is asked more or less. @param {Gap} gap */
function trend(gap) {
  const most = Math.max(1, ...gap.weeks);
  const said = gap.weeks.map((count, at) => t("review_gap_week", { n: at + 1, count })).join(", ");
  const bars = el("span", { class: "weeks", role: "img", "aria-label": said, title: said }, ...gap.weeks.map((count) => el("span", { class: `week w${Math.ceil((count / most) * 8)}` })));
  const word = gap.trend > 0.2 ? badge(`↑ ${t("review_gap_more")}`, "warn") : gap.trend < -0.2 ? badge(`↓ ${t("review_gap_less")}`) : null;
  return el("span", { class: "badges" }, bars, word);
}
