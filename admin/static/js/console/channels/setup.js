// The steps to connect a platform, its tokens and options, and what the platform says to them.
import { attempt, badge, button, call, card, confirmDeletion, el, form, path, plain, row, t, toast } from "../base.js";
import { WORDS } from "../words/channels.js";

/** @typedef {import("./connections.js").Connection} Connection */
/** @typedef {import("./connections.js").Option} Option */
/** @typedef {{what: string, ok: boolean, says: string, field: string}} Finding */

const STEPS = { slack: 6, discord: 5, telegram: 5 };
/** Where a step leads. @type {Record<string, string>} */
const LINKS = {
  slack_1: "https://api.slack.com/apps?new_app=1",
  discord_1: "https://discord.com/developers/applications",
  telegram_1: "https://t.me/BotFather",
};
/** Options that everybody needs, by platform; the rest are further options. @type {Record<string, string[]>} */
const FIRST = { slack: ["bot_token", "app_token"], discord: ["token"], telegram: ["token", "allowed"] };
const LINK = /https:\/\/(?:discord\.com|api\.slack\.com)\/[^\s»”]+/u;

/** @param {string} platform @param {string} field @param {string} [end] @param {string} [otherwise] */
function word(platform, field, end = "", otherwise = "") {
  for (const key of [`channels_${platform}_${field}${end}`, `channels_${field}${end}`]) if (key in WORDS) return t(key);
  return otherwise;
}

/** @param {Connection} one @param {string} title @param {() => Promise<void>} redraw after something was saved @returns {HTMLElement[]} */
export function drawSetUp(one, title, redraw) {
  const found = [];
  const steps = guide(one);
  if (steps) found.push(steps);
  if (one.options.length) found.push(options(one, title, redraw));
  return found;
}

/** @param {Connection} one */
function guide(one) {
  const count = /** @type {Record<string, number>} */ (STEPS)[one.platform];
  if (!count) return null;
  const steps = [];
  for (let number = 1; number <= count; number += 1) {
    const link = LINKS[`${one.platform}_${number}`];
    steps.push(el("li", {}, t(`channels_guide_${one.platform}_${number}`),
      link ? el("div", {}, el("a", { href: link, target: "_blank", rel: "noreferrer noopener" }, link)) : null,
      one.has_manifest && number === 2 ? el("div", {}, el("a", { class: "button small", href: `/api/v1/connections${path(one.platform)}/manifest`, download: `kvasir-${one.platform}.json` }, t("channels_manifest"))) : null));
  }
  const install = one.platform === "slack" && one.public_url && one.options.find((option) => option.name === "client_id")?.value;
  if (install) steps.push(el("li", {}, t("channels_install_slack"), " ", el("span", { class: "mono" }, `${one.public_url.replace(/\/$/, "")}/hooks/slack/install`)));
  return el("details", { class: "card", open: one.state === "unset" }, el("summary", {}, t("channels_guide")), el("ol", { class: "channels-steps" }, ...steps));
}

/** @param {Connection} one @param {string} title @param {() => Promise<void>} redraw */
function options(one, title, redraw) {
  const names = FIRST[one.platform] ?? one.options.filter((option) => option.kind === "secret").map((option) => option.name);
  const first = one.options.filter((option) => names.includes(option.name));
  const rest = one.options.filter((option) => !names.includes(option.name));
  const forms = [first, rest].map((some) => form(some.map((option) => fieldOf(one.platform, option))));
  const says = el("div", { role: "status", class: "stack" });
  const more = el("details", { open: rest.some((option) => option.origin === "console") && one.state !== "unset" ? false : null }, el("summary", {}, t("channels_more")), el("div", { class: "channels-more stack" }, forms[1].node, forgettable(one, redraw)));
  const wrong = (/** @type {any} */ error) => {
    const errors = /** @type {{field: string, message: string}[]} */ (error.errors ?? []);
    for (const made of forms) for (const item of errors) made.showError(item.field, item.message);
    if (errors.some((item) => rest.some((option) => option.name === item.field))) /** @type {HTMLDetailsElement} */ (more).open = true;
    const unchecked = errors.length ? button(t("channels_unchecked"), () => void save(true), { small: true }) : null;
    says.replaceChildren(el("div", { class: "form-error", role: "alert" }, el("p", {}, plain(error instanceof Error ? error.message : String(error))), unchecked));
  };
  const busy = async (/** @type {() => Promise<void>} */ act) => {
    for (const made of forms) for (const option of one.options) made.showError(option.name, "");
    for (const node of buttons) node.disabled = true;
    says.replaceChildren(el("p", { class: "soft" }, t("channels_checking", { platform: title })));
    try {
      await act();
    } catch (error) {
      wrong(error);
    } finally {
      for (const node of buttons) node.disabled = false;
    }
  };
  const given = () => changes(one.options, { ...forms[0].values(), ...forms[1].values() });
  const save = (/** @type {boolean} */ unchecked) => busy(async () => {
    const body = given();
    if (!Object.keys(body.values).length && !Object.keys(body.secrets).length) {
      says.replaceChildren(el("p", { class: "soft" }, t("channels_nothing_changed")));
      return;
    }
    const saved = await call("PATCH", `/connections${path(one.platform)}`, { ...body, unchecked });
    toast(t("base_saved"));
    await redraw();
    document.querySelector(".channels-findings")?.remove();
    if (saved.findings.length) document.querySelector(".channels-options")?.append(findings(title, saved.findings));
  });
  const check = () => busy(async () => {
    const found = await call("POST", `/connections${path(one.platform)}/check`, given());
    says.replaceChildren(findings(title, found.items));
  });
  const buttons = [
    button(t("channels_check_save"), () => void save(false), { primary: true, icon: "check" }),
    button(t("channels_check_only"), () => void check(), { icon: "search" }),
  ].map((node) => /** @type {HTMLButtonElement} */ (node));
  const node = el("form", { class: "card channels-options", novalidate: true, onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); void save(false); } },
    el("h2", { class: "card-title" }, t("channels_tokens")), el("p", { class: "soft small" }, t("channels_secrets_note")),
    forms[0].node, rest.length ? more : forgettable(one, redraw), row(...buttons), says);
  return node;
}

