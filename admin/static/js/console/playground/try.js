// One question, tried in one or more variants side by side.
import { attempt, button, card, el, get, path, query, row, stack, t, toast } from "../base.js";
import { otherIndexes } from "./options.js";
import { rememberQuestion } from "./remember.js";
import { Variant } from "./variant.js";

const MOST = 4;

/** @param {HTMLElement} root @param {import("../playground.js").Here} here */
export async function drawTry(root, here) {
  /** @type {import("../playground.js").Plan} */
  let plan = await get(`/kbs${path(here.kb.name)}/playground`);
  const indexes = await otherIndexes(here);
  /** @type {Variant[]} */
  const variants = [];
  const place = el("div", { class: "playground-variants" });
  const question = /** @type {HTMLTextAreaElement} */ (el("textarea", { id: "playground-question", rows: 2, maxlength: here.me.max_question_chars, placeholder: t("playground_question_hint") }));
  const answerToo = /** @type {HTMLInputElement} */ (el("input", { type: "checkbox", checked: true }));
  const go = button(t("playground_go"), () => void tryAll(), { primary: true, icon: "search" });
  const stop = button(t("playground_stop"), () => variants.forEach((one) => one.stop()), { icon: "stop" });
  const more = button(t("playground_add"), () => add(), { icon: "plus" });
  question.value = query.get("q");
  stop.hidden = true;

  const compare = () => variants.forEach((one) => one.compare(variants[0]));
  const rename = () => {
    variants.forEach((one, at) => one.name(String.fromCharCode(65 + at), variants.length > 1));
    more.hidden = variants.length >= MOST;
    compare();
  };
  const add = () => {
    const made = new Variant(here, plan, indexes, {
      changed: compare,
      remove: () => { made.stop(); variants.splice(variants.indexOf(made), 1); made.node.remove(); rename(); },
      saved: async () => {
        plan = (await attempt(() => get(`/kbs${path(here.kb.name)}/playground`))) ?? plan;
        for (const one of variants) one.renew(plan, one === made);
      },
      remember: (document) => remember(document),
    });
    if (variants.length) made.open();
    variants.push(made);
    place.append(made.node);
    rename();
  };
  const asked = () => question.value.trim();
  const tryAll = async () => {
    if (!asked()) { toast(t("playground_ask_first"), "bad"); question.focus(); return; }
    query.set({ q: asked() });
    go.disabled = true;
    stop.hidden = false;
    await Promise.all(variants.map((one) => one.try(asked(), answerToo.checked)));
    go.disabled = false;
    stop.hidden = true;
  };
  /** @param {string} [document] */
  const remember = (document) => {
    if (!asked()) { toast(t("playground_ask_first"), "bad"); question.focus(); return; }
    const found = variants.flatMap((one) => one.documents());
    void rememberQuestion(here, { question: asked(), documents: [...new Set(found)], document });
  };
  question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); if (!go.disabled) void tryAll(); }
  });
  const keep = here.kb.can_edit ? button(t("playground_remember"), () => remember(), { icon: "star" }) : null;
  root.replaceChildren(stack(
    el("p", { class: "soft" }, t("playground_intro")),
    card(null,
      el("label", { class: "field" }, el("span", {}, t("playground_question")), question),
      row(go, stop, el("label", { class: "check playground-check" }, answerToo, el("span", {}, t("playground_answer_too"))), el("span", { class: "push" }), keep, more)),
    place));
  add();
  if (asked()) question.select();
}
