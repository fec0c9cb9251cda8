// Values of a channel's settings as people read them.
import { plain, t } from "../base.js";

/** @param {string} field @param {any} value */
export function shown(field, value) {
  switch (field) {
    case "kbs": return value?.length ? value.map(plain).join(", ") : t("channels_everything_open");
    case "feedback": case "follow_ups": return t(value ? "channels_on" : "channels_off");
    case "mode": case "digest": return t(`channels_${field}_${value ?? "off"}`);
    case "language": return t(`channels_language_${value ?? ""}`);
    case "engine": return value ? plain(value) : t("channels_standard_model");
    case "instructions": return value ? plain(value) : t("channels_built_in");
    case "askers": return value?.length ? value.map(plain).join(", ") : t("channels_everybody");
    default: return value?.length ? value.map(plain).join(", ") : t("channels_nobody");
  }
}
