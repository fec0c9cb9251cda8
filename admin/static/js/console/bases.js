// Knowledge bases: the list of them, and one with its settings, its people, its indexes, and what ends it.
import { badge, bytes, el, empty, facts, get, icon, name, number, path, query, row, start, t, tabs, when } from "./base.js";
import { drawAccess } from "./bases/access.js";
import { drawEnd } from "./bases/end.js";
import { drawIndexes } from "./bases/indexes.js";
import { drawList } from "./bases/list.js";
import { drawSettings } from "./bases/settings.js";
import { stateBadges } from "./bases/state.js";
import { WORDS } from "./words/bases.js";

/** @typedef {import("./bases/state.js").Kb} Kb */

void start({
  words: WORDS,
  async draw(root, me) {
    const show = async () => {
      const chosen = query.get("kb");
      root.replaceChildren();
      if (chosen) await drawOne(root, chosen, me.can_manage);
      else drawList(root, me.can_manage, (kb) => { query.set({ kb, offset: "", text: "" }, true); void show(); });
    };
    addEventListener("popstate", () => void show());
    await show();
  },
});

/** @param {HTMLElement} root @param {string} chosen @param {boolean} manages */
async function drawOne(root, chosen, manages) {
  const back = el("a", { class: "button small", href: "/console/bases" }, icon("chevron"), t("bases_all"));
  /** @type {Kb} */
  let kb;
  try {
    kb = await get(`/kbs${path(chosen)}`);
  } catch (error) {
    root.append(back, empty(t("bases_gone"), /** @type {Error} */ (error).message));
    return;
  }
  const badges = el("span", { class: "toolbar" }, ...stateBadges(kb));
  const counts = el("div");
  const drawCounts = () => {
    badges.replaceChildren(...stateBadges(kb));
    counts.replaceChildren(facts([
      [t("bases_documents"), `${number(kb.documents)}${kb.waiting ? ` · ${t("bases_waiting", { n: kb.waiting })}` : ""}${kb.failed ? ` · ${t("bases_failed", { n: kb.failed })}` : ""}`],
      [t("bases_chunks"), number(kb.chunks)],
      [t("bases_size"), bytes(kb.size)],
      [t("bases_search"), kb.documents ? (kb.vectors ? t("bases_both", { embedder: kb.embedder }) : t("bases_keywords")) : t("bases_nothing_yet")],
      [t("bases_changed"), when(kb.updated_at)],
    ]));
  };
  /** What a tab changed shows above it too. */
  const refresh = async () => { kb = await get(`/kbs${path(chosen)}`); drawCounts(); };
  drawCounts();
  const link = (/** @type {string} */ page, /** @type {string} */ picture, /** @type {string} */ word) =>
    el("a", { class: "button small", href: `/console/${page}?kb=${encodeURIComponent(kb.name)}` }, icon(picture), t(word));
  root.append(
    row(back, el("h2", { class: "bases-name" }, name(kb.name)), badges),
    kb.description ? el("p", { class: "soft wrap" }, name(kb.description)) : el("p", { class: "soft" }, t("bases_no_description")),
    row(link("library", "document", "bases_to_documents"), link("sources", "refresh", "bases_to_sources"), link("playground", "search", "bases_to_playground")),
    el("section", { class: "card" }, counts),
  );
  const parts = [
    { name: "settings", title: t("bases_tab_settings"), draw: (/** @type {HTMLElement} */ part) => drawSettings(part, kb.name, refresh) },
    { name: "index", title: t("bases_tab_index"), draw: (/** @type {HTMLElement} */ part) => drawIndexes(part, kb.name, refresh) },
  ];
  if (manages) {
    parts.splice(1, 0, { name: "access", title: t("bases_tab_access"), draw: (part) => drawAccess(part, kb.name, refresh) });
    parts.push({ name: "end", title: t("bases_tab_end"), draw: (part) => drawEnd(part, kb.name) });
  }
  root.append(tabs(parts).node);
}
