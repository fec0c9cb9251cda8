// The dashboard: how much is asked, how well and how fast it is answered, what is missing, and how the parts are.
import { badge, bar, button, card, el, empty, failure, get, icon, language, name, number, percent, plain, stack, start, t, when } from "./base.js";
import { chart } from "./chart.js";
import { selection } from "./selection.js";
import { WORDS } from "./words/dashboard.js";

/**
 * @typedef {{p50: number, p95: number}} Latency
 * @typedef {{questions: number, answered: number, refused: number, failed: number, stopped: number, up: number, down: number, first_token: Latency | null, total: Latency | null, prompt_tokens: number, answer_tokens: number}} Figures
 * @typedef {{step: string, totals: Figures, before: Figures, points: {at: string, figures: Figures}[]}} Overview
 * @typedef {{key: Record<string, string>, name: string, figures: Figures}} Item
 * @typedef {{kind: string, name: string, state: "good" | "busy" | "warn" | "bad" | "off", text: string, last_at: string | null}} Part
 */

const PARTS_EVERY = 30_000;
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
const compact = new Intl.NumberFormat(language === "zh" ? "zh-CN" : "en", { notation: "compact", maximumFractionDigits: 1 });

void start({ words: WORDS, draw });

/** @param {HTMLElement} root */
async function draw(root) {
  const figures = el("section", { class: "stack", "aria-label": t("dashboard_figures") });
  const [curves, breakdown, unanswered] = [stack(), stack(), stack()];
  const [attention, parts] = [el("div"), stack()];
  const again = button(t("refresh"), () => { void refresh(); void look(); }, { small: true, icon: "refresh" });
  const chosen = selection(() => refresh(), { beside: again });
  let asked = 0;

  const refresh = async () => {
    const mine = ++asked;
    const parameters = chosen.parameters();
    const load = async (/** @type {HTMLElement} */ place, /** @type {string} */ path, /** @type {(found: any) => Node[]} */ show) => {
      place.setAttribute("aria-busy", "true");
      try {
        const found = await get(path);
        if (mine === asked) place.replaceChildren(...show(found));
      } catch (error) {
        if (mine === asked) place.replaceChildren(failure(error, refresh));
      } finally {
        if (mine === asked) place.setAttribute("aria-busy", "false");
      }
    };
    const more = new URLSearchParams(parameters);
    more.set("zone", zone);
    await Promise.all([
      load(figures, `/statistics?${more}`, (found) => {
        curves.replaceChildren(...overTime(found));
        return glance(found, chosen.isNarrow());
      }),
      load(breakdown, `/statistics/by?${parameters}`, (found) => by(found, chosen)),
      load(unanswered, `/statistics/unanswered?${parameters}`, missing),
    ]);
  };
  const look = async () => {
    try {
      const found = await get("/statistics/parts");
      parts.replaceChildren(...condition(found.items));
      attention.replaceChildren(...warned(found.items));
    } catch (error) {
      parts.replaceChildren(card(t("dashboard_parts"), failure(error, look)));
    }
  };
  root.replaceChildren(stack(
    chosen.node, attention, figures, curves, breakdown, el("div", { class: "columns" }, unanswered, parts)));
  await Promise.all([chosen.open(), refresh(), look()]);
  setInterval(() => { if (!document.hidden) void look(); }, PARTS_EVERY);
}

