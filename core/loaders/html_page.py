"""HTML pages and MHTML archives: the text of the page without its menus, scripts and hidden parts."""

from __future__ import annotations

import re
from collections import Counter
from email import policy
from email.errors import MessageError
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Final

from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

from core.loaders.decoding import decode
from core.loaders.options import Options, problem
from core.loaders.outline import Outline
from core.types import Parsed

_CHARSET = re.compile(rb"charset\s{0,5}=\s{0,5}[\"']?([A-Za-z0-9_.:-]{2,40})")
_SKIPPED: Final = frozenset(
    [
        "script",
        "style",
        "noscript",
        "template",
        "svg",
        "nav",
        "form",
        "button",
        "select",
        "option",
        "iframe",
        "object",
        "embed",
        "canvas",
        "audio",
        "video",
        "head",
        "title",
        "datalist",
        "dialog",
    ]
)
_BLOCKS: Final = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "center",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "header",
        "hr",
        "html",
        "li",
        "main",
        "ol",
        "p",
        "section",
        "summary",
        "table",
        "tbody",
        "td",
        "tfoot",
        "th",
        "thead",
        "tr",
        "ul",
        "caption",
    ]
)
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]{0,20})")
_CLOSED_BY_NEXT: Final = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"}
    | {"p", "li", "td", "th", "tr", "dt", "dd", "option", "thead", "tbody"}
)
"""Elements that have no end tag, or whose end tag is often left out."""
_MAX_NESTING: Final = 1000
_MENU_LINKS: Final = 5
_MAX_DEPTH: Final = 60
"""Nesting below which boxes and tables are not looked at as a whole: that would cost their size for each level."""
_HIDDEN_STYLE = re.compile(r"display\s{0,5}:\s{0,5}none|visibility\s{0,5}:\s{0,5}hidden", re.IGNORECASE)


class HtmlLoader:
    def __init__(self, options: Options) -> None:
        self._limit = options.limit

    def load(self, data: bytes, name: str) -> Parsed:
        hint = _CHARSET.search(data[:4096])
        text, notes = decode(data, hint[1].decode("ascii") if hint else "")
        outline = Outline()
        title = read_html(text, outline, limit=self._limit)
        return Parsed(outline.sections(), title, notes=notes)


class MhtmlLoader:
    """The main page of a saved web archive."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def load(self, data: bytes, name: str) -> Parsed:
        try:
            message = BytesParser(_class=EmailMessage, policy=policy.default).parsebytes(data)
            for part in message.walk():
                if part.get_content_type() == "text/html":
                    body = part.get_payload(decode=True)
                    if isinstance(body, bytes):
                        return HtmlLoader(self._options).load(body, name)
        except (MessageError, ValueError, LookupError, IndexError, AttributeError, RecursionError) as error:
            raise problem("damaged", kind="MHTML") from error
        raise problem("damaged", kind="MHTML")


def read_html(text: str, outline: Outline, *, limit: int) -> str:
    """Tell the page to `outline`, up to `limit` characters; its title."""
    if _depth(text) > _MAX_NESTING:
        raise problem("nested")
    try:
        tree = LexborHTMLParser(text.encode("utf-8", "replace"))
    except (SelectolaxError, ValueError) as error:
        raise problem("damaged", kind="HTML") from error
    body = tree.body
    if body is None:
        return ""
    main = _main(body)
    before = outline.characters
    _Walk(outline, limit, menus=False).walk(main)
    if outline.characters == before:
        _Walk(outline, limit, menus=True).walk(body)
    return _title(tree, body)


def _depth(text: str) -> int:
    """How deeply elements nest at most, about: parsing takes the square of it."""
    if text.count("<") < _MAX_NESTING:
        return 0
    opened: Counter[str] = Counter()
    depth = deepest = 0
    for match in _TAG.finditer(text):
        tag = match[2].lower()
        if tag in _CLOSED_BY_NEXT:
            continue
        if not match[1]:
            opened[tag] += 1
            depth += 1
            deepest = max(deepest, depth)
        elif opened[tag]:
            opened[tag] -= 1
            depth -= 1
    return deepest


def _title(tree: LexborHTMLParser, body: LexborNode) -> str:
    headings = [words for node in body.css("h1")[:3] if (words := _words(node))]
    if len(headings) == 1:
        return headings[0][:300]
    node = tree.css_first("head > title")
    return _words(node)[:300] if node is not None else ""


def _main(body: LexborNode) -> LexborNode:
    """The element that holds the page's own text, where the page says which one that is."""
    for selector in ("main", "[role=main]", "article"):
        found = body.css(selector)[:2]
        if len(found) == 1 and len(_words(found[0])) >= 200:
            return found[0]
    return body


