// How questions are answered in each place: what was set there, what it takes from wider places, and both to be changed.
import { ask, attempt, badge, button, call, confirmDeletion, el, empty, form, get, plain, query, row, stack, t, table, toast, when } from "../base.js";
import { titleOf } from "./connections.js";
import { shown } from "./values.js";

/** @typedef {{platform: string, workspace: string, channel: string, name: string, platform_name: string, workspace_name: string, values: Record<string, any>, questions: number, last_at: string | null}} Spot */
/** @typedef {{platforms: string[], kbs: {name: string, private: boolean}[], engines: string[], modes: string[], languages: string[], digests: string[], default_kb: string, default_engine: string}} Options */
/** @typedef {{value: any, origin: string, wider_value: any, wider_origin: string, is_own: boolean}} Holding */

const LISTS = ["helpers", "managers", "askers"];
const SWITCHES = ["feedback", "follow_ups"];

/** @param {Spot} one */
const keyOf = (one) => JSON.stringify([one.platform, one.workspace, one.channel]);

/** What people call the place. @param {Spot} one */
function nameOf(one) {
  if (one.channel) return plain(one.name || one.platform_name || one.channel);
  if (one.workspace) return plain(one.name) || t("channels_whole_workspace", { name: plain(one.workspace_name || one.workspace) });
  return plain(one.name) || t("channels_whole_platform", { platform: titleOf(one.platform) });
}

/** @param {Spot} one */
function cell(one) {
  const parts = [titleOf(one.platform), one.workspace_name || one.workspace, (one.name || one.platform_name) && one.channel ? one.channel : ""].filter(Boolean);
  return el("span", {}, el("bdi", {}, nameOf(one)), el("span", { class: "channels-where" }, plain(parts.join(" · "))));
}

/** @param {HTMLElement} root */
export async function drawPlaces(root) {
  /** @type {Options} */
  const options = await get("/channels/options");
  const platform = /** @type {HTMLSelectElement} */ (el("select", { "aria-label": t("platform"), onchange: () => void list.restart() },
    el("option", { value: "" }, t("channels_all_platforms")), ...options.platforms.map((one) => el("option", { value: one }, titleOf(one)))));
  const search = /** @type {HTMLInputElement} */ (el("input", { type: "search", placeholder: t("channels_search"), "aria-label": t("channels_search"), maxlength: 200, oninput: () => void list.restart() }));
  query.set({ platform: "" });
  const add = () => button(t("channels_add"), () => void addPlace(options, list.reload), { icon: "plus", primary: true });
  const list = table({
    label: t("channels_places"),
    key: keyOf,
    columns: [
      { title: t("channels_place"), cell },
      { title: t("channels_here"), cell: (/** @type {Spot} */ one) => summary(one.values) },
      { title: t("channels_asked"), cell: (/** @type {Spot} */ one) => String(one.questions), end: true },
      { title: t("channels_used"), cell: (/** @type {Spot} */ one) => when(one.last_at) },
    ],
    load: ({ limit, offset }) => get(`/channels?platform=${encodeURIComponent(platform.value)}&text=${encodeURIComponent(search.value)}&limit=${limit}&offset=${offset}`),
    empty: () => (search.value || platform.value ? el("p", { class: "soft" }, t("nothing_found")) : empty(t("channels_empty_title"), t("channels_empty_text"))),
    onRow: (one) => void attempt(() => edit(one, options, list.reload)),
    select: (chosen) => [button(t("channels_bulk"), () => void bulk(chosen, options, list.reload), { small: true, icon: "pencil" })],
  });
  root.append(row(platform, search, add()), list.node);
}

/** @param {Record<string, any>} values */
function summary(values) {
  const fields = Object.keys(values);
  if (!fields.length) return el("span", { class: "soft" }, t("channels_inherits"));
  return el("span", { class: "channels-tags" }, ...fields.map((field) => badge(`${t(`channels_field_${field}`)}: ${shown(field, values[field]).slice(0, 60)}`)));
}

