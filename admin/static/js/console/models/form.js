// The form of a model: where it runs, and the fields that its adapter has.
import { ask, button, call, el, form, path, stack, t } from "../base.js";
import { testResult } from "./parts.js";

/** @typedef {{name: string, kind: string, description: string, default: any, is_needed: boolean, is_secret: boolean, is_common: boolean, choices: string[], least: number | null, most: number | null, is_whole: boolean}} FormField */
/** @typedef {{name: string, title: string, values: Record<string, any>, needs_key: boolean, models: string[]}} Preset */
/** @typedef {{kind: string, name: string, fields: FormField[], presets: Preset[]}} Adapter */

/** Words for a field where the page has some, else what the adapter says of it. @param {string} key @param {string} otherwise */
function words(key, otherwise) {
  const said = t(key);
  return said === key ? otherwise : said;
}

/** @param {FormField} field */
const described = (field) => field.description.replace(/^`\w+`: /, "").replaceAll("`", "");

/** The name of what runs a model, for people. @param {string} adapter */
export const adapterTitle = (adapter) => words(`models_a_${adapter}`, adapter);

/**
 * A word for a field: that of its adapter, where it means something of its own there.
 * @param {"f" | "h"} what name or hint @param {string} adapter @param {string} field @param {string} otherwise
 */
const word = (what, adapter, field, otherwise) => words(`models_${what}_${adapter}_${field}`, words(`models_${what}_${field}`, otherwise));

/** How `form` draws a field. @param {FormField} field @param {string} adapter @param {any} model @param {Preset | undefined} preset */
function drawn(field, adapter, model, preset) {
  const kept = model?.settings[field.name];
  const value = kept ?? preset?.values[field.name];
  const hint = field.kind === "pairs" ? t("models_pairs_hint") : word("h", adapter, field.name, described(field));
  const isSet = Boolean(model?.secrets.includes(field.name));
  const common = {
    name: field.name,
    label: word("f", adapter, field.name, field.name),
    hint: field.name === "model" && preset?.models.length ? `${hint} ${t("models_examples", { names: preset.models.join(", ") })}` : hint,
    required: field.is_needed || (field.name === "api_key" && Boolean(preset?.needs_key) && !model),
    isSet,
  };
  switch (field.kind) {
    case "secret": return { ...common, kind: "secret", maxlength: 4000 };
    case "checkbox": return { ...common, kind: "checkbox", value: value ?? field.default };
    case "select": return { ...common, kind: "select", options: field.choices, value: value ?? field.default };
    case "number": return { ...common, kind: "number", min: field.least ?? undefined, max: field.most ?? undefined, step: field.is_whole ? 1 : undefined, value: value ?? "", placeholder: String(field.default ?? "") };
    case "list": return { ...common, kind: "tags", value: value ?? field.default };
    case "pairs": return { ...common, kind: "textarea", rows: 2, placeholder: isSet ? t("models_pairs_kept") : "X-Team: …" };
    default: return { ...common, kind: field.name.endsWith("_url") ? "url" : "text", value: value ?? "", placeholder: field.default ? String(field.default) : "", maxlength: 4000 };
  }
}

/** «Name: value» on each line; null where a line is not so. @param {string} text */
function pairs(text) {
  /** @type {Record<string, string>} */
  const found = {};
  for (const line of text.split("\n").map((one) => one.trim()).filter(Boolean)) {
    const colon = line.indexOf(":");
    if (colon < 1 || !line.slice(colon + 1).trim()) return null;
    found[line.slice(0, colon).trim()] = line.slice(colon + 1).trim();
  }
  return found;
}

/**
 * The fields of an adapter, those that most people set in front.
 * @param {Adapter} adapter @param {any} model what is kept, or null @param {Preset | undefined} preset
 */
function fieldsOf(adapter, model, preset) {
  const parts = [adapter.fields.filter((field) => field.is_common), adapter.fields.filter((field) => !field.is_common)];
  const forms = parts.map((fields) => form(fields.map((field) => /** @type {any} */ (drawn(field, adapter.name, model, preset)))));
  const more = el("details", { class: "models-more" }, el("summary", {}, t("models_more")), forms[1].node);
  const all = () => ({ ...forms[0].values(), ...forms[1].values() });
  return {
    node: stack(parts[0].length ? forms[0].node : null, parts[1].length ? more : null),
    check() {
      let good = forms.map((one) => one.check()).every(Boolean);
      for (const field of adapter.fields.filter((one) => one.kind === "pairs")) {
        if (pairs(all()[field.name] ?? "") === null) { this.showError(field.name, t("models_pairs_bad")); good = false; }
      }
      if (!forms[1].check()) more.open = true;
      return good;
    },
    /** @param {string} which @param {string} text */
    showError(which, text) {
      for (const one of forms) one.showError(which, text);
      if (parts[1].some((field) => field.name === which)) more.open = true;
      return adapter.fields.some((field) => field.name === which);
    },
    /** As the API takes it: what is empty means the default. */
    values() {
      const given = all();
      /** @type {Record<string, any>} */
      const settings = {};
      /** @type {Record<string, any>} */
      const secrets = {};
      for (const field of adapter.fields) {
        const value = given[field.name];
        if (!field.is_secret) settings[field.name] = value === "" || (Array.isArray(value) && !value.length) ? null : value;
        else if (field.kind === "pairs") { if (value) secrets[field.name] = pairs(value); }
        else if (value !== undefined && (value !== "" || model)) secrets[field.name] = value;
      }
      return { settings, secrets };
    },
  };
}

