// Sources: places that documents come from by themselves. What each is set to, how it stands, and what would come from it.
import { ask, attempt, badge, bar, button, call, card, el, empty, form, get, iconButton, path, plain, query, row, stack, start, t, table, toast, when } from "./base.js";
import { ApiError } from "../api.js";
import { show } from "./show.js";
import { times } from "./times.js";
import { WORDS as TIMES } from "./words/times.js";
import { WORDS } from "./words/sources.js";

const REFRESH = 3000;
/** @type {Record<string, import("./base.js").Tone>} */
const TONES = { new: "", queued: "", running: "busy", cancelling: "warn", done: "good", failed: "bad", cancelled: "warn" };
const LISTS = ["urls", "include", "exclude"];

/** @typedef {{items: {kind: string, problem: string}[], folders: string[]}} Kinds */

void start({
  words: { ...TIMES, ...WORDS },
  async draw(root, me) {
    const [kbs, kinds] = await Promise.all([get("/kbs"), get("/sources/kinds")]);
    const names = kbs.items.map((/** @type {any} */ kb) => kb.name);
    if (!names.length) {
      root.append(empty(t("sources_no_kb"), t("sources_no_kb_text"), el("a", { class: "button primary", href: "/console/bases" }, t("sources_to_bases"))));
      return;
    }
    drawList(root, names, kinds, Boolean(/** @type {any} */ (me).can_manage));
  },
});

/** @param {HTMLElement} root @param {string[]} kbs @param {Kinds} kinds @param {boolean} manages */
function drawList(root, kbs, kinds, manages) {
  const chosen = /** @type {HTMLSelectElement} */ (el("select", { "aria-label": t("sources_kb"), onchange: () => { query.set({ kb: chosen.value }); void list.restart(); } },
    el("option", { value: "" }, t("sources_all_kbs")), ...kbs.map((kb) => el("option", { value: kb }, plain(kb)))));
  chosen.value = kbs.includes(query.get("kb")) ? query.get("kb") : "";
  const add = () => button(t("sources_add"), async () => { await edit(null, { kb: chosen.value, kbs, kinds, manages }); await list.reload(); }, { primary: true, icon: "plus" });
  let busy = false;
  const list = table({
    label: t("sources_label"),
    columns: [
      { title: t("sources_name"), cell: (/** @type {any} */ one) => plain(one.name) },
      { title: t("sources_kind"), cell: (/** @type {any} */ one) => t(`sources_kind_${one.kind}`) },
      { title: t("sources_kb"), cell: (/** @type {any} */ one) => plain(one.kb) },
      { title: t("sources_state"), cell: (/** @type {any} */ one) => standing(one) },
      { title: t("sources_documents"), end: true, cell: (/** @type {any} */ one) => documents(one) },
      { title: t("sources_synced"), cell: (/** @type {any} */ one) => when(one.synced_at) },
      { title: t("sources_next"), cell: (/** @type {any} */ one) => (one.schedule?.enabled ? el("span", {}, when(one.schedule.next_at), el("br"), el("span", { class: "soft small" }, plain(one.schedule.when))) : el("span", { class: "soft" }, t("sources_by_hand"))) },
      { title: "", cell: (/** @type {any} */ one) => actions(one, list.reload) },
    ],
    load: async ({ limit, offset }) => {
      const page = await get(`/sources?limit=${limit}&offset=${offset}${chosen.value ? `&kb=${encodeURIComponent(chosen.value)}` : ""}`);
      busy = page.items.some((/** @type {any} */ one) => one.job_id);
      return page;
    },
    onRow: async (one) => { await edit(one, { kb: one.kb, kbs, kinds, manages }); await list.reload(); },
    empty: () => empty(t("sources_empty"), t("sources_empty_text"), add()),
  });
  root.append(stack(row(chosen, add()), list.node));
  setInterval(() => {
    const held = document.hidden || document.querySelector("dialog") || list.node.contains(document.activeElement);
    if (busy && !held) void list.reload();
  }, REFRESH);
}

