// Channels: the connections to chat platforms, and how questions are answered in each of their channels.
import { start, t, tabs } from "./base.js";
import { drawConnections } from "./channels/connections.js";
import { drawPlaces } from "./channels/places.js";
import { WORDS } from "./words/channels.js";

void start({
  words: WORDS,
  draw(root) {
    root.append(tabs([
      { name: "connections", title: t("channels_tab_connections"), draw: drawConnections },
      { name: "channels", title: t("channels_tab_channels"), draw: drawPlaces },
    ]).node);
  },
});