// ---------------------------------------------------------------- one place
/** @param {Options} options @param {() => Promise<void>} reload */
async function addPlace(options, reload) {
  const made = form([
    { name: "platform", label: t("platform"), kind: "select", options: options.platforms.map((one) => [one, titleOf(one)]), value: options.platforms[0] },
    { name: "workspace", label: t("channels_add_workspace"), hint: t("channels_add_workspace_hint"), maxlength: 255 },
    { name: "channel", label: t("channels_add_channel"), hint: t("channels_add_channel_hint"), maxlength: 255 },
  ]);
  /** @type {Spot | null} */
  let spot = null;
  await ask(t("channels_add_title"), [made.node], {
    label: t("channels_next"),
    act: () => {
      const { platform, workspace, channel } = made.values();
      spot = { platform, workspace: workspace.trim(), channel: channel.trim(), name: "", platform_name: "", workspace_name: "", values: {}, questions: 0, last_at: null };
      return true;
    },
  });
  const chosen = spot;
  if (chosen) await attempt(() => edit(chosen, options, reload));
}

/** @param {Spot} one */
const placeOf = (one) => ({ platform: one.platform, workspace: one.workspace, channel: one.channel });

/** @param {Spot} one @param {Options} options @param {() => Promise<void>} reload */
async function edit(one, options, reload) {
  const where = new URLSearchParams(placeOf(one));
  /** @type {Record<string, Holding>} */
  const fields = (await get(`/channels/at?${where}`)).fields;
  const kbs = kbChoice(options, fields.kbs);
  const called = form([{ name: "name", label: t("channels_name"), hint: t("channels_name_hint"), value: one.name, maxlength: 255 }]);
  const main = form([
    ...["mode", "engine", "language", "follow_ups", "feedback", "digest"].filter((field) => field !== "digest" || one.channel).map((field) => selectOf(field, options, fields[field])),
  ]);
  const people = form([
    { name: "instructions", label: t("channels_field_instructions"), kind: "textarea", rows: 4, hint: widerHint("instructions", fields.instructions), value: own(fields.instructions) ?? "", maxlength: 8000 },
    ...LISTS.map((field) => (/** @type {import("../base.js").Field} */ ({ name: field, label: t(`channels_field_${field}`), kind: "tags", hint: `${t(`channels_field_${field}_hint`)} ${widerHint(field, fields[field])}`, value: own(fields[field]) ?? [] }))),
  ]);
  const within = /** @type {HTMLInputElement} */ (el("input", { type: "checkbox" }));
  const isSet = Object.keys(one.values).length > 0 || one.name;
  const back = isSet ? button(t("channels_set_back"), async () => {
    /** @type {HTMLDialogElement | null} */ (document.querySelector("dialog[open]"))?.close();
    await confirmDeletion(t("channels_set_back_title", { place: nameOf(one) }), t("channels_set_back_text"), t("channels_set_back"), () => call("DELETE", `/channels?${where}`));
    await reload();
  }, { danger: true, small: true }) : null;
  await ask(t("channels_edit_title", { place: nameOf(one) }), [el("div", { class: "channels-form" },
    called.node, kbs.node, main.node, el("details", {}, el("summary", {}, t("channels_people")), el("div", { class: "channels-more" }, people.node)),
    one.channel ? null : el("label", { class: "check" }, within, el("span", {}, t("channels_within"))), back),
  ], {
    label: t("save"),
    act: async () => {
      const { name } = called.values();
      const values = { ...main.values(), ...people.values(), kbs: kbs.values() };
      const changed = differing(values, fields);
      /** @type {Record<string, any>} */
      const body = { places: [placeOf(one)], values: changed, within: within.checked };
      if (name !== one.name) body.name = name;
      if (!Object.keys(changed).length && body.name === undefined && !within.checked) return true;
      if (within.checked && !Object.keys(changed).length) body.values = Object.fromEntries(Object.entries(values).filter(([field]) => fields[field]?.is_own).map(([field, value]) => [field, sent(field, value)]));
      const done = await call("PATCH", "/channels", body);
      toast(t("base_saved"));
      for (const notice of done.notices) toast(notice, "bad");
      return true;
    },
  });
  await reload();
}

/** @param {Holding | undefined} holding */
const own = (holding) => (holding?.is_own ? holding.value : null);

/** What holds there as long as the place says nothing itself, and why. @param {string} field @param {Holding} holding */
function wider(field, holding) {
  return t("channels_as_wider", { value: shown(field, holding.wider_value), origin: t(`channels_from_${holding.wider_origin}`) });
}

/** @param {string} field @param {Holding | undefined} holding */
function widerHint(field, holding) {
  return holding ? t("channels_if_empty", { what: wider(field, holding) }) : "";
}

