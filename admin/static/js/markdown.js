// CommonMark while it is being written: enough for a streamed answer to look like what it becomes, built from nodes.
// Links and pictures stay text here; the server's finished HTML replaces all of it.
import { el, plain } from "./dom.js";

/** @typedef {{kind: "paragraph" | "heading" | "code" | "quote" | "list" | "table" | "rule", raw: string}} Block */

/**
 * The blocks of `text`. They only ever grow at the end while text is appended, but for the last one.
 * @param {string} text @returns {Block[]}
 */
export function blocks(text) {
  /** @type {Block[]} */
  const found = [];
  /** @type {string | null} */
  let fence = null;
  for (const line of text.split("\n")) {
    const last = found.at(-1);
    if (fence !== null && last) {
      last.raw += `\n${line}`;
      if (line.trim().startsWith(fence) && !line.trim().slice(fence.length).trim()) fence = null;
      continue;
    }
    const opening = /^ {0,3}(`{3,}|~{3,})/.exec(line);
    if (opening) {
      fence = opening[1];
      found.push({ kind: "code", raw: line });
    } else if (!line.trim()) {
      if (last) last.raw += "\n";
    } else {
      extend(found, line, kindOf(line));
    }
  }
  return found;
}

/** @param {string} line @returns {Block["kind"]} */
function kindOf(line) {
  if (/^ {0,3}#{1,6}\s/.test(line)) return "heading";
  if (/^ {0,3}>/.test(line)) return "quote";
  if (/^ {0,3}([-*_])(\s*\1){2,}\s*$/.test(line)) return "rule";
  if (/^\s*([-*+]|\d{1,9}[.)])\s/.test(line)) return "list";
  if (/^\s*\|.*\|\s*$/.test(line)) return "table";
  return "paragraph";
}

/** @param {string} line */
const numbered = (line) => /^\s*\d/.test(line);

/** @param {Block[]} found @param {string} line @param {Block["kind"]} kind */
function extend(found, line, kind) {
  const last = found.at(-1);
  const open = last && !last.raw.endsWith("\n");
  const lazy = open && kind === "paragraph" && (last.kind === "quote" || last.kind === "list");
  const item = last?.kind === "list" && (kind === "list" ? /^\s{2,}/.test(line) || numbered(line) === numbered(last.raw) : /^\s{2,}\S/.test(line));
  const same = open && last.kind === kind && !["heading", "rule", "code", "list"].includes(kind);
  if (last && (lazy || item || same)) last.raw += `\n${line}`;
  else found.push({ kind, raw: line });
}

/** @param {Block} block @param {number} [depth] of quotes around it @returns {HTMLElement} */
export function draw(block, depth = 0) {
  switch (block.kind) {
    case "code": return code(block.raw);
    case "heading": return el("h4", {}, ...inline(block.raw.replace(/^\s*#+\s*|\s*#*\s*$/g, "")));
    case "quote": return quote(block.raw.replace(/^ {0,3}> ?/gm, ""), depth);
    case "list": return list(block.raw);
    case "table": return table(block.raw);
    case "rule": return el("hr");
    default: return el("p", {}, ...inline(block.raw.trim()));
  }
}

/** @param {string} text @param {number} depth */
function quote(text, depth) {
  return el("blockquote", {}, ...(depth < 5 ? blocks(text).map((block) => draw(block, depth + 1)) : [plain(text)]));
}

/** @param {string} raw */
function code(raw) {
  const lines = raw.split("\n");
  const fence = /^\s*(`{3,}|~{3,})/.exec(lines[0])?.[1] ?? "```";
  const body = lines.slice(1);
  while (body.length && !body.at(-1)?.trim()) body.pop();
  if (body.at(-1)?.trim().startsWith(fence)) body.pop();
  return el("pre", {}, el("code", {}, plain(body.join("\n"))));
}

/** One level of items; deeper ones follow in their order. @param {string} raw */
function list(raw) {
  const ordered = /^\s*(\d{1,6})[.)]\s/.exec(raw);
  /** @type {string[]} */
  const items = [];
  for (const line of raw.split("\n")) {
    const start = /^\s*(?:[-*+]|\d{1,9}[.)])\s+(.*)$/.exec(line);
    if (start) items.push(start[1]);
    else if (items.length) items[items.length - 1] += `\n${line.trim()}`;
  }
  return el(ordered ? "ol" : "ul", { start: ordered && ordered[1] !== "1" ? ordered[1] : null }, ...items.map((item) => el("li", {}, ...inline(item.trim()))));
}

/** @param {string} raw */
function table(raw) {
  const rows = raw.trim().split("\n").map((line) => line.trim().replace(/^\||\|$/g, "").split("|"));
  const ruled = rows.length > 1 && rows[1].every((cell) => /^\s*:?-+:?\s*$/.test(cell));
  const row = (/** @type {string[]} */ cells, /** @type {string} */ tag) => el("tr", {}, ...cells.map((cell) => el(tag, {}, ...inline(cell.trim()))));
  const head = ruled ? [el("thead", {}, row(rows[0], "th"))] : [];
  return el("table", {}, ...head, el("tbody", {}, ...rows.slice(ruled ? 2 : 0).map((cells) => row(cells, "td"))));
}

/** Beyond this many characters a paragraph stays as it is written: nobody emphasises that much, and searching it costs. */
const LONG = 5000;
const INLINE = /(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)|\*\*(?=\S)([\s\S]*?\S)\*\*|(?<![\w*])\*(?=[^\s*])([^*]*?[^\s*])\*(?![\w*])/;

/** @param {string} text @returns {(Node | string)[]} */
function inline(text) {
  const parts = [];
  let rest = plain(text);
  if (rest.length > LONG) return [rest];
  for (let match = INLINE.exec(rest); match; match = INLINE.exec(rest)) {
    if (match.index) parts.push(rest.slice(0, match.index));
    if (match[1]) parts.push(el("code", {}, match[2].trim()));
    else if (match[3]) parts.push(el("strong", {}, ...inline(match[3])));
    else parts.push(el("em", {}, ...inline(match[4])));
    rest = rest.slice(match.index + match[0].length);
  }
  if (rest) parts.push(rest);
  return parts;
}

/** Draws a growing text into `place`, touching only blocks that changed. */
export class LiveMarkdown {
  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place;
    /** @type {{raw: string, node: HTMLElement}[]} */
    this.drawn = [];
  }

  /** @param {string} text */
  show(text) {
    const wanted = blocks(text);
    wanted.forEach((block, i) => {
      const old = this.drawn[i];
      if (old && old.raw === block.raw) return;
      const node = draw(block);
      if (old) old.node.replaceWith(node);
      else this.place.append(node);
      this.drawn[i] = { raw: block.raw, node };
    });
    for (const gone of this.drawn.splice(wanted.length)) gone.node.remove();
  }
}
