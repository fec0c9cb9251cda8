// What the pages of the console are built of: the frame, cards, tables that are read a page at a time, forms, tabs.
import { address, call, get, path, stream, upload } from "../api.js";
import { ask, confirmDeletion } from "../dialog.js";
import { announce, byId, el, icon, iconButton, name, plain, toast } from "../dom.js";
import { addWords, language, number, percent, size as bytes, t, translate } from "../i18n.js";
import { broken, openShell } from "../shell.js";
import { WORDS } from "./words/base.js";

export { address, announce, ask, broken, byId, bytes, call, confirmDeletion, el, get, icon, iconButton, language, name, number, path, percent, plain, stream, t, toast, upload };

/** @typedef {import("../shell.js").Me} Me */
/** @typedef {"" | "good" | "bad" | "warn" | "busy"} Tone */

/**
 * Begin a page: its words, its frame, and what it draws. An error while drawing is shown with a way to try again.
 * @param {{words?: Record<string, [string, string]>, draw: (root: HTMLElement, me: Me) => unknown}} page
 */
export async function start({ words = {}, draw }) {
  addWords(WORDS);
  addWords(words);
  try {
    const me = await openShell("console");
    await draw(byId("page"), me);
    translate();
  } catch (error) {
    broken(error);
  }
}

/** Do something that the API may refuse; its sentence is shown. @template T @param {() => Promise<T>} act @param {string} [done] said when it is done @returns {Promise<T | undefined>} */
export async function attempt(act, done) {
  try {
    const result = await act();
    if (done) toast(done);
    return result;
  } catch (error) {
    toast(error instanceof Error ? error.message : String(error), "bad");
    return undefined;
  }
}

// ---------------------------------------------------------------- pieces
/** A framed part of a page. @param {string | Node | null} title @param {...(Node | string | null | undefined | false)} children */
export function card(title, ...children) {
  const heading = typeof title === "string" ? el("h2", { class: "card-title" }, title) : title;
  return el("section", { class: "card" }, heading, ...children);
}

/** @param {...(Node | string | null | undefined | false)} children */
export const row = (...children) => el("div", { class: "toolbar" }, ...children);
/** @param {...(Node | string | null | undefined | false)} children */
export const stack = (...children) => el("div", { class: "stack" }, ...children);

/** @param {string} text @param {(event: MouseEvent) => void} onclick @param {{primary?: boolean, danger?: boolean, small?: boolean, icon?: string, disabled?: boolean, title?: string}} [look] */
export function button(text, onclick, look = {}) {
  const kinds = ["button", look.primary && "primary", look.danger && "danger", look.small && "small"].filter(Boolean).join(" ");
  return el("button", { type: "button", class: kinds, onclick, disabled: look.disabled, title: look.title }, look.icon ? icon(look.icon) : null, text);
}

/** A short state in a colour that means something; the word says it too. @param {string} text @param {Tone} [tone] */
export function badge(text, tone = "") {
  return el("span", { class: `badge ${tone}` }, plain(text));
}

/** A horizontal bar. @param {number | null | undefined} share 0..1 @param {string} label what it shows, for everybody @param {string} [kind] class for its colour */
export function bar(share, label, kind = "") {
  const value = Math.max(0, Math.min(1, share ?? 0));
  const meter = el("meter", { class: `bar-meter ${kind}`, min: "0", max: "1", value: String(value), "aria-label": label });
  return el("span", { class: "bar-row" }, meter, el("span", { class: "bar-value" }, share === null || share === undefined ? "–" : label));
}

/** What stands where there is nothing yet: what it is good for, and the first step. @param {string} title @param {string} text @param {Node | null} [action] */
export function empty(title, text, action = null) {
  return el("div", { class: "empty" }, el("h2", {}, title), el("p", {}, text), action);
}

