// Bringing documents in: files and whole folders dropped or picked, pages by their address; each followed to its end.
import { announce, attempt, button, bytes, call, card, el, form, icon, number, path, percent, plain, row, stream, t, upload } from "../base.js";
import { perFrame } from "../../dom.js";

const BATCH = 200;
const BATCH_BYTES = 100e6;
const SHOWN = 100;
const STAGES = ["stored", "parsed", "split", "embedded", "live"];
const HIDDEN = /(^|\/)(\.|~\$|__MACOSX\/|Thumbs\.db$|desktop\.ini$)/;

/**
 * @typedef {{name: string, file: File}} Picked
 * @typedef {{name: string, size: number, state: "waiting" | "sending" | "reading" | "done" | "same" | "failed" | "stopped", stage: string, share: number, reason: string,
 *   file: File | null, id: string, seen: number}} Item
 */

export class Uploads {
  /** @param {string} kb @param {number} limitMb */
  constructor(kb, limitMb) {
    this.kb = kb;
    this.limitMb = limitMb;
    /** Called when documents have come in. */
    this.changed = () => {};
    /** @type {Item[]} */
    this.items = [];
    this.hidden = 0;
    this.counter = 0;
    this.sending = Promise.resolve();
    this.watching = Promise.resolve();
    /** @type {AbortController} */
    this.stop = new AbortController();
    this.progress = el("div", { class: "upload-progress", hidden: true });
    this.redraw = perFrame(() => this.#draw());
    this.address = el("details", {}, el("summary", {}, t("library_address")), this.#address());
    this.node = card(null, this.#zone(), this.address, this.progress);
    window.addEventListener("beforeunload", (event) => { if (this.items.some((one) => one.state === "waiting" || one.state === "sending")) event.preventDefault(); });
  }

  /** Whether the field for an address is seen at once. @param {boolean} wide */
  open(wide) {
    /** @type {HTMLDetailsElement} */ (this.address).open = wide;
  }

  // ---------------------------------------------------------------- picking
  #zone() {
    const files = this.#picker({ multiple: true });
    const folder = this.#picker({ webkitdirectory: true });
    const zone = el("div", { class: "drop" }, icon("upload"),
      el("div", { class: "drop-words" }, el("strong", {}, t("library_drop")), el("span", { class: "soft small" }, t("library_drop_hint", { n: this.limitMb }))),
      row(button(t("library_pick_files"), () => files.click(), { primary: true }), button(t("library_pick_folder"), () => folder.click(), { icon: "folder" })), files, folder);
    let depth = 0;
    const over = (/** @type {number} */ by) => { depth = Math.max(0, depth + by); zone.classList.toggle("over", depth > 0); };
    zone.addEventListener("dragenter", (event) => { event.preventDefault(); over(1); });
    zone.addEventListener("dragover", (event) => event.preventDefault());
    zone.addEventListener("dragleave", () => over(-1));
    zone.addEventListener("drop", (event) => { event.preventDefault(); event.stopPropagation(); over(-depth); void this.dropped(event.dataTransfer); });
    return zone;
  }

  /** @param {Record<string, boolean>} how */
  #picker(how) {
    const input = /** @type {HTMLInputElement} */ (el("input", { type: "file", class: "hidden", tabindex: "-1", "aria-hidden": "true", ...how, onchange: () => {
      this.take([...(input.files ?? [])].map((file) => ({ name: file.webkitRelativePath || file.name, file })));
      input.value = "";
    } }));
    return input;
  }

  /** @param {DataTransfer | null} dropped */
  async dropped(dropped) {
    const entries = [...(dropped?.items ?? [])].map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry !== null && entry !== undefined);
    if (!entries.length) return this.take([...(dropped?.files ?? [])].map((file) => ({ name: file.name, file })));
    const found = await attempt(async () => (await Promise.all(entries.map((entry) => filesOf(entry)))).flat());
    return this.take(found ?? []);
  }

