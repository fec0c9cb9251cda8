// The page behind the one-time link: it makes the first administrator.
import { call } from "./api.js";
import { byId, el, icon } from "./dom.js";
import { openDoor } from "./door.js";
import { t } from "./i18n.js";

const SHORTEST = 10;
const query = new URLSearchParams(location.search);
const invitation = query.get("invitation");

/** The server's rules, told while somebody types; the server has the last word. @type {[string, () => boolean][]} */
const RULES = [
  ["rule_length", () => [...byId("password").value].length >= SHORTEST],
  ["rule_varied", () => varied(byId("password").value.toLowerCase(), byId("name").value.trim().toLowerCase())],
];

/** @param {string} password @param {string} name */
function varied(password, name) {
  const rest = name ? password.replaceAll(name, "") : password;
  return new Set(password).size >= 4 && /[^0-9 !._-]/.test(rest);
}

function showRules() {
  byId("rules").replaceChildren(...RULES.map(([key, met]) => el("li", { "data-met": met() }, icon(met() ? "check" : "dot"), t(key, { n: SHORTEST }))));
}

openDoor(invitation ? "accept_invitation" : "set_up", async () => {
  const name = byId("name").value.trim();
  const password = byId("password").value;
  if (!name) throw new Error(t("name_needed"));
  const broken = RULES.find(([, met]) => !met());
  if (broken) throw new Error(t(broken[0], { n: SHORTEST }));
  if (byId("again").value !== password) throw new Error(t("passwords_differ"));
  if (invitation) await call("POST", "/invitations/accept", { token: invitation, name, password });
  else await call("POST", "/setup", { token: query.get("token") ?? "", name, password });
  location.replace("/");
});
showRules();
if (invitation) {
  for (const [key, text] of [["set_up", "accept_invitation"], ["setup_lead", "accept_lead"], ["create_administrator", "accept_invitation"]]) {
    /** @type {HTMLElement} */ (document.querySelector(`[data-t="${key}"]`)).textContent = t(text);
  }
} else if (!query.get("token")) {
  byId("error").textContent = t("link_needed");
  byId("error").hidden = false;
}
for (const id of ["name", "password"]) byId(id).addEventListener("input", showRules);
