// Models: what writes answers, embeds and reranks; added, tried, loaded and switched while Kvasir runs.
import { ask, attempt, badge, button, bytes, call, card, confirmDeletion, el, empty, facts, get, name, path, plain, row, stack, start, t, tabs, toast, when } from "./base.js";
import { addModel, adapterTitle, editModel } from "./models/form.js";
import { testResult } from "./models/parts.js";
import { WORDS } from "./words/models.js";

/** @typedef {{state: string, stage: string, progress: number, reason: string, active: number, waiting: number, ending: number}} Standing */
/** @typedef {{kind: string, name: string, adapter: string, added: boolean, enabled: boolean, default: boolean, settings: Record<string, any>, secrets: string[], standing: Standing, runs: string, where: string, memory: number, parallel: number, dimension: number, used_by: string[], indexes: string[]}} Model */

const QUICK = 1000;
const CALM = 5000;
const KINDS = ["engine", "embedder", "reranker"];
/** @type {Record<string, "" | "good" | "bad" | "warn" | "busy">} */
const TONES = { idle: "", loading: "busy", ready: "good", failed: "bad", off: "warn" };

void start({
  words: WORDS,
  async draw(root) {
    const adapters = (await get("/models/adapters")).items;
    root.append(tabs(KINDS.map((kind) => ({ name: `${kind}s`, title: t(`models_${kind}s`), draw: (/** @type {HTMLElement} */ part) => new Models(kind, adapters, part).open() }))).node);
  },
});

/** The models of one kind. */
class Models {
  /** @param {string} kind @param {import("./models/form.js").Adapter[]} adapters @param {HTMLElement} part */
  constructor(kind, adapters, part) {
    this.kind = kind;
    this.adapters = adapters;
    this.part = part;
    /** @type {Model[]} */
    this.items = [];
    /** @type {Map<string, ModelCard>} */
    this.cards = new Map();
    this.looks = 0;
    this.grid = el("div", { class: "models-grid" });
  }

  async open() {
    const add = button(t("models_add"), () => void addModel(this.kind, this.adapters, async (added) => { toast(t("models_added", { name: added })); await this.reload(); }), { primary: true, icon: "plus" });
    this.part.append(row(el("p", { class: "soft models-about" }, t(`models_about_${this.kind}`)), add), this.grid);
    await this.reload();
    this.#follow();
  }

  async reload() {
    const look = this.looks += 1;
    const { items } = await get(`/models?kind=${this.kind}&limit=200`);
    if (look !== this.looks) return; // a later look sees more
    this.items = items;
    const names = new Set(this.items.map((one) => one.name));
    for (const [key, one] of this.cards) if (!names.has(key)) { one.node.remove(); this.cards.delete(key); }
    if (!this.items.length) {
      this.grid.replaceChildren(empty(t(`models_none_${this.kind}`), t(`models_about_${this.kind}`)));
      return;
    }
    this.grid.querySelector(".empty")?.remove();
    this.items.forEach((model, at) => {
      const one = this.cards.get(model.name) ?? new ModelCard(this);
      this.cards.set(model.name, one);
      one.show(model);
      if (this.grid.children[at] !== one.node) this.grid.insertBefore(one.node, this.grid.children[at] ?? null);
    });
  }

  /** Look again as long as the part is seen: often while something loads or answers, else now and then. */
  #follow() {
    const busy = this.items.some(({ standing }) => standing.state === "loading" || standing.active || standing.ending);
    setTimeout(async () => {
      if (!this.part.isConnected) return;
      if (!document.hidden) await this.reload().catch(() => undefined); // the next look will tell
      this.#follow();
    }, busy ? QUICK : CALM);
  }

  /** @param {Model} model */
  former(model) {
    return this.items.find((one) => one.default && one.name !== model.name);
  }
}

/** A model: how it is, and what can be done with it. */
class ModelCard {
  #shown = "";

