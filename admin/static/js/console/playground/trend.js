// A small chart of shares over runs, each run a step; and the same as a table for those who do not see it.
import { el, language, percent, t } from "../base.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 180;
const LEFT = 44;
const EDGE = 10;

/** @typedef {{label: string, kind: string, values: number[]}} Curve values 0..1 */

/** @param {{label: string, times: string[], curves: Curve[]}} given @returns {HTMLElement} */
export function trend(given) {
  const width = innerWidth < 640 ? 320 : 640; // so that its words can be read on a phone too
  const svg = draw("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, class: "playground-trend", role: "img", "aria-label": given.label });
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(draw("line", { class: "grid", x1: LEFT, x2: width - EDGE, y1: height(share), y2: height(share) }));
    if (share % 0.5 === 0) svg.append(text(percent(share), { x: LEFT - 6, y: height(share) + 4, "text-anchor": "end" }));
  }
  const across = (/** @type {number} */ at) => LEFT + 8 + (given.times.length > 1 ? (at * (width - LEFT - EDGE - 16)) / (given.times.length - 1) : 0);
  for (const curve of given.curves) {
    svg.append(draw("polyline", { class: curve.kind, points: curve.values.map((value, at) => `${across(at).toFixed(1)},${height(value).toFixed(1)}`).join(" ") }));
    curve.values.forEach((value, at) => {
      const dot = draw("circle", { class: curve.kind, cx: across(at), cy: height(value), r: 3.5 });
      dot.append(tip(`${curve.label}: ${percent(value)} · ${moment(given.times[at])}`));
      svg.append(dot);
    });
  }
  return el("div", { class: "stack" }, legend(given.curves), svg, asTable(given));
}

/** @param {number} share */
const height = (share) => HEIGHT - EDGE - share * (HEIGHT - 2 * EDGE);

/** @param {string} iso */
const moment = (iso) => new Intl.DateTimeFormat(language === "zh" ? "zh-CN" : "en", { dateStyle: "medium", timeStyle: "short" }).format(new Date(iso));

/** @param {string} tag @param {Record<string, string | number>} attributes */
function draw(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
  return node;
}

/** @param {string} words @param {Record<string, string | number>} attributes */
function text(words, attributes) {
  const node = draw("text", attributes);
  node.textContent = words;
  return node;
}

/** @param {string} words */
function tip(words) {
  const node = draw("title", {});
  node.textContent = words;
  return node;
}

/** @param {Curve[]} curves */
const legend = (curves) => el("ul", { class: "playground-legend" }, ...curves.map((curve) => el("li", {}, el("span", { class: `dot ${curve.kind}`, "aria-hidden": "true" }), curve.label)));

/** @param {{label: string, times: string[], curves: Curve[]}} given */
function asTable(given) {
  const head = el("tr", {}, el("th", { scope: "col" }, t("playground_when")), ...given.curves.map((curve) => el("th", { scope: "col", class: "end" }, curve.label)));
  const rows = given.times.map((time, at) => el("tr", {}, el("th", { scope: "row" }, moment(time)), ...given.curves.map((curve) => el("td", { class: "end" }, percent(curve.values[at])))));
  return el("div", { class: "hidden" }, el("table", {}, el("caption", {}, given.label), el("thead", {}, head), el("tbody", {}, ...rows)));
}
