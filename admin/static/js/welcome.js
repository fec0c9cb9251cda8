// What an empty conversation shows: a greeting, and questions or a next step that suit the knowledge base.
import { get, path } from "./api.js";
import { el, icon, plain } from "./dom.js";
import { t } from "./i18n.js";

/** The knowledge base that comes with Kvasir. */
const SAMPLE = "sample";

/**
 * @param {HTMLElement} place
 * @param {{me: import("./shell.js").Me, kb: import("./chat.js").Kb | undefined, ask: (text: string) => void}} scene
 */
export async function welcome(place, { me, kb, ask }) {
  place.hidden = false;
  const horn = el("img", { src: "/static/img/mark.svg", alt: "", width: "72", height: "72" });
  if (!kb || !kb.documents) {
    place.replaceChildren(horn, el("h2", {}, t("welcome_empty")), el("p", { class: "lead" }, t(me.can_upload ? "welcome_upload" : "welcome_wait")),
      me.can_upload ? el("a", { class: "button primary", href: kb ? `/documents#${encodeURIComponent(kb.name)}` : "/documents" }, icon("upload"), t("add_documents")) : "");
    return;
  }
  const examples = el("ul", { class: "examples", "aria-label": t("examples") });
  const lead = plain(kb.description) || t("welcome_lead", { n: kb.documents, kb: kb.name });
  place.replaceChildren(horn, el("h2", {}, t("welcome")), el("p", { class: "lead", dir: "auto" }, lead), examples);
  for (const question of await questions(kb)) {
    examples.append(el("li", {}, el("button", { type: "button", class: "example", dir: "auto", onclick: () => ask(question) }, question)));
  }
}

/** Questions made of what the documents are called. @param {{name: string}} kb @returns {Promise<string[]>} */
async function questions(kb) {
  if (kb.name === SAMPLE) return [t("example_sample_1"), t("example_sample_2"), t("example_sample_3")];
  const found = await get(`${path("kbs", kb.name, "documents")}?status=indexed&limit=40`).catch(() => ({ items: [] }));
  const titles = [...new Set(found.items.map((/** @type {any} */ item) => plain(item.title).trim()))].filter((title) => title.length > 2 && title.length < 50);
  const patterns = ["example_about", "example_important", "example_tell"];
  return titles.slice(0, 3).map((title, i) => t(patterns[i], { title: String(title) }));
}
