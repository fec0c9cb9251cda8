// Jobs: what waits, runs and failed. Schedules: what is done again and again, and by whom.
import { ask, attempt, badge, bar, button, call, card, confirmDeletion, el, empty, facts, form, get, iconButton, path, plain, query, row, stack, start, t, table, tabs, toast, when } from "./base.js";
import { show } from "./show.js";
import { moment, times } from "./times.js";
import { WORDS as TIMES } from "./words/times.js";
import { WORDS } from "./words/work.js";

const REFRESH = 3000;
const STATES = ["queued", "running", "failed", "done", "cancelled"];
/** @type {Record<string, import("./base.js").Tone>} */
const TONES = { queued: "", running: "busy", cancelling: "warn", done: "good", failed: "bad", cancelled: "warn", gone: "" };

void start({
  words: { ...TIMES, ...WORDS },
  draw(root) {
    root.append(tabs([
      { name: "queue", title: t("work_tab_queue"), draw: drawQueue },
      { name: "schedules", title: t("work_tab_schedules"), draw: drawSchedules },
    ]).node);
  },
});

/** @param {string} state */
export const stateBadge = (state) => badge(t(`work_state_${state}`), TONES[state] ?? "");

// ---------------------------------------------------------------- jobs
/** @param {HTMLElement} part */
function drawQueue(part) {
  const kinds = el("div", { class: "choices", role: "group", "aria-label": t("work_kind") });
  const state = /** @type {HTMLSelectElement} */ (el("select", { "aria-label": t("state"), onchange: () => { query.set({ state: state.value }); void list.restart(); } },
    el("option", { value: "" }, t("work_all_states")), ...STATES.map((one) => el("option", { value: one }, t(`work_state_${one}`)))));
  state.value = STATES.includes(query.get("state")) ? query.get("state") : "";
  let before = "";

  const choose = (/** @type {string} */ kind) => { query.set({ kind }); void refreshKinds(); void list.restart(); };
  const refreshKinds = async () => {
    const counts = (await get("/jobs/counts")).items;
    const active = counts.some((/** @type {any} */ one) => one.queued + one.running);
    const seen = JSON.stringify(counts);
    const moved = active || seen !== before;
    before = seen;
    const chosen = query.get("kind");
    kinds.replaceChildren(choice("", t("work_all_kinds"), "", chosen, choose), ...counts.map((/** @type {any} */ one) => choice(one.kind, one.title, note(one), chosen, choose)));
    return moved;
  };
  const list = table({
    label: t("work_tab_queue"),
    columns: [
      { title: t("work_about"), cell: (/** @type {any} */ job) => plain(job.about) },
      { title: t("work_kind"), cell: (/** @type {any} */ job) => plain(job.title) },
      { title: t("state"), cell: (/** @type {any} */ job) => stateBadge(job.state) },
      { title: t("work_outcome"), cell: (/** @type {any} */ job) => outcome(job) },
      { title: t("work_begun"), cell: (/** @type {any} */ job) => when(job.created_at) },
      { title: "", cell: (/** @type {any} */ job) => actions(job, again) },
    ],
    load: ({ limit, offset }) => get(`/jobs?limit=${limit}&offset=${offset}${given("state", state.value)}${given("kind", query.get("kind"))}`),
    onRow: (job) => void showJob(job),
    empty: () => empty(t("work_empty"), t("work_empty_text")),
  });
  const again = async () => { await Promise.all([list.reload(), refreshKinds()]); };
  part.append(row(kinds, state), list.node);
  void attempt(refreshKinds);
  const timer = setInterval(() => {
    if (!part.isConnected) { clearInterval(timer); return; }
    const held = document.hidden || document.querySelector("dialog") || part.contains(document.activeElement);
    if (!held) void refreshKinds().then((moved) => moved && list.reload()).catch(() => undefined);
  }, REFRESH);
}

/** @param {string} kind @param {string} title @param {string} text @param {string} chosen @param {(kind: string) => void} choose */
function choice(kind, title, text, chosen, choose) {
  return el("button", { type: "button", class: "choice", "aria-pressed": String(kind === chosen), onclick: () => choose(kind) }, plain(title), text ? el("span", { class: "soft small" }, ` ${text}`) : null);
}