/** A time ago; the exact one on hover and for screen readers. @param {string | null | undefined} iso */
export function when(iso) {
  if (!iso) return el("span", { class: "soft" }, "–");
  const date = new Date(iso);
  const exact = new Intl.DateTimeFormat(language === "zh" ? "zh-CN" : "en", { dateStyle: "medium", timeStyle: "medium" }).format(date);
  return el("time", { datetime: iso, title: exact }, ago(date));
}

/** @param {Date} date */
function ago(date) {
  const seconds = (date.getTime() - Date.now()) / 1000;
  const format = new Intl.RelativeTimeFormat(language === "zh" ? "zh-CN" : "en", { numeric: "auto" });
  /** @type {[Intl.RelativeTimeFormatUnit, number][]} */
  const units = [["year", 31557600], ["month", 2629800], ["day", 86400], ["hour", 3600], ["minute", 60]];
  for (const [unit, length] of units) if (Math.abs(seconds) >= length) return format.format(Math.round(seconds / length), unit);
  return format.format(Math.round(seconds), "second");
}

/** Terms with their values. @param {[string, Node | string | null | undefined][]} pairs */
export function facts(pairs) {
  return el("dl", { class: "facts" }, ...pairs.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value ?? "–"))));
}

// ---------------------------------------------------------------- what the address says
/** The page's state in its address, so that it can be linked to and the way back works. */
export const query = {
  /** @param {string} key */
  get: (key) => new URLSearchParams(location.search).get(key) ?? "",
  /** Set some; empty ones go. @param {Record<string, string | number | null | undefined>} values @param {boolean} [push] a step that the way back undoes */
  set(values, push = false) {
    const all = new URLSearchParams(location.search);
    for (const [key, value] of Object.entries(values)) {
      if (value === null || value === undefined || value === "") all.delete(key);
      else all.set(key, String(value));
    }
    const text = all.toString();
    history[push ? "pushState" : "replaceState"](null, "", location.pathname + (text ? `?${text}` : "") + location.hash);
  },
};

/**
 * Parts of a page of which one is seen; which one stands in the address under `key`.
 * @param {{name: string, title: string, draw: (root: HTMLElement) => unknown}[]} parts @param {string} [key]
 */
export function tabs(parts, key = "tab") {
  const body = el("div", { class: "stack" });
  const list = el("div", { class: "tabs", role: "tablist" });
  const choose = async (/** @type {string} */ wanted, focus = false) => {
    const part = parts.find((one) => one.name === wanted) ?? parts[0];
    for (const node of list.children) {
      const chosen = /** @type {HTMLElement} */ (node).dataset.name === part.name;
      node.setAttribute("aria-selected", String(chosen));
      node.setAttribute("tabindex", chosen ? "0" : "-1");
      if (chosen && focus) /** @type {HTMLElement} */ (node).focus();
      if (chosen) requestAnimationFrame(() => node.scrollIntoView({ block: "nearest", inline: "nearest" }));
    }
    query.set({ [key]: part === parts[0] ? "" : part.name });
    body.setAttribute("aria-label", part.title);
    const fresh = el("div", { class: "stack" });
    body.replaceChildren(fresh);
    try {
      await part.draw(fresh);
    } catch (error) {
      fresh.replaceChildren(failure(error, () => choose(part.name)));
    }
  };
  body.setAttribute("role", "tabpanel");
  for (const part of parts) list.append(el("button", { type: "button", role: "tab", class: "tab", "data-name": part.name, onclick: () => choose(part.name) }, part.title));
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[/** @type {KeyboardEvent} */ (event).key];
    if (!step) return;
    const at = parts.findIndex((part) => part.name === (query.get(key) || parts[0].name));
    void choose(parts[(at + step + parts.length) % parts.length].name, true);
  });
  void choose(query.get(key));
  return { node: el("div", { class: "stack" }, list, body), choose };
}

