// The indexes of a knowledge base: the one that answers come from, a new one beside it, and the way back.
import { ask, attempt, badge, bar, button, call, card, confirmDeletion, el, empty, get, name, number, path, percent, plain, row, t, when } from "../base.js";

/** @typedef {{documents: number, chunks: number, words: number}} Figures */
/**
 * @typedef {{id: string, state: "live" | "ready" | "building" | "former", embedder: string, dimension: number, chunk_size: number, chunk_overlap: number,
 *   title_enhance: boolean, documents: number, chunks: number, counted: Figures | null, live_then: Figures | null, seconds: number | null,
 *   failed: {name: string, reason: string}[], behind: number, created_at: string, switched_at: string | null, kept_until: string | null,
 *   measured: {set_id: string, name: string, figures: Record<string, number>, at: string}[]}} Index
 */

const EVERY = 2000;
const FIGURES = ["recall@1", "recall@5", "mrr@10", "refused"];

/** @param {HTMLElement} root @param {string} kb @param {() => Promise<void>} changed */
export async function drawIndexes(root, kb, changed) {
  const base = `/kbs${path(kb)}/indexes`;
  let wasBusy = false;
  const show = async () => {
    const found = await get(base);
    if (!root.isConnected) return;
    root.replaceChildren(...drawn(kb, base, found, again));
    const busy = Boolean(found.job);
    if (wasBusy && !busy) await changed();
    wasBusy = busy;
    if (busy) setTimeout(() => { if (root.isConnected) void attempt(show); }, EVERY);
  };
  const again = async () => { await show(); await changed(); };
  await show();
}

/** @param {string} kb @param {string} base @param {any} found @param {() => Promise<void>} again */
function drawn(kb, base, found, again) {
  /** @type {Index[]} */
  const indexes = found.items;
  const ready = indexes.find((one) => one.state === "ready");
  const former = indexes.find((one) => one.state === "former");
  const stopped = found.job ? undefined : indexes.find((one) => one.state === "building");
  const free = found.can_change && !found.job;
  const parts = [];
  if (found.store) parts.push(placed(kb, found, free, again));
  if (found.job) parts.push(working(found, again));
  if (found.failure) parts.push(el("div", { class: "form-error", role: "alert" }, el("p", {}, name(found.failure))));
  if (stopped && free) {
    parts.push(card(t("bases_stopped"), el("p", {}, t("bases_stopped_text")), row(
      button(t("bases_go_on"), () => void attempt(async () => { await call("POST", base, {}); await again(); }), { primary: true, small: true }),
      button(t("bases_discard"), () => discard(base, stopped, again), { small: true }))));
  }
  if (ready) parts.push(waiting(kb, base, ready, free, again));
  if (!indexes.length) parts.push(empty(t("bases_no_index"), t("bases_no_index_text")));
  else parts.push(card(t(indexes.length > 1 ? "bases_compared" : "bases_index_now"), comparison(indexes)));
  if (former) parts.push(wayBack(kb, base, former, free, again));
  if (indexes.length && free && !stopped) parts.push(anew(base, found.needs_reindex, Boolean(ready), again));
  return parts;
}

/** @param {any} found @param {() => Promise<void>} again */
function working(found, again) {
  const { job } = found;
  const known = job.state === "running" && job.total;
  const text = job.note ? plain(job.note) : job.state === "queued" ? t("bases_job_waits") : known ? t("bases_job_done", { done: job.done, total: job.total }) : t("bases_job_begins");
  const stop = button(t("bases_cancel"), () => void attempt(async () => { await call("POST", `/jobs${path(job.id)}/cancel`); await again(); }, t("bases_cancelled")), { small: true });
  return card(t(job.kind === "switch" ? "bases_switching" : job.kind === "move" ? "bases_moving" : "bases_building"), bar(known ? job.done / job.total : 0, text), found.can_change ? row(stop) : null);
}

/** Where the live index is, and where else it could be. @param {string} kb @param {any} found @param {boolean} free @param {() => Promise<void>} again */
function placed(kb, found, free, again) {
  const where = el("p", {}, t("bases_store_is"), " ", el("strong", {}, name(found.store)));
  if (!free) return card(t("bases_store"), where);
  if (!found.stores.length) return card(t("bases_store"), where, el("p", { class: "soft" }, t("bases_store_alone")));
  const chosen = /** @type {HTMLSelectElement} */ (el("select", { "aria-label": t("bases_store_to") }, ...found.stores.map((/** @type {string} */ one) => el("option", { value: one }, one))));
  const go = () => void ask(t("bases_move"), [el("p", {}, t("bases_move_text", { kb, store: chosen.value }))], {
    label: t("bases_move"),
    act: async () => {
      await call("POST", `/kbs${path(kb)}/move`, { store: chosen.value });
      await again();
      return true;
    },
  });
  return card(t("bases_store"), where, row(chosen, button(t("bases_move"), go)));
}

/** @param {string} kb @param {string} base @param {Index} ready @param {boolean} free @param {() => Promise<void>} again */
function waiting(kb, base, ready, free, again) {
  const lines = [el("p", {}, t("bases_ready_text"))];
  const later = ready.behind - ready.failed.length;
  if (later > 0) lines.push(el("p", {}, t("bases_behind", { n: later })));
  if (ready.failed.length) {
    lines.push(el("details", {}, el("summary", {}, t("bases_unreadable", { n: ready.failed.length })),
      el("ul", { class: "bases-failed" }, ...ready.failed.map((one) => el("li", {}, el("strong", {}, name(one.name)), ": ", name(one.reason))))));
  }
  return card(t("bases_ready"), ...lines, free ? row(
    button(t("bases_switch"), () => void change(kb, base, ready, "bases_switch", "bases_switch_text", again), { primary: true }),
    button(t("bases_discard"), () => discard(base, ready, again))) : null);
}