/** @param {any} one */
function note(one) {
  const parts = [];
  if (one.queued + one.running) parts.push(t("work_counts", { n: one.queued + one.running }));
  if (one.failed) parts.push(t("work_failed_n", { n: one.failed }));
  return parts.join(", ");
}

/** @param {string} key @param {string} value */
const given = (key, value) => (value ? `&${key}=${encodeURIComponent(value)}` : "");

/** @param {any} job */
export function outcome(job) {
  const { done, total, note: at } = job.progress;
  if (["running", "cancelling"].includes(job.state) && total) return stack(bar(done / total, t("work_of", { done, total })), at ? el("span", { class: "soft small wrap" }, plain(at)) : null);
  const text = job.error ?? (job.result || (total ? t("work_documents", { n: done ?? 0, total }) : ""));
  return text ? el("span", { class: "wrap" }, plain(text)) : "–";
}

/** @param {any} job @param {() => Promise<void>} again */
function actions(job, again) {
  if (["failed", "cancelled"].includes(job.state)) {
    return button(t("work_retry"), async () => { await attempt(() => call("POST", path("jobs", job.id, "retry")), t("work_retried")); await again(); }, { small: true, icon: "refresh" });
  }
  if (!["queued", "running"].includes(job.state)) return "";
  return button(t("work_stop"), async () => {
    await confirmDeletion(t("work_stop_sure"), t("work_stop_text", { about: job.about }), t("work_stop_do"), async () => { await call("POST", path("jobs", job.id, "cancel")); toast(t("work_stopped")); });
    await again();
  }, { small: true, icon: "stop" });
}

/** @param {any} given */
async function showJob(given) {
  const job = (await attempt(() => get(path("jobs", given.id)))) ?? given;
  await show(plain(job.about), facts([
    [t("work_kind"), plain(job.title)],
    [t("state"), stateBadge(job.state)],
    [t("work_outcome"), outcome(job)],
    [t("work_begun"), when(job.created_at)],
    [t("work_started"), when(job.started_at)],
    [t("work_ended"), when(job.finished_at)],
    [t("work_attempts"), String(job.attempts)],
  ]));
}

// ---------------------------------------------------------------- schedules
/** @param {HTMLElement} part */
async function drawSchedules(part) {
  const kinds = await get("/schedules/kinds");
  const add = (/** @type {boolean} */ small) => button(t("work_new"), async () => { await edit(null, kinds.items); await list.reload(); }, { primary: true, icon: "plus", small });
  const list = table({
    label: t("work_tab_schedules"),
    columns: [
      { title: t("name"), cell: (/** @type {any} */ one) => plain(one.name) },
      { title: t("work_kind"), cell: (/** @type {any} */ one) => plain(one.kind_title) },
      { title: t("work_when"), cell: (/** @type {any} */ one) => el("span", {}, plain(one.when), " ", el("span", { class: "soft small" }, plain(one.timezone))) },
      { title: t("work_next"), cell: (/** @type {any} */ one) => (one.enabled && one.next_at ? stack(el("span", {}, moment(one.next_at, one.timezone)), el("span", { class: "soft small" }, when(one.next_at))) : badge(t("work_off"))) },
      { title: t("work_last"), cell: (/** @type {any} */ one) => lastRun(one.last) },
      { title: "", cell: (/** @type {any} */ one) => row(
        iconButton("play", t("work_run_now"), async () => { await attempt(() => call("POST", path("schedules", one.id, "run")), t("work_running_now")); await list.reload(); }),
        iconButton("clock", t("work_history"), () => void history(path("schedules", one.id, "runs"), one.name)),
        iconButton("trash", t("work_delete"), async () => {
          await confirmDeletion(t("work_delete_sure"), t("work_delete_text", { name: one.name }), t("work_delete"), () => call("DELETE", path("schedules", one.id)));
          await list.reload();
        })) },
    ],
    load: ({ limit, offset }) => get(`/schedules?limit=${limit}&offset=${offset}`),
    onRow: async (one) => { await edit(one, kinds.items); await list.reload(); },
    empty: () => empty(t("work_schedules_empty"), t("work_schedules_empty_text"), add(false)),
  });
  part.append(leader(kinds), row(add(false)), list.node);
}

