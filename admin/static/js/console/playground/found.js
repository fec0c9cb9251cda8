// What a question found: the evidence against its threshold, the passages with their scores, and the prompt.
import { badge, bar, button, el, facts, name, number, plain, t } from "../base.js";

/**
 * @typedef {{n: number, document_id: string, document: string, title: string, chunk: number, locator: string, headings: string[], text: string, score: number,
 *   vector_score: number | null, keyword_score: number | null, keyword_share: number | null, rerank_score: number | null, used: boolean}} Passage
 * @typedef {{plan: {top_k: number, mode: string, min_evidence: number, engine: string, reranker: string}, passages: Passage[], evidence: number, refused: boolean, curated: boolean,
 *   terms: {token: string, weight: number}[], dense_weight: number, prompt: {role: string, text: string, tokens: number}[], tokens: number, context_size: number, read: number}} Considered
 */

const TERMS = 24;

/** @param {number | null} score */
const shown = (score) => (score === null ? "–" : score.toFixed(2));
/** @param {Passage} passage */
const key = (passage) => `${passage.document_id} ${passage.chunk}`;

export class Found {
  /** @param {Considered} data @param {((document: string) => void) | null} remember */
  constructor(data, remember) {
    this.data = data;
    this.remember = remember;
    this.places = new Map(data.passages.map((passage) => [key(passage), passage.n]));
    /** @type {Map<string, HTMLElement>} */
    this.moves = new Map();
    this.gone = el("p", { class: "soft small", hidden: true });
    this.verdict = this.#verdict();
    this.passages = this.#passages();
    this.prompt = this.#prompt();
  }

  /** Say of each passage where it stands in another variant. @param {Found | null} other @param {string} letter */
  compare(other, letter) {
    for (const passage of this.data.passages) {
      const mark = this.moves.get(key(passage));
      if (mark) mark.replaceChildren(...(other ? [moved(other.places.get(key(passage)), passage.n, letter)] : []));
    }
    const missing = other ? other.data.passages.filter((one) => one.used && !this.places.has(key(one))) : [];
    this.gone.hidden = !missing.length;
    this.gone.replaceChildren(`${t("playground_missing", { letter })}: `, missing.map((one) => `#${one.n} ${plain(one.document)}`).join(", "));
  }