/** @param {string} kb @param {string} base @param {Index} former @param {boolean} free @param {() => Promise<void>} again */
function wayBack(kb, base, former, free, again) {
  return card(t("bases_former"), el("p", {}, t("bases_former_text"), " ", t("bases_kept_until"), " ", when(former.kept_until), "."),
    former.behind ? el("p", {}, t("bases_behind", { n: former.behind })) : null,
    free ? row(button(t("bases_back"), () => void change(kb, base, former, "bases_back", "bases_back_text", again), { icon: "undo" }), button(t("bases_discard"), () => discard(base, former, again))) : null);
}

/** @param {string} base @param {boolean} needed @param {boolean} waits @param {() => Promise<void>} again */
function anew(base, needed, waits, again) {
  const at_once = /** @type {HTMLInputElement} */ (el("input", { type: "checkbox" }));
  return card(t("bases_anew"), el("p", {}, t(needed ? "bases_anew_needed" : "bases_anew_text")), waits ? el("p", { class: "soft" }, t("bases_anew_replaces")) : null,
    el("label", { class: "check" }, at_once, el("span", {}, t("bases_at_once"))),
    row(button(t("bases_build"), () => void attempt(async () => { await call("POST", base, { beside: !at_once.checked }); await again(); }), { primary: needed, icon: "refresh" })));
}

/** @param {string} kb @param {string} base @param {Index} index @param {string} word @param {string} text @param {() => Promise<void>} again */
function change(kb, base, index, word, text, again) {
  const lose = /** @type {HTMLInputElement} */ (el("input", { type: "checkbox" }));
  const risk = el("label", { class: "check", hidden: !index.failed.length || index.state !== "ready" }, lose, el("span", {}, t("bases_give_up", { n: index.failed.length })));
  return ask(t(word), [el("p", {}, t(text, { kb })), risk], {
    label: t(word),
    act: async () => {
      await call("POST", `${base}${path(index.id)}/switch`, { give_up: lose.checked });
      await again();
      return true;
    },
  });
}

/** @param {string} base @param {Index} index @param {() => Promise<void>} again */
function discard(base, index, again) {
  void confirmDeletion(t("bases_discard"), t("bases_discard_text"), t("bases_discard"), async () => { await call("DELETE", `${base}${path(index.id)}`); await again(); });
}

/** One column an index, one line a figure. @param {Index[]} indexes */
function comparison(indexes) {
  /** @type {[string, (one: Index) => Node | string][]} */
  const lines = [
    [t("bases_embedder"), (one) => (one.dimension ? el("span", {}, name(one.embedder), el("span", { class: "bases-about" }, t("bases_dimensions", { n: one.dimension }))) : t("bases_keywords"))],
    [t("bases_chunk_size"), (one) => number(one.chunk_size)],
    [t("bases_chunk_overlap"), (one) => number(one.chunk_overlap)],
    [t("bases_title_enhance"), (one) => t(one.title_enhance ? "yes" : "no")],
    [t("bases_documents"), (one) => number(one.documents)],
    [t("bases_chunks"), (one) => number(one.chunks)],
    [t("bases_words"), (one) => { const held = words(indexes, one); return held === null ? "–" : number(held); }],
    [t("bases_unread"), (one) => (one.counted ? number(one.failed.length) : "–")],
    [t("bases_seconds"), (one) => (one.seconds === null ? "–" : t("bases_seconds_value", { n: one.seconds }))],
    [t("bases_made"), (one) => when(one.created_at)],
  ];
  const sets = new Map(indexes.flatMap((one) => one.measured.map((run) => [run.set_id, run.name])));
  for (const [id, title] of sets) {
    for (const figure of FIGURES) {
      lines.push([`${title}: ${t(`bases_${figure.replace("@", "_")}`)}`, (one) => {
        const value = one.measured.find((run) => run.set_id === id)?.figures[figure];
        return value === undefined ? "–" : percent(value);
      }]);
    }
  }
  /** @type {Record<string, import("../base.js").Tone>} */
  const tones = { live: "good", ready: "warn", building: "busy", former: "" };
  const head = el("tr", {}, el("th", { scope: "col" }, t("bases_what")), ...indexes.map((one) => el("th", { scope: "col" }, badge(t(`bases_index_${one.state}`), tones[one.state]))));
  const body = lines.map(([title, cell]) => el("tr", {}, el("th", { scope: "row" }, name(title)), ...indexes.map((one) => el("td", {}, cell(one)))));
  return el("div", { class: "table-wide", role: "region", tabindex: "0", "aria-label": t("bases_compared") }, el("table", { class: "table bases-compared" }, el("thead", {}, head), el("tbody", {}, ...body)));
}

/** Search words of an index as they were last counted. @param {Index[]} indexes @param {Index} one */
function words(indexes, one) {
  if (one.counted) return one.counted.words;
  const counter = indexes.find((other) => other.live_then && (one.state === "live" || other.state === "live"));
  return counter?.live_then?.words ?? null;
}