// ---------------------------------------------------------------- at a glance
/** @param {Overview} found @param {boolean} isNarrow @returns {Node[]} */
function glance({ totals, before }, isNarrow) {
  if (!totals.questions && !before.questions) {
    if (isNarrow) return [el("p", { class: "soft" }, t("dashboard_nothing"))];
    return [empty(t("dashboard_empty"), t("dashboard_empty_text"), el("a", { class: "button primary", href: "/console/channels" }, t("dashboard_connect")))];
  }
  const share = (/** @type {Figures} */ one, /** @type {"answered" | "refused"} */ which) => (one.questions ? one[which] / one.questions : null);
  const liked = (/** @type {Figures} */ one) => (one.up + one.down ? one.up / (one.up + one.down) : null);
  const cards = [
    figure(t("dashboard_questions"), number(totals.questions), "", amount(totals.questions, before.questions)),
    figure(t("dashboard_answered"), number(totals.answered), ofAll(share(totals, "answered")), points(share(totals, "answered"), share(before, "answered"), true)),
    figure(t("dashboard_refused"), number(totals.refused), ofAll(share(totals, "refused")), points(share(totals, "refused"), share(before, "refused"), false)),
    figure(t("dashboard_rated"), thumbs(totals), liked(totals) === null ? "" : t("dashboard_liked", { share: percent(liked(totals) ?? 0) }), points(liked(totals), liked(before), true)),
    ...speeds(totals, before),
    figure(t("dashboard_tokens"), compact.format(totals.prompt_tokens + totals.answer_tokens), `${t("dashboard_prompt_tokens")} ${compact.format(totals.prompt_tokens)} · ${t("dashboard_answer_tokens")} ${compact.format(totals.answer_tokens)}`, amount(totals.prompt_tokens + totals.answer_tokens, before.prompt_tokens + before.answer_tokens)),
  ];
  if (totals.failed || totals.stopped) cards.push(figure(t("dashboard_failed"), number(totals.failed), totals.stopped ? `${t("dashboard_stopped")}: ${number(totals.stopped)}` : "", amount(totals.failed, before.failed, false)));
  return [el("div", { class: "figures" }, ...cards), el("p", { class: "soft small" }, t("dashboard_before"))];
}

/** @param {Figures} totals @param {Figures} before */
function speeds(totals, before) {
  return /** @type {const} */ (["first_token", "total"]).map((which) => {
    const title = t(which === "total" ? "dashboard_total" : "dashboard_first");
    const now = totals[which];
    if (!now) return figure(title, "–", "", null);
    return figure(title, duration(now.p50), t("dashboard_most", { time: duration(now.p95) }), pace(now.p50, before[which]?.p50));
  });
}

/** @param {Figures} one */
function thumbs(one) {
  const vote = (/** @type {string} */ sign, /** @type {string} */ label, /** @type {number} */ count) => el("span", { role: "img", "aria-label": `${label}: ${number(count)}` }, icon(sign), number(count));
  return el("span", { class: "thumbs" }, vote("thumb-up", t("dashboard_up"), one.up), vote("thumb-down", t("dashboard_down"), one.down));
}

/** @param {string} title @param {Node | string} value @param {string} note @param {Node | null} change */
function figure(title, value, note, change) {
  return el("div", { class: "figure-card" }, el("h2", {}, title), el("span", { class: "figure" }, value), note && el("p", {}, note), change);
}

/** @param {number | null} share */
const ofAll = (share) => (share === null ? "" : t("dashboard_share", { share: percent(share) }));

/** @param {number} now @param {number} before @param {boolean} [more] whether more is better; undefined: neither */
function amount(now, before, more) {
  if (!before) return now ? el("p", {}, t("dashboard_nothing_before")) : null;
  const change = now / before - 1;
  if (Math.abs(change) < 0.005) return el("p", {}, t("dashboard_same"));
  return el("p", { class: more === undefined ? null : more === change > 0 ? "better" : "worse" }, t(change > 0 ? "dashboard_more" : "dashboard_less", { share: percent(Math.abs(change)) }));
}

/** @param {number | null} now @param {number | null} before @param {boolean} more */
function points(now, before, more) {
  if (now === null) return null;
  if (before === null) return el("p", {}, t("dashboard_nothing_before"));
  if (percent(now) === percent(before)) return el("p", {}, t("dashboard_same"));
  return el("p", { class: more === now > before ? "better" : "worse" }, t(now > before ? "dashboard_points_up" : "dashboard_points_down", { share: percent(before) }));
}

/** @param {number} now @param {number | undefined} before */
function pace(now, before) {
  if (!before) return el("p", {}, t("dashboard_nothing_before"));
  const change = now / before - 1;
  if (Math.abs(change) < 0.05) return el("p", {}, t("dashboard_same"));
  return el("p", { class: change < 0 ? "better" : "worse" }, t(change < 0 ? "dashboard_faster" : "dashboard_slower", { share: percent(Math.abs(change)) }));
}

/** @param {number} ms */
function duration(ms) {
  if (ms < 1000) return t("dashboard_ms", { n: Math.round(ms) });
  return t("dashboard_seconds", { n: Math.round(ms / (ms < 10_000 ? 100 : 1000)) / (ms < 10_000 ? 10 : 1) });
}