/** What went wrong, with a way to try again. @param {unknown} error @param {() => unknown} again */
export function failure(error, again) {
  const text = error instanceof Error ? error.message : String(error);
  return el("div", { class: "form-error", role: "alert" }, el("p", {}, plain(text)), button(t("try_again"), () => void again(), { small: true }));
}

// ---------------------------------------------------------------- tables
/**
 * @template T
 * @typedef {{title: string, cell: (item: T) => Node | string | null | undefined, sort?: string, end?: boolean}} Column `sort`: what the API calls the order by it; `end`: numbers
 */

/**
 * A table that is read a page at a time. `load` gets limit, offset and sort and gives the API's page.
 * @template T
 * @param {{label: string, columns: Column<T>[], load: (page: {limit: number, offset: number, sort: string}) => Promise<{items: T[], total: number}>,
 *   key?: (item: T) => string, empty?: () => Node, pageSize?: number, sort?: string, onRow?: (item: T) => void,
 *   select?: (chosen: T[]) => (Node | null)[]}} options `select`: rows can be ticked; gives the buttons for those ticked
 */
export function table(options) {
  const limit = options.pageSize ?? 25;
  let offset = Number(query.get("offset")) || 0;
  let sort = options.sort ?? "";
  /** @type {T[]} */
  let items = [];
  /** @type {Set<string>} */
  const ticked = new Set();
  const key = options.key ?? ((item) => String(/** @type {any} */ (item).id));
  const node = el("div", { class: "stack", "aria-busy": "true" });
  const actions = el("div", { class: "toolbar chosen-actions", hidden: true });
  let asked = 0;

  const chosen = () => items.filter((item) => ticked.has(key(item)));
  const showActions = () => {
    const some = chosen();
    actions.hidden = !some.length;
    if (some.length && options.select) actions.replaceChildren(el("span", {}, t("base_chosen", { n: some.length })), ...options.select(some).filter((one) => one !== null));
  };
  const head = () => el("tr", {},
    options.select && el("th", { scope: "col", class: "tick" }, tick(t("base_all"), items.length > 0 && chosen().length === items.length, (on) => { for (const item of items) { if (on) ticked.add(key(item)); else ticked.delete(key(item)); } draw(); })),
    ...options.columns.map((column) => el("th", { scope: "col", class: column.end ? "end" : null, "aria-sort": sorted(column) }, column.sort ? el("button", { type: "button", class: "link-button", onclick: () => order(column) }, column.title) : column.title)));
  /** @param {Column<T>} column */
  const sorted = (column) => (column.sort && sort === column.sort ? "ascending" : column.sort && sort === `-${column.sort}` ? "descending" : null);
  /** @param {Column<T>} column */
  const order = (column) => { sort = sort === column.sort ? `-${column.sort}` : column.sort ?? ""; offset = 0; void reload(); };
  /** @param {T} item */
  const line = (item) => {
    const open = options.onRow;
    const cells = options.columns.map((column, at) => {
      const content = column.cell(item) ?? "–";
      const linked = open && at === 0 ? el("button", { type: "button", class: "link-button row-link", onclick: () => open(item) }, content) : content;
      return el("td", { class: column.end ? "end" : null }, linked);
    });
    const box = options.select && el("td", { class: "tick" }, tick(t("base_choose"), ticked.has(key(item)), (on) => { if (on) ticked.add(key(item)); else ticked.delete(key(item)); draw(); }));
    return el("tr", {}, box, ...cells);
  };
  let total = 0;
  const draw = () => {
    if (!total) {
      node.replaceChildren(options.empty ? options.empty() : el("p", { class: "soft" }, t("nothing_found")));
      return;
    }
    const last = Math.min(offset + items.length, total);
    const pager = el("nav", { class: "pager", "aria-label": t("base_pages") },
      el("span", {}, t("base_range", { from: offset + 1, to: last, total })),
      button(t("base_previous"), () => { offset = Math.max(0, offset - limit); void reload(); }, { small: true, disabled: offset === 0 }),
      button(t("base_next"), () => { offset += limit; void reload(); }, { small: true, disabled: last >= total }));
    node.replaceChildren(actions,
      el("div", { class: "table-wide", role: "region", tabindex: "0", "aria-label": options.label }, el("table", { class: "table" }, el("thead", {}, head()), el("tbody", {}, ...items.map(line)))),
      total > limit ? pager : el("p", { class: "soft small" }, t("base_count", { n: total })));
    showActions();
  };
  const reload = async () => {
    const mine = ++asked;
    node.setAttribute("aria-busy", "true");
    try {
      const page = await options.load({ limit, offset, sort });
      if (mine !== asked) return;
      items = page.items;
      total = page.total;
      if (!items.length && offset) { offset = 0; await reload(); return; }
      query.set({ offset: offset || "" });
      draw();
    } catch (error) {
      if (mine === asked) node.replaceChildren(failure(error, reload));
    } finally {
      if (mine === asked) node.setAttribute("aria-busy", "false");
    }
  };
  void reload();
  return { node, reload, chosen, /** From the first page on, e.g. after a filter changed. */ restart: () => { offset = 0; ticked.clear(); return reload(); } };
}

