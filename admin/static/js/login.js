// The login page.
import { call, get } from "./api.js";
import { byId } from "./dom.js";
import { localPath, openDoor } from "./door.js";
import { t } from "./i18n.js";

const query = new URLSearchParams(location.search);

/** Offer the identity provider, where there is one, and say why a login through it did not work. */
async function offerProvider() {
  const refused = query.get("refused");
  if (refused) {
    byId("error").textContent = t(["unknown", "away"].includes(refused) ? `provider_${refused}` : "provider_refused");
    byId("error").hidden = false;
  }
  const { provider } = await get("/login");
  if (!provider) return;
  byId("provider").textContent = provider;
  byId("provider").href = `/login/oidc?next=${encodeURIComponent(localPath(query.get("next")))}`;
  byId("provider").hidden = false;
}

openDoor("log_in", async () => {
  const name = byId("name").value.trim();
  const password = byId("password").value;
  if (!name || !password) throw new Error(t("name_and_password_needed"));
  const next = query.get("next");
  try {
    const answer = await call("POST", "/login", { name, password, ...(next ? { next } : {}) });
    location.assign(localPath(answer?.next ?? next));
  } catch (error) {
    byId("password").select();
    throw error;
  }
});
offerProvider().catch(() => undefined);
