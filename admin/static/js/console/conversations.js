// Conversations of everybody: search, read, delete; and what is kept about a person.
import { address, ask, attempt, badge, button, card, confirmDeletion, el, empty, facts, failure, form, get, call, icon, name, number, path, percent, plain, query, stack, start, t, table, tabs, toast, when } from "./base.js";
import { sanitise } from "../sanitise.js";
import { selection } from "./selection.js";
import { WORDS } from "./words/conversations.js";
import { WORDS as SHARED } from "./words/dashboard.js";

/**
 * @typedef {{platform: string, workspace: string, channel: string, thread: string}} Place
 * @typedef {{id: string, title: string, place: Place, channel: string, person: string, name: string, kbs: string[], question: string, count: number, refused: number, up: number, down: number, last_at: string}} Found
 * @typedef {{n: number, kb: string, document_id: string, document: string, title: string, chunk: number, locator: string, headings: string[], score: number, text: string, vector_score: number | null, keyword_score: number | null, rerank_score: number | null, cited: boolean}} Passage
 * @typedef {{answer_id: string, person: string, name: string, question: string, standalone_question: string, text: string, html: string, state: string, answered: boolean, error: string, notice: string, kbs: string[],
 *   engine: string, model: string, passages: Passage[], prompt: {role: string, text: string}[], evidence: number | null, timings_ms: Record<string, number>, prompt_tokens: number | null, answer_tokens: number | null,
 *   curated_id: string | null, votes: {person: string, name: string, value: number, reason: string, at: string}[], asked_for_help: boolean, created_at: string}} Entry
 * @typedef {{id: string, title: string, place: Place, channel: string, created_at: string, entries: Entry[], hidden: number}} Whole
 * @typedef {{person: string, name: string, conversations: number, answers: number, ratings: number, messages: number, posts: number, grants: number, escalations: number, files: number, has_account: boolean}} Kept
 */

document.head.append(el("link", { rel: "stylesheet", href: "/static/css/prose.css" }));
void start({ words: { ...SHARED, ...WORDS }, draw });

/** @param {HTMLElement} root @param {import("./base.js").Me} me */
async function draw(root, me) {
  const mayDelete = ["owner", "admin"].includes(me.role);
  const show = async () => {
    const id = query.get("id");
    try {
      if (id) await one(root, id, mayDelete);
      else if (mayDelete) root.replaceChildren(tabs([
        { name: "conversations", title: t("conversations_tab"), draw: (place) => all(place, mayDelete) },
        { name: "people", title: t("conversations_people"), draw: people },
      ]).node);
      else all(root, mayDelete);
    } catch (error) {
      root.replaceChildren(failure(error, show));
    }
  };
  addEventListener("popstate", () => void show());
  document.addEventListener("show-conversations", () => void show());
  await show();
}

/** Go to a conversation, or with an empty id back to all of them. @param {string} id @param {Record<string, string>} [more] */
function open(id, more = {}) {
  query.set({ id, ...more }, true);
  document.dispatchEvent(new Event("show-conversations"));
}

