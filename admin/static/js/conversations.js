// The list of conversations in the side panel: found, opened, renamed, deleted.
import { call, get, path } from "./api.js";
import { ask, confirmDeletion } from "./dialog.js";
import { byId, el, iconButton, name, plain, toast } from "./dom.js";
import { t } from "./i18n.js";

/** @typedef {{id: string, title: string, kb: string | null, updated_at: string}} Conversation */

const DAY = 24 * 60 * 60 * 1000;

export class ConversationList {
  /** @param {{open: (id: string) => void, gone: (id: string) => void, renamed: (item: Conversation) => void}} actions */
  constructor(actions) {
    this.actions = actions;
    /** @type {Conversation[]} */
    this.items = [];
    this.current = "";
    this.place = byId("conversations");
    this.search = byId("search");
    this.search.addEventListener("input", () => this.#draw());
  }

  async refresh() {
    try {
      this.items = (await get("/conversations")).items;
    } catch (error) {
      toast(/** @type {Error} */ (error).message, "bad");
    }
    this.#draw();
  }

  /** @param {string} id */
  choose(id) {
    this.current = id;
    this.#draw();
  }

  /** @param {string} id */
  find(id) {
    return this.items.find((item) => item.id === id);
  }

  #draw() {
    const wanted = this.search.value.trim().toLocaleLowerCase();
    const shown = this.items.filter((item) => titleOf(item).toLocaleLowerCase().includes(wanted));
    const groups = grouped(shown);
    const nodes = [...groups].flatMap(([key, items]) => [el("h2", { class: "side-heading" }, t(key)), el("ul", {}, ...items.map((item) => this.#row(item)))]);
    const empty = el("p", { class: "quiet" }, t(wanted ? "nothing_found" : "no_conversations"));
    this.place.replaceChildren(...(nodes.length ? nodes : [empty]));
  }

  /** @param {Conversation} item */
  #row(item) {
    const here = item.id === this.current;
    return el("li", { class: here ? "conversation here" : "conversation" },
      el("a", { href: `#${item.id}`, "aria-current": here ? "page" : null, onclick: () => this.actions.open(item.id) }, name(titleOf(item))),
      iconButton("pencil", t("rename_x", { title: titleOf(item) }), () => void this.#rename(item)),
      iconButton("trash", t("delete_x", { title: titleOf(item) }), () => void this.#remove(item)));
  }

  /** @param {Conversation} item */
  async #rename(item) {
    const field = el("input", { maxlength: "200", value: item.title, "aria-label": t("name") });
    await ask(t("rename_conversation"), [field], {
      label: t("save"),
      act: async () => {
        const title = field.value.trim();
        if (!title) throw new Error(t("name_needed"));
        await call("PATCH", path("conversations", item.id), { title });
        item.title = title;
        this.actions.renamed(item);
        this.#draw();
        return true;
      },
    });
  }

  /** @param {Conversation} item */
  async #remove(item) {
    await confirmDeletion(t("delete_conversation"), t("delete_conversation_text", { title: titleOf(item) }), t("delete"), async () => {
      await call("DELETE", path("conversations", item.id));
      this.items = this.items.filter((other) => other !== item);
      this.#draw();
      this.actions.gone(item.id);
    });
  }
}

/** @param {Conversation} item */
export function titleOf(item) {
  return plain(item.title) || t("new_conversation");
}

/** @param {Conversation} item */
function age(item) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const at = new Date(item.updated_at).getTime();
  if (at >= midnight) return "today";
  if (at >= midnight - DAY) return "yesterday";
  return at >= midnight - 7 * DAY ? "last_week" : "earlier";
}

/** @param {Conversation[]} items */
function grouped(items) {
  /** @type {Map<string, Conversation[]>} */
  const groups = new Map();
  for (const item of items) groups.set(age(item), [...(groups.get(age(item)) ?? []), item]);
  return groups;
}
