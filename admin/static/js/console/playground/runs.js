// Runs of an evaluation set: their figures, their trend, and what became of each question.
import { ask, attempt, badge, button, call, card, confirmDeletion, el, empty, get, iconButton, path, percent, plain, query, row, stack, t, table, when } from "../base.js";
import { number } from "../../i18n.js";
import { inWords, indexChoice, optionsForm, otherIndexes } from "./options.js";
import { trend } from "./trend.js";

/**
 * @typedef {{id: string, state: string, error: string | null, done: number, total: number, figures: Record<string, number>, live: boolean, generation_id: string | null,
 *   settings: {options?: import("./options.js").Options, plan?: {engine?: string}}, created_at: string}} Run
 * @typedef {{id: string, question: string, document: string, answers: string[], rank: number, problem: string, answered: boolean, text: string, milliseconds: number, change: string,
 *   before: string | null, rank_before: number | null}} Asked
 */

const POLL = 1500;
const SHOWN = 50;

/** What is shown of a run: key, word, and whether more of it is better. @type {[string, string, boolean][]} */
const FIGURES = [
  ["recall@1", "playground_fig_recall1", true],
  ["recall@5", "playground_fig_recall5", true],
  ["recall@10", "playground_fig_recall10", true],
  ["mrr@10", "playground_fig_mrr", true],
  ["answer_contains", "playground_fig_words", true],
];
/** @type {Record<string, import("../base.js").Tone>} */
const TONES = { queued: "busy", running: "busy", done: "good", failed: "bad", cancelled: "warn", better: "good", worse: "bad", new: "busy", same: "" };

/** @param {string} key @param {number} value */
const shown = (key, value) => (key === "mrr@10" ? value.toFixed(2) : percent(value));
/** @param {Run} run */
const isOpen = (run) => run.state === "queued" || run.state === "running";

/** @param {HTMLElement} root @param {import("../playground.js").Here} here @param {import("./sets.js").Set} set @param {(run: string) => unknown} open */
export async function drawRuns(root, here, set, open) {
  const base = `/evaluation-sets${path(set.id)}/runs`;
  const top = stack();
  const start = async (/** @type {object} */ body) => { await call("POST", base, body); await reload(); following = true; void list.restart(); };
  const runButton = button(t("playground_run"), () => void attempt(() => start({})), { primary: true, icon: "play" });
  const withButton = button(t("playground_run_with"), () => void attempt(() => startWith(here, start)));
  const tools = here.kb.can_edit && set.questions ? row(runButton, withButton) : null;
  const list = table({
    label: t("playground_all_runs"),
    columns: [
      { title: t("playground_when"), cell: (/** @type {Run} */ one) => when(one.created_at) },
      { title: t("state"), cell: (/** @type {Run} */ one) => state(one) },
      ...FIGURES.filter(([key]) => ["recall@1", "recall@5", "answer_contains"].includes(key)).map(([key, word]) => ({ title: t(word), end: true, cell: (/** @type {Run} */ one) => (key in one.figures ? shown(key, one.figures[key]) : "–") })),
      { title: t("playground_fig_problems"), end: true, cell: (/** @type {Run} */ one) => ("problems" in one.figures ? `${number(one.figures.problems)} / ${number(one.figures.n)}` : "–") },
      { title: t("playground_how"), cell: (/** @type {Run} */ one) => how(one) },
      { title: "", end: true, cell: (/** @type {Run} */ one) => here.kb.can_edit && remove(one, reload) },
    ],
    load: ({ limit, offset }) => get(`${base}?limit=${limit}&offset=${offset}`),
    onRow: (one) => { if (one.state === "done") void open(one.id); },
    empty: () => el("span"),
  });
  list.node.classList.add("playground-runs");
  const reload = async () => {
    /** @type {{items: Run[], total: number}} */
    const page = await get(`${base}?limit=${SHOWN}`);
    const done = page.items.filter((one) => one.state === "done");
    const busy = page.items.some(isOpen);
    runButton.disabled = withButton.disabled = busy;
    top.replaceChildren(...(page.total ? [figures(done[0], done[1], t("playground_latest")), done.length > 1 ? trendCard(done) : el("span")] : [empty(t("playground_no_runs"), set.questions ? t("playground_no_runs_text") : t("playground_add_first"))]));
    list.node.hidden = !page.total;
    return busy;
  };
  /** Look again as long as a run is under way and the page shows it. */
  const follow = async () => {
    if (!root.isConnected) return;
    const busy = await reload().catch(() => true);
    if (busy || following) await list.reload();
    following = busy;
    setTimeout(() => void follow(), POLL);
  };
  let following = await reload();
  root.replaceChildren(stack(tools, top, list.node));
  setTimeout(() => void follow(), POLL);
}

