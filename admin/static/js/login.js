// The login page.
import { call } from "./api.js";
import { byId } from "./dom.js";
import { localPath, openDoor } from "./door.js";
import { t } from "./i18n.js";

openDoor("log_in", async () => {
  const name = byId("name").value.trim();
  const password = byId("password").value;
  if (!name || !password) throw new Error(t("name_and_password_needed"));
  const next = new URLSearchParams(location.search).get("next");
  try {
    const answer = await call("POST", "/login", { name, password, ...(next ? { next } : {}) });
    location.assign(localPath(answer?.next ?? next));
  } catch (error) {
    byId("password").select();
    throw error;
  }
});