// ---------------------------------------------------------------- over time
/** @param {Overview} found @returns {Node[]} */
function overTime(found) {
  if (!found.totals.questions) return [];
  const times = found.points.map((point) => new Date(point.at).getTime() / 1000);
  const of = (/** @type {(one: Figures) => number | null} */ read) => found.points.map((point) => read(point.figures));
  const token = (/** @type {number | null} */ value) => compact.format(value ?? 0);
  const time = (/** @type {number | null} */ value) => (value === null ? "–" : duration(value));
  /** @type {Record<string, () => {stacked?: boolean, curves: import("./chart.js").Curve[]}>} */
  const kinds = {
    dashboard_questions: () => ({ stacked: true, curves: [
      { label: t("dashboard_answered"), color: "--chart-1", values: of((one) => one.answered) },
      { label: t("dashboard_refused"), color: "--chart-2", values: of((one) => one.refused) },
      { label: t("dashboard_failed"), color: "--chart-3", values: of((one) => one.failed + one.stopped) },
    ] }),
    dashboard_rated: () => ({ stacked: true, curves: [
      { label: t("dashboard_up"), color: "--chart-1", values: of((one) => one.up) },
      { label: t("dashboard_down"), color: "--chart-3", values: of((one) => one.down) },
    ] }),
    dashboard_latency: () => ({ curves: [
      { label: `${t("dashboard_first")} (50 %)`, color: "--chart-1", values: of((one) => one.first_token?.p50 ?? null), show: time },
      { label: `${t("dashboard_first")} (95 %)`, color: "--chart-4", values: of((one) => one.first_token?.p95 ?? null), show: time },
      { label: `${t("dashboard_total")} (50 %)`, color: "--chart-2", values: of((one) => one.total?.p50 ?? null), show: time },
      { label: `${t("dashboard_total")} (95 %)`, color: "--chart-3", values: of((one) => one.total?.p95 ?? null), show: time },
    ] }),
    dashboard_tokens: () => ({ stacked: true, curves: [
      { label: t("dashboard_prompt_tokens"), color: "--chart-1", values: of((one) => one.prompt_tokens), show: token },
      { label: t("dashboard_answer_tokens"), color: "--chart-2", values: of((one) => one.answer_tokens), show: token },
    ] }),
  };
  const place = el("div");
  const choices = el("div", { class: "choices", role: "group", "aria-label": t("dashboard_curve") });
  const choose = (/** @type {string} */ kind) => {
    overTime.kind = kind;
    choices.replaceChildren(...Object.keys(kinds).map((one) => el("button", { type: "button", class: "choice", "aria-pressed": String(one === kind), onclick: () => choose(one) }, t(one))));
    place.replaceChildren(chart({ title: t(kind), times, step: found.step, ...kinds[kind]() }));
  };
  choose(overTime.kind);
  return [card(t("dashboard_over_time"), choices, place)];
}
overTime.kind = "dashboard_questions";

// ---------------------------------------------------------------- by place, knowledge base and model
/** @param {Record<string, Item[]>} found @param {ReturnType<typeof selection>} chosen @returns {Node[]} */
function by(found, chosen) {
  const kinds = ["platform", "channel", "kb", "model"];
  if (!kinds.some((kind) => found[kind].length)) return [];
  const place = el("div");
  const choices = el("div", { class: "choices", role: "group", "aria-label": t("dashboard_by") });
  const choose = (/** @type {string} */ kind) => {
    by.kind = kind;
    choices.replaceChildren(...kinds.map((one) => el("button", { type: "button", class: "choice", "aria-pressed": String(one === kind), onclick: () => choose(one) }, t(`dashboard_by_${one}`))));
    place.replaceChildren(found[kind].length ? tableOf(kind, found[kind], chosen) : el("p", { class: "soft" }, t("dashboard_none_by")));
  };
  choose(by.kind);
  return [card(t("dashboard_by"), choices, place, el("p", { class: "soft small" }, t("dashboard_by_note")))];
}
by.kind = "platform";