/** Try what stands in the form, and say how it went. @param {() => any} given what the API is sent, or null @param {(error: any) => boolean} placed */
function trial(given, placed) {
  const result = el("div", { "aria-live": "polite" });
  const go = button(t("models_test"), async () => {
    const body = given();
    if (!body) return;
    go.disabled = true;
    result.replaceChildren(el("p", { class: "soft" }, t("models_testing")));
    try {
      result.replaceChildren(testResult(await call("POST", "/models/trials", body)));
    } catch (error) {
      result.replaceChildren(...(placed(error) ? [] : [el("p", { class: "form-error" }, /** @type {Error} */ (error).message)]));
    } finally {
      go.disabled = false;
    }
  });
  return stack(el("div", {}, go), result);
}

/** Shows the API's errors beside their fields; whether all could be. @param {any} error @param {(which: string, text: string) => boolean} show */
function place(error, show) {
  const errors = error?.errors ?? [];
  return errors.length > 0 && errors.map((/** @type {any} */ one) => show(one.field.split(".").at(-1), one.message)).every(Boolean);
}

/** Those behind a server come first, then those of this machine, then those without a model. @param {Adapter} adapter */
function rank(adapter) {
  if (adapter.fields.some((field) => ["model_path", "model_dir"].includes(field.name))) return 1;
  return adapter.fields.some((field) => field.is_secret) ? 0 : 2;
}

/**
 * Add a model; resolves when the dialog is closed.
 * @param {string} kind @param {Adapter[]} adapters @param {(name: string) => unknown} done
 */
export function addModel(kind, adapters, done) {
  const mine = adapters.filter((one) => one.kind === kind);
  /** @type {{key: string, title: string, heading: string, adapter: Adapter, preset?: Preset}[]} */
  const places = mine.sort((one, other) => rank(one) - rank(other)).flatMap((adapter) => {
    const title = adapterTitle(adapter.name);
    if (!adapter.presets.length) return [{ key: adapter.name, title, heading: "", adapter }];
    return adapter.presets.map((preset) => ({ key: `${adapter.name}/${preset.name}`, title: preset.title || t("models_usual"), heading: title, adapter, preset }));
  });
  let chosen = places[0];
  let fields = fieldsOf(chosen.adapter, null, chosen.preset);
  const body = el("div", {}, fields.node);
  const head = form([
    { name: "place", label: t("models_from"), kind: "select", options: places.map((one) => /** @type {[string, string, string]} */ ([one.key, one.title, one.heading])), onchange: (key) => choose(key) },
    { name: "name", label: t("models_name"), hint: t("models_name_hint"), required: true, maxlength: 64, value: free(chosen) },
  ]);
  /** @param {{preset?: Preset, adapter: Adapter}} one */
  function free(one) { return one.preset?.title ? one.preset.name : one.adapter.name; }
  const choose = (/** @type {string} */ key) => {
    const former = chosen;
    chosen = places.find((one) => one.key === key) ?? places[0];
    if (head.values().name === free(former)) head.set({ name: free(chosen) });
    fields = fieldsOf(chosen.adapter, null, chosen.preset);
    body.replaceChildren(fields.node);
  };
  const show = (/** @type {string} */ which, /** @type {string} */ text) => {
    if (which !== "name") return fields.showError(which, text);
    head.showError("name", text);
    return true;
  };
  const given = () => (fields.check() ? { kind, adapter: chosen.adapter.name, ...fields.values() } : null);
  const test = trial(given, (error) => place(error, show));
  return ask(t(`models_add_${kind}`), [stack(head.node, body, test)], {
    label: t("add"),
    act: async () => {
      const good = head.check();
      const body = given();
      if (!good || !body) return false;
      const name = head.values().name.trim();
      try {
        await call("POST", "/models", { ...body, name });
      } catch (error) {
        if (place(error, show)) return false;
        throw error;
      }
      await done(name);
      return true;
    },
  });
}

/**
 * Change a model's settings.
 * @param {any} model @param {Adapter[]} adapters @param {() => unknown} done
 */
export function editModel(model, adapters, done) {
  const adapter = adapters.find((one) => one.kind === model.kind && one.name === model.adapter) ?? { kind: model.kind, name: model.adapter, fields: [], presets: [] };
  const fields = fieldsOf(adapter, model, undefined);
  const show = (/** @type {string} */ which, /** @type {string} */ text) => fields.showError(which, text);
  const given = () => (fields.check() ? { kind: model.kind, adapter: adapter.name, kept: model.name, ...fields.values() } : null);
  return ask(t("models_edit", { name: model.name }), [stack(model.kind === "embedder" ? el("p", { class: "soft" }, t("models_edit_embedder")) : null, fields.node, trial(given, (error) => place(error, show)))], {
    label: t("save_changes"),
    act: async () => {
      if (!fields.check()) return false;
      try {
        await call("PATCH", `/models${path(model.kind, model.name)}`, fields.values());
      } catch (error) {
        if (place(error, show)) return false;
        throw error;
      }
      await done();
      return true;
    },
  });
}
