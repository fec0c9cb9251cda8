// Curated answers: the list, and the form that they are written and changed with.
import { badge, button, call, card, confirmDeletion, el, empty, facts, form, get, name, query, row, stack, t, table, toast, when } from "../base.js";

/**
 * @typedef {{id: string, kb: string, document_id: string | null, question: string, paraphrases: string[], text: string, html: string, rests_on: {document_id: string, name: string, state: string}[],
 *   state: string, reason: string, answer_id: string | null, used: number, created_by: string, expires_at: string | null, created_at: string, updated_at: string}} Curated
 */

/** @type {Record<string, import("../base.js").Tone>} */
const TONES = { active: "good", review: "warn", expired: "", off: "" };

/** @param {HTMLElement} root */
export async function drawCurated(root) {
  const own = { state: query.get("curated_state"), text: query.get("find"), kb: query.get("kb") };
  const kbs = (await get("/kbs")).items.map((/** @type {{name: string}} */ one) => one.name);
  /** @param {string} id */
  const open = (id) => { query.set({ curated: id }); void drawCurated(root); };
  const wanted = query.get("curated");
  if (wanted) {
    const back = () => { query.set({ curated: "" }); void drawCurated(root); };
    const found = wanted === "new" ? null : await get(`/curated/${encodeURIComponent(wanted)}`);
    root.replaceChildren(row(button(t("review_back"), back, { small: true, icon: "undo" })), found ? existing(found, back) : creating(kbs, open));
    return;
  }
  const fresh = () => button(t("review_curated_new"), () => open("new"), { primary: true, icon: "plus" });
  /** @param {Record<string, string>} values */
  const set = (values) => {
    Object.assign(own, values);
    query.set({ curated_state: own.state, find: own.text, kb: own.kb, offset: "" });
    void list.restart();
  };
  const filters = form([
    { name: "kb", label: t("knowledge_base"), kind: "select", value: own.kb, options: [["", t("all")], ...kbs.map((/** @type {string} */ one) => [one, one])], onchange: (value) => set({ kb: value }) },
    { name: "state", label: t("state"), kind: "select", value: own.state, options: [["", t("all")], ...Object.keys(TONES).map((one) => /** @type {[string, string]} */ ([one, t(`review_curated_${one}`)]))], onchange: (value) => set({ state: value }) },
    { name: "text", label: t("search"), value: own.text, onchange: (value) => set({ text: value.trim() }) },
  ]);
  filters.node.classList.add("toolbar", "review-filters");
  /** @type {ReturnType<typeof table<Curated>>} */
  const list = table({
    label: t("review_tab_curated"),
    columns: [
      { title: t("review_curated_question"), cell: (item) => item.question },
      { title: t("knowledge_base"), cell: (item) => item.kb },
      { title: t("state"), cell: (item) => curatedBadge(item) },
      { title: t("review_curated_used"), cell: (item) => t("review_curated_times", { n: item.used }), end: true },
      { title: t("review_curated_by"), cell: (item) => name(item.created_by) },
      { title: t("review_curated_expires"), cell: (item) => (item.expires_at ? when(item.expires_at) : "–") },
    ],
    load: ({ limit, offset }) => {
      const asked = new URLSearchParams({ limit: String(limit), offset: String(offset) });
      for (const key of /** @type {const} */ (["state", "text", "kb"])) if (own[key]) asked.set(key, own[key]);
      return get(`/curated?${asked}`);
    },
    empty: () => empty(t("review_curated_empty"), t("review_curated_empty_text"), fresh()),
    onRow: (item) => open(item.id),
  });
  root.replaceChildren(el("p", { class: "soft" }, t("review_curated_intro")), row(filters.node, el("div", { class: "push" }, fresh())), list.node);
}

/** @param {Curated} item */
export function curatedBadge(item) {
  return badge(t(`review_curated_${item.state}`), TONES[item.state] ?? "");
}

/** @param {string[]} kbs @param {(id: string) => void} open */
function creating(kbs, open) {
  return card(t("review_curated_new"), curatedForm({ kbs, save: async (given) => { const made = await call("POST", "/curated", given); toast(t("base_saved")); open(made.id); } }));
}

/** @param {Curated} found @param {() => void} back */
function existing(found, back) {
  const place = stack();
  /** @param {Curated} item */
  const draw = (item) => {
    const change = async (/** @type {Record<string, unknown>} */ values) => { draw(await call("PATCH", `/curated/${item.id}`, values)); toast(t("base_saved")); };
    const isOn = item.state === "active" || item.state === "review";
    const review = item.state === "review" ? card(t("review_curated_check"), ...item.reason.split("\n").map((one) => el("p", {}, one)), row(button(t("review_curated_right"), () => void change({}), { primary: true, icon: "check" }))) : null;
    const actions = row(
      isOn ? button(t("review_curated_switch_off"), () => void change({ on: false }), { small: true }) : button(t("review_curated_on"), () => void change({ on: true }), { small: true, primary: true }),
      button(t("delete"), () => void confirmDeletion(t("review_curated_delete"), `«${item.question}» ${t("review_curated_delete_text")}`, t("delete"), async () => { await call("DELETE", `/curated/${item.id}`); toast(t("base_deleted")); back(); }), { small: true, danger: true, icon: "trash" }));
    place.replaceChildren(...[review,
      card(t("review_curated_edit"),
        facts([[t("state"), el("span", { class: "badges" }, curatedBadge(item), item.state === "review" ? null : item.reason)], [t("knowledge_base"), item.kb], [t("review_curated_used"), t("review_curated_times", { n: item.used })], [t("review_curated_by"), el("span", {}, name(item.created_by), " · ", when(item.created_at))], ...(item.answer_id ? [/** @type {[string, Node]} */ ([t("review_question"), el("a", { href: `/console/review?answer=${item.answer_id}` }, t("review_curated_source"))])] : [])]),
        actions),
      card(null, curatedForm({ item, save: (given) => change(given) }))].filter((one) => one !== null));
  };
  draw(found);
  return place;
}

