// One way of answering the question: its settings, what is found so, what the engine reads, and what it says.
import { announce, ask, attempt, button, call, el, icon, iconButton, path, plain, stream, t, toast } from "../base.js";
import { LiveMarkdown } from "../../markdown.js";
import { perFrame } from "../../dom.js";
import { sanitise } from "../../sanitise.js";
import { inWords, indexChoice, now, optionsForm } from "./options.js";
import { Found } from "./found.js";

/**
 * @typedef {{changed: () => void, remove: () => void, saved: () => Promise<void>, remember: (document: string) => void}} Actions
 */

export class Variant {
  /** @param {import("../playground.js").Here} here @param {import("../playground.js").Plan} plan @param {import("./options.js").Index[]} indexes @param {Actions} actions */
  constructor(here, plan, indexes, actions) {
    this.here = here;
    this.actions = actions;
    this.letter = "A";
    this.index = indexChoice(indexes);
    /** @type {AbortController | null} */
    this.running = null;
    /** @type {Found | null} */
    this.found = null;
    this.title = el("h2", { class: "card-title" });
    this.chosen = el("p", { class: "playground-chosen soft small" });
    this.removal = iconButton("close", "", () => actions.remove());
    this.save = here.me.can_manage ? button(t("playground_save"), () => void this.#save(), { small: true, icon: "check" }) : null;
    this.fields = el("div", { class: "stack" });
    this.settings = /** @type {HTMLDetailsElement} */ (el("details", { class: "advanced" }, el("summary", {}, t("playground_adjust")), this.fields));
    this.result = el("div", { class: "stack", "aria-live": "off" });
    this.node = el("section", { class: "card playground-variant" }, el("div", { class: "playground-head" }, this.title, this.removal), this.chosen, this.settings, this.result);
    this.renew(plan, true);
    this.settings.addEventListener("input", () => this.#tell());
    this.settings.addEventListener("change", () => this.#tell());
  }

  /** What is set for the knowledge base has changed. @param {import("../playground.js").Plan} plan @param {boolean} afresh whether to forget what was chosen here */
  renew(plan, afresh) {
    const before = afresh ? {} : this.options();
    this.plan = plan;
    this.form = optionsForm(plan);
    this.form.set({ ...before, ...(before.reranker === "" ? { reranker: "-" } : {}) });
    const copy = button(t("playground_copy_instructions"), () => { this.form?.set({ instructions: plan.instructions }); this.#tell(); }, { small: true });
    this.fields.replaceChildren(...(this.index.node ? [this.index.node] : []), this.form.node, el("div", { class: "toolbar" }, copy, this.save));
    this.#tell();
  }

  /** @param {string} letter @param {boolean} several */
  name(letter, several) {
    this.letter = letter;
    this.title.textContent = t("playground_variant", { letter });
    this.node.setAttribute("aria-label", t("playground_variant", { letter }));
    this.removal.hidden = !several;
    this.removal.setAttribute("aria-label", t("playground_remove", { letter }));
    this.removal.title = t("playground_remove", { letter });
  }

  open() {
    this.settings.open = true;
  }

  options() {
    return this.form?.values() ?? {};
  }

  /** Names of the documents that were found, best first. */
  documents() {
    return this.found?.data.passages.map((one) => one.document) ?? [];
  }

  /** Mark what stands elsewhere than in another variant. @param {Variant} first */
  compare(first) {
    this.found?.compare(first === this ? null : first.found, first.letter);
  }

  stop() {
    this.running?.abort();
  }

  /** @param {string} text @param {boolean} answer */
  async try(text, answer) {
    this.stop();
    const running = new AbortController();
    this.running = running;
    this.found = null;
    this.result.replaceChildren(el("p", { class: "soft", role: "status" }, t("playground_waiting")));
    const said = new Said();
    try {
      for await (const { event, data } of stream("POST", `/kbs${path(this.here.kb.name)}/playground/questions`, { text, answer, options: this.options(), generation_id: this.index.value() }, running.signal)) {
        if (event === "considered") {
          this.found = new Found(data, this.here.kb.can_edit ? this.actions.remember : null);
          this.result.replaceChildren(this.found.verdict, ...(answer ? [said.node] : []), this.found.passages, this.found.prompt);
          if (answer) said.begin();
          this.actions.changed();
        } else if (event === "queued") said.queued(data.place);
        else if (event === "delta") said.append(data.text);
        else if (event === "finished") said.finish(data);
        else if (event === "error") throw new Error(data.detail);
      }
    } catch (error) {
      if (running.signal.aborted) said.stopped(this.result);
      else this.result.append(el("p", { class: "form-error", role: "alert" }, plain(error instanceof Error ? error.message : String(error))));
    } finally {
      this.result.querySelector("[role=status]")?.remove();
      if (this.running === running) this.running = null;
    }
  }

  #tell() {
    const said = inWords(this.options());
    const words = [this.index.text(), ...said.map(([name, value]) => `${name}: ${plain(value)}`)].filter(Boolean);
    this.chosen.textContent = words.join(" · ") || t("playground_as_set");
    if (this.save) this.save.disabled = !said.length;
  }

  async #save() {
    const plan = this.plan;
    const options = this.options();
    if (!plan) return;
    const said = inWords(options);
    if (!said.length) { toast(t("playground_save_nothing"), "bad"); return; }
    const list = el("ul", {}, ...said.map(([name, value, which]) => el("li", {}, `${name}: `, el("strong", {}, t("playground_from_to", { from: now(plan, which), to: value })))));
    await ask(t("playground_save_title"), [el("p", {}, t("playground_save_text", { kb: this.here.kb.name })), list], {
      label: t("playground_save"),
      act: async () => {
        await call("PATCH", `/kbs${path(this.here.kb.name)}`, options);
        await attempt(() => this.actions.saved(), t("playground_saved"));
        return true;
      },
    });
  }
}

/** The answer while it is written, and afterwards. */
class Said {
  constructor() {
    this.text = "";
    this.body = el("div", { class: "prose", dir: "auto" });
    this.tail = el("p", { class: "soft small" });
    this.node = el("article", { class: "playground-answer", "aria-label": t("playground_answer") }, el("h3", {}, t("playground_answer")), this.body, this.tail);
    this.live = new LiveMarkdown(this.body);
    this.draw = perFrame(() => { if (this.node.hasAttribute("aria-busy")) this.live.show(this.text); });
  }

  begin() {
    this.node.setAttribute("aria-busy", "true");
    this.tail.textContent = t("playground_writing");
  }

  /** @param {number} place from 1; 0: it waits no more */
  queued(place) {
    this.tail.textContent = place ? t("playground_queued", { place }) : t("playground_writing");
  }

  /** @param {string} text */
  append(text) {
    this.text += text;
    this.draw();
  }

  /** @param {{html: string, text: string, answered: boolean, notice: string, timings_ms: Record<string, number>}} data */
  finish(data) {
    this.node.removeAttribute("aria-busy");
    this.body.replaceChildren(sanitise(data.html));
    this.node.classList.toggle("refused", !data.answered);
    const took = data.timings_ms.total ? t("playground_took", { ms: Math.round(data.timings_ms.total), search: Math.round(data.timings_ms.retrieve ?? 0) }) : "";
    this.tail.replaceChildren(...(data.answered ? [] : [el("span", { class: "badge warn" }, t("playground_refused")), " "]), plain([data.notice, took].filter(Boolean).join(" ")));
    announce(data.text);
  }

  /** @param {HTMLElement} result */
  stopped(result) {
    this.node.removeAttribute("aria-busy");
    this.live.show(this.text);
    this.tail.replaceChildren(icon("stop"), " ", t("playground_stopped"));
    if (!this.node.isConnected) result.replaceChildren(el("p", { class: "soft" }, t("playground_stopped")));
  }
}
