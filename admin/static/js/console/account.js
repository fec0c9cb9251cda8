// One's own account: password, logins, API keys.
import { ask, attempt, button, call, card, el, facts, form, name, row, stack, start, t, toast } from "./base.js";
import { keysTable, loginsTable, reveal, roleBadge } from "./accounts.js";
import { WORDS } from "./words/people.js";

const SCOPES = ["ask", "read", "write", "admin"];

void start({
  words: WORDS,
  draw(root, me) {
    const logins = loginsTable("/me/logins", false);
    const others = button(t("account_end_others"), async () => { await attempt(() => call("DELETE", "/me/logins"), t("base_saved")); await logins.reload(); });
    const keys = keysTable("/me/keys", false);
    root.append(stack(
      el("div", { class: "columns" }, card(t("account_me"), facts([[t("name"), name(me.name)], [t("people_role"), roleBadge(me.role)]])), passwordCard(logins.reload)),
      card(t("account_keys"), el("p", { class: "soft" }, t("account_keys_text")), row(button(t("account_new_key"), () => void newKey(keys.reload), { primary: true, icon: "plus" })), keys.node),
      card(t("account_logins"), row(others), logins.node)));
  },
});

/** @param {() => Promise<void>} changed */
function passwordCard(changed) {
  const fields = form([
    { name: "old_password", label: t("account_old"), kind: "secret", required: true },
    { name: "new_password", label: t("account_new"), kind: "secret", required: true, hint: t("account_password_hint") },
    { name: "again", label: t("account_again"), kind: "secret", required: true },
  ]);
  fields.input("old_password")?.setAttribute("autocomplete", "current-password");
  const save = async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!fields.check()) return;
    const { old_password, new_password, again } = fields.values();
    if (new_password !== again) { fields.showError("again", t("account_differ")); return; }
    try {
      await call("PUT", "/me/password", { old_password, new_password });
      fields.set({ old_password: "", new_password: "", again: "" });
      toast(t("account_changed"));
      await changed();
    } catch (error) {
      fields.showError("old_password", /** @type {Error} */ (error).message);
    }
  };
  return card(t("account_password"), el("form", { class: "stack", novalidate: true, onsubmit: save }, fields.node, row(el("button", { type: "submit", class: "button primary" }, t("account_password")))));
}

/** @param {() => Promise<void>} made */
async function newKey(made) {
  const fields = form([
    { name: "name", label: t("people_key_name"), required: true, maxlength: 100, hint: t("account_key_hint") },
    ...SCOPES.map((scope) => ({ name: scope, label: t(`account_scope_${scope}`), kind: /** @type {const} */ ("checkbox"), value: scope === "ask" })),
    { name: "expires_at", label: t("account_key_until"), kind: "date", hint: t("account_key_until_hint") },
  ]);
  /** @type {any} */
  let created = null;
  await ask(t("account_new_key"), [fields.node], {
    label: t("create"),
    act: async () => {
      if (!fields.check()) return false;
      const values = fields.values();
      const scopes = SCOPES.filter((scope) => values[scope]);
      created = await call("POST", "/me/keys", { name: values.name, scopes, expires_at: values.expires_at ? `${values.expires_at}T23:59:59Z` : null });
      return true;
    },
  });
  if (created) await reveal(t("account_key_title"), t("account_key_text"), created.token);
  await made();
}
