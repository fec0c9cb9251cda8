// Building the page from nodes. Text only ever becomes text: nothing here, or in any other module, writes markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * A new element. `on…` attributes are listeners, `true` is a bare attribute, `null`, `undefined` and `false` are left out.
 * @param {string} tag
 * @param {Record<string, unknown>} [attributes]
 * @param {...(Node | string | null | undefined | false)} children strings become text nodes
 */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** A picture of the icon sheet, drawn in the colour of the text. @param {string} name */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `/static/img/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

/**
 * A button that is only an icon, with its name for everybody else.
 * @param {string} name @param {string} label @param {(event: MouseEvent) => void} onclick
 */
export function iconButton(name, label, onclick, attributes = {}) {
  return el("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...attributes }, icon(name));
}

/** The element with this id, which the template has. @param {string} id @returns {any} */
export function byId(id) {
  return document.getElementById(id);
}

/** Put icons where the template asks for them. @param {ParentNode} root */
export function drawIcons(root) {
  for (const node of root.querySelectorAll("[data-icon]")) {
    node.prepend(icon(/** @type {HTMLElement} */ (node).dataset.icon ?? ""));
    node.removeAttribute("data-icon");
  }
}

/** A name somebody chose, shielded: its writing direction stays inside. @param {string} text */
export function name(text) {
  return el("bdi", {}, plain(text));
}

/** Without control, bidi-override, zero-width and tag characters. @param {string} text */
export function plain(text) {
  return String(text ?? "").replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]|\u{e0001}|[\u{e0020}-\u{e007f}]/gu, "");
}

/** Say something to people who hear the page. @param {string} text */
export function announce(text) {
  const live = byId("live");
  if (live) live.textContent = plain(text);
}

/** A passing message at the foot of the page. @param {string} text @param {"good" | "bad"} [kind] */
export function toast(text, kind = "good") {
  const node = el("div", { class: `toast ${kind}` }, icon(kind === "bad" ? "warning" : "check"), plain(text));
  byId("toasts").append(node);
  setTimeout(() => node.remove(), kind === "bad" ? 8000 : 3500);
}

/** Call `work` at most once a frame. @param {() => void} work */
export function perFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    // A hidden tab draws no frames; a timer keeps it going.
    const run = () => { asked = false; work(); };
    if (document.hidden) setTimeout(run, 200);
    else requestAnimationFrame(run);
  };
}