def _words(node: LexborNode) -> str:
    return " ".join(node.text(deep=True, separator="").split())


class _Walk:
    """One pass through the tree in document order, without recursion: pages nest as deep as they like."""

    def __init__(self, outline: Outline, limit: int, *, menus: bool) -> None:
        self._outline = outline
        self._limit = limit
        self._menus = menus
        self._inline: list[str] = []
        self._items = 0

    def walk(self, root: LexborNode) -> None:
        node: LexborNode | None = root
        depth = 0
        while node is not None and self._outline.characters < self._limit:
            child = node.first_child if self._enter(node, depth) else None
            if child is not None:
                node, depth = child, depth + 1
                continue
            while node is not None:
                self._leave(node)
                if depth == 0:
                    node = None
                elif node.next is not None:
                    node = node.next
                    break
                else:
                    node, depth = node.parent, depth - 1
        self._flush()

    def _enter(self, node: LexborNode, depth: int) -> bool:
        """Take in what the node itself says; whether to go into it."""
        if node.is_text_node:
            self._inline.append(node.text(deep=False).replace("\x00", ""))
            return False
        tag = node.tag or ""
        if not node.is_element_node or tag in _SKIPPED or _is_hidden(node):
            return tag == "html"
        if tag == "br":
            self._inline.append("\x00")
            return False
        if tag not in _BLOCKS and tag not in _HEADINGS and tag != "pre":
            return True
        self._flush()
        return self._enter_block(node, tag) if depth < _MAX_DEPTH or tag in _HEADINGS or tag == "pre" else True

    def _enter_block(self, node: LexborNode, tag: str) -> bool:
        if tag in _HEADINGS:
            self._outline.heading(_HEADINGS[tag], _words(node))
            return False
        if tag == "pre":
            self._outline.code(node.text(deep=True, separator=""))
            return False
        if tag == "table":
            rows = _rows(node)
            if rows:
                self._outline.table(rows)
            return not rows
        if tag in ("ul", "ol", "div", "footer", "aside", "header") and not self._menus and _is_menu(node, tag):
            return False
        if tag == "li":
            self._items += 1
        return True

    def _leave(self, node: LexborNode) -> None:
        tag = node.tag or ""
        if tag in _BLOCKS:
            self._flush()
        if tag == "li" and self._items:
            self._items -= 1

    def _flush(self) -> None:
        if not self._inline:
            return
        lines = [" ".join(line.split()) for line in "".join(self._inline).split("\x00")]
        self._inline = []
        text = "\n".join(line for line in lines if line)
        if text and self._items:
            self._outline.item(text)
        elif text:
            self._outline.paragraph(text)


def _is_hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    if not attributes:
        return False
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or attributes.get("role") in ("navigation", "search", "menu")
        or bool(_HIDDEN_STYLE.search((attributes.get("style") or "")[:2000]))
    )


def _is_menu(node: LexborNode, tag: str) -> bool:
    """Whether a list or box is made of short links and hardly anything else."""
    if tag in ("div", "header") and node.parent is not None and node.css_first("p, h1, h2, table, pre") is not None:
        return False
    links = node.css("a")[:400]
    if len(links) < _MENU_LINKS:
        return False
    linked = sum(len(_words(link)) for link in links)
    return linked < 40 * len(links) and linked > 0.8 * len(_words(node))


def _rows(table: LexborNode) -> list[list[str]]:
    """The cells of a table of data; empty for one that only lays out a page."""
    if table.css_first("table table, h1, h2, h3, pre") is not None:
        return []
    rows = []
    for row in table.css("tr")[:5000]:
        cells = [_words(cell) for cell in row.css("th, td")[:100]]
        if any(cells):
            rows.append(cells)
    if max(map(len, rows), default=0) < 2:
        return []
    cells_with_text = [cell for row in rows for cell in row if cell]
    return rows if sum(map(len, cells_with_text)) < 300 * len(cells_with_text) else []