  #address() {
    const fields = form([{ name: "url", label: t("library_address_label"), kind: "url", placeholder: "https://", hint: t("library_address_hint"), maxlength: 4096 }]);
    const go = button(t("library_fetch"), () => void send(), { icon: "link" });
    const send = async () => {
      const url = fields.values().url.trim();
      fields.showError("url", url ? "" : t("base_needed"));
      if (!url) return;
      go.disabled = true;
      const item = this.#item(url, 0, null);
      item.state = "sending";
      item.share = 1;
      this.redraw();
      try {
        const ticket = await call("POST", `${path("kbs", this.kb)}/documents/url`, { url });
        for (const one of [...ticket.documents, ...ticket.unchanged, ...ticket.refused]) item.name = one.name;
        this.#follow(ticket, [item]);
        fields.set({ url: "" });
      } catch (error) {
        this.items = this.items.filter((one) => one !== item);
        fields.showError("url", /** @type {Error} */ (error).message);
        this.redraw();
      } finally {
        go.disabled = false;
      }
    };
    fields.input("url")?.addEventListener("keydown", (/** @type {Event} */ event) => { if (/** @type {KeyboardEvent} */ (event).key === "Enter") void send(); });
    return el("div", { class: "address" }, fields.node, go);
  }

  // ---------------------------------------------------------------- sending
  /** @param {Picked[]} picked */
  take(picked) {
    const wanted = picked.filter((one) => !HIDDEN.test(one.name));
    this.hidden += picked.length - wanted.length;
    const items = wanted.map(({ name, file }) => this.#item(name, file.size, file));
    for (const item of items) {
      if (!item.size) this.#refuse(item, t("library_file_empty"));
      else if (item.size > this.limitMb * 1048576) this.#refuse(item, t("library_file_large", { n: this.limitMb }));
    }
    this.#send(items.filter((item) => item.state === "waiting"));
    this.redraw();
  }

  /** @param {string} name @param {number} size @param {File | null} file @returns {Item} */
  #item(name, size, file) {
    /** @type {Item} */
    const item = { name, size, state: "waiting", stage: "", share: 0, reason: "", file, id: "", seen: ++this.counter };
    this.items.push(item);
    return item;
  }

  /** @param {Item[]} items */
  #send(items) {
    const signal = this.stop.signal;
    for (const batch of batches(items)) {
      this.sending = this.sending.then(async () => {
        if (signal.aborted) return;
        for (const item of batch) item.state = "sending";
        try {
          const files = batch.map((item) => /** @type {File} */ (item.file));
          const ticket = await upload(`${path("kbs", this.kb)}/documents`, files, (share) => { for (const item of batch) item.share = share; this.redraw(); },
            { names: batch.map((item) => item.name), signal });
          this.#follow(ticket, batch);
        } catch (error) {
          if (!signal.aborted) for (const item of batch) this.#fail(item, /** @type {Error} */ (error).message);
        }
      });
    }
  }

  /** @param {any} ticket @param {Item[]} batch */
  #follow(ticket, batch) {
    const byName = new Map(batch.map((item) => [item.name.normalize(), item]));
    const left = new Set(batch);
    const of = (/** @type {{name: string}} */ one, /** @type {number} */ at, /** @type {any[]} */ all) => {
      const item = byName.get(one.name.normalize()) ?? (all.length === batch.length ? batch[at] : undefined) ?? [...left][0];
      if (item) left.delete(item);
      return item;
    };
    ticket.refused.forEach((/** @type {any} */ one, /** @type {number} */ at) => { const item = of(one, at, ticket.refused); if (item) this.#fail(item, one.reason ?? t("server_error")); });
    ticket.unchanged.forEach((/** @type {any} */ one, /** @type {number} */ at) => { const item = of(one, at, ticket.unchanged); if (item) { item.state = "same"; item.reason = one.reason ?? ""; this.#touch(item); } });
    /** @type {Map<string, Item>} */
    const byId = new Map();
    ticket.documents.forEach((/** @type {any} */ one, /** @type {number} */ at) => {
      const item = of(one, at, ticket.documents);
      if (!item) return;
      byId.set(one.id, item);
      item.id = one.id;
      item.state = "reading";
      item.stage = one.stage;
    });
    for (const item of left) item.state = "same"; // the same name twice: the other one is told
    this.changed();
    this.redraw();
    if (byId.size) this.#watch(ticket.job_id, byId);
  }

  /** One job's events after the other's: a browser keeps only a few connections open. @param {string} job @param {Map<string, Item>} byId */
  #watch(job, byId) {
    this.watching = this.watching.then(async () => {
      const open = () => [...byId.values()].some((item) => item.state === "reading");
      for (let tries = 0; tries < 6 && open(); tries += 1) {
        if (tries) await new Promise((resolve) => setTimeout(resolve, 2000));
        try {
          for await (const { event, data } of stream("GET", `${path("jobs", job)}/events`)) {
            if (event === "document") this.#step(byId.get(data.document_id), data);
            else if (event === "error" || event === "end") break;
          }
        } catch { /* the job goes on without us; look again */ }
      }
      for (const item of byId.values()) if (item.state === "reading") { item.state = "stopped"; item.reason = t("library_see_table"); }
      this.changed();
      this.redraw();
      if (!this.#open()) announce(this.#words());
    });
  }

  /** @param {Item | undefined} item @param {{status: string, stage: string, reason: string | null}} event */
  #step(item, event) {
    if (!item || item.state !== "reading") return;
    item.stage = event.stage;
    if (event.status === "indexed") { item.state = "done"; item.reason = event.reason ?? ""; this.#touch(item); }
    if (event.status === "failed") this.#fail(item, event.reason ?? t("server_error"));
    this.redraw();
  }

  /** For good: to send it once more would change nothing. @param {Item} item @param {string} reason */
  #refuse(item, reason) {
    item.file = null;
    this.#fail(item, reason);
  }

  /** @param {Item} item @param {string} reason */
  #fail(item, reason) {
    item.state = "failed";
    item.reason = reason;
    this.#touch(item);
    this.redraw();
  }

  /** @param {Item} item */
  #touch(item) { item.seen = ++this.counter; }

  // ---------------------------------------------------------------- stopping and trying again
  async #halt() {
    this.stop.abort();
    this.stop = new AbortController();
    const reading = this.items.filter((item) => item.state === "reading");
    for (const item of this.items) if (["waiting", "sending", "reading"].includes(item.state)) { item.state = "stopped"; item.reason = ""; }
    this.redraw();
    for (let at = 0; at < reading.length; at += 1000) {
      await attempt(() => call("POST", `${path("kbs", this.kb)}/documents/changes`, { change: "cancel", ids: reading.slice(at, at + 1000).map((item) => item.id) }));
    }
    this.changed();
  }

  /** @param {Item[]} items */
  async #again(items) {
    const sent = items.filter((item) => item.id);
    const unsent = items.filter((item) => !item.id && item.file);
    for (const item of unsent) { item.state = "waiting"; item.reason = ""; }
    this.#send(unsent);
    for (let at = 0; at < sent.length; at += 1000) {
      const part = sent.slice(at, at + 1000);
      const done = await attempt(() => call("POST", `${path("kbs", this.kb)}/documents/changes`, { change: "retry", ids: part.map((item) => item.id) }));
      if (!done?.job_id) continue;
      for (const item of part) { item.state = "reading"; item.stage = "stored"; item.reason = ""; }
      this.#watch(done.job_id, new Map(part.map((item) => [item.id, item])));
    }
    this.redraw();
  }

  // ---------------------------------------------------------------- drawing
  #open() { return this.items.some((item) => ["waiting", "sending", "reading"].includes(item.state)); }

  /** @param {...string} states */
  #count(...states) { return this.items.filter((item) => states.includes(item.state)).length; }

  #words() {
    const all = this.items.length;
    return [
      t("library_up_done", { n: number(all - this.#count("waiting", "sending", "reading")), all: number(all) }),
      this.#count("same") ? t("library_up_same", { n: this.#count("same") }) : "",
      this.#count("failed") ? t("library_up_failed", { n: this.#count("failed") }) : "",
      this.#count("stopped") ? t("library_up_stopped", { n: this.#count("stopped") }) : "",
      this.hidden ? t("library_up_hidden", { n: this.hidden }) : "",
    ].filter(Boolean).join(" · ");
  }

  #draw() {
    this.progress.hidden = !this.items.length && !this.hidden;
    if (this.progress.hidden) return;
    const open = this.#open();
    const failed = this.items.filter((item) => item.state === "failed" && (item.id || item.file));
    const share = this.items.reduce((sum, item) => sum + progressOf(item), 0) / Math.max(1, this.items.length);
    const order = { failed: 0, sending: 1, reading: 1, waiting: 2, stopped: 3, done: 4, same: 4 };
    const shown = [...this.items].sort((a, b) => order[a.state] - order[b.state] || (a.state === "waiting" ? a.seen - b.seen : b.seen - a.seen)).slice(0, SHOWN);
    this.progress.replaceChildren(
      row(el("strong", {}, this.#words()), el("span", { class: "push" }),
        failed.length && !open ? button(t("library_again_all", { n: failed.length }), () => void this.#again(failed), { small: true, icon: "refresh" }) : null,
        open ? button(t("stop"), () => void this.#halt(), { small: true, icon: "stop" }) : button(t("library_clear"), () => { this.items = []; this.hidden = 0; this.redraw(); }, { small: true })),
      el("progress", { max: "1", value: String(share), "aria-label": t("library_progress") }),
      el("ul", { class: "upload-list" }, ...shown.map((item) => this.#line(item))),
      this.items.length > SHOWN ? el("p", { class: "soft small" }, t("library_more", { n: this.items.length - SHOWN })) : "");
  }

  /** @param {Item} item */
  #line(item) {
    const at = STAGES.indexOf(item.stage);
    const steps = item.state === "reading" ? el("ol", { class: "stages" }, ...STAGES.map((stage, i) => el("li", { class: i <= at ? "done" : null }, t(`library_stage_${stage}`)))) : null;
    const again = item.state === "failed" && (item.id || item.file) ? button(t("try_again"), () => void this.#again([item]), { small: true, icon: "refresh" }) : null;
    return el("li", { class: item.state }, el("span", { class: "upload-name" }, el("bdi", {}, plain(item.name)), item.size ? el("small", {}, bytes(item.size)) : null),
      el("span", { class: "upload-state" }, said(item)), steps, again);
  }
}

/** @param {Item} item */
function said(item) {
  if (item.state === "failed" || item.reason) return item.reason;
  if (item.state === "sending") return item.share < 1 ? t("library_sending", { share: percent(item.share) }) : t("library_storing");
  return t(`library_item_${item.state}`);
}

/** @param {Item} item 0..1 */
function progressOf(item) {
  if (item.state === "waiting") return 0;
  if (item.state === "sending") return 0.3 * item.share;
  if (item.state === "reading") return 0.3 + 0.14 * (STAGES.indexOf(item.stage) + 1);
  return 1;
}

/** @param {Item[]} items */
function batches(items) {
  /** @type {Item[][]} */
  const made = [];
  let size = Infinity;
  for (const item of items) {
    if (size + item.size > BATCH_BYTES || (made.at(-1)?.length ?? 0) >= BATCH) { made.push([]); size = 0; }
    made.at(-1)?.push(item);
    size += item.size;
  }
  return made;
}

/** The files of a dropped file or folder, with the folders in their names. @param {any} entry @returns {Promise<Picked[]>} */
async function filesOf(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ name: entry.fullPath.replace(/^\//, "") || file.name, file }];
  }
  const reader = entry.createReader();
  /** @type {Picked[]} */
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found;
    for (const one of some) found.push(...await filesOf(one));
  }
}

