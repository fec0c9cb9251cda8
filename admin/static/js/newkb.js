// The dialog that makes a knowledge base.
import { call } from "./api.js";
import { ask } from "./dialog.js";
import { el } from "./dom.js";
import { t } from "./i18n.js";

/** @returns {Promise<string>} its name; empty where nobody made one */
export async function newKb() {
  const title = el("input", { maxlength: "100", required: true, autocomplete: "off" });
  const description = el("textarea", { rows: "2", maxlength: "1000" });
  const secret = el("input", { type: "checkbox" });
  const size = el("input", { type: "number", min: "32", max: "8192", inputmode: "numeric", placeholder: t("standard") });
  const overlap = el("input", { type: "number", min: "0", max: "4096", inputmode: "numeric", placeholder: t("standard") });
  const enhance = el("input", { type: "checkbox", checked: true });
  let made = "";
  await ask(t("new_kb"), [
    field("name", title),
    field("description", description, "description_hint"),
    tick(secret, "private", "private_hint"),
    el("details", { class: "advanced" }, el("summary", {}, t("advanced")),
      el("div", { class: "fields-row" }, field("chunk_size", size), field("chunk_overlap", overlap)),
      el("p", { class: "field-hint" }, t("chunk_hint")),
      tick(enhance, "title_enhance", "title_enhance_hint")),
  ], {
    label: t("create"),
    act: async () => {
      const name = title.value.trim();
      if (!name) throw new Error(t("name_needed"));
      const body = { name, description: description.value.trim(), private: secret.checked, ...numbers({ chunk_size: size.value, chunk_overlap: overlap.value }) };
      const answer = await call("POST", "/kbs", enhance.checked ? body : { ...body, title_enhance: false });
      made = answer?.name ?? name;
      return true;
    },
  });
  return made;
}

/** Those that were filled in. @param {Record<string, string>} values */
function numbers(values) {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value.trim()).map(([key, value]) => [key, Number(value)]));
}

/** @param {string} key @param {HTMLElement} input @param {string} [hint] */
function field(key, input, hint) {
  return el("label", { class: "field" }, el("span", {}, t(key)), input, hint ? el("span", { class: "field-hint" }, t(hint)) : null);
}

/** @param {HTMLElement} input @param {string} key @param {string} hint */
function tick(input, key, hint) {
  return el("label", { class: "check" }, input, el("span", {}, t(key), el("span", { class: "field-hint" }, t(hint))));
}
