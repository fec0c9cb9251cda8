// A chart over time, drawn by uPlot (vendor/uplot), with the same figures as a table for those who do not see it.
import uPlot from "/static/vendor/uplot/uPlot.esm.js";
import { el, language, number, t } from "./base.js";

document.head.append(el("link", { rel: "stylesheet", href: "/static/vendor/uplot/uPlot.min.css" }));

/** @typedef {{label: string, color: string, values: (number | null)[], fill?: boolean, show?: (value: number | null) => string}} Curve */

/**
 * @param {{title: string, times: number[], step: string, curves: Curve[], stacked?: boolean}} given `times`: seconds; `stacked`: bars on top of each other
 * @returns {HTMLElement}
 */
export function chart(given) {
  const canvas = el("div", { class: "chart", role: "img", "aria-label": t("dashboard_chart", { what: given.title }) });
  const figure = el("div", { class: "chart-frame" }, legend(given.curves), canvas, asTable(given));
  const drawn = new Drawn(canvas, given);
  new ResizeObserver(() => drawn.fit()).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.draw());
  return figure;
}

/** @param {string} name a colour of base.css */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim() || "#888";

class Drawn {
  /** @param {HTMLElement} canvas @param {Parameters<typeof chart>[0]} given */
  constructor(canvas, given) {
    this.canvas = canvas;
    this.given = given;
    /** @type {any} */
    this.plot = null;
  }

  fit() {
    const width = Math.floor(this.canvas.clientWidth);
    if (!width) return;
    if (!this.plot) this.draw();
    else if (Math.abs(this.plot.width - width) > 1) this.plot.setSize({ width, height: height(width) });
  }

  draw() {
    const width = Math.floor(this.canvas.clientWidth);
    if (!width || !this.canvas.isConnected) return;
    this.plot?.destroy();
    const { times, curves, stacked } = this.given;
    const heights = stacked ? piled(curves) : curves.map((curve) => curve.values);
    // What reaches highest is drawn first, so that the others stand before it.
    const order = curves.map((_, at) => at);
    if (stacked) order.reverse();
    const series = order.map((at) => this.#series(curves[at]));
    this.plot = new uPlot(this.#options(width, series), [times, ...order.map((at) => heights[at])], this.canvas);
  }

  /** @param {Curve} curve */
  #series(curve) {
    const tint = colour(curve.color);
    if (this.given.stacked) return { label: curve.label, stroke: tint, fill: tint, width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [0.8, 40] }) };
    return { label: curve.label, stroke: tint, width: 2, spanGaps: true, points: { show: this.given.times.length < 40, size: 5 } };
  }

  /** @param {number} width @param {unknown[]} series */
  #options(width, series) {
    const day = 86400;
    const hours = this.given.step === "hour";
    const grid = { stroke: colour("--line"), width: 1 };
    const axis = { stroke: colour("--ink-soft"), grid, ticks: grid, font: "12px system-ui, sans-serif" };
    const show = this.given.curves[0]?.show ?? ((/** @type {number | null} */ value) => number(value ?? 0));
    return {
      width,
      height: height(width),
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, points: { show: !this.given.stacked } },
      scales: { x: { time: true, range: edges }, y: { range: (/** @type {any} */ _, /** @type {number} */ _low, /** @type {number} */ high) => [0, Math.max(1, high * 1.1)] } },
      series: [{}, ...series],
      axes: [
        { ...axis, space: 64, incrs: hours ? [3600, 7200, 10800, 21600, 43200, day] : [day, 2 * day, 7 * day, 14 * day, 30 * day, 61 * day], values: (/** @type {any} */ _, /** @type {number[]} */ at) => at.map((one) => moment(one, hours)) },
        { ...axis, size: 64, ...(this.given.curves[0]?.show ? {} : { incrs: COUNTS }), values: (/** @type {any} */ _, /** @type {number[]} */ at) => at.map((one) => show(one)) },
      ],
      plugins: [tooltip(this.given)],
    };
  }
}

/** Steps of an axis that counts: there is no half of a question. */
const COUNTS = Array.from({ length: 30 }, (_, at) => [1, 2, 5][at % 3] * 10 ** Math.floor(at / 3));

/** Half a step of room on both sides, so that the first and last bar are whole. @param {any} plot @param {number} first @param {number} last */
function edges(plot, first, last) {
  const times = plot.data[0];
  const half = (times.length > 1 ? times[1] - times[0] : 3600) / 2;
  return [first - half, last + half];
}

/** @param {number} width */
const height = (width) => (width < 500 ? 200 : 260);

/** Each curve on top of those before it. @param {Curve[]} curves */
function piled(curves) {
  const below = curves[0]?.values.map(() => 0) ?? [];
  return curves.map((curve) => curve.values.map((value, at) => (below[at] += value ?? 0)));
}

const locale = () => (language === "zh" ? "zh-CN" : "en");

/** @param {number} seconds @param {boolean} hours @param {boolean} [whole] */
function moment(seconds, hours, whole = false) {
  /** @type {Intl.DateTimeFormatOptions} */
  const parts = hours ? { hour: "2-digit", minute: "2-digit", ...(whole ? { month: "short", day: "numeric" } : {}) } : { month: "short", day: "numeric", ...(whole ? { weekday: "short" } : {}) };
  return new Intl.DateTimeFormat(locale(), parts).format(new Date(seconds * 1000));
}

/** What the pointer is on, beside it. @param {Parameters<typeof chart>[0]} given */
function tooltip(given) {
  const box = el("div", { class: "chart-tip", hidden: true });
  return {
    hooks: {
      init: (/** @type {any} */ plot) => {
        plot.over.append(box);
        plot.over.addEventListener("mouseleave", () => { box.hidden = true; });
      },
      setCursor: (/** @type {any} */ plot) => {
        const at = plot.cursor.idx;
        box.hidden = at === null || at === undefined;
        if (box.hidden) return;
        box.replaceChildren(el("strong", {}, moment(given.times[at], given.step === "hour", true)), ...given.curves.map((curve) => el("span", {}, `${curve.label}: ${shown(curve, at)}`)));
        const left = plot.cursor.left;
        box.classList.toggle("left", left > plot.over.clientWidth / 2);
        box.style.setProperty("--at", `${left}px`);
      },
    },
  };
}

/** @param {Curve} curve @param {number} at */
function shown(curve, at) {
  const value = curve.values[at];
  return value === null || value === undefined ? "–" : (curve.show ?? number)(value);
}

/** @param {Curve[]} curves */
function legend(curves) {
  return el("ul", { class: "chart-legend" }, ...curves.map((curve) => {
    const dot = el("span", { class: "chart-dot", "aria-hidden": "true" });
    dot.style.background = `var(${curve.color})`;
    return el("li", {}, dot, curve.label);
  }));
}

/** @param {Parameters<typeof chart>[0]} given */
function asTable(given) {
  const head = el("tr", {}, el("th", { scope: "col" }, t("dashboard_when")), ...given.curves.map((curve) => el("th", { scope: "col", class: "end" }, curve.label)));
  const rows = given.times.map((at, row) => el("tr", {}, el("th", { scope: "row" }, moment(at, given.step === "hour", true)), ...given.curves.map((curve) => el("td", { class: "end" }, shown(curve, row)))));
  const table = el("table", { class: "table" }, el("thead", {}, head), el("tbody", {}, ...rows));
  return el("details", {}, el("summary", {}, t("dashboard_as_table")), el("div", { class: "table-wide chart-table", role: "region", tabindex: "0", "aria-label": given.title }, table));
}