/**
 * The fields of a curated answer. `save` gets what the API takes; what it raises is shown.
 * @param {{item?: Curated, kbs?: string[], begin?: Partial<Curated>, save: (given: Record<string, unknown>) => Promise<unknown>}} options
 */
export function curatedForm({ item, kbs = [], begin = {}, save }) {
  const from = item ?? { question: "", paraphrases: [], text: "", rests_on: [], expires_at: null, kb: kbs[0] ?? "", ...begin };
  /** @type {import("../base.js").Field[]} */
  const fields = [
    { name: "question", label: t("review_curated_question"), value: from.question, required: true, maxlength: 1000 },
    { name: "paraphrases", label: t("review_curated_paraphrases"), kind: "textarea", rows: 3, value: (from.paraphrases ?? []).join("\n"), hint: t("review_curated_paraphrases_hint") },
    { name: "text", label: t("review_curated_text"), kind: "textarea", rows: 8, value: from.text, required: true, maxlength: 20000, hint: t("review_curated_text_hint") },
    { name: "expires", label: t("review_curated_expires"), kind: "date", value: from.expires_at ? localDay(from.expires_at) : "", hint: t("review_curated_expires_hint") },
  ];
  if (!item) fields.unshift({ name: "kb", label: t("knowledge_base"), kind: "select", options: kbs, value: from.kb, required: true, onchange: (value) => rests.clear(value) });
  const made = form(fields);
  const rests = documentPicker(from.kb ?? "", from.rests_on ?? []);
  const error = el("p", { class: "form-error", role: "alert", hidden: true });
  const go = button(item ? t("save_changes") : t("review_curated_save"), async () => {
    if (!made.check()) return;
    const values = made.values();
    go.setAttribute("disabled", "");
    error.hidden = true;
    try {
      await save({
        ...(item ? {} : { kb: values.kb }),
        question: values.question,
        paraphrases: values.paraphrases.split("\n").map((/** @type {string} */ one) => one.trim()).filter(Boolean),
        text: values.text,
        rests_on: rests.ids(),
        expires_at: values.expires ? new Date(`${values.expires}T00:00:00`).toISOString() : null,
      });
    } catch (problem) {
      error.textContent = problem instanceof Error ? problem.message : String(problem);
      error.hidden = false;
    } finally {
      go.removeAttribute("disabled");
    }
  }, { primary: true });
  return stack(made.node, rests.node, error, row(go));
}

/** Documents that an answer rests on, with a way to find more. @param {string} kb @param {{document_id: string, name: string, state: string}[]} chosen */
function documentPicker(kb, chosen) {
  const found = new Map(chosen.filter((one) => one.name).map((one) => [one.document_id, one]));
  const list = el("ul", { class: "plain-list" });
  const offers = el("ul", { class: "plain-list", "aria-live": "polite" });
  const search = /** @type {HTMLInputElement} */ (el("input", { type: "search", "aria-label": t("review_curated_find"), placeholder: t("review_curated_find") }));
  const draw = () => list.replaceChildren(...(found.size ? [...found.values()].map((one) => el("li", { class: "toolbar" }, name(one.name),
    one.state === "changed" ? badge(t("review_curated_changed"), "warn") : null,
    button(t("review_remove"), () => { found.delete(one.document_id); draw(); }, { small: true, title: one.name }))) : [el("li", { class: "soft" }, t("review_curated_no_rests"))]));
  let asked = 0;
  search.addEventListener("input", async () => {
    const mine = ++asked;
    const text = search.value.trim();
    if (!text) return offers.replaceChildren();
    const page = await get(`/kbs/${encodeURIComponent(kb)}/documents?limit=8&text=${encodeURIComponent(text)}`).catch(() => ({ items: [] }));
    if (mine !== asked) return undefined;
    const items = page.items.filter((/** @type {{id: string, name: string}} */ one) => !found.has(one.id) && !one.name.startsWith("curated/"));
    return offers.replaceChildren(...items.map((/** @type {{id: string, name: string}} */ one) => el("li", {}, button(one.name, () => { found.set(one.id, { document_id: one.id, name: one.name, state: "same" }); search.value = ""; offers.replaceChildren(); draw(); }, { small: true, icon: "plus" }))));
  });
  draw();
  const node = el("fieldset", {}, el("legend", {}, t("review_curated_rests")), el("p", { class: "field-hint" }, t("review_curated_rests_hint")), list, search, offers);
  return {
    node,
    ids: () => [...found.keys()],
    /** @param {string} other another knowledge base was chosen */
    clear(other) { kb = other; found.clear(); offers.replaceChildren(); draw(); },
  };
}

/** @param {string} iso */
function localDay(iso) {
  const at = new Date(iso);
  return [at.getFullYear(), String(at.getMonth() + 1).padStart(2, "0"), String(at.getDate()).padStart(2, "0")].join("-");
}