/** @param {string} kind @param {Item[]} items @param {ReturnType<typeof selection>} chosen */
function tableOf(kind, items, chosen) {
  const most = Math.max(...items.map((item) => item.figures.questions), 1);
  const heads = ["dashboard_questions", "dashboard_answered", "dashboard_rated", "dashboard_first", "dashboard_total", "dashboard_tokens"];
  const head = el("tr", {}, el("th", { scope: "col" }, t(`dashboard_by_${kind}`)), ...heads.map((one) => el("th", { scope: "col", class: "end" }, t(one))));
  const rows = items.map((item) => {
    const one = item.figures;
    const latency = (/** @type {Latency | null} */ value) => (value ? `${duration(value.p50)} / ${duration(value.p95)}` : "–");
    const title = kind === "channel" ? [name(item.name), " ", el("span", { class: "soft small" }, plain(item.key.platform))] : [name(item.name)];
    const label = Object.keys(item.key).length ? el("button", { type: "button", class: "link-button row-link", onclick: () => narrow(kind, item.key, chosen) }, ...title) : el("span", {}, ...title);
    return el("tr", {},
      el("th", { scope: "row" }, label),
      el("td", { class: "end" }, bar(one.questions / most, number(one.questions))),
      el("td", { class: "end" }, one.questions ? percent(one.answered / one.questions) : "–"),
      el("td", { class: "end" }, thumbs(one)),
      el("td", { class: "end" }, latency(one.first_token)),
      el("td", { class: "end" }, latency(one.total)),
      el("td", { class: "end" }, compact.format(one.prompt_tokens + one.answer_tokens)));
  });
  return el("div", { class: "table-wide", role: "region", tabindex: "0", "aria-label": t(`dashboard_by_${kind}`) }, el("table", { class: "table" }, el("thead", {}, head), el("tbody", {}, ...rows)));
}

/** @param {string} kind @param {Record<string, string>} key @param {ReturnType<typeof selection>} chosen */
function narrow(kind, key, chosen) {
  if (kind === "channel") chosen.set({ platform: key.platform, channel: JSON.stringify([key.platform, key.workspace, key.channel]) });
  else if (kind === "model") chosen.set({ model: JSON.stringify([key.engine, key.model]) });
  else chosen.set({ [kind]: key[kind], ...(kind === "platform" ? { channel: "" } : {}) });
}

// ---------------------------------------------------------------- what is missing
/** @param {{items: {question: string, count: number, last_at: string, answer_id: string, kbs: string[]}[], total: number}} found @returns {Node[]} */
function missing(found) {
  const title = t("dashboard_unanswered");
  if (!found.total) return [card(title, el("p", { class: "soft" }, t("dashboard_unanswered_none")))];
  const rows = found.items.map((one) => el("li", {},
    el("a", { href: `/console/review?text=${encodeURIComponent(one.question)}` }, name(one.question)),
    badge(t("dashboard_asked", { n: one.count }), one.count > 1 ? "warn" : ""),
    el("span", { class: "soft" }, one.kbs.length ? `${one.kbs.map(plain).join(", ")} · ` : "", `${t("dashboard_last")} `, when(one.last_at))));
  return [card(title, el("p", { class: "soft small" }, t("dashboard_unanswered_some", { n: found.total })), el("ul", { class: "plain-list" }, ...rows),
    el("p", {}, el("a", { href: "/console/review" }, t("dashboard_review"))))];
}

// ---------------------------------------------------------------- how the parts are
/** @param {Part[]} items @returns {Node[]} */
function condition(items) {
  /** @type {Record<string, import("./base.js").Tone>} */
  const tones = { good: "good", busy: "busy", warn: "warn", bad: "bad", off: "" };
  const rows = items.map((part) => el("li", {},
    el("strong", {}, plain(part.name)),
    badge(t(`dashboard_state_${part.state}`), tones[part.state]),
    el("span", { class: "soft" }, plain(part.text), part.last_at ? ` (${t("dashboard_heard")} ` : "", part.last_at ? when(part.last_at) : "", part.last_at ? ")" : "")));
  return [card(t("dashboard_parts"), el("ul", { class: "plain-list" }, ...rows))];
}

/** @param {Part[]} items @returns {Node[]} */
function warned(items) {
  const bad = items.filter((part) => part.state === "bad");
  if (!bad.length) return [];
  return [el("div", { class: "attention", role: "status" }, el("strong", {}, t("dashboard_attention")), el("ul", {}, ...bad.map((part) => el("li", {}, `${plain(part.name)}: ${plain(part.text)}`))))];
}
