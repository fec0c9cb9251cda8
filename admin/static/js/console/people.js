// People: accounts, invitations, logins, keys, and who changed what.
import { ask, badge, button, call, confirmDeletion, el, empty, form, get, name, path, plain, row, stack, start, t, table, tabs, toast, when } from "./base.js";
import { keysTable, loginsTable, reveal, rightsField, roleBadge, roleOptions } from "./accounts.js";
import { WORDS } from "./words/people.js";

/** @type {string[]} */
let kbs = [];

void start({
  words: WORDS,
  async draw(root) {
    kbs = (await get("/kbs")).items.map((/** @type {any} */ kb) => kb.name);
    root.append(tabs([
      { name: "people", title: t("people_tab_people"), draw: drawPeople },
      { name: "invitations", title: t("people_tab_invitations"), draw: drawInvitations },
      { name: "logins", title: t("people_tab_logins"), draw: (part) => { part.append(loginsTable("/logins", true).node); } },
      { name: "keys", title: t("people_tab_keys"), draw: (part) => { part.append(keysTable("/keys", true).node); } },
      { name: "audit", title: t("people_tab_audit"), draw: drawAudit },
    ]).node);
  },
});

/** Role, reach and rights, as accounts and invitations have them. @param {any} one */
function reach(one) {
  const fields = form([
    { name: "role", label: t("people_role"), kind: "select", options: roleOptions(), value: one.role ?? "viewer" },
    { name: "everywhere", label: t("people_everywhere"), kind: "checkbox", hint: t("people_everywhere_hint"), value: one.everywhere ?? true, onchange: () => show() },
  ]);
  const rights = rightsField(kbs, one.rights ?? {});
  const show = () => { rights.node.hidden = fields.values().everywhere || !kbs.length; };
  show();
  return { node: stack(fields.node, rights.node), values: () => ({ ...fields.values(), rights: fields.values().everywhere ? {} : rights.values() }) };
}

/** @param {HTMLElement} part */
function drawPeople(part) {
  const search = /** @type {HTMLInputElement} */ (el("input", { type: "search", placeholder: t("people_search"), "aria-label": t("people_search"), maxlength: 100, oninput: () => void list.restart() }));
  const list = table({
    label: t("people_tab_people"),
    key: (one) => one.name,
    columns: [
      { title: t("name"), cell: (/** @type {any} */ one) => name(one.name) },
      { title: t("people_role"), cell: (/** @type {any} */ one) => roleBadge(one.role) },
      { title: t("people_where"), cell: (/** @type {any} */ one) => where(one) },
      { title: t("state"), cell: (/** @type {any} */ one) => el("span", {}, badge(t(one.disabled ? "people_disabled" : "people_active"), one.disabled ? "bad" : "good"), one.by_provider ? " " : "", one.by_provider ? badge(t("people_by_provider")) : "") },
      { title: t("people_seen"), cell: (/** @type {any} */ one) => when(one.seen_at) },
    ],
    load: ({ limit, offset }) => get(`/people?limit=${limit}&offset=${offset}&text=${encodeURIComponent(search.value)}`),
    onRow: (one) => void edit(one, list.reload),
  });
  const add = button(t("people_new"), async () => {
    const who = form([
      { name: "name", label: t("people_name"), required: true, maxlength: 100 },
      { name: "password", label: t("people_password"), kind: "secret", hint: t("people_password_hint"), required: true },
    ]);
    const what = reach({});
    await ask(t("people_new"), [who.node, what.node], {
      label: t("create"),
      act: async () => {
        if (!who.check()) return false;
        await call("POST", "/people", { ...who.values(), ...what.values() });
        toast(t("base_saved"));
        return true;
      },
    });
    await list.reload();
  }, { primary: true, icon: "plus" });
  part.append(row(search, add), list.node);
}

/** @param {any} one */
function where(one) {
  if (one.everywhere || ["admin", "owner"].includes(one.role)) return t("people_everywhere");
  const names = Object.keys(one.rights);
  return names.length ? el("span", { title: names.map(plain).join(", ") }, t("people_some", { n: names.length })) : t("people_only_public");
}

