// Knowledge bases: the list of them, and one with its settings, its people, its indexes, and what ends it.
import { attempt, bytes, el, empty, get, icon, name, path, query, row, start, t, tabs, when } from "./base.js";
import { drawAccess } from "./bases/access.js";
import { drawEnd } from "./bases/end.js";
import { drawIndexes } from "./bases/indexes.js";
import { drawList } from "./bases/list.js";
import { drawSettings } from "./bases/settings.js";
import { stateBadges } from "./bases/state.js";
import { WORDS } from "./words/bases.js";

/** @typedef {import("./bases/state.js").Kb} Kb */

const EVERY = 3000;

void start({
  words: WORDS,
  async draw(root, me) {
    const show = async () => {
      const chosen = query.get("kb");
      const part = el("div", { class: "stack" });
      root.replaceChildren(part);
      if (chosen) await drawOne(part, chosen, me.can_manage);
      else drawList(part, me.can_manage, (kb) => { query.set({ kb, offset: "", text: "" }, true); void show(); });
    };
    addEventListener("popstate", () => void show());
    await show();
  },
});

/** @param {HTMLElement} root @param {string} chosen @param {boolean} manages */
async function drawOne(root, chosen, manages) {
  const back = el("a", { class: "button small", href: "/console/bases" }, el("span", { class: "bases-back" }, icon("chevron")), t("bases_all"));
  /** @type {Kb} */
  let kb;
  try {
    kb = await get(`/kbs${path(chosen)}`);
  } catch (error) {
    root.append(back, empty(t("bases_gone"), /** @type {Error} */ (error).message));
    return;
  }
  const badges = el("span", { class: "toolbar" }, ...stateBadges(kb));
  const counts = el("p", { class: "bases-figures" });
  const drawCounts = () => {
    badges.replaceChildren(...stateBadges(kb));
    const held = [t("bases_lost_documents", { n: kb.documents }), t("bases_lost_chunks", { n: kb.chunks }), bytes(kb.size), kb.documents ? (kb.vectors ? t("bases_both", { embedder: kb.embedder }) : t("bases_keywords")) : t("bases_nothing_yet")];
    counts.replaceChildren(...held.map((text) => el("span", {}, name(text))), el("span", {}, t("bases_changed"), " ", when(kb.updated_at)));
  };
  /** What a tab changed shows above it too. */
  const refresh = async () => { kb = await get(`/kbs${path(chosen)}`); drawCounts(); follow(); };
  let followed = 0;
  /** While documents are on their way in, the counts grow. */
  const follow = () => {
    clearTimeout(followed);
    if (kb.waiting) followed = setTimeout(() => { if (root.isConnected) void attempt(refresh); }, EVERY);
  };
  drawCounts();
  follow();
  const link = (/** @type {string} */ page, /** @type {string} */ picture, /** @type {string} */ word) =>
    el("a", { class: "button small", href: `/console/${page}?kb=${encodeURIComponent(kb.name)}` }, icon(picture), t(word));
  root.append(
    row(back, el("h2", { class: "bases-name" }, name(kb.name)), badges),
    kb.description ? el("p", { class: "soft wrap" }, name(kb.description)) : el("p", { class: "soft" }, t("bases_no_description")),
    counts,
    row(link("library", "document", "bases_to_documents"), link("sources", "refresh", "bases_to_sources"), link("playground", "search", "bases_to_playground")),
  );
  if (!kb.can_edit) {
    root.append(el("p", { class: "bases-note" }, t("bases_only_ask")));
    return;
  }
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