/** @param {string} label @param {boolean} on @param {(on: boolean) => void} changed */
function tick(label, on, changed) {
  const box = /** @type {HTMLInputElement} */ (el("input", { type: "checkbox", "aria-label": label, onchange: () => changed(box.checked) }));
  box.checked = on;
  return box;
}

// ---------------------------------------------------------------- forms
/**
 * @typedef {{name: string, label: string, kind?: "text" | "textarea" | "number" | "checkbox" | "select" | "secret" | "tags" | "url" | "date", hint?: string, value?: any,
 *   options?: ([string, string] | [string, string, string] | string)[], required?: boolean, min?: number, max?: number, step?: number, rows?: number, placeholder?: string, maxlength?: number,
 *   isSet?: boolean, disabled?: boolean, onchange?: (value: any) => void}} Field `isSet`: a secret that is kept already; left empty it stays.
 *   An option is its value, or value, text and, where some stand together, their heading
 */

/**
 * Labelled fields. Values: numbers are numbers or null, tags a list, an untouched kept secret is left out.
 * @param {Field[]} fields
 */
export function form(fields) {
  const inputs = new Map(fields.map((field) => [field.name, input(field)]));
  const notes = new Map(fields.map((field) => [field.name, el("span", { class: "field-error", role: "alert", hidden: true })]));
  const node = el("div", { class: "fields" }, ...fields.map((field) => labelled(field, /** @type {HTMLElement} */ (inputs.get(field.name)), /** @type {HTMLElement} */ (notes.get(field.name)))));
  /** @param {Field} field */
  const value = (field) => read(field, /** @type {any} */ (inputs.get(field.name)));
  for (const field of fields) if (field.onchange) inputs.get(field.name)?.addEventListener("change", () => field.onchange?.(value(field)));
  return {
    node,
    /** @returns {Record<string, any>} */
    values: () => Object.fromEntries(fields.map((field) => [field.name, value(field)]).filter(([, one]) => one !== undefined)),
    /** @param {Record<string, any>} values */
    set(values) {
      for (const field of fields) if (field.name in values) write(field, /** @type {any} */ (inputs.get(field.name)), values[field.name]);
    },
    /** Say beside a field what is wrong with it. @param {string} which @param {string} text */
    showError(which, text) {
      const note = notes.get(which);
      if (!note) return;
      note.textContent = plain(text);
      note.hidden = !text;
      inputs.get(which)?.setAttribute("aria-invalid", String(Boolean(text)));
    },
    /** Whether every field that must be filled in is; says so beside those that are not. */
    check() {
      let good = true;
      for (const field of fields) {
        const one = value(field);
        const missing = field.required && (one === null || one === undefined || one === "" || (Array.isArray(one) && !one.length)) && !(field.kind === "secret" && field.isSet);
        this.showError(field.name, missing ? t("base_needed") : "");
        good = good && !missing;
      }
      return good;
    },
    /** @param {string} which */
    input: (which) => inputs.get(which),
  };
}