  /** @param {Models} page */
  constructor(page) {
    this.page = page;
    this.body = el("div", { class: "stack" });
    this.tried = el("div", { "aria-live": "polite" });
    this.lines = el("div", { class: "models-lines", role: "log", tabindex: "0", "aria-label": t("models_log") });
    this.log = /** @type {HTMLDetailsElement} */ (el("details", { class: "models-log", ontoggle: () => void this.#readLog() }, el("summary", {}, t("models_log")), el("p", { class: "soft small" }, t("models_log_about")), this.lines));
    this.node = card(null, this.body, this.tried, this.log);
    /** @type {Model | null} */
    this.model = null;
  }

  /** @param {Model} model */
  show(model) {
    this.model = model;
    if (this.log.open) void this.#readLog();
    const state = JSON.stringify(model);
    if (state === this.#shown) return;
    this.#shown = state;
    const focused = /** @type {HTMLElement | null} */ (this.body.contains(document.activeElement) ? document.activeElement : null)?.dataset.act;
    this.body.replaceChildren(this.#head(model), ...this.#loading(model), facts(this.#facts(model)), this.#actions(model));
    if (focused) /** @type {HTMLElement | null} */ (this.body.querySelector(`[data-act="${focused}"]`))?.focus();
    this.node.setAttribute("aria-label", model.name);
  }

  /** @param {Model} model */
  #head(model) {
    return el("div", { class: "models-head" },
      el("h2", { class: "card-title" }, name(model.name)),
      badge(t(`models_state_${model.standing.state}`), TONES[model.standing.state]),
      model.default ? badge(t("models_default"), "good") : null,
      model.added ? null : el("span", { title: t("models_of_settings_hint") }, badge(t("models_of_settings"))));
  }

  /** @param {Model} model */
  #loading({ standing }) {
    if (standing.state === "loading") {
      const label = `${t("models_state_loading")} ${standing.stage}`;
      return [el("progress", { max: 1, value: standing.progress > 0 ? standing.progress : null, "aria-label": label })];
    }
    return standing.reason && standing.state === "failed" ? [el("p", { class: "form-error" }, plain(standing.reason))] : [];
  }

  /** @param {Model} model @returns {[string, string][]} */
  #facts(model) {
    /** @type {[string, string | false][]} */
    const pairs = [
      [t("models_runs"), model.runs || false],
      [t("models_adapter"), adapterTitle(model.adapter)],
      [t("models_server"), model.where || t("models_here")],
      [t("models_key"), this.#hasKey(model) && t(model.secrets.length ? "models_key_set" : "models_key_none")],
      [t("models_memory"), model.memory ? t("models_memory_about", { size: bytes(model.memory) }) : t("models_memory_none")],
      [t("models_dimension"), model.dimension ? t("models_numbers", { count: model.dimension }) : false],
      [t("models_indexes"), model.indexes.length ? model.indexes.join(", ") : false],
      [t("models_queue"), model.kind === "engine" && queue(model)],
      [t("models_used_by"), model.used_by.length ? model.used_by.join(", ") : false],
    ];
    return /** @type {[string, string][]} */ (pairs.filter(([, value]) => value));
  }

  /** @param {Model} model */
  #hasKey(model) {
    const adapter = this.page.adapters.find((one) => one.kind === model.kind && one.name === model.adapter);
    return model.added && Boolean(adapter?.fields.some((field) => field.is_secret));
  }

  /** @param {Model} model */
  #actions(model) {
    const { state } = model.standing;
    const isSlot = model.kind === "embedder" && !model.added; // it opens when Kvasir starts
    const act = (/** @type {string} */ key, /** @type {string} */ title, /** @type {() => void} */ work, /** @type {object} */ look = {}) => {
      const made = button(title, work, { small: true, ...look });
      made.dataset.act = key;
      return made;
    };
    return row(
      act("test", t("models_test"), () => void this.#test()),
      !model.default && act("use", t("models_use"), () => void this.#use(model)),
      model.default && model.added && act("unuse", t("models_unuse"), () => void this.#unuse(model)),
      !isSlot && (state === "off" || state === "idle" || state === "failed") && act("load", t(state === "failed" ? "models_load_again" : "models_load"), () => void this.#do("load")),
      model.added && model.enabled && !model.default && act("unload", t("models_unload"), () => void this.#unload(model)),
      model.added && act("edit", t("edit"), () => void editModel(model, this.page.adapters, () => this.page.reload())),
      model.added && !model.default && act("remove", t("models_remove"), () => void this.#remove(model), { danger: true }),
    );
  }

  get #address() {
    const model = /** @type {Model} */ (this.model);
    return `/models${path(model.kind, model.name)}`;
  }

  /** @param {string} what @param {object} [body] */
  async #do(what, body) {
    await attempt(() => call("POST", `${this.#address}/${what}`, body));
    await this.page.reload();
  }

  async #test() {
    this.tried.replaceChildren(el("p", { class: "soft" }, t("models_testing")));
    const tried = await attempt(() => call("POST", `${this.#address}/test`));
    this.tried.replaceChildren(...(tried ? [testResult(tried)] : []));
    await this.page.reload();
  }

  /** @param {Model} model */
  async #use(model) {
    const former = this.page.former(model);
    const box = /** @type {HTMLInputElement} */ (el("input", { type: "checkbox" }));
    const unload = former?.added ? el("label", { class: "check" }, box, el("span", {}, t("models_use_unload", { former: former.name }))) : null;
    await ask(t("models_use_title", { name: model.name }), [el("p", {}, t(`models_use_${model.kind}`)), unload], {
      label: t("models_use"),
      act: async () => {
        await call("POST", `${this.#address}/use`, { unload_former: box.checked });
        toast(t("models_used_now", { name: model.name }));
        await this.page.reload();
        return true;
      },
    });
  }

  /** @param {Model} model */
  async #unuse(model) {
    await ask(t("models_unuse_title", { name: model.name }), [el("p", {}, t("models_unuse_text"))], {
      label: t("models_unuse"),
      act: async () => {
        await call("DELETE", `${this.#address}/use`);
        await this.page.reload();
        return true;
      },
    });
  }

  /** @param {Model} model */
  async #unload(model) {
    const lost = model.kind === "embedder" ? t("models_unload_embedder") : t("models_unload_text");
    const names = [...new Set([...model.used_by, ...model.indexes])];
    const users = names.length ? el("p", {}, t("models_unload_users", { users: names.join(", ") })) : null;
    await ask(t("models_unload_title", { name: model.name }), [el("p", {}, lost), users], {
      label: t("models_unload"),
      act: async () => {
        await call("POST", `${this.#address}/unload`);
        await this.page.reload();
        return true;
      },
    });
  }

  /** @param {Model} model */
  #remove(model) {
    return confirmDeletion(t("models_remove_title", { name: model.name }), t("models_remove_text"), t("models_remove"), async () => {
      this.log.open = false; // nobody asks for the log of what is gone
      await call("DELETE", this.#address);
      toast(t("models_removed", { name: model.name }));
      await this.page.reload();
    });
  }

  async #readLog() {
    if (!this.log.open) return;
    const found = await attempt(() => get(`${this.#address}/log`));
    if (!found) return;
    const atEnd = this.lines.scrollTop + this.lines.clientHeight >= this.lines.scrollHeight - 4;
    const lines = found.items.map((/** @type {any} */ one) => el("div", { class: one.level === "ERROR" ? "bad" : one.level === "WARNING" ? "warn" : null }, when(one.at), " ", plain(one.text)));
    this.lines.replaceChildren(...(lines.length ? lines : [el("p", { class: "soft" }, t("models_log_empty"))]));
    if (atEnd) this.lines.scrollTop = this.lines.scrollHeight;
  }
}

/** What an engine is doing. @param {Model} model */
function queue({ standing, parallel }) {
  const parts = [
    standing.active ? t("models_queue_active", { active: standing.active }) : t("models_queue_idle"),
    standing.waiting ? t("models_queue_waiting", { waiting: standing.waiting }) : "",
    standing.ending ? t("models_queue_ending", { ending: standing.ending }) : "",
    parallel ? t("models_queue_limit", { limit: parallel }) : "",
  ];
  return parts.filter(Boolean).join(" · ");
}