/** @param {Run | undefined} run @param {Run | undefined} before @param {string} title */
function figures(run, before, title) {
  if (!run) return el("span");
  const tiles = FIGURES.map(([key, word]) => tile(t(word), shown(key, run.figures[key]), difference(key, run, before)));
  const ms = t("playground_ms", { p50: Math.round(run.figures.ms_p50), p95: Math.round(run.figures.ms_p95) });
  return card(title,
    el("div", { class: "playground-figures" },
      tile(t("playground_fig_problems"), `${number(run.figures.problems)} / ${number(run.figures.n)}`, difference("problems", run, before)),
      ...tiles,
      tile(t("playground_fig_refused"), percent(run.figures.refused), null),
      tile(t("playground_fig_ms"), el("span", { class: "playground-ms", title: t("playground_ms_hint") }, ms), null)),
    el("p", { class: "soft small" }, when(run.created_at), " · ", how(run)));
}

/** @param {string} title @param {Node | string} value @param {Node | null} more */
const tile = (title, value, more) => el("div", { class: "playground-tile" }, el("span", { class: "soft small" }, title), el("span", { class: "figure" }, value), more);

/** @param {string} key @param {Run} run @param {Run | undefined} before */
function difference(key, run, before) {
  if (!before || !(key in before.figures)) return null;
  const by = run.figures[key] - before.figures[key];
  if (Math.abs(by) < 1e-6) return null;
  const size = key === "problems" ? number(Math.abs(by)) : key === "mrr@10" ? Math.abs(by).toFixed(2) : percent(Math.abs(by));
  const better = key === "problems" ? by < 0 : by > 0;
  return el("span", { class: `badge ${better ? "good" : "bad"}` }, `${by > 0 ? "▲" : "▼"} ${size}`, el("span", { class: "hidden" }, ` ${t(better ? "playground_better_by" : "playground_worse_by", { by: size })}`));
}

/** @param {Run[]} done the newest first */
function trendCard(done) {
  const runs = [...done].reverse();
  return card(t("playground_trend"), trend({
    label: t("playground_trend_label", { n: runs.length }),
    times: runs.map((one) => one.created_at),
    curves: [
      { label: t("playground_fig_recall1"), kind: "first", values: runs.map((one) => one.figures["recall@1"]) },
      { label: t("playground_fig_recall5"), kind: "five", values: runs.map((one) => one.figures["recall@5"]) },
      { label: t("playground_fig_words"), kind: "words", values: runs.map((one) => one.figures.answer_contains) },
    ],
  }));
}

/** @param {Run} run */
function state(run) {
  const text = run.state === "running" && run.total ? t("playground_progress", { done: run.done, total: run.total }) : t(`playground_state_${run.state}`);
  const progress = run.state === "running" ? el("progress", { max: String(run.total || 1), value: String(run.done), "aria-label": text }) : null;
  return el("span", { class: "playground-state" }, badge(text, TONES[run.state] ?? ""), progress, run.error ? el("span", { class: "small field-error" }, plain(run.error)) : null);
}

/** Under which settings it was run. @param {Run} run */
function how(run) {
  const said = inWords(run.settings.options ?? {}).map(([name, value]) => `${name}: ${plain(value)}`);
  if (run.state === "done" && !run.live) said.push(t("playground_other_index"));
  return said.join(" · ") || t("playground_settings_same");
}

