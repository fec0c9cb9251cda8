// Messages that Kvasir posts besides answers: tests and summaries, and what became of each.
import { ask, badge, call, card, el, form, get, path, plain, t, table, toast, when } from "../base.js";

/** @typedef {{id: string, workspace: string, channel: string, thread: string, text: string, purpose: string, state: string, error: string, created_at: string}} Message */

const LOOK_MS = 700;
const LOOKS = 60;
/** @type {Record<string, import("../base.js").Tone>} */
const TONES = { sent: "good", failed: "bad", sending: "busy", waiting: "busy" };

/** @param {string} platform */
export function drawMessages(platform) {
  const list = table({
    label: t("channels_messages"),
    columns: [
      { title: t("time"), cell: (/** @type {Message} */ one) => when(one.created_at) },
      { title: t("channels_message_kind"), cell: (/** @type {Message} */ one) => t(`channels_message_${one.purpose || "test"}`) },
      { title: t("channels_message_where"), cell: (/** @type {Message} */ one) => el("span", { class: "mono" }, plain([one.workspace, one.channel].filter(Boolean).join(" · "))) },
      { title: t("channels_message_text"), cell: (/** @type {Message} */ one) => plain(one.text).slice(0, 160) },
      { title: t("state"), cell: (/** @type {Message} */ one) => el("div", {}, badge(t(`channels_message_${one.state}`), TONES[one.state] ?? ""), one.error ? el("div", { class: "small" }, plain(one.error)) : null) },
    ],
    load: ({ limit, offset }) => get(`/connections${path(platform)}/messages?limit=${limit}&offset=${offset}`),
    pageSize: 10,
    empty: () => el("p", { class: "soft" }, t("channels_messages_none")),
  });
  return { node: card(t("channels_messages"), list.node), reload: list.reload };
}

/** Ask where, send, and say what became of it. @param {string} platform @param {string} title @param {() => Promise<void>} [changed] */
export async function sendTest(platform, title, changed = async () => undefined) {
  const { items } = await get(`/channels?platform=${encodeURIComponent(platform)}&limit=100`);
  const known = items.filter((/** @type {any} */ one) => one.channel);
  /** @type {[string, string][]} */
  const choices = known.map((/** @type {any} */ one, /** @type {number} */ at) => [String(at), plain(one.name || one.platform_name || one.channel) + (one.workspace_name ? ` · ${plain(one.workspace_name)}` : "")]);
  const which = form([
    { name: "known", label: t("channels_test_known"), kind: "select", options: [...choices, ["", t("channels_test_other")]], value: choices.length ? "0" : "", onchange: () => show() },
  ]);
  const other = form([
    { name: "channel", label: t("channels_test_channel"), hint: ["slack", "discord", "telegram"].includes(platform) ? t(`channels_test_channel_${platform}`) : "", maxlength: 255 },
    ...(platform === "telegram" ? [] : [{ name: "workspace", label: t("channels_test_workspace"), hint: t("channels_test_workspace_hint"), maxlength: 255 }]),
  ]);
  const text = form([{ name: "text", label: t("channels_test_text"), kind: "textarea", rows: 2, hint: t("channels_test_text_hint"), maxlength: 4000 }]);
  const show = () => { other.node.hidden = which.values().known !== ""; };
  show();
  /** @type {Message | null} */
  let message = null;
  await ask(t("channels_test_title", { platform: title }), [el("div", { class: "channels-form" }, choices.length ? which.node : null, other.node, text.node)], {
    label: t("channels_test_send"),
    act: async () => {
      const chosen = choices.length && which.values().known !== "" ? known[Number(which.values().known)] : null;
      const { channel = "", workspace = "" } = chosen ?? other.values();
      if (!channel.trim()) {
        other.showError("channel", t("channels_test_needed"));
        return false;
      }
      message = await call("POST", `/connections${path(platform)}/messages`, { channel, workspace, ...text.values() });
      return true;
    },
  });
  if (!message) return;
  toast(t("channels_test_on_way"));
  await changed();
  await outcome(platform, message);
  await changed();
}

/** @param {string} platform @param {Message} message */
async function outcome(platform, message) {
  for (let look = 0; look < LOOKS && ["waiting", "sending"].includes(message.state); look += 1) {
    await new Promise((resolve) => { setTimeout(resolve, LOOK_MS); });
    message = await get(`/connections${path(platform)}/messages${path(message.id)}`);
  }
  if (message.state === "sent") toast(t("channels_test_sent"));
  else if (message.state === "failed") toast(message.error, "bad");
}