// ---------------------------------------------------------------- all of them
/** @param {HTMLElement} root @param {boolean} mayDelete */
function all(root, mayDelete) {
  const chosen = selection(() => list.restart());
  const text = /** @type {HTMLInputElement} */ (el("input", { type: "search", "aria-label": t("conversations_text"), placeholder: t("conversations_text"), value: query.get("text"), maxlength: 200 }));
  const person = /** @type {HTMLInputElement} */ (el("input", { type: "search", value: query.get("person"), maxlength: 200 }));
  const outcome = options([["", "conversations_any"], ["true", "conversations_yes"], ["false", "conversations_no"]], query.get("answered"), () => search());
  const rating = options([["", "conversations_any"], ["up", "conversations_up"], ["down", "conversations_down"]], query.get("rating"), () => search());
  const search = () => {
    query.set({ text: text.value.trim(), person: person.value.trim(), answered: outcome.value, rating: rating.value });
    void list.restart();
  };
  const field = (/** @type {string} */ label, /** @type {HTMLElement} */ input) => el("label", { class: "field" }, el("span", {}, t(label)), input);
  const finder = el("form", { class: "stack", role: "search", onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); search(); } },
    el("div", { class: "toolbar" }, text, el("button", { type: "submit", class: "button primary" }, icon("search"), t("search"))),
    chosen.node,
    el("div", { class: "toolbar filters-more" }, field("conversations_person", person), field("conversations_outcome", outcome), field("conversations_rating", rating)));
  const list = table({
    label: t("conversations_list"),
    columns: /** @type {import("./base.js").Column<Found>[]} */ ([
      { title: t("conversations_question"), cell: (one) => el("span", {}, name(one.title), one.question !== one.title ? el("span", { class: "soft small latest" }, plain(one.question)) : "") },
      { title: t("conversations_where"), cell: (one) => where(one.place, one.channel) },
      { title: t("conversations_who"), cell: (one) => name(one.name || one.person) },
      { title: t("conversations_kbs"), cell: (one) => one.kbs.map(plain).join(", ") },
      { title: t("conversations_count"), end: true, cell: (one) => el("span", {}, number(one.count), one.refused ? el("span", { class: "soft small latest" }, t("conversations_refused", { n: one.refused })) : "") },
      { title: t("conversations_votes"), end: true, cell: (one) => thumbs(one.up, one.down) },
      { title: t("conversations_last"), end: true, cell: (one) => when(one.last_at) },
    ]),
    load: ({ limit, offset }) => get(`/records?${wanted(chosen, { text: text.value.trim(), person: person.value.trim(), answered: outcome.value, rating: rating.value, limit: String(limit), offset: String(offset) })}`),
    empty: () => empty(t("conversations_empty"), t("conversations_empty_text")),
    onRow: (one) => open(one.id),
    select: mayDelete ? (some) => [button(t("conversations_delete"), () => deleteSome(some.map((one) => one.id), () => list.restart()), { danger: true, small: true, icon: "trash" })] : undefined,
  });
  root.replaceChildren(stack(card(null, finder), list.node));
  void attempt(() => chosen.open());
}

/** @param {ReturnType<typeof selection>} chosen @param {Record<string, string>} more */
function wanted(chosen, more) {
  const found = chosen.parameters();
  for (const [key, value] of Object.entries(more)) if (value) found.set(key, value);
  return found;
}

/** @param {[string, string][]} choices @param {string} value @param {() => void} changed */
function options(choices, value, changed) {
  const select = /** @type {HTMLSelectElement} */ (el("select", { onchange: changed }, ...choices.map(([one, key]) => el("option", { value: one }, t(key)))));
  select.value = value;
  return select;
}

/** @param {Place} place @param {string} channel */
function where(place, channel) {
  const inside = channel || (place.platform === "web" || place.platform === "terminal" ? "" : place.channel);
  return el("span", {}, plain(place.platform), inside ? el("span", { class: "soft small latest" }, plain(inside)) : "");
}

/** @param {number} up @param {number} down */
function thumbs(up, down) {
  if (!up && !down) return null;
  const vote = (/** @type {string} */ sign, /** @type {string} */ label, /** @type {number} */ count) => (count ? el("span", { role: "img", "aria-label": `${t(label)}: ${number(count)}` }, icon(sign), number(count)) : "");
  return el("span", { class: "thumbs" }, vote("thumb-up", "conversations_up", up), vote("thumb-down", "conversations_down", down));
}

/** @param {string[]} ids @param {() => unknown} then */
function deleteSome(ids, then) {
  return confirmDeletion(t("conversations_delete_many", { n: ids.length }), t("conversations_delete_text"), t("conversations_delete"), async () => {
    const gone = await call("POST", "/records/delete", { ids });
    toast(t("conversations_deleted", { n: gone.answers }));
    await then();
  });
}

// ---------------------------------------------------------------- one of them
/** @param {HTMLElement} root @param {string} id @param {boolean} mayDelete */
async function one(root, id, mayDelete) {
  /** @type {Whole} */
  const whole = await get(`/records${path(id)}`);
  const remove = () => confirmDeletion(t("conversations_delete_one"), t("conversations_delete_text"), t("conversations_delete"), async () => {
    await call("DELETE", `/records${path(id)}`);
    toast(t("base_deleted"));
    open("");
  });
  root.replaceChildren(stack(
    el("div", { class: "toolbar" }, button(t("conversations_back"), () => open("")), el("div", { class: "push" }, mayDelete ? button(t("conversations_delete"), remove, { danger: true, icon: "trash" }) : "")),
    card(whole.title || t("conversations_alone"), facts([
      [t("conversations_where"), where(whole.place, whole.channel)],
      ...(whole.place.thread ? /** @type {[string, string][]} */ ([[t("conversations_thread"), plain(whole.place.thread)]]) : []),
      [t("conversations_begun"), when(whole.created_at)],
    ])),
    whole.hidden ? el("p", { class: "soft" }, t("conversations_hidden", { n: whole.hidden })) : "",
    ...whole.entries.map(exchange)));
}

