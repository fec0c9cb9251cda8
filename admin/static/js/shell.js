// What the chat and documents pages share: the drawer, the foot of the side panel, and the state of the embedding model.
import { call, get } from "./api.js";
import { byId, el, icon, name, plain } from "./dom.js";
import { languageSwitch, t, translate } from "./i18n.js";

/**
 * @typedef {{ready: boolean, stage: string, progress: number, reason: string}} EmbedderState
 * @typedef {{name: string, role: string, anonymous: boolean, language: string, can_upload: boolean, can_manage: boolean, notice: string, embedder: EmbedderState,
 *   version: string, max_file_mb: number, max_question_chars: number, engine: {name: string, is_language_model: boolean}}} Me
 */

/** Who is here; fills the frame of the page. @param {"chat" | "documents"} here @returns {Promise<Me>} */
export async function openShell(here) {
  translate();
  drawer();
  const me = await get("/me");
  foot(me, here);
  void watchEmbedder(me);
  return me;
}

function drawer() {
  const side = byId("side");
  const opener = byId("side-open");
  const veil = byId("veil");
  veil.hidden = false;
  const set = (/** @type {boolean} */ open) => {
    side.classList.toggle("open", open);
    opener.setAttribute("aria-expanded", String(open));
    if (open) byId("side-close").focus();
  };
  const close = () => { if (side.classList.contains("open")) { set(false); opener.focus(); } };
  opener.addEventListener("click", () => set(true));
  byId("side-close").addEventListener("click", close);
  veil.addEventListener("click", close);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
}

/** Put the drawer away after a choice on a phone. */
export function closeDrawer() {
  byId("side").classList.remove("open");
  byId("side-open").setAttribute("aria-expanded", "false");
}

/** @param {Me} me @param {string} here */
function foot(me, here) {
  const link = (/** @type {string} */ href, /** @type {string} */ sign, /** @type {string} */ text) => el("a", { class: "side-link", href }, icon(sign), text);
  const account = me.anonymous
    ? link(`/login?next=${encodeURIComponent(location.pathname)}`, "login", t("log_in"))
    : el("div", { class: "side-account" }, name(me.name), el("button", { type: "button", class: "icon-button", "aria-label": t("log_out"), title: t("log_out"), onclick: logOut }, icon("logout")));
  byId("foot").replaceChildren(
    here === "chat" ? link("/documents", "library", t("documents")) : link("/", "chat", t("back_to_chat")),
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