/** @param {Field} field */
function input(field) {
  const common = { id: `field-${field.name}-${Math.random().toString(36).slice(2, 8)}`, name: field.name, placeholder: field.placeholder, maxlength: field.maxlength, disabled: field.disabled, "aria-required": field.required ? "true" : null };
  let node;
  switch (field.kind) {
    case "textarea": node = el("textarea", { ...common, rows: field.rows ?? 4 }); break;
    case "checkbox": node = el("input", { ...common, type: "checkbox" }); break;
    case "select": node = el("select", common, ...choices(field.options ?? [])); break;
    case "number": node = el("input", { ...common, type: "number", min: field.min, max: field.max, step: field.step ?? "any", inputmode: "decimal" }); break;
    case "secret": node = el("input", { ...common, type: "password", autocomplete: "new-password", placeholder: field.isSet ? t("base_secret_kept") : field.placeholder }); break;
    case "date": node = el("input", { ...common, type: "date" }); break;
    case "url": node = el("input", { ...common, type: "url", inputmode: "url" }); break;
    default: node = el("input", { ...common, type: "text" });
  }
  if (field.value !== undefined) write(field, /** @type {any} */ (node), field.value);
  return node;
}

/** @param {NonNullable<Field["options"]>} options */
function choices(options) {
  /** @type {Map<string, HTMLElement>} */
  const headings = new Map();
  /** @type {HTMLElement[]} */
  const found = [];
  for (const one of options) {
    const [value, text, heading = ""] = Array.isArray(one) ? one : [one, one];
    const option = el("option", { value }, text);
    if (!heading) { found.push(option); continue; }
    const group = headings.get(heading) ?? el("optgroup", { label: heading });
    if (!headings.has(heading)) { headings.set(heading, group); found.push(group); }
    group.append(option);
  }
  return found;
}

/** @param {Field} field @param {HTMLElement} node @param {HTMLElement} note */
function labelled(field, node, note) {
  const hint = field.hint ? el("span", { class: "field-hint", id: `${node.id}-hint` }, field.hint) : null;
  if (hint) node.setAttribute("aria-describedby", hint.id);
  if (field.kind === "checkbox") return el("div", {}, el("label", { class: "check" }, node, el("span", {}, field.label)), hint, note);
  return el("div", { class: "field" }, el("label", { for: node.id }, field.label), node, hint, note);
}

/** @param {Field} field @param {any} node */
function read(field, node) {
  switch (field.kind) {
    case "checkbox": return node.checked;
    case "number": return node.value.trim() === "" ? null : Number(node.value);
    case "tags": return node.value.split(/[,，\n]/).map((/** @type {string} */ one) => one.trim()).filter(Boolean);
    case "secret": return node.value === "" && field.isSet ? undefined : node.value;
    case "date": return node.value || null;
    default: return node.value;
  }
}

/** @param {Field} field @param {any} node @param {any} value */
function write(field, node, value) {
  if (field.kind === "checkbox") node.checked = Boolean(value);
  else if (field.kind === "tags") node.value = (value ?? []).join(", ");
  else node.value = value ?? "";
}

/**
 * A form in a dialog. `save` gets the values; what it raises is shown, and the dialog stays.
 * @param {string} title @param {Field[]} fields @param {{label: string, save: (values: Record<string, any>) => Promise<unknown>, before?: (Node | null)[]}} main
 */
export function askForm(title, fields, main) {
  const made = form(fields);
  return ask(title, [...(main.before ?? []), made.node], {
    label: main.label,
    act: async () => {
      if (!made.check()) return false;
      await main.save(made.values());
      return true;
    },
  });
}
