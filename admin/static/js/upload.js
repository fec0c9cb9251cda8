// Uploading: files dropped or picked, sent in batches, and each followed through its stages until it is live.
import { path, stream, upload } from "./api.js";
import { announce, byId, el, icon, iconButton, name } from "./dom.js";
import { percent, size, t } from "./i18n.js";

const STAGES = ["stored", "parsed", "split", "embedded", "live"];
const BATCH = 20;
const BATCH_BYTES = 200e6;
const ENDED = new Set(["indexed", "unchanged", "failed"]);

/**
 * @typedef {{name: string, reason: string | null}} NotTaken
 * @typedef {{job_id: string, unchanged: NotTaken[], refused: NotTaken[],
 *   documents: {id: string, name: string, status: string, stage: string, reason: string | null, chunks: number}[]}} Ticket
 */

/** One file on its way. */
class Upload {
  /** @param {string} kb @param {File} file @param {(row: Upload) => void} again */
  constructor(kb, file, again) {
    this.kb = kb;
    this.file = file;
    this.again = again;
    this.ended = false;
    this.bar = el("progress", { max: "1", value: "0", "aria-label": file.name });
    this.words = el("span", { class: "upload-words" });
    this.steps = el("ol", { class: "steps", "aria-hidden": "true" }, ...STAGES.map((stage) => el("li", {}, t(`stage_${stage}`))));
    this.end = el("span", { class: "upload-end" });
    this.element = el("li", { class: "upload" }, el("div", { class: "upload-head" }, icon("document"), name(file.name), el("small", {}, size(file.size)), this.end),
      this.bar, this.steps, this.words);
    this.say(t("waiting"));
  }

  /** @param {string} text */
  say(text) {
    this.words.textContent = text;
  }

  /** @param {number} share */
  sent(share) {
    this.bar.value = share;
    this.say(share < 1 ? t("sending", { share: percent(share) }) : t("storing"));
  }

  /** @param {{status: string, stage: string, reason: string | null, chunks: number}} event */
  follow(event) {
    const reached = STAGES.indexOf(event.stage);
    this.bar.hidden = true;
    [...this.steps.children].forEach((step, i) => step.classList.toggle("done", i <= reached && event.status !== "failed"));
    if (event.status === "failed") return this.fail(event.reason ?? t("server_error"));
    if (!ENDED.has(event.status)) return this.say(t(event.stage === "stored" ? "reading" : `after_${event.stage}`));
    this.ended = true;
    this.element.classList.add("good");
    this.end.replaceChildren(icon("check"));
    this.say(event.reason || t(event.status === "unchanged" ? "unchanged" : "live_now", { n: event.chunks ?? 0 }));
    return undefined;
  }

  /** @param {string} reason */
  fail(reason) {
    this.ended = true;
    this.bar.hidden = true;
    this.element.classList.add("bad");
    this.end.replaceChildren(iconButton("refresh", t("try_again"), () => this.again(this)));
    this.say(reason);
    announce(`${this.file.name}: ${reason}`);
  }
}

export class Uploads {
  /** @param {number} limitMb @param {() => void} changed called when documents have come in */
  constructor(limitMb, changed) {
    this.limitMb = limitMb;
    this.changed = changed;
    /** @type {Map<string, HTMLElement>} */
    this.lists = new Map();
    this.sending = Promise.resolve();
    this.busy = 0;
    window.addEventListener("beforeunload", (event) => { if (this.busy) event.preventDefault(); });
    // A file dropped beside the zone must not replace the page.
    for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
  }

  /** The uploads into one knowledge base since the page was opened. @param {string} kb */
  list(kb) {
    const list = this.lists.get(kb) ?? el("ul", { class: "uploads", "aria-label": t("uploads") });
    this.lists.set(kb, list);
    return list;
  }