/** @param {any} kinds */
function leader(kinds) {
  const found = kinds.leader;
  if (found?.is_there) return el("p", { class: "soft small" }, t("work_leader", { name: found.name }));
  return card(null, el("p", { role: "status" }, badge("!", "warn"), " ", plain(kinds.notice)), found ? el("p", { class: "soft small" }, t("work_leader_gone", { name: found.name, ago: moment(found.until) })) : null);
}

/** @param {any} run */
function lastRun(run) {
  if (!run) return el("span", { class: "soft" }, t("work_never"));
  return stack(el("span", {}, stateBadge(run.state), " ", when(run.created_at)), run.result ? el("span", { class: "soft small wrap" }, plain(run.result)) : null);
}

/** @param {string} where @param {string} title */
async function history(where, title) {
  const list = table({
    label: t("work_history"), pageSize: 10,
    columns: [
      { title: t("work_due"), cell: (/** @type {any} */ run) => (run.due ? moment(run.due) : t("work_by_hand")) },
      { title: t("state"), cell: (/** @type {any} */ run) => stateBadge(run.state) },
      { title: t("work_outcome"), cell: (/** @type {any} */ run) => el("span", { class: "wrap" }, plain(run.result || "–")) },
      { title: t("work_ended"), cell: (/** @type {any} */ run) => when(run.finished_at) },
    ],
    load: ({ limit, offset }) => get(`${where}?limit=${limit}&offset=${offset}`),
    empty: () => el("p", { class: "soft" }, t("work_never")),
  });
  await show(plain(title), list.node);
}

/** With what was chosen before, also where it is not on offer any more. @param {any} field @param {any} before @returns {[string, string][]} */
function choicesOf(field, before) {
  const offered = field.options.map((/** @type {any} */ each) => [each.id, plain(each.name)]);
  const isThere = before === undefined || offered.some((/** @type {string[]} */ each) => each[0] === before);
  return isThere ? offered : [...offered, [before, plain(before)]];
}

/** @param {any} one null: a new one @param {any[]} kinds */
async function edit(one, kinds) {
  const chosen = form([{ name: "kind", label: t("work_kind"), kind: "select", value: one?.kind ?? kinds[0].kind, options: kinds.map((kind) => [kind.kind, kind.title]), disabled: Boolean(one), onchange: () => drawKind() }]);
  const about = el("p", { class: "soft small" });
  const own = el("div", { class: "stack" });
  const name = form([{ name: "name", label: t("work_name"), value: one?.name ?? "", maxlength: 100, hint: one ? undefined : t("work_name_hint") }]);
  const at = times({ cron: one?.cron, timezone: one?.timezone });
  const on = form([{ name: "enabled", label: t("work_enabled"), kind: "checkbox", value: one?.enabled ?? true }]);
  let target = form([]);
  let settings = form([]);
  const drawKind = () => {
    const kind = kinds.find((each) => each.kind === chosen.values().kind) ?? kinds[0];
    about.textContent = plain(kind.about);
    target = form(kind.needs_target ? [{ name: "target", label: t("work_target"), kind: "select", required: true, value: one?.target, options: kind.targets.map((/** @type {any} */ each) => [each.id, each.kb ? `${plain(each.name)} (${plain(each.kb)})` : plain(each.name)]), hint: kind.targets.length ? undefined : t("work_no_targets") }] : []);
    settings = form(kind.fields.map((/** @type {any} */ field) => ({ name: field.name, options: choicesOf(field, one?.settings[field.name]), label: plain(field.label), kind: field.kind, value: one?.settings[field.name] ?? field.default, min: field.kind === "number" ? field.least : undefined, max: field.kind === "number" ? field.most : undefined, step: 1 })));
    own.replaceChildren(target.node, settings.node);
  };
  drawKind();
  await ask(one ? t("work_edit", { name: one.name }) : t("work_new"), [stack(chosen.node, about, own, name.node, at.node, on.node)], {
    label: one ? t("save_changes") : t("work_create"),
    act: async () => {
      if (!target.check() || !(await at.check())) return false;
      const body = { name: name.values().name, ...at.values(), ...on.values(), ...target.values(), settings: settings.values() };
      if (one) await call("PATCH", path("schedules", one.id), body);
      else await call("POST", "/schedules", { kind: chosen.values().kind, ...body });
      toast(t("base_saved"));
      return true;
    },
  });
}