/** @param {any} one @param {() => Promise<void>} reload */
async function edit(one, reload) {
  const what = reach(one);
  const secret = form([{ name: "password", label: t("people_new_password"), kind: "secret", hint: t("people_new_password_hint") }]);
  const act = (/** @type {string} */ text, /** @type {() => Promise<void>} */ work, danger = false) => button(text, async () => { /** @type {HTMLDialogElement | null} */ (document.querySelector("dialog[open]"))?.close(); await work(); await reload(); }, { danger });
  const disable = one.disabled
    ? act(t("people_enable"), async () => { await call("PATCH", `/people${path(one.name)}`, { disabled: false }); })
    : act(t("people_disable"), () => confirmDeletion(t("people_disable_title", { name: one.name }), t("people_disable_text"), t("people_disable"), () => call("PATCH", `/people${path(one.name)}`, { disabled: true })).then(() => undefined));
  const remove = act(t("delete"), () => confirmDeletion(t("people_delete_title", { name: one.name }), t("people_delete_text", { logins: one.logins, keys: one.keys }), t("delete"), () => call("DELETE", `/people${path(one.name)}`)).then(() => undefined), true);
  await ask(t("people_edit_title", { name: plain(one.name) }), [what.node, secret.node, row(disable, remove)], {
    label: t("save"),
    act: async () => {
      const password = secret.values().password;
      await call("PATCH", `/people${path(one.name)}`, { ...what.values(), ...(password ? { password } : {}) });
      toast(t("base_saved"));
      return true;
    },
  });
  await reload();
}

/** @param {HTMLElement} part */
function drawInvitations(part) {
  const invite = () => button(t("people_invite"), async () => {
    const note = form([{ name: "note", label: t("people_note"), hint: t("people_note_hint"), maxlength: 200 }]);
    const what = reach({});
    /** @type {any} */
    let made = null;
    await ask(t("people_invite"), [what.node, note.node], {
      label: t("people_invite"),
      act: async () => { made = await call("POST", "/invitations", { ...what.values(), ...note.values() }); return true; },
    });
    if (made) {
      const until = new Date(made.invitation.expires_at).toLocaleString();
      await reveal(t("people_link_title"), t("people_link_text", { until }), `${location.origin}/setup?invitation=${made.token}`);
    }
    await list.reload();
  }, { primary: true, icon: "plus" });
  const list = table({
    label: t("people_tab_invitations"),
    columns: [
      { title: t("people_role"), cell: (/** @type {any} */ one) => roleBadge(one.role) },
      { title: t("people_where"), cell: (/** @type {any} */ one) => where(one) },
      { title: t("people_note"), cell: (/** @type {any} */ one) => name(one.note || "–") },
      { title: t("people_by"), cell: (/** @type {any} */ one) => name(one.created_by) },
      { title: t("people_until"), cell: (/** @type {any} */ one) => when(one.expires_at) },
      { title: "", end: true, cell: (/** @type {any} */ one) => button(t("people_withdraw"), () => void withdraw(one), { small: true }) },
    ],
    load: () => get("/invitations"),
    empty: () => empty(t("people_none"), t("people_none_text"), invite()),
  });
  const withdraw = async (/** @type {any} */ one) => {
    await confirmDeletion(t("people_withdraw_title"), t("people_withdraw_text"), t("people_withdraw"), () => call("DELETE", `/invitations${path(one.id)}`));
    await list.reload();
  };
  part.append(row(invite()), list.node);
}

/** @param {HTMLElement} part */
function drawAudit(part) {
  const search = /** @type {HTMLInputElement} */ (el("input", { type: "search", placeholder: t("people_audit_search"), "aria-label": t("people_audit_search"), maxlength: 100, oninput: () => void list.restart() }));
  const list = table({
    label: t("people_tab_audit"),
    columns: [
      { title: t("time"), cell: (/** @type {any} */ one) => when(one.created_at) },
      { title: t("people_audit_who"), cell: (/** @type {any} */ one) => name(one.name || one.person) },
      { title: t("people_audit_what"), cell: (/** @type {any} */ one) => el("code", {}, plain(one.action)) },
      { title: t("people_audit_object"), cell: (/** @type {any} */ one) => name(one.object || "–") },
      { title: t("people_audit_changes"), cell: (/** @type {any} */ one) => values(one.changes) },
      { title: t("people_address"), cell: (/** @type {any} */ one) => plain(one.address) || "–" },
    ],
    load: ({ limit, offset }) => get(`/audit?limit=${limit}&offset=${offset}&text=${encodeURIComponent(search.value)}`),
    empty: () => empty(t("people_audit_none"), t("people_audit_none_text")),
  });
  part.append(row(search), list.node);
}

/** @param {Record<string, unknown>} changes */
function values(changes) {
  const keys = Object.keys(changes);
  if (!keys.length) return "–";
  return el("details", {}, el("summary", {}, keys.map(plain).join(", ")), el("pre", {}, plain(JSON.stringify(changes, null, 1))));
}

