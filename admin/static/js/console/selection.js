// Which answers are looked at: a time, a place, a knowledge base, a model. It stands in the address.
import { el, form, get, query, t } from "./base.js";

const DAY = 86_400_000;
const RANGES = ["1", "7", "30", "90", "own"];

/** @typedef {{platforms: string[], channels: {platform: string, workspace: string, channel: string, name: string}[], kbs: string[], models: {engine: string, model: string}[]}} Choices */

/**
 * The filters of a page; `changed` is called whenever one of them is.
 * @param {() => unknown} changed @param {{usual?: string, beside?: Node | null}} [options] `usual`: the time where the address names none; `beside`: stands at the end of the first line
 */
export function selection(changed, { usual = "30", beside = null } = {}) {
  const state = {
    range: RANGES.includes(query.get("range")) ? query.get("range") : usual,
    since: query.get("since"),
    until: query.get("until"),
    platform: query.get("platform"),
    channel: query.get("channel"),
    kb: query.get("kb"),
    model: query.get("model"),
  };
  const error = el("p", { class: "field-error", role: "alert", hidden: true });
  const ranges = el("div", { class: "choices", role: "group", "aria-label": t("dashboard_period") });
  const dates = form([
    { name: "since", label: t("dashboard_from"), kind: "date", value: state.since || isoDay(Date.now() - 30 * DAY), onchange: () => pickDates() },
    { name: "until", label: t("dashboard_to"), kind: "date", value: state.until || isoDay(Date.now()), onchange: () => pickDates() },
  ]);
  dates.node.classList.add("toolbar", "date-fields");
  const pickers = el("div", { class: "toolbar" });
  const reset = el("button", { type: "button", class: "button small", onclick: () => set({ platform: "", channel: "", kb: "", model: "" }) }, t("dashboard_reset"));
  const node = el("div", { class: "filters" }, el("div", { class: "toolbar" }, ranges, beside && el("div", { class: "push" }, beside)), dates.node, error, pickers);
  /** @type {Choices} */
  let choices = { platforms: [], channels: [], kbs: [], models: [] };

  /** @param {Partial<typeof state>} values */
  const set = (values) => {
    Object.assign(state, values);
    query.set({ ...state, range: state.range === usual ? "" : state.range, since: state.range === "own" ? state.since : "", until: state.range === "own" ? state.until : "", offset: "" });
    draw();
    void changed();
  };
  const pickDates = () => {
    const { since, until } = dates.values();
    const good = since && until && since <= until && new Date(until).getTime() - new Date(since).getTime() < 365 * DAY;
    error.textContent = good ? "" : t("dashboard_dates");
    error.hidden = Boolean(good);
    if (good) set({ range: "own", since, until });
  };
  const draw = () => {
    ranges.replaceChildren(...RANGES.map((one) => el("button", { type: "button", class: "choice", "aria-pressed": String(state.range === one), onclick: () => (one === "own" ? pickDates() : set({ range: one, since: "", until: "" })) }, t(`dashboard_${one}`))));
    dates.node.hidden = state.range !== "own";
    const channels = choices.channels.filter((one) => !state.platform || one.platform === state.platform);
    pickers.replaceChildren(
      picker("platform", t("platform"), choices.platforms.map((one) => [one, one])),
      picker("channel", t("dashboard_channel"), channels.map((one) => [JSON.stringify([one.platform, one.workspace, one.channel]), `${one.name} (${one.platform})`])),
      picker("kb", t("knowledge_base"), choices.kbs.map((one) => [one, one])),
      picker("model", t("dashboard_model"), choices.models.map((one) => [JSON.stringify([one.engine, one.model]), one.model || one.engine])),
      isNarrow() ? reset : "");
  };
  /** @param {"platform" | "channel" | "kb" | "model"} which @param {string} label @param {[string, string][]} options */
  const picker = (which, label, options) => {
    if (state[which] && !options.some(([value]) => value === state[which])) options = [...options, [state[which], title(state[which])]];
    const select = /** @type {HTMLSelectElement} */ (el("select", { onchange: () => set({ [which]: select.value, ...(which === "platform" ? { channel: "" } : {}) }) },
      el("option", { value: "" }, t("dashboard_all")), ...options.map(([value, text]) => el("option", { value }, text))));
    select.value = state[which];
    return el("label", { class: "field" }, el("span", {}, label), select);
  };
  const isNarrow = () => Boolean(state.platform || state.channel || state.kb || state.model);

  /** What the API is asked with. */
  const parameters = () => {
    const now = Date.now();
    const own = state.range === "own" && state.since && state.until;
    const since = own ? new Date(`${state.since}T00:00:00`) : new Date(now - Number(state.range === "own" ? "30" : state.range) * DAY);
    const until = own ? new Date(`${state.until}T00:00:00`) : new Date(now);
    if (own) until.setDate(until.getDate() + 1);
    const found = new URLSearchParams({ since: since.toISOString(), until: until.toISOString() });
    if (state.platform) found.set("platform", state.platform);
    if (state.kb) found.set("kb", state.kb);
    for (const [names, value] of /** @type {[string[], string][]} */ ([[["platform", "workspace", "channel"], state.channel], [["engine", "model"], state.model]])) {
      const parts = listed(value);
      if (parts.length === names.length) names.forEach((name, at) => found.set(name, parts[at]));
    }
    return found;
  };
  /** Read what there is to choose from. */
  const open = async () => {
    draw();
    const bounds = parameters();
    choices = await get(`/statistics/choices?${new URLSearchParams({ since: bounds.get("since") ?? "", until: bounds.get("until") ?? "" })}`);
    draw();
  };
  return { node, open, parameters, set, isNarrow, state };
}

/** @param {string} value @returns {string[]} */
function listed(value) {
  try {
    const found = JSON.parse(value || "[]");
    return Array.isArray(found) ? found.map(String) : [];
  } catch {
    return [];
  }
}

/** What a kept choice is called where nobody knows its name any more. @param {string} value */
function title(value) {
  return listed(value).filter(Boolean).at(-1) ?? value;
}

/** @param {number} time */
function isoDay(time) {
  const at = new Date(time);
  return [at.getFullYear(), String(at.getMonth() + 1).padStart(2, "0"), String(at.getDate()).padStart(2, "0")].join("-");
}
