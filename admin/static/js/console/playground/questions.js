// The questions of an evaluation set, and what a right answer to each is.
import { askForm, button, call, confirmDeletion, el, empty, get, icon, iconButton, path, plain, row, t, table } from "../base.js";
import { lines } from "./remember.js";

/** @typedef {{id: string, question: string, answers: string[], document: string}} Question */

/** @param {HTMLElement} root @param {import("../playground.js").Here} here @param {import("./sets.js").Set} set @param {() => unknown} changed */
export function drawQuestions(root, here, set, changed) {
  const base = `/evaluation-sets${path(set.id)}/questions`;
  const edits = here.kb.can_edit;
  /** @param {Question} [one] */
  const edit = (one) => askForm(one ? t("playground_edit_question") : t("playground_add_question"), [
    { name: "question", label: t("playground_question"), kind: "textarea", rows: 2, value: one?.question ?? "", required: true, maxlength: 4000 },
    { name: "document", label: t("playground_document"), value: one?.document ?? "", hint: t("playground_document_hint"), maxlength: 1024 },
    { name: "answers", label: t("playground_words"), kind: "textarea", rows: 3, value: one?.answers.join("\n") ?? "", hint: t("playground_words_hint") },
  ], {
    label: one ? t("save_changes") : t("playground_add_question"),
    save: async (values) => {
      await call(one ? "PUT" : "POST", one ? base + path(one.id) : base, { question: values.question, document: values.document.trim(), answers: lines(values.answers) });
      if (one) void list.reload();
      else changed();
    },
  });
  const add = () => edits && button(t("playground_add_question"), () => void edit(), { primary: true, icon: "plus" });
  const search = /** @type {HTMLInputElement} */ (el("input", { type: "search", "aria-label": t("playground_find_question"), placeholder: t("playground_find_question"), maxlength: 200, oninput: () => void list.restart() }));
  const list = table({
    label: t("playground_part_questions"),
    columns: [
      { title: t("playground_question"), cell: (/** @type {Question} */ one) => plain(one.question) },
      { title: t("playground_expected_document"), cell: (/** @type {Question} */ one) => (one.document ? plain(one.document) : el("span", { class: "soft" }, t("playground_refusal"))) },
      { title: t("playground_expected_words"), cell: (/** @type {Question} */ one) => plain(one.answers.join(" | ")) },
      { title: "", end: true, cell: (/** @type {Question} */ one) => el("span", { class: "playground-actions" },
        el("a", { class: "icon-button", href: `/console/playground?${new URLSearchParams({ kb: set.kb, q: one.question })}`, title: t("playground_try_this"), "aria-label": t("playground_try_this") }, icon("search")),
        edits && iconButton("pencil", t("playground_edit_question"), () => void edit(one)),
        edits && iconButton("trash", t("playground_remove_question"), () => void confirmDeletion(t("playground_remove_question_title"), t("playground_remove_question_text", { question: one.question }), t("playground_remove_question"), async () => { await call("DELETE", base + path(one.id)); changed(); }))) },
    ],
    load: ({ limit, offset }) => get(`${base}?${new URLSearchParams({ limit: String(limit), offset: String(offset), text: search.value.trim() })}`),
    empty: () => (search.value.trim() ? el("p", { class: "soft" }, t("playground_nothing_shown")) : empty(t("playground_no_questions"), t("playground_no_questions_text"), add() || null)),
  });
  root.replaceChildren(row(search, set.questions ? add() : null), list.node);
}
