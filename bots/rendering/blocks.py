"""CommonMark as flat blocks of flat runs, which a renderer writes one by one and a splitter may cut anywhere. Pure.

A block knows the quotes and list items it stands in, and a run all of its own style: whatever is cut off goes on as it
was. Raw HTML and link definitions are text like any other, so that nothing a model wrote vanishes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, count, groupby
from typing import Final, Literal, TypeAlias
from unicodedata import category, east_asian_width
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline, emphasis
from markdown_it.token import Token

from core.outbound import visible

_DEEPEST: Final = 24
"""Quotes and twice the lists that may stand in each other; a text that goes deeper is shown as it is written."""
_MOST_MARKS: Final = 50_000
"""Characters that may be markup; a text with more is shown as it is written: reading it would take seconds."""
_MARKS: Final = re.compile(r"[\n|\[\]*_~`<&!\\]")
_MOST_SIGNS: Final = 200_000
"""As `_MOST_MARKS`, for signs that the reader only stops at."""
_SIGNS: Final = re.compile(r"[#$%+\-:=>@^{}]")
_LONGEST_URL: Final = 1000
HARD_BREAK: Final = "\v"
"""Stands in a run's text for a line end that the author insists on; other texts cannot contain it."""
_NOT_IN_URLS: Final = re.compile(r"[\s\x00-\x20\x7f\"'()<>\\^`{|}]")
_ADDRESS_BEGINS: Final = re.compile(r"(?:[a-z][a-z0-9+.-]{1,20}://|www\.)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of text in one style."""

    text: str
    bold: bool = False
    italic: bool = False
    struck: bool = False
    code: bool = False
    url: str = ""
    """Where it leads: http(s) only."""

    def saying(self, text: str, url: str | None = None) -> Run:
        """The same style around another text; where it leads changes only with `url`."""
        return Run(text, self.bold, self.italic, self.struck, self.code, self.url if url is None else url)

    @property
    def style(self) -> tuple[bool, bool, bool, bool, str]:
        return self.bold, self.italic, self.struck, self.code, self.url


Runs: TypeAlias = tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A quote, or an item of a list."""

    id: int
    marker: str
    """As written, e.g. `-` or `3.`; empty: a quote."""


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, heading, piece of code, table, or rule."""

    kind: Literal["text", "heading", "code", "table", "rule"]
    runs: Runs = ()
    """Of a text or heading."""
    level: int = 0
    """Of a heading, 1 to 6."""
    lines: tuple[str, ...] = ()
    """Of code."""
    language: str = ""
    """Of code: one word, or nothing."""
    rows: tuple[tuple[Runs, ...], ...] = ()
    """Of a table; the first is its head."""
    boxes: tuple[Box, ...] = ()
    """What it stands in, outermost first."""
    opens: int = 0
    """How many of the innermost boxes begin with it."""
    apart: bool = True
    """There is an empty line before it."""


def blocks_of(text: str) -> tuple[Block, ...]:
    """The blocks of a CommonMark text (with tables and ~~struck~~ words), in order; none of them empty."""
    text = clean(text)
    if len(_MARKS.findall(text)) > _MOST_MARKS or len(_SIGNS.findall(text)) > _MOST_SIGNS:
        return as_written(text)
    tokens = _reader().parse(text)
    if any(token.level >= _DEEPEST - 1 for token in tokens):
        return as_written(text)
    return tuple(_Walk(tokens, text.split("\n")).blocks())


def as_written(text: str) -> tuple[Block, ...]:
    """The text without any reading, as one block."""
    text = clean(text).strip()
    return (Block("text", (Run(text),)),) if text else ()


def length_up_to(block: Block, most: int) -> int:
    """Characters of the block's text; counting ends beyond `most`."""
    cells = (run.text for row in block.rows for cell in row for run in cell)
    total = 0
    for text in chain((run.text for run in block.runs), block.lines, cells):
        total += len(text) + 1
        if total > most:
            break
    return total


def clean(text: str) -> str:
    """The text without halves of characters, controls, and what cannot be seen."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return visible(whole)


# ---------------------------------------------------------------- reading
@cache
def _reader() -> MarkdownIt:
    reader = MarkdownIt("commonmark", {"maxNesting": _DEEPEST}).enable(["table", "strikethrough"])
    reader.disable(["html_block", "html_inline", "reference"])
    reader.inline.ruler.at("emphasis", _emphasis)
    return reader


def _emphasis(state: StateInline, silent: bool) -> bool:
    """As CommonMark, and between Chinese, Japanese or Korean characters too, where words have no blanks around them."""
    begin, known = state.pos, len(state.delimiters)
    if not emphasis.tokenize(state, silent):
        return False
    before, after = state.src[begin - 1 : begin] or " ", state.src[state.pos : state.pos + 1] or " "
    if state.src[begin] == "*" and (_is_wide(before) or _is_wide(after)):
        for delimiter in state.delimiters[known:]:
            delimiter.open = not after.isspace() and (not is_punctuation(after) or _is_edge(before))
            delimiter.close = not before.isspace() and (not is_punctuation(before) or _is_edge(after))
    return True


def is_punctuation(character: str) -> bool:
    return category(character)[0] in "PS"


def _is_wide(character: str) -> bool:
    return east_asian_width(character) in "WF"


def _is_edge(character: str) -> bool:
    return character.isspace() or is_punctuation(character) or _is_wide(character)


class _Walk:
    """Turns markdown-it's nested tokens into flat blocks."""

    def __init__(self, tokens: Sequence[Token], lines: Sequence[str]) -> None:
        self._tokens = tokens
        self._lines = lines
        self._boxes: list[Box] = []
        self._opened: list[Token] = []
        self._left_out = False
        """The block before had nothing in it, and is not among those made."""
        self._opens = 0
        self._ids = count(1)
        self._made: list[Block] = []

    def blocks(self) -> list[Block]:
        at = 0
        while at < len(self._tokens):
            at = self._take(at)
        return self._made

    def _take(self, at: int) -> int:
        """Deal with the token; gives the place of the next."""
        token = self._tokens[at]
        kind = token.type
        if kind in ("paragraph_open", "heading_open"):
            self._text(token, self._tokens[at + 1])
        elif kind in ("fence", "code_block"):
            self._code(token)
        elif kind == "hr":
            self._add(Block("rule"), token)
        elif kind == "table_open":
            return self._table(at)
        elif kind == "blockquote_open":
            self._open(token, "")
        elif kind == "list_item_open":
            self._open(token, f"{token.info}{token.markup}")
        elif kind in ("blockquote_close", "list_item_close"):
            if kind == "list_item_close" and self._opens:
                self._add(Block("text"), self._opened[-1])
            self._boxes.pop()
            self._opened.pop()
            self._opens = max(0, self._opens - 1)
        return at + 1

    def _open(self, token: Token, marker: str) -> None:
        self._opened.append(token)
        self._boxes.append(Box(next(self._ids), marker))
        self._opens += 1

    def _add(self, block: Block, token: Token) -> None:
        apart = token.map is None or block.kind == "rule" or self._left_out or not self._follows(token.map[0])
        self._left_out = False
        block = replace(block, boxes=tuple(self._boxes), opens=self._opens, apart=apart)
        self._opens = 0
        self._made.append(block)

    def _follows(self, line: int) -> bool:
        """Whether there is no empty line before this one."""
        return line > 0 and bool(self._lines[line - 1].strip(" \t>"))

    def _text(self, token: Token, inline: Token) -> None:
        runs = _runs(inline.children or [])
        if not (runs or self._opens):
            self._left_out = True
        else:
            level = int(token.tag[1]) if token.type == "heading_open" else 0
            self._add(Block("heading" if level and runs else "text", runs, level), token)

    def _code(self, token: Token) -> None:
        words = token.info.split()
        lines = tuple(visible(token.content).removesuffix("\n").split("\n"))
        if any(lines) or self._opens:
            self._add(Block("code", lines=lines, language=words[0] if words else ""), token)

    def _table(self, at: int) -> int:
        rows: list[list[Runs]] = []
        end = at
        while self._tokens[end].type != "table_close":
            token = self._tokens[end]
            if token.type == "tr_open":
                rows.append([])
            elif token.type == "inline":
                rows[-1].append(_runs(token.children or []))
            end += 1
        self._add(Block("table", rows=tuple(map(tuple, rows))), self._tokens[at])
        return end + 1


def _runs(tokens: Sequence[Token]) -> Runs:
    """The inline tokens as runs; equal neighbours are one."""
    found: list[Run] = []
    url = ""
    depth = {"strong": 0, "em": 0, "s": 0}
    for token in tokens:
        name = token.type.removesuffix("_open").removesuffix("_close")
        if name in depth:
            depth[name] += token.nesting
            continue
        if name == "link":
            url = safe_url(str(token.attrGet("href") or "")) if token.nesting == 1 else ""
            continue
        style = Run("", depth["strong"] > 0, depth["em"] > 0, depth["s"] > 0, url=url)
        found.append(_said(token, style))
    return joined(_without_lies(_trimmed(joined(found))))


def _said(token: Token, style: Run) -> Run:
    if token.type in ("softbreak", "hardbreak"):
        return style.saying("\n" if token.type == "softbreak" else HARD_BREAK)
    if token.type == "code_inline":
        return Run(_one_line(token.content), code=True, url=style.url)
    if token.type == "image":
        url = safe_url(str(token.attrGet("src") or ""))
        label = _one_line("".join(child.content for child in token.children or []))
        return style.saying(label.strip() or url, url=style.url or url)
    return style.saying(_one_line(token.content))


def _one_line(text: str) -> str:
    """What is left of a text that character references may have brought anything into."""
    return " ".join(clean(text).split("\n")).replace("\t", " ")


def _trimmed(runs: Runs) -> Runs:
    """Without blanks at the ends of lines."""
    text = "".join(run.text for run in runs)
    if not text.strip():
        return ()
    made: list[Run] = []
    at_start = True
    for run in runs:
        said = run.text if run.code else _without_edges(run.text)
        if at_start and not run.code:
            said = said.lstrip()
        made.append(run.saying(said))
        at_start = said.endswith(("\n", HARD_BREAK)) if said else at_start
    if made and not made[-1].code:
        made[-1] = made[-1].saying(made[-1].text.rstrip())
    return joined(made)


def _without_edges(text: str) -> str:
    """Without blanks beside the line ends inside the text."""
    if "\n" not in text and HARD_BREAK not in text:
        return text
    first, *rest = re.split(f"([\n{HARD_BREAK}])", text)
    inner = [piece.strip(" \t") if piece not in ("\n", HARD_BREAK) else piece for piece in rest[:-1]]
    return "".join([first.rstrip(" \t"), *inner, rest[-1].lstrip(" \t")])


def _without_lies(runs: Runs) -> Runs:
    """A link whose words are another site's address is no link."""
    made: list[Run] = []
    for url, together in groupby(runs, key=lambda run: run.url):
        link = list(together)
        lies = bool(url) and _lies("".join(run.text for run in link).strip(), url)
        made += [replace(run, url="") for run in link] if lies else link
    return tuple(made)


def _lies(label: str, url: str) -> bool:
    begins = _ADDRESS_BEGINS.match(label)
    if not begins:
        return False
    try:
        said = urlsplit(label if "://" in begins[0] else f"http://{label}")
        return (said.hostname or "") != (urlsplit(url).hostname or "")
    except ValueError:
        return True


def joined(runs: Sequence[Run]) -> Runs:
    """Without empty runs, and with equal neighbours as one."""
    made: list[Run] = []
    gathered: list[str] = []
    for run in runs:
        if not run.text:
            continue
        if made and run.style == made[-1].style:
            gathered.append(run.text)
            continue
        if len(gathered) > 1:
            made[-1] = made[-1].saying("".join(gathered))
        made.append(run)
        gathered = [run.text]
    if len(gathered) > 1:
        made[-1] = made[-1].saying("".join(gathered))
    return tuple(made)


def safe_url(url: str) -> str:
    """The address as it may stand in any dialect, or nothing where it is not http(s), has no host, or is too long."""
    if not url.lower().startswith(("https://", "http://")):
        return ""
    url = _NOT_IN_URLS.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), visible(url))
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return ""
    return url if host and len(url) <= _LONGEST_URL else ""