/** @param {any} one */
function standing(one) {
  const mark = badge(t(`sources_state_${one.state}`), one.state === "done" && one.reason ? "warn" : TONES[one.state] ?? "");
  const { done, total } = one.progress;
  if (one.job_id && total) return stack(mark, bar(done / total, `${done} / ${total}`));
  return one.reason && !one.job_id ? stack(mark, el("span", { class: "soft small wrap" }, plain(one.reason))) : mark;
}

/** @param {any} one */
function documents(one) {
  if (!one.documents) return String(one.documents);
  return el("a", { href: `/console/library?kb=${encodeURIComponent(one.kb)}&text=${encodeURIComponent(`${one.name}/`)}` }, String(one.documents));
}

/** @param {any} one @param {() => Promise<void>} reload */
function actions(one, reload) {
  const sync = one.job_id
    ? iconButton("stop", t("sources_stop"), async () => { await attempt(() => call("POST", path("jobs", one.job_id, "cancel")), t("sources_stopping")); await reload(); })
    : iconButton("refresh", t("sources_sync"), async () => { await attempt(() => call("POST", path("sources", one.id, "sync")), t("sources_syncing")); await reload(); });
  return row(sync,
    iconButton("clock", t("sources_history"), () => void history(one)),
    iconButton("trash", t("sources_delete"), async () => { await remove(one); await reload(); }));
}

/** @param {any} one */
async function remove(one) {
  const fields = form([{ name: "documents", label: t("sources_delete_documents", { n: one.documents }), kind: "checkbox", value: false, hint: t("sources_delete_documents_hint") }]);
  await ask(t("sources_delete_x", { name: one.name }), [el("p", {}, t("sources_delete_text")), fields.node], {
    label: t("sources_delete"), danger: true,
    act: async () => {
      await call("DELETE", `${path("sources", one.id)}?documents=${fields.values().documents}`);
      toast(t("sources_deleted"));
      return true;
    },
  });
}

/** @param {any} one */
async function history(one) {
  const list = table({
    label: t("sources_history"), pageSize: 10,
    columns: [
      { title: t("sources_run_begun"), cell: (/** @type {any} */ job) => when(job.started_at ?? job.created_at) },
      { title: t("sources_state"), cell: (/** @type {any} */ job) => badge(job.state === "done" ? "✓" : t(`sources_state_${job.state}`), TONES[job.state] ?? "") },
      { title: t("sources_run_outcome"), cell: (/** @type {any} */ job) => outcome(job) },
    ],
    load: ({ limit, offset }) => get(`${path("sources", one.id, "runs")}?limit=${limit}&offset=${offset}`),
    empty: () => el("p", { class: "soft" }, t("sources_run_none")),
  });
  await show(plain(one.name), list.node);
}

/** @param {any} job */
function outcome(job) {
  const { done, total } = job.progress;
  if (job.state === "running" && total) return bar(done / total, `${done} / ${total}`);
  return el("span", { class: "wrap" }, plain(job.error ?? job.result ?? "") || "–");
}

// ---------------------------------------------------------------- one source
/**
 * What is to be set for a source of a kind.
 * @param {string} kind @param {Record<string, any>} settings @param {string[]} folders @param {boolean} hasToken @param {boolean} manages
 * @returns {import("./base.js").Field[]}
 */