/** @param {Run} run @param {() => unknown} changed */
function remove(run, changed) {
  const forget = async () => { await call("DELETE", `/evaluation-runs${path(run.id)}`); await changed(); };
  if (isOpen(run)) return iconButton("stop", t("playground_stop_run"), () => void attempt(forget));
  return iconButton("trash", t("playground_forget_run"), () => void confirmDeletion(t("playground_forget_title"), t("playground_forget_text"), t("playground_forget_run"), forget));
}

/** @param {import("../playground.js").Here} here @param {(body: object) => Promise<void>} start */
async function startWith(here, start) {
  const plan = await get(`/kbs${path(here.kb.name)}/playground`);
  const options = optionsForm(plan);
  const index = indexChoice(await otherIndexes(here));
  await ask(t("playground_run_title"), [
    el("p", { class: "soft" }, t("playground_run_text")),
    index.node,
    options.node,
  ], { label: t("playground_run"), act: async () => { await start({ options: options.values(), generation_id: index.value() }); return true; } });
}

/** What became of each question of one run. @param {HTMLElement} root @param {import("./sets.js").Set} set @param {string} id @param {() => unknown} back */
export async function drawRun(root, set, id, back) {
  const base = `/evaluation-runs${path(id)}`;
  /** @type {Run} */
  const run = await get(base);
  let show = query.get("show") || (run.figures.problems ? "problems" : "all");
  const choices = el("div", { class: "choices", role: "group", "aria-label": t("playground_outcome") }, ...["all", "problems", "changed"].map((one) => el("button", { type: "button", class: "choice", "data-show": one, onclick: () => choose(one) }, t(`playground_show_${one}`))));
  const mark = () => { for (const node of choices.children) node.setAttribute("aria-pressed", String(/** @type {HTMLElement} */ (node).dataset.show === show)); };
  const choose = (/** @type {string} */ one) => { show = one; query.set({ show: one }); mark(); void list.restart(); };
  const list = table({
    label: t("playground_outcome"),
    columns: [
      { title: t("playground_question"), cell: (/** @type {Asked} */ one) => asked(set, one) },
      { title: t("playground_expected_document"), cell: (/** @type {Asked} */ one) => (one.document ? plain(one.document) : el("span", { class: "soft" }, t("playground_refusal"))) },
      { title: t("playground_outcome"), cell: (/** @type {Asked} */ one) => (one.problem ? badge(t(`playground_problem_${one.problem}`), "bad") : badge(t("playground_good"), "good")) },
      { title: t("playground_rank"), end: true, cell: (/** @type {Asked} */ one) => (one.document ? rank(one) : "–") },
      { title: t("playground_change"), cell: (/** @type {Asked} */ one) => badge(t(`playground_change_${one.change}`), TONES[one.change]) },
    ],
    load: ({ limit, offset }) => get(`${base}/questions?show=${show}&limit=${limit}&offset=${offset}`),
    empty: () => el("p", { class: "soft" }, t("playground_nothing_shown")),
  });
  mark();
  root.replaceChildren(
    row(button(t("playground_back"), () => { query.set({ run: "", show: "", offset: "" }); void back(); }, { icon: "undo" })),
    run.state === "done" ? figures(run, undefined, t("playground_figures")) : state(run),
    choices, list.node);
}

/** @param {Asked} one */
function rank(one) {
  const place = one.rank ? number(one.rank) : t("playground_rank_none");
  const changed = one.rank_before !== null && one.rank_before !== one.rank;
  return changed ? t("playground_rank_was", { rank: place, before: one.rank_before || t("playground_rank_none") }) : place;
}

/** @param {import("./sets.js").Set} set @param {Asked} one */
function asked(set, one) {
  return el("div", {}, plain(one.question),
    el("details", { class: "small" }, el("summary", {}, t("playground_said")), el("p", { class: "wrap", dir: "auto" }, plain(one.text)),
      one.answers.length ? el("p", { class: "soft" }, `${t("playground_expected_words")}: ${plain(one.answers.join(" | "))}`) : null,
      el("p", {}, el("a", { href: `/console/playground?${new URLSearchParams({ kb: set.kb, q: one.question })}` }, t("playground_try_this")))));
}
