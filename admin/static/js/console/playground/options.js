// The settings of one variant, or of one run: what is left open stays as it is set for the knowledge base.
import { el, form, get, path, t, when } from "../base.js";

/** @typedef {import("../playground.js").Plan} Plan */
/** @typedef {{top_k?: number, mode?: string, dense_weight?: number, reranker?: string, min_evidence?: number, engine?: string, instructions?: string}} Options */

const NO_RERANKER = "-";

/** @param {string} mode */
export const modeName = (mode) => t(`playground_mode_${mode}`);
/** @param {string} name */
const rerankerName = (name) => name || t("playground_none");
/** @param {number | null} weight */
const weightName = (weight) => (weight === null ? t("playground_automatic") : String(weight));

/** Fields for them. @param {Plan} plan */
export function optionsForm(plan) {
  const asSet = (/** @type {string} */ value) => t("playground_as_set_value", { value });
  const made = form([
    { name: "mode", label: t("playground_mode"), kind: "select", options: [["", asSet(modeName(plan.mode))], ...["hybrid", "vector", "keyword"].map((mode) => /** @type {[string, string]} */ ([mode, modeName(mode)]))] },
    { name: "top_k", label: t("playground_top_k"), kind: "number", min: 1, max: 50, step: 1, placeholder: asSet(String(plan.top_k)) },
    { name: "min_evidence", label: t("playground_min_evidence"), kind: "number", min: 0, max: 1, step: 0.05, placeholder: asSet(String(plan.min_evidence)), hint: t("playground_min_evidence_hint") },
    { name: "dense_weight", label: t("playground_dense_weight"), kind: "number", min: 0, max: 1, step: 0.05, placeholder: asSet(weightName(plan.dense_weight)), hint: t("playground_dense_weight_hint") },
    { name: "reranker", label: t("playground_reranker"), kind: "select", options: [["", asSet(rerankerName(plan.reranker))], [NO_RERANKER, t("playground_none")], ...plan.rerankers.map((name) => /** @type {[string, string]} */ ([name, name]))] },
    { name: "engine", label: t("playground_engine"), kind: "select", options: [["", asSet(plan.engine)], ...plan.engines.map((name) => /** @type {[string, string]} */ ([name, name]))] },
    { name: "instructions", label: t("playground_instructions"), kind: "textarea", rows: 3, maxlength: 20000, hint: t("playground_instructions_hint") },
  ]);
  return {
    node: made.node,
    /** @param {string} field */
    input: (field) => made.input(field),
    /** @param {Record<string, any>} values */
    set: (values) => made.set(values),
    /** What was chosen; nothing of what stays as it is. @returns {Options} */
    values() {
      /** @type {Record<string, any>} */
      const chosen = {};
      for (const [name, value] of Object.entries(made.values())) if (value !== "" && value !== null) chosen[name] = value;
      if (chosen.reranker === NO_RERANKER) chosen.reranker = "";
      if (!chosen.instructions?.trim()) delete chosen.instructions;
      return chosen;
    },
  };
}

/** What `options` say, each with its name and its value in words. @param {Options} options @returns {[string, string, keyof Options][]} */
export function inWords(options) {
  /** @type {[string, string, keyof Options][]} */
  const said = [];
  if (options.mode !== undefined) said.push([t("playground_mode"), modeName(options.mode), "mode"]);
  if (options.top_k !== undefined) said.push([t("playground_top_k"), String(options.top_k), "top_k"]);
  if (options.min_evidence !== undefined) said.push([t("playground_min_evidence"), String(options.min_evidence), "min_evidence"]);
  if (options.dense_weight !== undefined) said.push([t("playground_dense_weight"), String(options.dense_weight), "dense_weight"]);
  if (options.reranker !== undefined) said.push([t("playground_reranker"), rerankerName(options.reranker), "reranker"]);
  if (options.engine !== undefined) said.push([t("playground_engine"), options.engine, "engine"]);
  if (options.instructions !== undefined) said.push([t("playground_instructions"), t("playground_changed_text"), "instructions"]);
  return said;
}

/** What holds now for one of them, in words. @param {Plan} plan @param {keyof Options} which */
export function now(plan, which) {
  switch (which) {
    case "mode": return modeName(plan.mode);
    case "reranker": return rerankerName(plan.reranker);
    case "dense_weight": return weightName(plan.dense_weight);
    case "instructions": return "…";
    default: return String(plan[which]);
  }
}

/** @typedef {{id: string, state: string, chunks: number, created_at: string}} Index */

/** Indexes that can be tried beside the live one. @param {import("../playground.js").Here} here @returns {Promise<Index[]>} */
export async function otherIndexes(here) {
  if (!here.kb.can_edit || !here.kb.indexes.length) return [];
  return (await get(`/kbs${path(here.kb.name)}/indexes`)).items.filter((/** @type {Index} */ one) => one.state === "ready" || one.state === "former");
}

/** A choice between them and the live one, or nothing where there are none. @param {Index[]} others */
export function indexChoice(others) {
  const name = (/** @type {Index} */ one) => t("playground_index_other", { state: t(`playground_index_${one.state}`), chunks: one.chunks, when: String(when(one.created_at).textContent) });
  const select = /** @type {HTMLSelectElement} */ (el("select", {}, el("option", { value: "" }, t("playground_index_live")), ...others.map((one) => el("option", { value: one.id }, name(one)))));
  return {
    node: others.length ? el("label", { class: "field" }, el("span", {}, t("playground_index")), select) : null,
    /** Its id; null: the live one. @returns {string | null} */
    value: () => select.value || null,
    /** In words; empty: the live one. */
    text: () => (select.value ? `${t("playground_index")}: ${select.selectedOptions[0].text}` : ""),
  };
}
