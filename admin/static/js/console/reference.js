// The API's reference, drawn from its OpenAPI document; nothing is loaded from anywhere else.
import { badge, button, el, get, plain, query, row, stack, start, t, toast } from "./base.js";
import { WORDS } from "./words/reference.js";

/** @typedef {{method: string, path: string, told: any}} Operation */

/** @type {any} */
let document_ = {};

void start({
  words: WORDS,
  async draw(root) {
    document_ = await get("/openapi.json");
    const operations = /** @type {Operation[]} */ (Object.entries(document_.paths).flatMap(([path, methods]) => Object.entries(/** @type {any} */ (methods)).map(([method, told]) => ({ method: method.toUpperCase(), path, told }))));
    const list = el("div", { class: "stack", "aria-live": "polite" });
    const search = /** @type {HTMLInputElement} */ (el("input", { type: "search", placeholder: t("reference_search"), "aria-label": t("reference_search"), oninput: () => show() }));
    search.value = query.get("q");
    const show = () => {
      query.set({ q: search.value });
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const found = operations.filter(({ method, path, told }) => words.every((word) => `${method} ${path} ${told.description ?? ""} ${told.operationId}`.toLowerCase().includes(word)));
      const tags = [...new Set(found.map(({ told }) => told.tags[0]))];
      list.replaceChildren(...(tags.length ? tags.map((tag) => group(tag, found.filter(({ told }) => told.tags[0] === tag))) : [el("p", { class: "soft" }, t("reference_none"))]));
    };
    root.append(stack(el("p", {}, t("reference_lead")), row(search, el("a", { class: "button", href: "/api/v1/openapi.json", download: "kvasir-openapi.json" }, t("reference_document"))), list));
    show();
  },
});

/** @param {string} tag @param {Operation[]} operations */
function group(tag, operations) {
  return el("section", { class: "card" }, el("h2", { class: "card-title" }, plain(tag)), ...operations.map(operation));
}

/** @param {Operation} one */
function operation(one) {
  const summary = el("summary", { class: "reference-line" }, el("span", { class: `badge method ${one.method.toLowerCase()}` }, one.method), el("code", {}, plain(one.path)), el("span", { class: "soft" }, firstLine(one.told.description)), one.told.security?.length === 0 ? badge(t("reference_open")) : null);
  const details = el("details", { class: "reference-operation" }, summary);
  details.addEventListener("toggle", () => { if (details.children.length === 1) details.append(body(one)); }, { once: true });
  return details;
}

/** @param {string | undefined} text */
const firstLine = (text) => plain((text ?? "").split("\n")[0]);

/** @param {Operation} one */
function body({ method, path, told }) {
  const parameters = told.parameters ?? [];
  const content = Object.entries(told.requestBody?.content ?? {})[0];
  const example = `curl -X ${method} '${location.origin}${path}' -H 'Authorization: Bearer kv_…'${content && content[0] === "application/json" ? ` -H 'Content-Type: application/json' -d '${JSON.stringify(sample(/** @type {any} */ (content[1]).schema))}'` : ""}`;
  const copy = button(t("reference_copy"), async () => { await navigator.clipboard?.writeText(example).catch(() => undefined); toast(t("reference_copied")); }, { small: true, icon: "copy" });
  return stack(
    told.description ? el("p", { class: "wrap" }, plain(told.description)) : null,
    ...(parameters.length ? [heading("reference_parameters"), fields(parameters.map((/** @type {any} */ one) => ({ name: one.name, type: typeOf(one.schema), note: [one.required ? t("reference_required") : "", one.in, one.description ?? ""].filter(Boolean).join(" · ") })))] : []),
    ...(content ? [heading("reference_body"), el("p", { class: "soft small" }, el("code", {}, content[0])), fields(propertiesOf(/** @type {any} */ (content[1]).schema))] : []),
    heading("reference_answers"),
    fields(Object.entries(told.responses).map(([status, answer]) => ({ name: status, type: shapeOf(/** @type {any} */ (answer)), note: /** @type {any} */ (answer).description })), t("reference_code")),
    heading("reference_example"),
    el("pre", { tabindex: "0" }, example),
    row(copy));
}

/** @param {string} key */
const heading = (key) => el("h3", { class: "small" }, t(key));

/** @param {{name: string, type: string, note: string}[]} rows @param {string} [first] */
function fields(rows, first = t("reference_field")) {
  if (!rows.length) return el("p", { class: "soft small" }, "–");
  const head = el("tr", {}, ...[first, t("reference_type"), t("reference_meaning")].map((text) => el("th", { scope: "col" }, text)));
  const lines = rows.map(({ name, type, note }) => el("tr", {}, el("td", {}, el("code", {}, plain(name))), el("td", {}, el("code", {}, plain(type))), el("td", {}, plain(note))));
  return el("div", { class: "table-wide", tabindex: "0", role: "region", "aria-label": first }, el("table", { class: "table" }, el("thead", {}, head), el("tbody", {}, ...lines)));
}

/** @param {any} schema */
function resolved(schema) {
  return schema?.$ref ? document_.components.schemas[schema.$ref.split("/").pop()] ?? {} : schema ?? {};
}

/** @param {any} schema */
function propertiesOf(schema) {
  const { properties = {}, required = [] } = resolved(schema);
  return Object.entries(properties).map(([name, one]) => ({ name, type: typeOf(one), note: [required.includes(name) ? t("reference_required") : "", /** @type {any} */ (one).description ?? ""].filter(Boolean).join(" · ") }));
}

/** @param {any} schema @returns {string} */
function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.type === "array") return `${typeOf(schema.items) || "any"}[]`;
  return schema.type ?? "any";
}

/** @param {any} answer */
function shapeOf(answer) {
  const [kind, content] = Object.entries(answer.content ?? {})[0] ?? ["", null];
  const schema = /** @type {any} */ (content)?.schema;
  return schema && Object.keys(schema).length ? typeOf(schema) : kind;
}

/** A value of the schema, to show what a call looks like. @param {any} schema @param {number} [depth] @returns {any} */
function sample(schema, depth = 0) {
  const one = resolved(schema);
  if (one.default !== undefined) return one.default;
  if (one.enum) return one.enum[0];
  if (one.anyOf) return sample(one.anyOf[0], depth);
  if (one.type === "object") return depth > 3 ? {} : Object.fromEntries((one.required ?? []).map((/** @type {string} */ name) => [name, sample(one.properties[name], depth + 1)]));
  if (one.type === "array") return [];
  return { string: "…", integer: 1, number: 1, boolean: false }[/** @type {string} */ (one.type)] ?? null;
}