/** @param {Entry} entry */
function exchange(entry) {
  const outcome = entry.state !== "complete" ? entry.state : entry.answered ? "answered" : "refused";
  const tone = /** @type {Record<string, import("./base.js").Tone>} */ ({ answered: "good", refused: "warn", failed: "bad" })[outcome] ?? "";
  const answer = el("div", { class: "prose" });
  answer.append(sanitise(entry.html));
  return el("article", { class: "card exchange" },
    el("header", { class: "toolbar" }, name(entry.name || entry.person), when(entry.created_at), badge(t(`conversations_state_${outcome}`), tone),
      entry.curated_id ? badge(t("conversations_curated"), "good") : "", entry.asked_for_help ? badge(t("conversations_help"), "warn") : "", ...entry.votes.map(vote)),
    el("h2", { class: "asked wrap" }, plain(entry.question)),
    entry.standalone_question && entry.standalone_question !== entry.question ? el("p", { class: "soft small" }, `${t("conversations_standalone")}: ${plain(entry.standalone_question)}`) : "",
    answer,
    entry.error ? el("p", { class: "form-error" }, plain(entry.error)) : "",
    entry.notice ? el("p", { class: "soft small" }, plain(entry.notice)) : "",
    entry.passages.length ? details(t("conversations_passages", { n: entry.passages.length }), el("ol", { class: "passages" }, ...entry.passages.map(passage))) : "",
    entry.prompt.length ? details(t("conversations_prompt"), ...entry.prompt.map((turn) => stack(el("strong", { class: "small" }, plain(turn.role)), el("pre", { tabindex: "0" }, plain(turn.text))))) : "",
    details(t("conversations_details"), measures(entry)),
    el("p", {}, el("a", { href: `/console/review?answer=${encodeURIComponent(entry.answer_id)}` }, t("conversations_review"))));
}

/** @param {string} title @param {...Node} inside */
const details = (title, ...inside) => el("details", {}, el("summary", {}, title), stack(...inside));

/** @param {Entry["votes"][number]} one */
function vote(one) {
  const label = t(one.value > 0 ? "conversations_up" : "conversations_down");
  return el("span", { class: `badge ${one.value > 0 ? "good" : "bad"}` }, icon(one.value > 0 ? "thumb-up" : "thumb-down"), `${label} · ${plain(one.name || one.person)}${one.reason ? `: ${plain(one.reason)}` : ""}`);
}

/** @param {Passage} one */
function passage(one) {
  const scores = [[t("conversations_score"), one.score], [t("conversations_vector"), one.vector_score], [t("conversations_keyword"), one.keyword_score], [t("conversations_rerank"), one.rerank_score]];
  return el("li", { value: one.n },
    el("strong", {}, plain(one.title || one.document)), " ", one.cited ? badge(t("conversations_cited"), "good") : "",
    el("p", { class: "soft small" }, [one.kb, one.document, one.locator, ...one.headings].filter(Boolean).map(plain).join(" · ")),
    el("p", { class: "wrap" }, plain(one.text)),
    el("p", { class: "soft small" }, scores.filter(([, score]) => score !== null && score !== undefined).map(([label, score]) => `${label} ${Number(score).toFixed(2)}`).join(" · ")));
}

/** @param {Entry} entry */
function measures(entry) {
  const ms = (/** @type {number} */ value) => t("conversations_ms", { n: Math.round(value) });
  const known = Object.entries(entry.timings_ms).filter(([step]) => `conversations_time_${step}` in WORDS);
  return facts([
    [t("conversations_engine"), plain(entry.engine || "–")],
    [t("conversations_model"), plain(entry.model || "–")],
    [t("conversations_kbs"), entry.kbs.map(plain).join(", ")],
    [t("conversations_evidence"), entry.evidence === null ? null : percent(entry.evidence)],
    [t("conversations_tokens"), entry.prompt_tokens === null ? null : `${number(entry.prompt_tokens)} / ${number(entry.answer_tokens ?? 0)}`],
    ...known.map(([step, value]) => /** @type {[string, string]} */ ([t(`conversations_time_${step}`), ms(value)])),
  ]);
}

