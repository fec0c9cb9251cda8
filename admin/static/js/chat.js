// The chat page.
import { address, ApiError, call, get, path, stream } from "./api.js";
import { Composer } from "./composer.js";
import { ConversationList, titleOf } from "./conversations.js";
import { byId, plain, toast } from "./dom.js";
import { ExchangeView } from "./exchange.js";
import { keep, recall, t } from "./i18n.js";
import { broken, closeDrawer, openShell } from "./shell.js";
import { Follower } from "./follow.js";
import { welcome } from "./welcome.js";

/** @typedef {import("./conversations.js").Conversation} Conversation */
/** @typedef {{name: string, description: string, private: boolean, documents: number, chunks: number, vectors: boolean}} Kb */

const KB = "kvasir.kb";

class Chat {
  /** @param {import("./shell.js").Me} me */
  constructor(me) {
    this.me = me;
    /** @type {Kb[]} */
    this.kbs = [];
    /** @type {Pick<Conversation, "id" | "title" | "kb"> | null} */
    this.conversation = null;
    /** @type {AbortController | null} */
    this.running = null;
    /** Id of the last answer that is shown. */
    this.newest = "";
    this.place = byId("exchanges");
    this.kb = byId("kb");
    this.follower = new Follower(byId("thread"), byId("jump"));
    this.composer = new Composer({ ask: (text) => void this.ask(text), stop: () => this.stop() });
    this.list = new ConversationList({
      open: closeDrawer,
      gone: (id) => { if (id === this.conversation?.id) this.fresh(); },
      renamed: (item) => { if (item.id === this.conversation?.id) this.#title(item.title); },
    });
    /** @type {import("./exchange.js").Actions} */
    this.actions = {
      regenerate: (view) => void this.#run(view, view.answerId),
      retry: (view) => void this.#run(view, view.answerId),
      moved: () => this.follower.moved(),
    };
    for (const id of ["new", "new-here"]) byId(id).addEventListener("click", () => { closeDrawer(); this.fresh(); });
    this.kb.addEventListener("change", () => void this.#chooseKb());
    window.addEventListener("hashchange", () => void this.#route());
  }

  async open() {
    const [kbs] = await Promise.all([get("/kbs"), this.list.refresh()]);
    this.kbs = kbs.items;
    this.#offerKbs();
    if (location.hash) await this.#route();
    else this.fresh();
  }

  #offerKbs() {
    const all = this.kbs.length > 1 ? [new Option(t("all_kbs"), "")] : [];
    this.kb.replaceChildren(...this.kbs.map((kb) => new Option(plain(kb.name), kb.name)), ...all);
    byId("kb-choice").hidden = !this.kbs.length;
    this.#showKb(recall(KB));
  }

  /** @param {string | null} name */
  #showKb(name) {
    if ([...this.kb.options].some((option) => option.value === name)) this.kb.value = name;
  }

  async #chooseKb() {
    keep(KB, this.kb.value);
    if (!this.place.childElementCount) this.#welcome();
    if (this.conversation) await call("PATCH", path("conversations", this.conversation.id), { kb: this.kb.value }).catch((error) => toast(error.message, "bad"));
  }

