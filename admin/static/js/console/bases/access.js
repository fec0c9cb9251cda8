// Who may ask a knowledge base, and who may change its documents.
import { attempt, badge, button, call, card, confirmDeletion, el, empty, form, get, name, path, t, table, when } from "../base.js";

/** @typedef {{person: string, name: string, right: "ask" | "edit", created_at: string}} Grant */

/** @param {HTMLElement} root @param {string} kb @param {() => Promise<void>} changed */
export async function drawAccess(root, kb, changed) {
  const found = await get(`/kbs${path(kb)}/settings`);
  root.append(visibility(kb, found.values.private, changed), await people(kb));
}

/** @param {string} kb @param {boolean} isPrivate @param {() => Promise<void>} changed */
function visibility(kb, isPrivate, changed) {
  const box = /** @type {HTMLInputElement} */ (el("input", { type: "checkbox", onchange: () => void save() }));
  box.checked = isPrivate;
  const text = el("p", { class: "soft" }, t(isPrivate ? "bases_private_text" : "bases_public_text"));
  const save = async () => {
    const done = await attempt(async () => { await call("PATCH", `/kbs${path(kb)}`, { private: box.checked }); await changed(); return true; }, t("base_saved"));
    if (!done) box.checked = !box.checked;
    text.textContent = t(box.checked ? "bases_private_text" : "bases_public_text");
  };
  return card(t("bases_who"), el("label", { class: "check" }, box, el("span", {}, t("bases_private_label"))), text);
}

/** @param {string} kb */
async function people(kb) {
  const base = `/kbs${path(kb)}/grants`;
  const list = table({
    label: t("bases_let_in"),
    key: (one) => one.person,
    columns: [
      { title: t("person"), cell: (/** @type {Grant} */ one) => who(one) },
      { title: t("bases_right"), cell: (/** @type {Grant} */ one) => badge(t(`bases_right_${one.right}`), one.right === "edit" ? "warn" : "") },
      { title: t("bases_since"), cell: (/** @type {Grant} */ one) => when(one.created_at) },
      { title: "", cell: (/** @type {Grant} */ one) => button(t("bases_take_back"), () => void confirmDeletion(t("bases_take_back"), t("bases_take_back_text", { person: one.name || one.person, kb }), t("bases_take_back"), async () => { await call("DELETE", `${base}${path(one.person)}`); await list.reload(); }), { small: true }) },
    ],
    load: ({ limit, offset }) => get(`${base}?limit=${limit}&offset=${offset}`),
    empty: () => empty(t("bases_nobody"), t("bases_nobody_text")),
  });
  const known = el("datalist", { id: "bases-accounts" });
  const fields = form([
    { name: "person", label: t("bases_whom"), required: true, maxlength: 255, hint: t("bases_whom_hint") },
    { name: "right", label: t("bases_right"), kind: "select", options: [["ask", t("bases_right_ask")], ["edit", t("bases_right_edit")]], hint: t("bases_right_hint") },
  ]);
  fields.input("person")?.setAttribute("list", known.id);
  const add = async () => {
    if (!fields.check()) return;
    const { person, right } = fields.values();
    try {
      await call("PUT", `${base}${path(person.trim())}`, { right });
      fields.set({ person: "" });
      await list.restart();
    } catch (error) {
      fields.showError("person", /** @type {Error} */ (error).message);
    }
  };
  void attempt(async () => {
    for (const one of (await get("/people?limit=200")).items) known.append(el("option", { value: one.name }));
  });
  return el("div", { class: "columns" },
    card(t("bases_let_in"), el("p", { class: "soft small" }, t("bases_let_in_text")), list.node),
    card(t("bases_let_somebody_in"), fields.node, known, el("div", {}, button(t("bases_let_in_go"), () => void add(), { primary: true }))));
}

/** @param {Grant} one */
function who(one) {
  if (one.name) return el("span", {}, name(one.name), el("span", { class: "bases-about" }, t("bases_account")));
  const [platform, workspace, person] = one.person.split(":");
  if (platform === "user") return el("span", { class: "soft" }, t("bases_account_gone"));
  const text = person === "*" ? t("bases_everybody_of", { workspace }) : person;
  return el("span", {}, name(text), el("span", { class: "bases-about" }, name(`${platform} · ${workspace}`)));
}
