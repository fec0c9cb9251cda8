// Evaluation sets: choose one, make, rename, delete, bring in and out; its results and its questions.
import { address, askForm, attempt, button, call, confirmDeletion, el, empty, get, icon, path, query, row, stack, t, tabs, toast } from "../base.js";
import { drawQuestions } from "./questions.js";
import { drawRun, drawRuns } from "./runs.js";

/** @typedef {{id: string, kb: string, name: string, questions: number}} Set */

/** @param {HTMLElement} root @param {import("../playground.js").Here} here */
export async function drawSets(root, here) {
  const base = `/kbs${path(here.kb.name)}/evaluation-sets`;
  /** @type {Set[]} */
  const sets = (await get(`${base}?limit=200`)).items;
  const again = () => drawSets(root, here);
  const open = (/** @type {string} */ id) => { query.set({ set: id, run: "", offset: "" }); return again(); };
  const make = () => askForm(t("playground_make_set"), [{ name: "name", label: t("playground_set_name"), hint: t("playground_set_name_hint"), required: true, maxlength: 100 }], {
    label: t("playground_make_set"),
    save: async ({ name }) => { const made = await call("POST", base, { name }); query.set({ part: "questions" }); void open(made.id); },
  });
  const edits = here.kb.can_edit;
  if (!sets.length) {
    root.replaceChildren(empty(t("playground_no_set"), t("playground_no_set_text"), edits ? button(t("playground_make_set"), make, { primary: true, icon: "plus" }) : null));
    return;
  }
  const set = sets.find((one) => one.id === query.get("set")) ?? sets[0];
  const own = `/evaluation-sets${path(set.id)}`;
  const select = /** @type {HTMLSelectElement} */ (el("select", { id: "playground-set", onchange: () => void open(select.value) }, ...sets.map((one) => el("option", { value: one.id }, one.name))));
  select.value = set.id;
  const file = /** @type {HTMLInputElement} */ (el("input", { type: "file", accept: ".jsonl,.json,.ndjson,.txt", hidden: true, tabindex: "-1", onchange: () => void bringIn() }));
  const bringIn = async () => {
    const chosen = file.files?.[0];
    if (!chosen) return;
    const done = await attempt(() => send(`${own}/import`, chosen));
    file.value = "";
    if (!done) return;
    toast(t("playground_imported", done));
    query.set({ part: "questions", offset: "" });
    await again();
  };
  const tools = row(
    el("label", { class: "field" }, el("span", {}, t("playground_set")), select),
    el("span", { class: "soft" }, t("playground_questions_n", { n: set.questions })),
    el("span", { class: "push" }),
    edits && button(t("playground_make_set"), make, { icon: "plus" }),
    edits && button(t("playground_import"), () => file.click(), { icon: "upload", title: t("playground_import_hint") }),
    el("a", { class: "button", href: address(`${own}/export.jsonl`), download: `${set.name}.jsonl` }, icon("export"), t("playground_export")),
    edits && button(t("playground_rename"), () => void askForm(t("playground_rename"), [{ name: "name", label: t("playground_set_name"), value: set.name, required: true, maxlength: 100 }], {
      label: t("save_changes"),
      save: async ({ name }) => { await call("PATCH", own, { name }); void again(); },
    }), { icon: "pencil" }),
    edits && button(t("playground_delete_set"), () => void confirmDeletion(t("playground_delete_set_title", { name: set.name }), t("playground_delete_set_text", { n: set.questions }), t("playground_delete_set"), async () => { await call("DELETE", own); void open(""); }), { icon: "trash" }),
    file);
  const run = query.get("run");
  const parts = run ? stack() : null;
  root.replaceChildren(stack(tools, parts ?? tabs([
    { name: "runs", title: t("playground_part_runs"), draw: (place) => { query.set({ offset: "" }); return drawRuns(place, here, set, (id) => { query.set({ run: id, offset: "" }, true); return again(); }); } },
    { name: "questions", title: t("playground_part_questions"), draw: (place) => { query.set({ offset: "" }); return drawQuestions(place, here, set, again); } },
  ], "part").node));
  if (parts) await drawRun(parts, set, run, again);
}

/** Send a file as it is. @param {string} where @param {File} file */
async function send(where, file) {
  const response = await fetch(address(where), { method: "POST", credentials: "same-origin", headers: { "Content-Type": "application/jsonl", "Accept-Language": document.documentElement.lang }, body: file });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(typeof body.detail === "string" ? body.detail : t("refused_request"));
  return body;
}