function fieldsOf(kind, settings, folders, hasToken, manages) {
  /** @param {string} name @param {string} [hint] @returns {import("./base.js").Field} */
  const lines = (name, hint) => ({ name, label: t(`sources_${name}`), kind: "textarea", rows: name === "urls" ? 4 : 2, value: (settings[name] ?? []).join("\n"), hint, required: name === "urls" });
  /** @param {string} [hint] @returns {import("./base.js").Field} */
  const url = (hint) => ({ name: "url", label: t("sources_url"), kind: "url", value: settings.url, hint, required: true, placeholder: "https://", maxlength: 4096 });
  const patterns = [lines("include", t("sources_include_hint")), lines("exclude", t("sources_exclude_hint"))];
  /** @param {number} value @param {number} max @returns {import("./base.js").Field} */
  const limit = (value, max) => ({ name: "limit", label: t("sources_limit"), kind: "number", min: 1, max, step: 1, value: settings.limit ?? value, required: true });
  switch (kind) {
    case "url": return [lines("urls", t("sources_urls_hint"))];
    case "sitemap": return [url(t("sources_url_sitemap_hint")), ...patterns, limit(500, 100000)];
    case "rss": return [url(t("sources_url_rss_hint")), limit(200, 10000), { name: "full_text", label: t("sources_full_text"), kind: "checkbox", value: settings.full_text, hint: t("sources_full_text_hint") }, { name: "forget", label: t("sources_forget"), kind: "checkbox", value: settings.forget }];
    case "git": return [url(t("sources_url_git_hint")),
      { name: "branch", label: t("sources_branch"), value: settings.branch, hint: t("sources_branch_hint"), maxlength: 200 },
      { name: "folder", label: t("sources_folder"), value: settings.folder, hint: t("sources_folder_hint"), maxlength: 1000 }, ...patterns,
      { name: "username", label: t("sources_username"), value: settings.username, hint: t("sources_username_hint"), maxlength: 200, disabled: !manages },
      { name: "token", label: t("sources_token"), kind: "secret", isSet: hasToken, hint: manages ? t("sources_token_hint") : t("sources_admin_only"), maxlength: 1000, disabled: !manages }];
    default: return [{ name: "path", label: t("sources_path"), value: settings.path ?? folders[0], hint: t("sources_path_hint", { folders: folders.join(", ") }), required: true, maxlength: 4096 }, ...patterns];
  }
}

/** Values of the fields as the API takes them: the settings, and the token where one was typed. @param {Record<string, any>} values */
function told(values) {
  const { token, ...settings } = values;
  for (const name of LISTS) if (name in settings) settings[name] = settings[name].split("\n").map((/** @type {string} */ one) => one.trim()).filter(Boolean);
  return { settings, ...(token ? { token } : {}) };
}

/**
 * @param {any} one null: a new one
 * @param {{kb: string, kbs: string[], kinds: Kinds, manages: boolean}} where
 */