  /** Show the conversation that the address names. */
  async #route() {
    const id = location.hash.slice(1);
    if (id === (this.conversation?.id ?? "")) return;
    if (!id) return this.fresh();
    this.stop();
    try {
      const found = await get(path("conversations", id));
      this.#enter(found);
      this.newest = found.exchanges.at(-1)?.answer_id ?? "";
      this.place.replaceChildren(...found.exchanges.map((/** @type {any} */ record) => ExchangeView.of(record, this.actions).element));
      byId("welcome").hidden = found.exchanges.length > 0;
      this.follower.toEnd();
    } catch (error) {
      toast(/** @type {Error} */ (error).message, "bad");
      this.fresh();
    }
    return undefined;
  }

  /** @param {Pick<Conversation, "id" | "title" | "kb">} conversation */
  #enter(conversation) {
    this.conversation = conversation;
    this.#showKb(conversation.kb ?? "");
    this.list.choose(conversation.id);
    this.#title(conversation.title);
    const exporter = byId("export");
    exporter.href = address(`${path("conversations", conversation.id)}/export.md`);
    exporter.setAttribute("download", "");
    exporter.hidden = false;
  }

  /** @param {string} title */
  #title(title) {
    const shown = plain(title) || t("new_conversation");
    byId("title").firstElementChild.textContent = shown;
    document.title = this.conversation ? `${shown} · Kvasir` : "Kvasir";
  }

  /** An empty page for a new conversation; it exists once something is asked. */
  fresh() {
    this.stop();
    this.conversation = null;
    this.newest = "";
    if (location.hash) history.pushState(null, "", location.pathname);
    this.place.replaceChildren();
    byId("export").hidden = true;
    this.list.choose("");
    this.#title("");
    this.#welcome();
    this.composer.focus();
  }

  #welcome() {
    const chosen = this.kbs.find((kb) => kb.name === this.kb.value) ?? this.kbs.find((kb) => kb.documents);
    void welcome(byId("welcome"), { me: this.me, kb: chosen, ask: (text) => void this.ask(text) });
  }

  /** @param {string} text */
  async ask(text) {
    if (this.running) return;
    if (text.length > this.me.max_question_chars) {
      this.composer.write(text);
      toast(t("question_long", { n: this.me.max_question_chars }), "bad");
      return;
    }
    const view = new ExchangeView(text, this.actions);
    byId("welcome").hidden = true;
    this.place.append(view.element);
    await this.#run(view, "");
  }

  stop() {
    this.running?.abort();
  }

  /** Get the answer to a view's question, in the place of answer `replaces` where it has one. @param {ExchangeView} view @param {string} replaces */
  async #run(view, replaces) {
    if (this.running) return;
    const running = (this.running = new AbortController());
    this.composer.setBusy(true);
    view.begin();
    this.follower.toEnd();
    try {
      await this.#ensureConversation(view.question);
      await this.#receive(view, replaces, running.signal);
    } catch (error) {
      if (running.signal.aborted) await this.#stopped(view);
      else view.fail(error instanceof ApiError ? error.message : t("server_error"));
    } finally {
      this.running = null;
      this.composer.setBusy(false);
      this.follower.moved();
      void this.#refreshTitle();
    }
  }

  /** @param {string} question */
  async #ensureConversation(question) {
    if (this.conversation) return;
    const made = await call("POST", "/conversations", this.kb.value ? { kb: this.kb.value } : {});
    history.pushState(null, "", `#${made.id}`);
    this.#enter({ id: made.id, title: made.title || question.slice(0, 60), kb: made.kb ?? null });
  }

  /** @param {ExchangeView} view @param {string} replaces @param {AbortSignal} signal */
  async #receive(view, replaces, signal) {
    const where = `${path("conversations", this.conversation?.id ?? "")}/questions`;
    const body = { text: view.question, ...(this.kb.value ? { kb: this.kb.value } : {}), ...(replaces ? { regenerate: replaces } : {}) };
    for await (const { event, data } of stream("POST", where, body, signal)) {
      if (event === "status") view.say(data.text);
      else if (event === "sources") view.found(data.sources.length);
      else if (event === "delta") view.append(data.text);
      else if (event === "error") return view.fail(data.detail);
      else if (event === "finished") {
        this.newest = data.answer_id;
        view.settle({ state: "complete", rating: null, ...data });
        byId("live").textContent = plain(data.text);
        return undefined;
      }
    }
    throw new ApiError(0, t("cut_off"));
  }

  /** The server keeps what was written until the stop, or all where it was done just then; take its record, so that it can be rated. @param {ExchangeView} view */
  async #stopped(view) {
    view.stop();
    if (!(await this.#recorded(view, 400))) void this.#lookAgain(view);
  }

  /** A server that has much to do writes it a bit later. @param {ExchangeView} view */
  async #lookAgain(view) {
    const { conversation } = this;
    for (const wait of [1000, 2000, 4000, 8000]) {
      if ((await this.#recorded(view, wait)) || this.running || this.conversation !== conversation) return;
    }
  }

  /** Whether the record of a stopped answer is there after so many milliseconds, and is shown. @param {ExchangeView} view @param {number} wait */
  async #recorded(view, wait) {
    if (!this.conversation) return false;
    await new Promise((resolve) => setTimeout(resolve, wait));
    const found = await get(path("conversations", this.conversation.id)).catch(() => null);
    const record = found?.exchanges.at(-1);
    if (!record || record.question !== view.question || record.state === "failed" || record.answer_id === this.newest) return false;
    this.newest = record.answer_id;
    view.settle(record);
    return true;
  }

  async #refreshTitle() {
    await this.list.refresh();
    const item = this.conversation && this.list.find(this.conversation.id);
    if (item) this.#title(titleOf(item));
  }
}

await openShell("chat").then((me) => new Chat(me).open()).catch(broken);
