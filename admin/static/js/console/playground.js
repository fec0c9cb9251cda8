// The playground: try questions on a knowledge base, and measure it by evaluation sets.
import { byId, el, empty, get, query, row, stack, start, t, tabs } from "./base.js";
import { drawSets } from "./playground/sets.js";
import { drawTry } from "./playground/try.js";
import { WORDS } from "./words/playground.js";

/**
 * @typedef {{name: string, can_edit: boolean, indexes: string[]}} Kb
 * @typedef {{top_k: number, mode: string, dense_weight: number | null, reranker: string, min_evidence: number, engine: string, instructions: string,
 *   engines: string[], rerankers: string[], vectors: boolean}} Plan what holds for the knowledge base, and what else can be chosen
 * @typedef {{kb: Kb, me: import("./base.js").Me}} Here
 */

start({
  words: WORDS,
  async draw(root, me) {
    document.head.append(el("link", { rel: "stylesheet", href: "/static/css/prose.css" })); // for answers
    /** @type {Kb[]} */
    const kbs = (await get("/kbs")).items;
    if (!kbs.length) {
      root.replaceChildren(empty(t("playground_no_kb"), t("playground_no_kb_text"), el("a", { class: "button primary", href: "/console/bases" }, t("playground_to_kbs"))));
      return;
    }
    const chosen = () => kbs.find((kb) => kb.name === query.get("kb")) ?? kbs[0];
    const body = stack();
    const draw = () => {
      const here = { kb: chosen(), me };
      const parts = tabs([
        { name: "try", title: t("playground_tab_try"), draw: (place) => drawTry(place, here) },
        { name: "sets", title: t("playground_tab_sets"), draw: (place) => drawSets(place, here) },
      ]);
      body.replaceChildren(parts.node);
    };
    const select = /** @type {HTMLSelectElement} */ (el("select", { id: "playground-kb", onchange: () => { query.set({ kb: select.value, set: "", run: "", offset: "" }); draw(); } }, ...kbs.map((kb) => el("option", { value: kb.name }, kb.name))));
    select.value = chosen().name;
    root.replaceChildren(stack(row(el("label", { class: "field playground-kb" }, el("span", {}, t("knowledge_base")), select)), body));
    draw();
    addEventListener("popstate", () => { select.value = chosen().name; draw(); });
    byId("page").removeAttribute("aria-busy");
  },
});
