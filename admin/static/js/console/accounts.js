// What the pages «people» and «account» share: roles, rights, logins, keys, and secrets that are shown once.
import { ask, badge, button, call, confirmDeletion, el, icon, name, path, plain, row, stack, t, table, toast, when } from "./base.js";

export const ROLES = ["viewer", "reviewer", "editor", "admin", "owner"];

/** @type {[string, string][]} */
export const roleOptions = () => /** @type {[string, string][]} */ (ROLES.map((role) => [role, t(`people_role_${role}`)]));

/** @param {string} role */
export const roleBadge = (role) => badge(t(`people_${role}`), role === "owner" || role === "admin" ? "warn" : "");

/** Show what is never shown again, with a button to copy it. @param {string} title @param {string} text @param {string} secret */
export function reveal(title, text, secret) {
  const field = /** @type {HTMLInputElement} */ (el("input", { type: "text", readonly: true, value: secret, class: "mono", "aria-label": title, onfocus: () => field.select() }));
  const copy = button(t("people_copy"), async () => {
    field.select();
    await navigator.clipboard?.writeText(secret).catch(() => document.execCommand("copy"));
    toast(t("people_copied"));
  }, { icon: "copy" });
  return ask(title, [el("p", {}, text), el("div", { class: "stack reveal" }, field, row(copy))], { label: t("close"), act: () => true });
}

/**
 * A choice of a right for each knowledge base.
 * @param {string[]} kbs @param {Record<string, string>} rights
 */
export function rightsField(kbs, rights) {
  const selects = kbs.map((kb) => {
    const select = /** @type {HTMLSelectElement} */ (el("select", { "data-kb": kb }, ...["", "ask", "edit"].map((right) => el("option", { value: right }, t(`people_right_${right || "none"}`)))));
    select.value = rights[kb] ?? "";
    return { kb, select };
  });
  const node = el("fieldset", { class: "stack" }, el("legend", {}, t("people_rights")), ...selects.map(({ kb, select }) => el("label", { class: "field" }, el("span", {}, name(kb)), select)));
  return { node, values: () => Object.fromEntries(selects.filter(({ select }) => select.value).map(({ kb, select }) => [kb, select.value])) };
}

/** Browsers that are logged in. @param {string} root API path of the list @param {boolean} withNames */
export function loginsTable(root, withNames) {
  const list = table({
    label: t("people_tab_logins"),
    columns: [
      ...(withNames ? [{ title: t("person"), cell: (/** @type {any} */ one) => name(one.user) }] : []),
      { title: t("people_browser"), cell: (/** @type {any} */ one) => plain(one.user_agent) || "–" },
      { title: t("people_address"), cell: (/** @type {any} */ one) => plain(one.address) || "–" },
      { title: t("people_since"), cell: (/** @type {any} */ one) => when(one.created_at) },
      { title: t("people_seen"), cell: (/** @type {any} */ one) => when(one.seen_at) },
      { title: "", end: true, cell: (/** @type {any} */ one) => button(t("people_end"), () => void end(one), { small: true }) },
    ],
    load: ({ limit, offset }) => call("GET", `${root}?limit=${limit}&offset=${offset}`),
    empty: () => stack(el("p", { class: "soft" }, t("people_no_logins_text"))),
  });
  const end = async (/** @type {any} */ one) => {
    await confirmDeletion(t("people_end_title", { name: one.user }), t("people_end_text"), t("people_end"), () => call("DELETE", root + path(one.id)));
    await list.reload();
  };
  return list;
}

/** API keys. @param {string} root API path of the list @param {boolean} withNames */
export function keysTable(root, withNames) {
  const state = (/** @type {any} */ key) => {
    if (key.revoked_at) return badge(t("people_key_revoked"), "bad");
    if (key.expires_at && new Date(key.expires_at) < new Date()) return badge(t("people_key_expired"), "warn");
    return badge(t("people_active"), "good");
  };
  const list = table({
    label: t("people_tab_keys"),
    columns: [
      { title: t("people_key_name"), cell: (/** @type {any} */ key) => el("span", {}, name(key.name), " ", el("code", {}, `${key.prefix}…`)) },
      ...(withNames ? [{ title: t("people_key_owner"), cell: (/** @type {any} */ key) => name(key.user) }] : []),
      { title: t("people_key_scopes"), cell: (/** @type {any} */ key) => key.scopes.map((/** @type {string} */ scope) => t(`people_scope_${scope}`)).join(", ") },
      { title: t("state"), cell: state },
      { title: t("people_key_used"), cell: (/** @type {any} */ key) => (key.used_at ? when(key.used_at) : t("people_key_never")) },
      { title: "", end: true, cell: (/** @type {any} */ key) => (key.revoked_at ? "" : button(t("people_key_revoke"), () => void revoke(key), { small: true, danger: true })) },
    ],
    load: async ({ limit, offset }) => call("GET", `${root}?limit=${limit}&offset=${offset}`),
    empty: () => stack(el("p", { class: "soft" }, icon("key"), " ", t("people_no_keys"))),
  });
  const revoke = async (/** @type {any} */ key) => {
    await confirmDeletion(t("people_key_revoke_title", { name: key.name }), t("people_key_revoke_text"), t("people_key_revoke"), () => call("DELETE", root + path(key.id)));
    await list.reload();
  };
  return list;
}