async function edit(one, { kb, kbs, kinds, manages }) {
  const usable = kinds.items.filter((each) => !each.problem);
  const what = el("div", { class: "stack" });
  let kind = one?.kind ?? usable[0].kind;
  let fields = form([]);
  const head = form([
    { name: "name", label: t("sources_name"), value: one?.name, required: true, maxlength: 100, hint: one ? undefined : t("sources_name_hint") },
    { name: "kb", label: t("sources_kb"), kind: "select", options: kbs.map((each) => [each, plain(each)]), value: one?.kb ?? (kb || kbs[0]), disabled: Boolean(one) },
  ]);
  const choices = el("div", { class: "choices", role: "group", "aria-label": t("sources_kind") });
  const drawKind = (/** @type {string} */ wanted) => {
    kind = wanted;
    fields = form(fieldsOf(kind, one?.settings ?? {}, kinds.folders, one?.has_token ?? false, manages));
    found.replaceChildren();
    what.replaceChildren(el("p", { class: "soft small" }, t(`sources_about_${kind}`)), fields.node);
    for (const node of choices.children) node.setAttribute("aria-pressed", String(/** @type {HTMLElement} */ (node).dataset.kind === kind));
  };
  for (const each of kinds.items) {
    choices.append(el("button", { type: "button", class: "choice", "data-kind": each.kind, disabled: Boolean(each.problem), title: each.problem || null, onclick: () => drawKind(each.kind) }, t(`sources_kind_${each.kind}`)));
  }
  const closed = kinds.items.filter((each) => each.problem).map((each) => el("p", { class: "soft small" }, `${t(`sources_kind_${each.kind}`)}: ${plain(each.problem)}`));
  const found = el("div", { class: "stack", role: "status" });
  const look = button(t("sources_try"), async () => {
    if (!fields.check()) return;
    look.disabled = true;
    found.replaceChildren(el("p", { class: "soft" }, t("sources_trying")));
    try {
      const body = told(fields.values());
      const untouched = one && !body.token;
      found.replaceChildren(shown(untouched ? await call("POST", path("sources", one.id, "preview"), { settings: body.settings }) : await call("POST", "/sources/preview", { kb: head.values().kb, kind, ...body })));
    } catch (error) {
      found.replaceChildren();
      if (!beside(fields, error)) found.replaceChildren(el("p", { class: "form-error", role: "alert" }, plain(/** @type {Error} */ (error).message)));
    } finally {
      look.disabled = false;
    }
  }, { icon: "eye", title: t("sources_try_hint") });
  const at = times({ cron: one?.schedule?.enabled ? one.schedule.cron : undefined, timezone: one?.schedule?.timezone, byHand: true });
  const first = form(one ? [] : [{ name: "sync", label: t("sources_sync_first"), kind: "checkbox", value: true }]);
  drawKind(kind);
  await ask(one ? t("sources_edit_x", { name: one.name }) : t("sources_add"), [stack(one ? null : choices, what, ...(one ? [] : closed), row(look, el("span", { class: "soft small" }, t("sources_try_hint"))), found, head.node, at.node, first.node)], {
    label: one ? t("save_changes") : t("sources_create"),
    act: async () => {
      const good = [head.check(), fields.check(), await at.check()];
      if (good.includes(false)) return false;
      try {
        const body = { name: head.values().name, ...told(fields.values()) };
        const made = one ? await call("PATCH", path("sources", one.id), body) : await call("POST", "/sources", { kb: head.values().kb, kind, ...body });
        await plan(made, at.values());
        if (!one && first.values().sync) await call("POST", path("sources", made.id, "sync"));
        toast(t(!one && first.values().sync ? "sources_created" : "base_saved"));
        return true;
      } catch (error) {
        if (beside(fields, error)) return false;
        throw error;
      }
    },
  });
}

/** @param {any} source @param {{cron: string, timezone: string} | null} when */
async function plan(source, when) {
  if (when) await call("PUT", path("sources", source.id, "schedule"), when);
  else if (source.schedule) await call("DELETE", path("sources", source.id, "schedule"));
}

/** Say a refusal beside the field it names, if it names one. @param {ReturnType<typeof form>} fields @param {unknown} error */
function beside(fields, error) {
  if (!(error instanceof ApiError)) return false;
  const [label, ...rest] = error.message.split(/[:：]/);
  const name = Object.keys(fields.values()).find((one) => t(`sources_${one}`) === label.trim());
  if (!name || !rest.length) return false;
  fields.showError(name, error.message.slice(label.length + 1).trim());
  fields.input(name)?.focus();
  return true;
}

/** What would come from a source. @param {any} preview */
function shown(preview) {
  const said = preview.total ? t(preview.is_complete ? "sources_found" : "sources_found_more", { n: preview.total }) : t("sources_found_none");
  const more = preview.total - preview.items.length;
  return card(null,
    el("p", {}, el("strong", {}, said)),
    preview.problem ? el("p", { class: "form-error", role: "alert" }, t("sources_first_fails", { reason: preview.problem })) : null,
    ...preview.notes.map((/** @type {string} */ one) => el("p", { class: "soft small" }, plain(one))),
    el("ul", { class: "found-list small" }, ...preview.items.slice(0, 10).map((/** @type {any} */ one) => el("li", { class: "wrap" }, plain(one.name))), preview.total > 10 ? el("li", { class: "soft" }, t("sources_and_more", { n: Math.max(more, 0) + preview.items.slice(10).length })) : null));
}
