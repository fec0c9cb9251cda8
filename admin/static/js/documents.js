// The documents page: knowledge bases, uploads, and what is in them.
import { call, get, path } from "./api.js";
import { ask, confirmDeletion } from "./dialog.js";
import { byId, el, icon, name, plain, toast } from "./dom.js";
import { DocumentTable } from "./doctable.js";
import { keep, number, t } from "./i18n.js";
import { newKb } from "./newkb.js";
import { broken, closeDrawer, openShell } from "./shell.js";
import { Uploads } from "./upload.js";

/** @typedef {import("./chat.js").Kb} Kb */

class Documents {
  /** @param {import("./shell.js").Me} me */
  constructor(me) {
    this.me = me;
    /** @type {Kb[]} */
    this.kbs = [];
    this.page = byId("page");
    /** @type {DocumentTable | null} */
    this.table = null;
    this.uploads = new Uploads(me.max_file_mb, () => void this.#changed());
    byId("new-kb").hidden = !me.can_manage;
    byId("new-kb").addEventListener("click", () => void this.#create());
    window.addEventListener("hashchange", () => this.#show());
  }

  async open() {
    this.kbs = (await get("/kbs")).items;
    this.#show();
  }

  async #refresh() {
    try {
      this.kbs = (await get("/kbs")).items;
    } catch (error) {
      toast(/** @type {Error} */ (error).message, "bad");
    }
    this.#list();
  }

  /** The knowledge base the address names, or the first. */
  #chosen() {
    const wanted = decode(location.hash.slice(1));
    return this.kbs.find((kb) => kb.name === wanted) ?? this.kbs[0];
  }

  #list() {
    const here = this.#chosen();
    const rows = this.kbs.map((kb) => el("li", { class: kb === here ? "kb here" : "kb" },
      el("a", { href: `#${encodeURIComponent(kb.name)}`, "aria-current": kb === here ? "page" : null, onclick: closeDrawer },
        name(kb.name), kb.private ? el("span", { class: "lock", title: t("private") }, icon("lock"), el("span", { class: "hidden" }, t("private"))) : null,
        el("span", { class: "count" }, number(kb.documents), el("span", { class: "hidden" }, ` ${t("documents")}`)))));
    byId("kbs").replaceChildren(rows.length ? el("ul", {}, ...rows) : el("p", { class: "quiet" }, t("no_kbs")));
  }

  #show() {
    const kb = this.#chosen();
    this.#list();
    this.table?.close();
    this.table = null;
    byId("kb-actions").replaceChildren();
    if (!kb) return this.#nothing();
    byId("title").firstElementChild.textContent = plain(kb.name);
    document.title = `${plain(kb.name)} · Kvasir`;
    byId("kb-actions").replaceChildren(...this.#actions(kb));
    this.table = new DocumentTable(kb.name, this.me.can_upload, () => void this.#changed());
    this.summary = el("div", { class: "summary" });
    this.#summarise(kb);
    const drop = this.me.can_upload ? this.uploads.dropZone(kb.name) : null;
    this.page.replaceChildren(this.summary, ...(drop ? [drop, this.uploads.list(kb.name)] : []), this.table.element);
    return undefined;
  }

  #nothing() {
    byId("title").firstElementChild.textContent = t("documents");
    this.page.replaceChildren(el("div", { class: "nothing" },
      el("img", { src: "/static/img/mark.svg", alt: "", width: "72", height: "72" }),
      el("h2", {}, t("no_kbs")),
      el("p", {}, t(this.me.can_manage ? "no_kbs_hint" : "welcome_wait")),
      this.me.can_manage ? el("button", { type: "button", class: "button primary", onclick: () => this.#create() }, icon("plus"), t("new_kb")) : null));
  }

  /** @param {Kb} kb */
  #summarise(kb) {
    const facts = [
      t("n_documents", { n: kb.documents }), t("n_chunks", { n: kb.chunks }),
      kb.chunks ? t(kb.vectors ? "with_vectors" : "without_vectors") : "",
    ].filter(Boolean);
    this.summary?.replaceChildren(
      ...(kb.description ? [el("p", { dir: "auto" }, plain(kb.description))] : []),
      el("p", { class: "facts" }, kb.private ? el("span", { class: "badge" }, icon("lock"), t("private")) : null, facts.join(" · ")));
  }

  /** @param {Kb} kb */
  #actions(kb) {
    const open = el("a", { class: "button small", href: "/", onclick: () => keep("kvasir.kb", kb.name) }, icon("chat"), el("span", { class: "wide-only" }, t("ask_it")));
    const remove = el("button", { type: "button", class: "icon-button", "aria-label": t("delete_kb"), title: t("delete_kb"), onclick: () => this.#remove(this.#chosen() ?? kb) }, icon("trash"));
    return this.me.can_manage ? [open, remove] : [open];
  }

  async #changed() {
    await this.#refresh();
    const kb = this.#chosen();
    if (kb) this.#summarise(kb);
    await this.table?.refresh();
  }

  async #create() {
    closeDrawer();
    const made = await newKb();
    if (!made) return;
    await this.#refresh();
    location.hash = encodeURIComponent(made);
    this.#show();
  }

  /** Deleted only after its name has been typed. @param {Kb} kb */
  async #remove(kb) {
    if (!kb.documents) {
      await confirmDeletion(t("delete_kb"), t("delete_empty_kb_text", { kb: kb.name }), t("delete"), () => this.#drop(kb));
      return;
    }
    const typed = el("input", { autocomplete: "off", spellcheck: "false" });
    await ask(t("delete_kb"), [
      el("p", {}, t("delete_kb_text", { n: kb.documents, kb: kb.name })),
      el("label", { class: "field" }, el("span", {}, t("type_name", { kb: kb.name })), typed),
    ], {
      label: t("delete"),
      danger: true,
      act: async () => {
        if (typed.value.trim() !== kb.name) throw new Error(t("name_differs"));
        await this.#drop(kb);
        return true;
      },
    });
  }

  /** @param {Kb} kb */
  async #drop(kb) {
    await call("DELETE", path("kbs", kb.name));
    toast(t("kb_deleted", { kb: kb.name }));
    history.replaceState(null, "", location.pathname);
    await this.#refresh();
    this.#show();
  }
}

/** @param {string} text */
function decode(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

await openShell("documents").then((me) => new Documents(me).open()).catch(broken);
