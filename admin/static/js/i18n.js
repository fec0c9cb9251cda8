// Words in the person's language, remembered in this browser; and dates, sizes and numbers as they write them.
import { drawIcons, el, plain } from "./dom.js";
import { WORDS } from "./words.js";

/** Add the words of a page. @param {Record<string, [string, string]>} words */
export function addWords(words) {
  Object.assign(WORDS, words);
}

/** @typedef {"en" | "zh"} Language */
const KEY = "kvasir.language";

/** @type {Language} */
export let language = remembered() ?? (spokenBy(served() ?? navigator.language));
if (remembered()) tellServer();

/** The language of a page that the server wrote, or null where it wrote none of the words. */
function served() {
  return document.body?.classList.contains("console") ? document.documentElement.lang : null;
}

/** @param {string} tag @returns {Language} */
function spokenBy(tag) {
  return tag.toLowerCase().startsWith("zh") ? "zh" : "en";
}

/** What was chosen here goes for the words of the server too. */
function tellServer() {
  document.cookie = `kvasir_language=${language}; path=/; max-age=31536000; samesite=lax`;
}

/** @returns {Language | null} */
function remembered() {
  const value = recall(KEY);
  return value === "en" || value === "zh" ? value : null;
}

/** Speak the house's language where nobody has chosen one here. @param {string} code @returns {boolean} whether it changed */
export function adopt(code) {
  if (remembered() || served() || code === language || (code !== "en" && code !== "zh")) return false;
  language = code;
  return true;
}

/** What was kept under `key`, or null where the browser keeps nothing. @param {string} key */
export function recall(key) {
  try { return localStorage.getItem(key); } catch { return null; }
}

/** @param {string} key @param {string} value */
export function keep(key, value) {
  try { localStorage.setItem(key, value); } catch { /* a private window may refuse: then it is forgotten */ }
}

/**
 * The text of `key`, its `{names}` filled in. «one|many» is chosen by `n`.
 * @param {string} key @param {Record<string, string | number>} [values]
 */
export function t(key, values = {}) {
  const pair = WORDS[key];
  if (!pair) return key;
  let text = pair[language === "zh" ? 1 : 0];
  const forms = text.split("|");
  if (forms.length === 2) text = forms[values.n === 1 ? 0 : 1];
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? shown(values[name]) : whole));
}

/** @param {string | number} value */
function shown(value) {
  return typeof value === "number" ? number(value) : plain(value);
}

/** Fill in the words and icons a template asks for, and show the page. @param {ParentNode} [root] */
export function translate(root = document) {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const node of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll("[data-t]"))) node.textContent = t(node.dataset.t ?? "");
  attribute(root, "data-t-label", "aria-label");
  attribute(root, "data-t-placeholder", "placeholder");
  attribute(root, "data-t-title", "title");
  drawIcons(root);
  document.documentElement.toggleAttribute("data-ready", true);
}

/** @param {ParentNode} root @param {string} from @param {string} to */
function attribute(root, from, to) {
  for (const node of root.querySelectorAll(`[${from}]`)) node.setAttribute(to, t(node.getAttribute(from) ?? ""));
}

/** The switch between the languages; the page starts afresh in the other one. */
export function languageSwitch() {
  const choice = (/** @type {Language} */ code, /** @type {string} */ text, /** @type {string} */ lang) =>
    el("button", { type: "button", lang, "aria-pressed": String(language === code), onclick: () => choose(code) }, text);
  return el("div", { class: "languages", role: "group", "aria-label": t("language") }, choice("en", "English", "en"), choice("zh", "中文", "zh-CN"));
}

/** @param {Language} code */
function choose(code) {
  if (code === language) return;
  keep(KEY, code);
  language = code;
  tellServer();
  location.reload();
}

const locale = () => (language === "zh" ? "zh-CN" : "en");

/** @param {string} iso */
export function when(iso) {
  return new Intl.DateTimeFormat(locale(), { dateStyle: "medium", timeStyle: "short" }).format(new Date(iso));
}

/** @param {number} n */
export function number(n) {
  return new Intl.NumberFormat(locale()).format(n);
}

/** @param {number} share 0..1 */
export function percent(share) {
  return new Intl.NumberFormat(locale(), { style: "percent", maximumFractionDigits: 0 }).format(share);
}

/** @param {number} bytes */
export function size(bytes) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte"];
  let step = 0;
  while (bytes >= 1000 && step < 3) { bytes /= 1000; step += 1; }
  return new Intl.NumberFormat(locale(), { style: "unit", unit: units[step], unitDisplay: step ? "short" : "long", maximumFractionDigits: bytes < 10 && step ? 1 : 0 }).format(bytes);
}