/** @param {string} field @param {Options} options @param {Holding} holding @returns {import("../base.js").Field} */
function selectOf(field, options, holding) {
  /** @type {[string, string][]} */
  const choices = choicesOf(field, options).map((value) => [value, shown(field, SWITCHES.includes(field) ? value === "true" : value)]);
  const mine = own(holding);
  return { name: field, label: t(`channels_field_${field}`), kind: "select", options: [["", wider(field, holding)], ...choices], value: mine === null ? "" : String(mine) };
}

/** @param {string} field @param {Options} options */
function choicesOf(field, options) {
  if (SWITCHES.includes(field)) return ["true", "false"];
  return { engine: options.engines, mode: options.modes, language: options.languages, digest: options.digests }[field] ?? [];
}

/** As the API takes it; null takes it from the wider place. @param {string} field @param {any} value */
function sent(field, value) {
  if (value === "" || value === null || (Array.isArray(value) && !value.length)) return null;
  return SWITCHES.includes(field) ? value === "true" || value === true : value;
}

/** @param {Record<string, any>} values @param {Record<string, Holding>} fields */
function differing(values, fields) {
  /** @type {Record<string, any>} */
  const found = {};
  for (const [field, value] of Object.entries(values)) {
    const wanted = sent(field, value);
    if (JSON.stringify(wanted) !== JSON.stringify(own(fields[field]) ?? null)) found[field] = wanted;
  }
  return found;
}

/** @param {Options} options @param {Holding} [holding] */
function kbChoice(options, holding) {
  const mine = own(holding) ?? [];
  const boxes = options.kbs.map((kb) => {
    const box = /** @type {HTMLInputElement} */ (el("input", { type: "checkbox", value: kb.name }));
    box.checked = mine.includes(kb.name);
    return { box, node: el("label", { class: "check" }, box, el("span", {}, el("bdi", {}, plain(kb.name)), kb.private ? ` (${t("channels_private")})` : "")) };
  });
  const hint = holding ? widerHint("kbs", holding) : t("channels_bulk_empty");
  return {
    node: el("fieldset", {}, el("legend", {}, t("channels_field_kbs")), boxes.length ? el("div", { class: "channels-choices" }, ...boxes.map((one) => one.node)) : el("p", { class: "soft" }, t("channels_no_kbs")), el("span", { class: "field-hint" }, hint)),
    values: () => boxes.filter((one) => one.box.checked).map((one) => one.box.value),
  };
}

// ---------------------------------------------------------------- several places
/** @param {Spot[]} chosen @param {Options} options @param {() => Promise<void>} reload */
async function bulk(chosen, options, reload) {
  const fields = ["kbs", "mode", "engine", "language", "follow_ups", "feedback", "digest", "instructions", ...LISTS];
  const what = form([{ name: "what", label: t("channels_bulk_what"), kind: "select", options: fields.map((field) => [field, t(`channels_field_${field}`)]), value: "kbs", onchange: () => show() }]);
  const room = stack();
  /** @type {() => any} */
  let value = () => null;
  const show = () => {
    const field = what.values().what;
    if (field === "kbs") {
      const choice = kbChoice(options);
      value = choice.values;
      room.replaceChildren(choice.node);
      return;
    }
    const one = field === "instructions" || LISTS.includes(field)
      ? form([{ name: field, label: t(`channels_field_${field}`), kind: field === "instructions" ? "textarea" : "tags", hint: t("channels_bulk_empty") }])
      : form([{ name: field, label: t(`channels_field_${field}`), kind: "select", options: [...choicesOf(field, options).map((item) => /** @type {[string, string]} */ ([item, shown(field, SWITCHES.includes(field) ? item === "true" : item)])), ["", t("channels_bulk_back")]] }]);
    value = () => one.values()[field];
    room.replaceChildren(one.node);
  };
  show();
  await ask(t("channels_bulk_title", { n: chosen.length }), [el("div", { class: "channels-form" }, what.node, room)], {
    label: t("save"),
    act: async () => {
      const field = what.values().what;
      const done = await call("PATCH", "/channels", { places: chosen.map(placeOf), values: { [field]: sent(field, value()) } });
      toast(t("channels_bulk_done", { n: done.changed }));
      for (const notice of done.notices) toast(notice, "bad");
      return true;
    },
  });
  await reload();
}