// ---------------------------------------------------------------- what is kept about a person
/** @param {HTMLElement} root */
async function people(root) {
  const key = query.get("key");
  if (key) { await kept(root, key); return; }
  const text = /** @type {HTMLInputElement} */ (el("input", { type: "search", "aria-label": t("conversations_find"), placeholder: t("conversations_find"), value: query.get("who"), maxlength: 200 }));
  const list = table({
    label: t("conversations_people_list"),
    key: (one) => one.key,
    columns: /** @type {import("./base.js").Column<{key: string, name: string, answers: number, last_at: string}>[]} */ ([
      { title: t("conversations_key"), cell: (one) => name(one.key) },
      { title: t("conversations_name"), cell: (one) => (one.name ? name(one.name) : "–") },
      { title: t("conversations_count"), end: true, cell: (one) => number(one.answers) },
      { title: t("conversations_last"), end: true, cell: (one) => when(one.last_at) },
    ]),
    load: ({ limit, offset }) => get(`/persons?${new URLSearchParams({ text: text.value.trim(), limit: String(limit), offset: String(offset) })}`),
    empty: () => empty(t("conversations_people_none"), t("conversations_people_none_text")),
    onRow: (one) => open("", { key: one.key, offset: "" }),
  });
  const search = (/** @type {Event} */ event) => { event.preventDefault(); query.set({ who: text.value.trim() }); void list.restart(); };
  root.replaceChildren(stack(el("p", { class: "soft" }, t("conversations_people_text")),
    el("form", { class: "toolbar", role: "search", onsubmit: search }, text, el("button", { type: "submit", class: "button primary" }, icon("search"), t("search"))), list.node));
}

/** @param {HTMLElement} root @param {string} key */
async function kept(root, key) {
  const back = button(t("conversations_people_list"), () => open("", { key: "" }));
  /** @type {Kept} */
  let found;
  try {
    found = await get(`/persons${path(key)}`);
  } catch (error) {
    root.replaceChildren(stack(el("div", { class: "toolbar" }, back), failure(error, () => kept(root, key))));
    return;
  }
  const counts = /** @type {const} */ (["conversations", "answers", "ratings", "messages", "posts", "grants", "escalations", "files"]);
  const shown = found.name ? `${found.name} (${found.person})` : found.person;
  root.replaceChildren(stack(el("div", { class: "toolbar" }, back),
    card(t("conversations_kept", { person: shown }), facts([
      ...counts.map((one) => /** @type {[string, string]} */ ([t(`conversations_kept_${one}`), number(found[one])])),
      ...(found.has_account ? /** @type {[string, string][]} */ ([[t("conversations_kept_account"), t("conversations_kept_account_text")]]) : []),
    ]), el("div", { class: "toolbar" },
      el("a", { class: "button", href: address(`/persons${path(key)}/export.json`), download: "" }, icon("download"), t("conversations_export")),
      button(t("conversations_their"), () => open("", { tab: "", key: "", person: found.person, range: "90" })),
      button(t("conversations_erase"), () => erase(found), { danger: true, icon: "trash" })))));
}

/** @param {Kept} found */
function erase(found) {
  const typed = form([{ name: "key", label: t("conversations_erase_type", { person: found.person }), required: true }]);
  const { answers, conversations, ratings, files, grants } = found;
  return ask(t("conversations_erase_title", { person: found.name || found.person }), [el("p", {}, t("conversations_erase_text", { answers, conversations, ratings, files, grants })), typed.node], {
    label: t("conversations_erase"),
    danger: true,
    act: async () => {
      if (typed.values().key.trim() !== found.person) { typed.showError("key", t("conversations_erase_differs")); return false; }
      await call("DELETE", `/persons${path(found.person)}`);
      toast(t("conversations_erased", { person: found.person }));
      open("", { key: "" });
      return true;
    },
  });
}
