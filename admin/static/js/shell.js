// What the chat and documents pages share: the drawer, the foot of the side panel, and the state of the embedding model.
import { call, get } from "./api.js";
import { byId, el, icon, name, plain } from "./dom.js";
import { adopt, languageSwitch, t, translate } from "./i18n.js";

/**
 * @typedef {{ready: boolean, stage: string, progress: number, reason: string}} EmbedderState
 * @typedef {{name: string, role: string, anonymous: boolean, language: string, can_upload: boolean, can_manage: boolean, can_console: boolean, notice: string, embedder: EmbedderState,
 *   version: string, max_file_mb: number, max_question_chars: number, engine: {name: string, is_language_model: boolean}}} Me
 */

/** Who is here; fills the frame of the page. @param {"chat" | "documents" | "console"} here @returns {Promise<Me>} */
export async function openShell(here) {
  translate();
  drawer();
  const me = await get("/me");
  if (adopt(me.language)) translate();
  foot(me, here);
  void watchEmbedder(me);
  return me;
}

function drawer() {
  byId("veil").hidden = false;
  byId("side-open").addEventListener("click", () => { setDrawer(true); byId("side-close").focus(); });
  const close = () => { if (byId("side").classList.contains("open")) { setDrawer(false); byId("side-open").focus(); } };
  byId("side-close").addEventListener("click", close);
  byId("veil").addEventListener("click", close);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
}

/** @param {boolean} open */
function setDrawer(open) {
  byId("side").classList.toggle("open", open);
  byId("side-open").setAttribute("aria-expanded", String(open));
  /** @type {HTMLElement} */ (document.querySelector("main")).inert = open;
}

/** Put the drawer away after a choice on a phone. */
export function closeDrawer() {
  setDrawer(false);
}

/** The page could not be filled: say why, and offer to try again. @param {unknown} error */
export function broken(error) {
  const banner = byId("banner");
  banner.hidden = false;
  banner.replaceChildren(icon("warning"), el("span", { role: "alert" }, plain(error instanceof Error ? error.message : String(error))),
    el("button", { type: "button", class: "button small", onclick: () => location.reload() }, t("try_again")));
}

/** @param {Me} me @param {string} here */
function foot(me, here) {
  const link = (/** @type {string} */ href, /** @type {string} */ sign, /** @type {string} */ text) => el("a", { class: "side-link", href }, icon(sign), text);
  const account = me.anonymous
    ? link(`/login?next=${encodeURIComponent(location.pathname)}`, "login", t("log_in"))
    : el("div", { class: "side-account" }, name(me.name), el("button", { type: "button", class: "icon-button", "aria-label": t("log_out"), title: t("log_out"), onclick: logOut }, icon("logout")));
  byId("foot").replaceChildren(
    here === "chat" ? link("/documents", "library", t("documents")) : link("/", "chat", t("back_to_chat")),
    here !== "console" && me.can_console ? link("/console/", "gear", t("console")) : "",
    account,
    el("div", { class: "side-tools" }, languageSwitch()));
}

async function logOut() {
  await call("POST", "/logout");
  location.assign("/login");
}

/** Show how far the embedding model is, until it is there. @param {Me} me */
async function watchEmbedder(me) {
  const banner = byId("banner");
  let state = me;
  for (;;) {
    const notice = state.notice || (state.embedder.ready ? "" : t("keyword_only"));
    banner.hidden = !notice;
    const preparing = !state.embedder.ready && !state.embedder.reason;
    if (notice) {
      const share = Math.round(state.embedder.progress * 100);
      const bar = preparing ? el("progress", { max: "100", value: String(share), "aria-label": t("model_progress") }) : null;
      banner.replaceChildren(icon("info"), el("span", {}, plain(notice)), ...(bar ? [bar, el("span", {}, `${share} %`)] : []));
    }
    if (!preparing) return;
    await new Promise((resolve) => setTimeout(resolve, 2500));
    state = await get("/me").catch(() => state);
  }
}
