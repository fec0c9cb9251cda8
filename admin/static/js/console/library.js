// The page «library»: the documents of a knowledge base, and each of them with its text, versions and details.
import { empty, el, get, plain, query, row, stack, start, t } from "./base.js";
import { drawDocument } from "./library/document.js";
import { drawList } from "./library/list.js";
import { WORDS } from "./words/library.js";

/**
 * @typedef {{name: string, documents: number, can_edit: boolean}} Kb
 * @typedef {{id: string, kb: string, name: string, title: string, media_type: string, size: number, status: string, stage: string, reason: string | null,
 *   chunks: number, source: string, source_id: string | null, by: string, is_live: boolean, copies: number, versions: number, changes: number,
 *   changes_lost: number, created_at: string, updated_at: string}} Doc
 */

/** Ends what the part of the page that is seen does by itself. */
let close = () => {};

void start({
  words: WORDS,
  draw: async (root, me) => {
    const show = async () => {
      close();
      close = () => {};
      /** @type {Kb[]} */
      const kbs = (await get("/kbs?limit=500")).items;
      const kb = kbs.find((one) => one.name === query.get("kb")) ?? kbs.find((one) => one.documents) ?? kbs[0];
      if (!kb) {
        const make = el("a", { class: "button primary", href: "/console/bases" }, t("library_make_kb"));
        root.replaceChildren(empty(t("library_no_kb"), t("library_no_kb_text"), make));
        return;
      }
      const id = query.get("doc");
      const page = stack();
      if (id) {
        root.replaceChildren(page);
        close = await drawDocument(page, id, { kbs, me, leave: () => void go({ doc: "", tab: "", offset: "" }) });
        return;
      }
      root.replaceChildren(stack(chooser(kbs, kb), page));
      close = await drawList(page, kb, { kbs, me, open: (/** @type {Doc} */ doc) => void go({ kb: kb.name, doc: doc.id, offset: "" }) });
    };
    const go = async (/** @type {Record<string, string>} */ values) => {
      query.set(values, true);
      await show();
      document.getElementById("content")?.scrollTo(0, 0);
    };
    /** @param {Kb[]} kbs @param {Kb} kb */
    const chooser = (kbs, kb) => {
      const select = /** @type {HTMLSelectElement} */ (el("select", { onchange: () => void go({ kb: select.value, doc: "", offset: "", status: "", kind: "", source: "", text: "", duplicates: "" }) },
        ...kbs.map((one) => el("option", { value: one.name }, plain(one.name)))));
      select.value = kb.name;
      return row(el("label", { class: "field" }, el("span", {}, t("knowledge_base")), select));
    };
    window.addEventListener("popstate", () => void show());
    await show();
  },
});