  /** The place to drop files, with a button for picking them. @param {string} kb */
  dropZone(kb) {
    const picker = el("input", { type: "file", multiple: true, class: "hidden", tabindex: "-1", "aria-hidden": "true", id: "picker", onchange: () => { this.#take(kb, [...picker.files]); picker.value = ""; } });
    const zone = el("div", { class: "drop" }, picker, icon("upload"), el("p", {}, t("drop_here")),
      el("button", { type: "button", class: "button primary", onclick: () => picker.click() }, t("choose_files")),
      el("p", { class: "field-hint" }, t("formats", { n: this.limitMb })));
    let depth = 0;
    const over = (/** @type {number} */ step) => { depth = Math.max(0, depth + step); zone.classList.toggle("over", depth > 0); };
    zone.addEventListener("dragenter", () => over(1));
    zone.addEventListener("dragleave", () => over(-1));
    zone.addEventListener("drop", (event) => { over(-depth); void this.#dropped(kb, event.dataTransfer); });
    return zone;
  }

  /** @param {string} kb @param {DataTransfer | null} dropped */
  async #dropped(kb, dropped) {
    const entries = [...(dropped?.items ?? [])].map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry !== null && entry !== undefined);
    const files = entries.length ? (await Promise.all(entries.map(filesOf))).flat() : [...(dropped?.files ?? [])];
    this.#take(kb, files);
  }

  /** @param {string} kb @param {File[]} files */
  #take(kb, files) {
    const rows = files.map((file) => new Upload(kb, file, (row) => { row.element.remove(); this.#take(row.kb, [row.file]); }));
    this.list(kb).prepend(...rows.map((row) => row.element));
    const good = rows.filter((row) => this.#check(row));
    for (const batch of batches(good)) this.sending = this.sending.then(() => this.#send(kb, batch));
  }

  /** @param {Upload} row */
  #check(row) {
    if (!row.file.size) row.fail(t("file_empty"));
    else if (row.file.size > this.limitMb * 1e6 * 1.048576) row.fail(t("file_too_large", { n: this.limitMb }));
    return !row.ended;
  }

  /** @param {string} kb @param {Upload[]} rows */
  async #send(kb, rows) {
    this.busy += 1;
    try {
      const ticket = await upload(`${path("kbs", kb)}/documents`, rows.map((row) => row.file), (share) => rows.forEach((row) => row.sent(share)));
      void this.#watch(ticket, rows);
    } catch (error) {
      rows.forEach((row) => row.fail(/** @type {Error} */ (error).message));
    } finally {
      this.busy -= 1;
    }
  }

  /** @param {Ticket} ticket @param {Upload[]} rows */
  async #watch(ticket, rows) {
    const left = [...rows];
    const take = (/** @type {{name: string}} */ item) => left.splice(Math.max(0, left.findIndex((row) => row.file.name.normalize() === item.name.normalize())), 1)[0];
    ticket.refused.forEach((item) => take(item)?.fail(item.reason ?? t("server_error")));
    ticket.unchanged.forEach((item) => take(item)?.follow({ status: "unchanged", stage: "live", reason: null, chunks: 0 }));
    const byDocument = new Map(ticket.documents.map((doc) => [doc.id, take(doc)]));
    ticket.documents.forEach((doc) => byDocument.get(doc.id)?.follow(doc));
    this.changed();
    for (let tries = 0; tries < 6 && rows.some((row) => !row.ended); tries += 1) {
      if (tries) await new Promise((resolve) => setTimeout(resolve, 2000));
      try {
        for await (const { event, data } of stream("GET", `${path("jobs", ticket.job_id)}/events`)) {
          if (event === "document") byDocument.get(data.document_id)?.follow(data);
          else if (event === "error" || event === "end") break;
        }
      } catch {
        continue; // the job goes on without us; look again
      }
    }
    rows.filter((row) => !row.ended).forEach((row) => row.say(t("see_table")));
    this.changed();
    byId("live").textContent = t("uploads_done");
  }
}

/** @param {Upload[]} rows @returns {Upload[][]} */
function batches(rows) {
  /** @type {Upload[][]} */
  const made = [];
  let bytes = Infinity;
  for (const row of rows) {
    if (bytes + row.file.size > BATCH_BYTES || (made.at(-1)?.length ?? 0) >= BATCH) { made.push([]); bytes = 0; }
    made.at(-1)?.push(row);
    bytes += row.file.size;
  }
  return made;
}

/** The files of a dropped file or folder, hidden ones left out. @param {any} entry @returns {Promise<File[]>} */
async function filesOf(entry) {
  if (entry.name.startsWith(".")) return [];
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  /** @type {any[]} */
  const inside = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    inside.push(...some);
  }
  return (await Promise.all(inside.map(filesOf))).flat();
}