/** @param {string} platform @param {Option} option @returns {import("../base.js").Field} */
function fieldOf(platform, option) {
  const fixed = option.origin === "settings";
  const hint = fixed ? t("channels_by_settings", { variable: option.variable }) : word(platform, option.name, "_hint", option.description);
  /** @type {Record<string, any>} */
  const kinds = { secret: "secret", switch: "checkbox", number: "number", list: "tags", text: "text" };
  return {
    name: option.name,
    label: word(platform, option.name, "", option.name),
    kind: kinds[option.kind],
    hint,
    value: option.kind === "secret" ? undefined : option.value,
    isSet: option.kind === "secret" && option.origin !== "",
    disabled: fixed,
    placeholder: option.kind === "text" && option.default ? String(option.default) : undefined,
  };
}

/** What differs from what holds. @param {Option[]} all @param {Record<string, any>} values */
function changes(all, values) {
  /** @type {{values: Record<string, any>, secrets: Record<string, any>}} */
  const found = { values: {}, secrets: {} };
  for (const option of all) {
    const value = values[option.name];
    if (option.origin === "settings" || value === undefined) continue;
    if (option.kind === "secret") {
      if (value) found.secrets[option.name] = value;
    } else if (JSON.stringify(value ?? null) !== JSON.stringify(option.value ?? (option.kind === "text" ? "" : null))) {
      found.values[option.name] = value === "" || (Array.isArray(value) && !value.length) ? null : value;
    }
  }
  return found;
}

/** Secrets that are kept, each with a way to forget it. @param {Connection} one @param {() => Promise<void>} redraw */
function forgettable(one, redraw) {
  const kept = one.options.filter((option) => option.kind === "secret" && option.origin === "console");
  if (!kept.length) return null;
  return row(...kept.map((option) => {
    const field = word(one.platform, option.name, "", option.name);
    return button(t("channels_forget", { field }), () => void confirmDeletion(t("channels_forget_title", { field }), t("channels_forget_text"), t("delete"), async () => {
      await call("PATCH", `/connections${path(one.platform)}`, { secrets: { [option.name]: null }, unchecked: true });
      await attempt(redraw);
    }), { small: true });
  }));
}

/** @param {string} title @param {Finding[]} items */
function findings(title, items) {
  return card(t("channels_found", { platform: title }), el("ul", { class: "channels-findings" }, ...items.map((item) => el("li", {},
    badge(item.ok ? "✓" : "!", item.ok ? "good" : "warn"), " ", el("b", {}, plain(item.what)), ": ", ...linked(item.says)))));
}

/** A sentence of Kvasir's whose link to the platform can be opened. @param {string} text @returns {(Node | string)[]} */
function linked(text) {
  const found = LINK.exec(text);
  if (!found) return [plain(text)];
  const [url] = found;
  return [plain(text.slice(0, found.index)), el("a", { href: url, target: "_blank", rel: "noreferrer noopener" }, plain(url)), plain(text.slice(found.index + url.length))];
}
