// Taking a knowledge base elsewhere, and deleting it.
import { address, ask, bytes, call, card, el, get, icon, name, number, path, row, t, button } from "../base.js";

/** @param {HTMLElement} root @param {string} kb */
export function drawEnd(root, kb) {
  const save = el("a", { class: "button", href: address(`/kbs${path(kb)}/export`), download: `${kb}.kvasir.zip` }, icon("download"), t("bases_export"));
  root.append(
    card(t("bases_export_title"), el("p", {}, t("bases_export_text")), row(save)),
    card(t("bases_delete_title"), el("p", {}, t("bases_delete_text")), row(button(t("bases_delete"), () => void remove(kb), { danger: true, icon: "trash" }))),
  );
}

/** @param {string} kb */
async function remove(kb) {
  const lost = await get(`/kbs${path(kb)}/contents`);
  const typed = /** @type {HTMLInputElement} */ (el("input", { type: "text", autocomplete: "off", spellcheck: "false", maxlength: 100 }));
  /** @type {[string, number][]} */
  const counts = [["bases_lost_documents", lost.documents], ["bases_lost_chunks", lost.chunks], ["bases_lost_versions", lost.versions], ["bases_lost_overrides", lost.overrides], ["bases_lost_sources", lost.sources],
    ["bases_lost_curated", lost.curated], ["bases_lost_sets", lost.evaluation_sets], ["bases_lost_grants", lost.grants]];
  const lines = counts.filter(([word, n]) => n || word === "bases_lost_documents").map(([word, n]) => el("li", {}, t(word, { n }), word === "bases_lost_documents" ? ` (${bytes(lost.size)})` : ""));
  const channels = lost.channels.length
    ? el("p", {}, t("bases_lost_channels", { n: lost.channels.length }), " ", name(lost.channels.slice(0, 10).join(", ") + (lost.channels.length > 10 ? ` … (${number(lost.channels.length)})` : "")))
    : null;
  return ask(t("bases_delete_ask", { kb }), [
    el("p", {}, t("bases_lost")), el("ul", {}, ...lines), channels, el("p", {}, t("bases_no_way_back")),
    el("label", { class: "field" }, el("span", {}, t("bases_type_name"), " ", el("strong", {}, name(kb))), typed),
  ], {
    label: t("bases_delete"),
    danger: true,
    act: async () => {
      if (typed.value.trim() !== kb) throw new Error(t("bases_type_wrong"));
      await call("DELETE", `/kbs${path(kb)}`);
      location.assign("/console/bases");
      return true;
    },
  });
}
