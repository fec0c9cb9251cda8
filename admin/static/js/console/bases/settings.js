// Everything that can be set for one knowledge base; what is left empty is what the house's settings say.
import { attempt, button, call, card, el, form, get, number, path, query, row, stack, t } from "../base.js";

/** @typedef {import("../base.js").Field} Field */

const DEFAULT = "";
const NONE = "-";
/** Fields of a select in which an empty name means none. */
/** Written in a list of names, it says that there are none. */
const NO_NAMES = "-";
const MAY_BE_NONE = new Set(["embedder", "reranker"]);

/** @param {HTMLElement} root @param {string} kb @param {() => Promise<void>} changed */
export async function drawSettings(root, kb, changed) {
  const found = await get(`/kbs${path(kb)}/settings`);
  const groups = fieldsOf(found).map(({ title, text, fields }) => ({ title, text, form: form(fields), fields }));
  for (const group of groups) group.form.set(shown(found.values, group.fields));
  const notice = el("div", { class: "bases-note", hidden: !found.needs_reindex }, el("p", {}, t("bases_needs_reindex")),
    button(t("bases_to_index"), () => { query.set({ tab: "index" }, true); dispatchEvent(new PopStateEvent("popstate")); }, { small: true }));
  const error = el("p", { class: "form-error", role: "alert", hidden: true });
  let kept = found.values;
  const save = async () => {
    error.hidden = true;
    const good = groups.map((group) => checked(group.form, group.fields));
    if (good.includes(false)) return;
    const values = Object.assign({}, ...groups.map((group) => given(group.form.values(), group.fields)));
    const changes = Object.fromEntries(Object.entries(values).filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(kept[key] ?? null)));
    if (!Object.keys(changes).length) { await attempt(async () => undefined, t("bases_nothing_changed")); return; }
    go.disabled = true;
    try {
      const answer = await call("PATCH", `/kbs${path(kb)}`, changes);
      kept = answer.values;
      notice.hidden = !answer.needs_reindex;
      for (const group of groups) group.form.set(shown(kept, group.fields));
      await attempt(changed, t("base_saved"));
    } catch (problem) {
      error.textContent = /** @type {Error} */ (problem).message;
      error.hidden = false;
    } finally {
      go.disabled = false;
    }
  };
  const go = /** @type {HTMLButtonElement} */ (button(t("save_changes"), () => void save(), { primary: true }));
  root.append(
    found.can_change ? "" : el("p", { class: "bases-note" }, t("bases_read_only")),
    notice,
    el("div", { class: "columns" }, ...[[0, 1], [2, 3, 4]].map((column) => stack(...column.map((at) => groups[at]).map((group) => card(group.title, group.text ? el("p", { class: "soft small" }, group.text) : null, group.form.node))))),
    error,
    found.can_change ? row(go) : "",
  );
}

