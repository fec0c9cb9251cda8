// The list of knowledge bases, making one, and bringing in one that was exported.
import { ask, askForm, button, bytes, call, el, empty, form, get, name, number, query, row, t, table, toast, upload } from "../base.js";
import { stateBadges } from "./state.js";

/** @typedef {import("./state.js").Kb} Kb */

/** @param {HTMLElement} root @param {boolean} manages @param {(kb: string) => void} open */
export function drawList(root, manages, open) {
  const search = /** @type {HTMLInputElement} */ (el("input", { type: "search", placeholder: t("bases_find"), "aria-label": t("bases_find"), maxlength: 200, oninput: () => { query.set({ text: search.value }); void list.restart(); } }));
  search.value = query.get("text");
  const make = () => button(t("bases_new"), () => void create(open), { primary: true, icon: "plus" });
  const list = table({
    label: t("bases_title"),
    key: (kb) => kb.name,
    columns: [
      { title: t("name"), cell: (/** @type {Kb} */ kb) => el("span", {}, name(kb.name), kb.description ? el("span", { class: "bases-about" }, name(kb.description)) : null) },
      { title: t("state"), cell: (/** @type {Kb} */ kb) => el("span", { class: "bases-badges" }, ...stateBadges(kb)) },
      { title: t("bases_documents"), end: true, cell: (/** @type {Kb} */ kb) => number(kb.documents) },
      { title: t("bases_chunks"), end: true, cell: (/** @type {Kb} */ kb) => number(kb.chunks) },
      { title: t("bases_size"), end: true, cell: (/** @type {Kb} */ kb) => bytes(kb.size) },
      { title: t("bases_search"), cell: (/** @type {Kb} */ kb) => (kb.documents ? (kb.vectors ? name(kb.embedder) : t("bases_keywords")) : el("span", { class: "soft" }, t("bases_nothing_yet"))) },
    ],
    load: ({ limit, offset }) => get(`/kbs?limit=${limit}&offset=${offset}&text=${encodeURIComponent(search.value)}`),
    onRow: (kb) => open(kb.name),
    empty: () => (search.value ? el("p", { class: "soft" }, t("nothing_found")) : empty(t("bases_none"), t("bases_none_text"), manages ? make() : null)),
  });
  root.append(row(search, manages ? make() : null, manages ? button(t("bases_import"), () => void bringIn(open), { icon: "upload" }) : null), list.node);
}

/** @param {(kb: string) => void} open */
function create(open) {
  return askForm(t("bases_new"), [
    { name: "name", label: t("name"), required: true, maxlength: 100, hint: t("bases_name_hint") },
    { name: "description", label: t("bases_description"), kind: "textarea", rows: 2, maxlength: 2000, hint: t("bases_description_hint") },
    { name: "private", label: t("bases_private_label"), kind: "checkbox", hint: t("bases_private_hint") },
  ], {
    label: t("create"),
    save: async (values) => { open((await call("POST", "/kbs", values)).name); },
  });
}

/** @param {(kb: string) => void} open */
function bringIn(open) {
  const file = /** @type {HTMLInputElement} */ (el("input", { type: "file", accept: ".zip,application/zip" }));
  const fields = form([{ name: "name", label: t("bases_import_name"), maxlength: 100, hint: t("bases_import_name_hint") }]);
  const share = el("progress", { max: "1", value: "0", "aria-label": t("bases_sending"), hidden: true });
  return ask(t("bases_import"), [el("p", { class: "soft" }, t("bases_import_text")), el("label", { class: "field" }, el("span", {}, t("bases_import_file")), file), fields.node, share], {
    label: t("bases_import_go"),
    act: async () => {
      const chosen = file.files?.[0];
      if (!chosen) throw new Error(t("bases_import_choose"));
      share.hidden = false;
      try {
        const wanted = String(fields.values().name).trim();
        const made = await upload(`/kbs/import${wanted ? `?name=${encodeURIComponent(wanted)}` : ""}`, [chosen], (done) => share.setAttribute("value", String(done)));
        toast(t("bases_imported", { name: made.name, n: made.documents }));
        if (made.refused.length) toast(t("bases_import_refused", { n: made.refused.length, name: made.refused[0].name, reason: made.refused[0].reason ?? "" }), "bad");
        open(made.name);
      } finally {
        share.hidden = true;
      }
      return true;
    },
  });
}