  #verdict() {
    const { evidence, refused, plan, terms, dense_weight, passages } = this.data;
    const values = { evidence: shown(evidence), needed: shown(plan.min_evidence) };
    const meter = el("meter", { class: "bar-meter playground-evidence", min: "0", max: "1", low: String(plan.min_evidence), high: String(plan.min_evidence), optimum: "1", value: String(evidence), "aria-label": `${t("playground_evidence")}: ${shown(evidence)}` });
    const words = el("span", { class: "playground-terms" }, ...terms.slice(0, TERMS).map((term) => el("span", { class: "badge", title: term.weight.toFixed(1) }, plain(term.token))), terms.length > TERMS ? "…" : "");
    const weight = plan.mode === "keyword" || !dense_weight ? t("playground_weight_none") : dense_weight.toFixed(2);
    return el("div", { class: `playground-verdict ${refused ? "refused" : "borne"}` },
      el("h3", {}, t("playground_evidence")), meter,
      el("p", {}, passages.length ? t(refused ? "playground_not_borne" : "playground_borne", values) : t("playground_no_passages")),
      this.data.curated ? el("p", {}, t("playground_curated")) : null,
      passages.length ? facts([[t("playground_weight_used"), weight], [t("playground_searched_words"), words]]) : null);
  }

  #passages() {
    const list = el("ol", { class: "playground-passages" });
    let cut = false;
    for (const passage of this.data.passages) {
      if (!passage.used && !cut) {
        cut = true;
        list.append(el("li", { class: "playground-cut" }, el("span", {}, t("playground_unused"))));
      }
      list.append(this.#passage(passage));
    }
    return el("section", { class: "stack" }, el("h3", {}, t("playground_passages")), this.gone, list);
  }

  /** @param {Passage} passage */
  #passage(passage) {
    const mark = el("span", { class: "playground-move" });
    this.moves.set(key(passage), mark);
    const bm25 = passage.keyword_share === null ? "–" : t("playground_bm25", { share: shown(passage.keyword_share), score: (passage.keyword_score ?? 0).toFixed(1) });
    const scores = el("dl", { class: "playground-scores" },
      ...score(t("playground_fused"), passage.score, shown(passage.score)),
      ...score(t("playground_vector"), passage.vector_score, shown(passage.vector_score), "vector"),
      ...score(t("playground_keyword"), passage.keyword_share, bm25, "keyword"),
      ...(passage.rerank_score === null ? [] : score(t("playground_rerank"), passage.rerank_score, shown(passage.rerank_score), "rerank")));
    const headings = passage.headings.filter((one) => one !== passage.title);
    const where = [passage.title === passage.document ? "" : passage.title, headings.join(" › "), passage.locator].filter(Boolean).join(" · ");
    const remember = this.remember;
    return el("li", { class: passage.used ? "used" : "unused" },
      el("div", { class: "playground-head" }, el("strong", {}, `#${passage.n} `, name(passage.document)), mark),
      where ? el("p", { class: "soft small" }, plain(where)) : null,
      scores,
      el("details", { class: "small" }, el("summary", {}, el("span", { class: "playground-start" }, plain(passage.text.slice(0, 160)))), el("p", { class: "wrap playground-text", dir: "auto" }, plain(passage.text)),
        remember ? button(t("playground_expect"), () => remember(passage.document), { small: true, icon: "star" }) : null));
  }

  #prompt() {
    const { prompt, tokens, context_size: size, refused, curated, plan, read, passages } = this.data;
    if (!passages.length) return el("div", { hidden: true });
    if (!prompt.length) return el("section", {}, el("h3", {}, t("playground_prompt")), el("p", { class: "soft" }, t("playground_quotes", { engine: plan.engine })));
    const measure = `${size ? t("playground_prompt_of", { n: tokens, size }) : t("playground_prompt_size", { n: tokens })}, ${t("playground_prompt_read", { n: read })}`;
    return el("details", { class: "playground-prompt" }, el("summary", {}, el("strong", {}, t("playground_prompt")), ` – ${measure}`),
      refused || curated ? el("p", { class: "badge warn playground-note" }, t(curated ? "playground_not_sent_curated" : "playground_not_sent")) : null,
      ...prompt.map((turn) => el("section", {}, el("h4", {}, t(`playground_role_${turn.role}`), " ", el("span", { class: "soft small" }, t("playground_prompt_size", { n: turn.tokens }))), el("pre", { dir: "auto", tabindex: "0" }, plain(turn.text)))));
  }
}

/** @param {string} label @param {number | null} share @param {string} text @param {string} [kind] */
function score(label, share, text, kind = "") {
  const meter = bar(share, text, kind);
  meter.querySelector("meter")?.setAttribute("aria-label", `${label}: ${text}`);
  return [el("dt", {}, label), el("dd", {}, meter)];
}

/** @param {number | undefined} there @param {number} here @param {string} letter */
function moved(there, here, letter) {
  if (there === undefined) return mark(t("playground_new"), t("playground_rank_new", { letter }), "busy");
  const by = there - here;
  if (!by) return mark("=", t("playground_rank_same", { letter }));
  return by > 0 ? mark(`▲ ${number(by)}`, t("playground_rank_up", { n: by, letter }), "good") : mark(`▼ ${number(-by)}`, t("playground_rank_down", { n: -by, letter }), "bad");
}

/** @param {string} sign @param {string} text @param {import("../base.js").Tone} [tone] */
function mark(sign, text, tone = "") {
  const node = badge(sign, tone);
  node.title = text;
  node.append(el("span", { class: "hidden" }, ` ${text}`));
  return node;
}
