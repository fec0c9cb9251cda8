// A question goes into an evaluation set, with what is expected of its answer.
import { ask, call, form, get, path, t, toast } from "../base.js";

const NEW_SET = "+";
const OTHER = "\u0000";

/** Lines of a text field as a list. @param {string} text */
export const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

/**
 * @param {import("../playground.js").Here} here
 * @param {{question: string, documents: string[], document?: string}} given `documents`: to choose the expected one from
 */
export async function rememberQuestion(here, given) {
  const base = `/kbs${path(here.kb.name)}/evaluation-sets`;
  /** @type {{id: string, name: string}[]} */
  const sets = (await get(`${base}?limit=200`)).items;
  const fields = form([
    { name: "set", label: t("playground_set"), kind: "select", options: [...sets.map((one) => /** @type {[string, string]} */ ([one.id, one.name])), [NEW_SET, t("playground_new_set")]], onchange: () => show() },
    { name: "name", label: t("playground_set_name"), hint: t("playground_set_name_hint"), maxlength: 100 },
    { name: "question", label: t("playground_question"), kind: "textarea", rows: 2, value: given.question, required: true, maxlength: 4000 },
    { name: "document", label: t("playground_expected"), kind: "select", options: [...given.documents.map((one) => /** @type {[string, string]} */ ([one, one])), ["", t("playground_nowhere")], [OTHER, t("playground_other_document")]], value: given.document ?? given.documents[0] ?? "", onchange: () => show() },
    { name: "other", label: t("playground_document"), hint: t("playground_document_hint"), maxlength: 1024 },
    { name: "answers", label: t("playground_words"), kind: "textarea", rows: 2, hint: t("playground_words_hint") },
  ]);
  /** @type {any} */
  let made = null; // a set that was made here, though the question could not be saved into it
  const block = (/** @type {string} */ field) => /** @type {HTMLElement | null | undefined} */ (fields.input(field)?.closest(".field"));
  const show = () => {
    const { set, document } = fields.values();
    const hide = (/** @type {string} */ field, /** @type {boolean} */ hidden) => { const node = block(field); if (node) node.hidden = hidden; };
    hide("name", set !== NEW_SET);
    hide("other", document !== OTHER);
    hide("answers", document === "");
  };
  show();
  await ask(t("playground_remember_title"), [fields.node], {
    label: t("playground_save_question"),
    act: async () => {
      if (!fields.check()) return false;
      const values = fields.values();
      let set = sets.find((one) => one.id === values.set) ?? made;
      if (!set) {
        if (!values.name.trim()) { fields.showError("name", t("base_needed")); return false; }
        set = made = await call("POST", base, { name: values.name });
      }
      const document = values.document === OTHER ? values.other.trim() : values.document;
      await call("POST", `/evaluation-sets${path(set.id)}/questions`, { question: values.question, document, answers: document ? lines(values.answers) : [] });
      toast(t("playground_remembered", { name: set.name }));
      return true;
    },
  });
}