/** @param {any} found the API's settings @returns {{title: string, text?: string, fields: Field[]}[]} */
function fieldsOf({ defaults, choices, can_change: free }) {
  const usual = (/** @type {any} */ value) => t("bases_usual", { value: value === null ? t("bases_auto") : typeof value === "number" ? number(value) : value || t("none") });
  /** @param {string} key @returns {[string, string][]} */
  const parts = (key) => [[DEFAULT, usual(defaults[key])], ...(MAY_BE_NONE.has(key) ? [/** @type {[string, string]} */ ([NONE, t(key === "embedder" ? "bases_no_embedder" : "none")])] : []), ...choices[key].map((/** @type {string} */ one) => [one, one])];
  /** @param {Field[]} fields */
  const held = (fields) => fields.map((field) => ({ ...field, disabled: !free }));
  const count = (/** @type {string} */ key, /** @type {number} */ min, /** @type {number} */ max, step = 1) =>
    /** @type {Field} */ ({ name: key, label: t(`bases_${key}`), kind: "number", min, max, step, placeholder: defaults[key] === undefined ? undefined : usual(defaults[key]), hint: t(`bases_${key}_hint`) });
  return [
    { title: t("bases_general"), fields: held([
      { name: "description", label: t("bases_description"), kind: "textarea", rows: 3, maxlength: 2000, hint: t("bases_description_hint") },
      { name: "private", label: t("bases_private_label"), kind: "checkbox", hint: t("bases_private_hint") },
    ]) },
    { title: t("bases_answers"), text: t("bases_answers_text"), fields: held([
      { name: "engine", label: t("bases_engine"), kind: "select", options: parts("engine"), hint: t("bases_engine_hint") },
      { name: "fallbacks", label: t("bases_fallbacks"), kind: "tags", placeholder: usual(defaults.fallbacks.join(", ")), hint: t("bases_fallbacks_hint", { there: choices.engine.join(", ") }) },
      { name: "instructions", label: t("bases_instructions"), kind: "textarea", rows: 6, maxlength: 20000, hint: t("bases_instructions_hint") },
      { name: "sampling", label: t("bases_sampling"), kind: "tags", placeholder: "temperature=0.2", hint: t("bases_sampling_hint") },
      count("top_k", 1, 50),
      count("min_evidence", 0, 1, 0.05),
    ]) },
    { title: t("bases_retrieval"), text: t("bases_retrieval_text"), fields: held([
      { name: "mode", label: t("bases_mode"), kind: "select", options: [[DEFAULT, usual(t("bases_mode_hybrid"))], ["hybrid", t("bases_mode_hybrid")], ["vector", t("bases_mode_vector")], ["keyword", t("bases_mode_keyword")]] },
      count("dense_weight", 0, 1, 0.05),
      { name: "reranker", label: t("bases_reranker"), kind: "select", options: parts("reranker"), hint: t("bases_reranker_hint") },
    ]) },
    { title: t("bases_index"), text: t("bases_index_text"), fields: held([
      { name: "embedder", label: t("bases_embedder"), kind: "select", options: parts("embedder"), hint: t("bases_embedder_hint") },
      { ...count("chunk_size", 32, 8192), required: true },
      { ...count("chunk_overlap", 0, 4096), required: true },
      { name: "title_enhance", label: t("bases_title_enhance"), kind: "checkbox", hint: t("bases_title_enhance_hint") },
    ]) },
    { title: t("bases_limits"), text: t("bases_limits_text"), fields: held([count("max_documents", 1, 10_000_000), count("max_mb", 1, 10_000_000)]) },
  ];
}

/** What the fields show for the API's values. @param {Record<string, any>} values @param {Field[]} fields */
function shown(values, fields) {
  return Object.fromEntries(fields.map((field) => {
    const value = values[field.name];
    if (field.kind === "tags") return [field.name, value && !value.length ? [NO_NAMES] : value ?? []];
    if (field.kind !== "select") return [field.name, value];
    return [field.name, value === null || value === undefined ? DEFAULT : value === "" ? NONE : value];
  }));
}

/** What the API is given for the fields' values. @param {Record<string, any>} values @param {Field[]} fields */
function given(values, fields) {
  return Object.fromEntries(fields.map((field) => {
    const value = values[field.name];
    if (field.kind === "select") return [field.name, value === DEFAULT ? null : value === NONE ? "" : value];
    if (field.kind === "tags") return [field.name, !value.length ? null : value.filter((/** @type {string} */ one) => one !== NO_NAMES)];
    if (field.name === "instructions") return [field.name, value.trim() || null];
    return [field.name, typeof value === "string" ? value.trim() : value];
  }));
}

/** Says beside each number that is none or out of bounds what it may be. @param {ReturnType<typeof form>} made @param {Field[]} fields */
function checked(made, fields) {
  let good = made.check();
  const values = made.values();
  for (const field of fields) {
    if (field.kind !== "number") continue;
    const value = values[field.name];
    const input = /** @type {HTMLInputElement} */ (made.input(field.name));
    const wrong = input.validity.badInput || (value !== null && (Number.isNaN(value) || value < (field.min ?? -Infinity) || value > (field.max ?? Infinity) || (field.step === 1 && !Number.isInteger(value))));
    if (wrong) made.showError(field.name, t("bases_range", { min: field.min ?? 0, max: field.max ?? 0 }));
    good = good && !wrong;
  }
  if (good && "chunk_overlap" in values && values.chunk_overlap > values.chunk_size / 2) {
    made.showError("chunk_overlap", t("bases_overlap_large"));
    good = false;
  }
  return good;
}
