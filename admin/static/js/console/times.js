// When something is done again and again: chosen in words or as the five fields of cron, with the next times below.
import { el, form, get, stack, t } from "./base.js";
import { language } from "../i18n.js";

const DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const OWN = "own";

/** The time zone of this browser. */
export const HERE = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

/** A time with its day, as people write it. @param {string} iso @param {string} [timezone] */
export function moment(iso, timezone) {
  const options = /** @type {Intl.DateTimeFormatOptions} */ ({ weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hour12: false, timeZone: timezone });
  return new Intl.DateTimeFormat(language === "zh" ? "zh-CN" : "en-GB", options).format(new Date(iso));
}

/** @param {number} day 0: Monday */
function dayName(day) {
  return new Intl.DateTimeFormat(language === "zh" ? "zh-CN" : "en", { weekday: "long", timeZone: "UTC" }).format(new Date(Date.UTC(2024, 0, 1 + day)));
}

/**
 * The fields for it. `rhythms` limits the choice, e.g. to have «by hand» in front.
 * @param {{cron?: string, timezone?: string, byHand?: boolean}} [given] `byHand`: one may choose not to do it at all
 */
export function times(given = {}) {
  const first = recognised(given.cron ?? (given.byHand ? "" : "0 3 * * *"));
  const rhythm = form([{
    name: "every", label: t("times_every"), kind: "select", value: first.every, onchange: () => show(),
    options: [...(given.byHand ? [/** @type {[string, string]} */ (["", t("times_by_hand")])] : []), ["minutes", t("times_minutes")], ["hour", t("times_hour")], ["day", t("times_day")], ["week", t("times_week")], ["month", t("times_month")], [OWN, t("times_own")]],
  }]);
  const week = form([{ name: "weekday", label: t("times_weekday"), kind: "select", value: first.weekday, options: DAYS.map((day, at) => [day, dayName(at)]), onchange: () => look() }]);
  const month = form([{ name: "day", label: t("times_of_month"), kind: "number", min: 1, max: 31, step: 1, value: first.day, onchange: () => look() }]);
  const clock = form([{ name: "at", label: t("times_at"), value: first.at, placeholder: "03:00", maxlength: 5, onchange: () => look() }]);
  const own = form([{ name: "cron", label: t("times_cron"), value: first.cron, placeholder: "0 3 * * mon-fri", maxlength: 100, hint: t("times_cron_hint"), onchange: () => look() }]);
  const zone = form([{ name: "timezone", label: t("times_zone"), kind: "select", value: given.timezone ?? HERE, options: zones(given.timezone), onchange: () => look() }]);
  const next = el("p", { class: "soft small times-next", role: "status" });
  const every = () => rhythm.values().every;

  const cron = () => {
    const [hour, minute] = clock.values().at.split(/[:：]/).map((/** @type {string} */ part) => Number(part));
    const at = Number.isInteger(minute) ? `${minute} ${hour}` : `? ${clock.values().at}`;
    switch (every()) {
      case "": return "";
      case "minutes": return "*/15 * * * *";
      case "hour": return "0 * * * *";
      case "day": return `${at} * * *`;
      case "week": return `${at} * * ${week.values().weekday}`;
      case "month": return `${at} ${month.values().day ?? "?"} * *`;
      default: return own.values().cron.trim();
    }
  };
  const show = () => {
    const which = every();
    week.node.hidden = which !== "week";
    month.node.hidden = which !== "month";
    clock.node.hidden = !["day", "week", "month"].includes(which);
    own.node.hidden = which !== OWN;
    zone.node.hidden = ["", "minutes", "hour"].includes(which);
    look();
  };
  let asked = 0;
  const fault = (/** @type {string} */ text) => {
    clock.showError("at", clock.node.hidden ? "" : text);
    own.showError("cron", own.node.hidden ? "" : text);
    if (clock.node.hidden && own.node.hidden && text) next.textContent = text;
  };
  const look = async () => {
    const mine = ++asked;
    fault("");
    if (!every()) { next.textContent = t("times_by_hand_hint"); return true; }
    try {
      const found = await get(`/schedules/upcoming?cron=${encodeURIComponent(cron())}&timezone=${encodeURIComponent(zone.values().timezone)}`);
      if (mine === asked) next.textContent = t("times_next", { times: found.times.slice(0, 3).map((/** @type {string} */ at) => moment(at, zone.values().timezone)).join(language === "zh" ? "；" : " · ") });
      return true;
    } catch (error) {
      if (mine === asked) { next.textContent = ""; fault(/** @type {Error} */ (error).message); }
      return false;
    }
  };
  for (const each of [clock.input("at"), own.input("cron"), month.input("day")]) each?.addEventListener("input", () => void look());
  show();
  return {
    node: stack(rhythm.node, week.node, month.node, clock.node, own.node, zone.node, next),
    /** @returns {{cron: string, timezone: string} | null} null: by hand */
    values: () => (every() ? { cron: cron(), timezone: zone.values().timezone } : null),
    /** Whether the times can be used; says so beside the field where not. */
    check: look,
  };
}

/** @param {string | undefined} wanted @returns {[string, string][]} */
function zones(wanted) {
  /** @type {string[]} */
  const known = /** @type {any} */ (Intl).supportedValuesOf?.("timeZone") ?? [];
  return [...new Set([HERE, "UTC", ...(wanted ? [wanted] : []), ...known])].map((zone) => [zone, zone.replaceAll("_", " ")]);
}

/** What the five fields mean to the form. @param {string} cron */
function recognised(cron) {
  const found = { every: cron ? OWN : "", weekday: "mon", day: 1, at: "03:00", cron: cron || "0 3 * * *" };
  const [minute, hour, day, month, weekday] = cron.split(" ");
  if (cron === "*/15 * * * *") return { ...found, every: "minutes" };
  if (cron === "0 * * * *") return { ...found, every: "hour" };
  if (!/^\d+$/.test(minute) || !/^\d+$/.test(hour ?? "") || month !== "*") return found;
  found.at = `${hour.padStart(2, "0")}:${minute.padStart(2, "0")}`;
  if (day === "*" && weekday === "*") return { ...found, every: "day" };
  const name = /^[0-7]$/.test(weekday) ? DAYS[(Number(weekday) + 6) % 7] : weekday;
  if (day === "*" && DAYS.includes(name)) return { ...found, every: "week", weekday: name };
  if (/^\d+$/.test(day) && weekday === "*") return { ...found, every: "month", day: Number(day) };
  return found;
}
