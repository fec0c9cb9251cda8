// The server's HTML, copied node by node through an allow-list.
//
// The server has already sanitised it. This is the second lock: the markup is parsed into a document that runs no
// scripts and loads nothing, and only elements and attributes named here are built anew in the page. Whatever is not
// named becomes its text, or nothing. No parsed node and no attribute value enters the page unseen.
import { plain } from "./dom.js";

const ELEMENTS = new Set("p br strong em b i s del code pre blockquote ul ol li h1 h2 h3 h4 h5 h6 table thead tbody tr th td hr a sup sub mark span div".split(" "));
const DROPPED = new Set("script style template iframe object embed svg math noscript title textarea select form link meta base".split(" "));

/** @type {{createHTML(html: string): any} | undefined} */
const policy = /** @type {any} */ (window).trustedTypes?.createPolicy("kvasir", { createHTML: (/** @type {string} */ html) => html });

/** A fragment that is safe to put into the page. @param {string} html */
export function sanitise(html) {
  const parsed = new DOMParser().parseFromString(policy ? policy.createHTML(html) : html, "text/html");
  const fragment = document.createDocumentFragment();
  copy(parsed.body, fragment, 0);
  return fragment;
}

/** @param {Node} from @param {Node} to @param {number} depth */
function copy(from, to, depth) {
  for (const node of from.childNodes) {
    if (node.nodeType === Node.TEXT_NODE) to.appendChild(document.createTextNode(plain(node.nodeValue ?? "")));
    if (node.nodeType !== Node.ELEMENT_NODE) continue;
    const element = /** @type {Element} */ (node);
    const tag = element.localName;
    if (DROPPED.has(tag) || depth > 60) continue;
    if (!ELEMENTS.has(tag) || element.namespaceURI !== "http://www.w3.org/1999/xhtml") copy(element, to, depth + 1);
    else copy(element, to.appendChild(allowed(element, tag)), depth + 1);
  }
}

/** @param {Element} element @param {string} tag */
function allowed(element, tag) {
  if (tag === "a") return link(element);
  // An answer's headings stand below those of the page.
  const made = document.createElement(/^h[1-6]$/.test(tag) ? `h${Math.min(6, Number(tag[1]) + 2)}` : tag);
  if (tag === "ol" && /^\d{1,6}$/.test(element.getAttribute("start") ?? "")) made.setAttribute("start", element.getAttribute("start") ?? "1");
  for (const span of ["colspan", "rowspan"]) {
    const value = element.getAttribute(span) ?? "";
    if ((tag === "td" || tag === "th") && /^\d{1,2}$/.test(value)) made.setAttribute(span, value);
  }
  if (tag === "td" || tag === "th") made.dir = "auto";
  return made;
}

/** A link to this site or to http(s); anything else keeps only its text. @param {Element} element */
function link(element) {
  const target = element.getAttribute("href") ?? "";
  let url;
  try { url = new URL(target, location.href); } catch { return document.createElement("span"); }
  const ours = url.origin === location.origin && /^(\/api\/v1\/documents\/|#)/.test(target);
  if (!ours && !/^https?:\/\//i.test(target)) return document.createElement("span");
  const made = document.createElement("a");
  made.setAttribute("href", target);
  if (!ours) {
    made.setAttribute("target", "_blank");
    made.setAttribute("rel", "noopener noreferrer nofollow");
  }
  return made;
}
