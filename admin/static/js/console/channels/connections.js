// Every chat platform as a card that keeps itself up to date; one of them with its steps, tokens and messages.
import { attempt, badge, button, call, card, confirmDeletion, el, empty, facts, get, path, plain, query, row, t, toast, when } from "../base.js";
import { drawMessages, sendTest } from "./messages.js";
import { drawSetUp } from "./setup.js";

/** @typedef {{process: string, state: string, since: string, at: string, last_event_at: string | null, error: string, error_at: string | null, is_silent: boolean}} Report */
/** @typedef {{name: string, kind: string, description: string, default: any, value: any, origin: string, variable: string}} Option */
/** @typedef {{platform: string, state: string, enabled: boolean, is_kept: boolean, is_configured: boolean, trouble: string, options: Option[], reports: Report[], waiting: number, working: number, has_manifest: boolean, public_url: string}} Connection */

const LOOK_MS = 4000;
/** @type {Record<string, import("../base.js").Tone>} */
const TONES = { connected: "good", connecting: "busy", waiting: "warn", refused: "bad", silent: "bad" };

/** @param {string} platform */
export const titleOf = (platform) => (["slack", "discord", "telegram"].includes(platform) ? t(`channels_${platform}`) : platform);

/** Call `look` again and again as long as `node` is on the page. @param {HTMLElement} node @param {() => Promise<void>} look */
function follow(node, look) {
  const again = async () => {
    if (!node.isConnected) return;
    if (!document.hidden) {
      try { await look(); } catch { /* it is asked again; what is shown says how old it is */ }
    }
    setTimeout(again, LOOK_MS);
  };
  setTimeout(again, LOOK_MS);
}

/** @param {HTMLElement} root */
export async function drawConnections(root) {
  const platform = query.get("platform");
  if (platform) await drawOne(root, platform);
  else await drawAll(root);
}

/** @param {HTMLElement} root @param {string} platform */
async function go(root, platform) {
  query.set({ platform, offset: "" }, true);
  root.replaceChildren();
  await attempt(() => drawConnections(root));
}

/** @param {HTMLElement} root */
async function drawAll(root) {
  const grid = el("div", { class: "grid" });
  const look = async () => {
    const { items } = await get("/connections");
    if (!items.length) grid.replaceChildren(empty(t("channels_state_unset"), t("channels_no_process")));
    else grid.replaceChildren(...items.map((/** @type {Connection} */ one) => overview(root, one, look)));
  };
  await look();
  root.append(grid);
  follow(grid, async () => { if (!grid.contains(document.activeElement)) await look(); });
}

/** @param {HTMLElement} root @param {Connection} one @param {() => Promise<void>} look */
function overview(root, one, look) {
  const title = titleOf(one.platform);
  const open = button(one.state === "unset" ? t("channels_connect", { platform: title }) : t("channels_settings"), () => void go(root, one.platform), { primary: one.state === "unset", icon: one.state === "unset" ? "plug" : "gear" });
  return card(heading(one, "h2"), el("p", { class: "soft" }, saying(one)), one.state === "unset" ? null : status(one), row(open, ...actions(one, look)));
}

/** @param {Connection} one @param {string} tag */
function heading(one, tag) {
  return el("div", { class: "channels-head" }, el(tag, { class: "card-title" }, titleOf(one.platform)), badge(t(`channels_state_${one.state}`), TONES[one.state] ?? ""));
}

/** @param {Connection} one */
function saying(one) {
  return plain(one.trouble) || (one.state === "unset" && ["slack", "discord", "telegram"].includes(one.platform) ? `${t(`channels_about_${one.platform}`)} ${t("channels_says_unset")}` : t(`channels_says_${one.state}`));
}

/** @param {Connection} one */
function status(one) {
  /** @type {[string, Node | string | null][]} */
  const lines = [[t("channels_questions"), t("channels_queue", { waiting: one.waiting, working: one.working })]];
  const running = one.reports.filter((report) => report.state !== "stopped");
  const last = running.map((report) => report.last_event_at ?? "").sort().at(-1);
  if (running.length) lines.push([t("channels_last_event"), when(last)]);
  for (const report of running) {
    lines.push([t("channels_process"), el("span", {}, el("span", { class: "mono" }, plain(report.process)), " · ", t(`channels_state_${report.is_silent ? "silent" : report.state}`), " ", when(report.since), " · ", t("channels_heard"), " ", when(report.at))]);
    if (report.error) lines.push([t("channels_error"), el("span", {}, plain(report.error), " · ", when(report.error_at))]);
  }
  if (!running.length) lines.push([t("channels_process"), t("channels_no_process")]);
  return facts(lines);
}

/** @param {Connection} one @param {() => Promise<void>} look @param {() => Promise<void>} [posted] after a message was sent */
function actions(one, look, posted) {
  const title = titleOf(one.platform);
  const change = (/** @type {boolean} */ enabled) => call("PATCH", `/connections${path(one.platform)}`, { enabled });
  const found = [];
  if (["refused", "silent", "connecting"].includes(one.state)) {
    found.push(button(t("channels_retry"), async () => { await attempt(() => call("POST", `/connections${path(one.platform)}/restart`, {}), t("channels_retried")); await look(); }, { icon: "refresh" }));
  }
  if (one.state === "connected") found.push(button(t("channels_test"), () => void attempt(() => sendTest(one.platform, title, posted)), { icon: "send" }));
  if (!one.is_configured) return found;
  if (one.enabled) found.push(button(t("channels_disable"), async () => { await confirmDeletion(t("channels_disable_title", { platform: title }), t("channels_disable_text"), t("channels_disable"), () => change(false)); await look(); }, { icon: "stop" }));
  else found.push(button(t("channels_enable"), async () => { await attempt(() => change(true)); await look(); }, { icon: "play", primary: true }));
  return found;
}

// ---------------------------------------------------------------- one platform
/** @param {HTMLElement} root @param {string} platform */
async function drawOne(root, platform) {
  /** @type {Connection} */
  let one = await get(`/connections${path(platform)}`);
  const title = titleOf(platform);
  const top = card(null);
  const look = async () => {
    one = await get(`/connections${path(platform)}`);
    show();
  };
  const messages = drawMessages(platform);
  const show = () => {
    messages.node.hidden = one.state === "unset";
    remove.hidden = !one.is_kept;
    top.replaceChildren(heading(one, "h2"), el("p", { class: "soft" }, saying(one)), one.state === "unset" ? "" : status(one), row(...actions(one, look, messages.reload)));
  };
  const remove = row(button(t("channels_remove"), () => void confirmDeletion(t("channels_remove_title", { platform: title }), t("channels_remove_text"), t("channels_remove"), async () => {
    await call("DELETE", `/connections${path(platform)}`);
    toast(t("channels_removed"));
    await go(root, "");
  }), { danger: true, icon: "trash" }));
  show();
  const setUp = el("div", { class: "stack" });
  const redraw = async () => {
    await look();
    setUp.replaceChildren(...drawSetUp(one, title, redraw));
  };
  setUp.append(...drawSetUp(one, title, redraw));
  root.append(row(button(t("channels_back"), () => void go(root, ""), { small: true })), top, setUp);
  const workspaces = (await get(`/connections${path(platform)}/workspaces`)).items;
  if (workspaces.length) root.append(card(t("channels_workspaces"), facts(workspaces.map((/** @type {any} */ item) => [plain(item.name || item.id), el("span", {}, el("span", { class: "mono" }, plain(item.id)), " · ", when(item.since))]))));
  root.append(messages.node, remove);
  follow(top, async () => { if (!top.contains(document.activeElement)) await look(); });
}
