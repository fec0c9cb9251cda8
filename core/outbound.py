"""The one way for a model's words into a chat: CommonMark whose links lead only where they may.

It holds by what the result never contains, whatever the input was: outside code there is no `](`, `]:`, `<` before a
letter, or bare address that was not checked; and code is written so that every reader agrees where it ends (a fence is
closed where one could read it as closed, a lone backtick is escaped, a table's bar never stands in code). Works on text
that is still arriving: what could become part of a link is held back until it is clear.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urldefrag

_EMOJI: Final = "\u2190-\u2bff\U0001f000-\U0001faff\ufe0f"
# Control, bidirectional and zero-width characters, tags and supplementary variation selectors; emoji keep their joiner.
_STRIPPED: Final = re.compile(
    "[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200c"
    "\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
    f"|\u200d(?![{_EMOJI}]|\\Z)|(?<![{_EMOJI}\U0001f3fb-\U0001f3ff])\u200d"
)
_LINE_ENDS: Final = re.compile("\r\n?|[\u0085\u2028\u2029]")
_MARK: Final = "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
_MARKS: Final = re.compile(f"([{_MARK}]{{3}})[{_MARK}]+")
_MOST_BLANK_LINES: Final = 2
_LONGEST_HELD: Final = 2000
"""Characters held back at most; beyond, what is open is taken as plain text."""

_NO_URL: Final = r"\s<>\"`|\\\u3000-\u303f\u3400-\u9fff\uff00-\uffef"
_FENCE: Final = re.compile(r"^( {0,3})(`{3,}|~{3,})([^`\n]*)$")
_CODE_SPAN: Final = re.compile(r"(`+)(?!`)([^`]|[^`].*?[^`])(?<!`)\1(?!`)")
_LINK: Final = re.compile(
    r"(!?)\[((?:[^\[\]\\`\n]|\[[^\[\]\\`\n]{0,100}\]){0,300})\]"
    r"\(\s{0,3}<?([^\s<>()`|\\]{0,1500}(?:\([^\s<>()`|\\]{0,200}\)[^\s<>()`|\\]{0,200})?)>?"
    r"(?:\s+(?:\"[^\"\n]{0,200}\"|'[^'\n]{0,200}'))?\s{0,3}\)"
)
_OF_HOST: Final = re.compile(r"https://([a-z0-9.-]+)(?::\d{1,5})?(?:[/?#][!-~]*)?\Z", re.IGNORECASE)
"""An address that every reader understands alike: nothing before the host, and printable ASCII only."""
_TOKEN: Final = re.compile(
    r"(?P<escape>\\[!-/:-@\[-`{-~])"
    r"|(?P<ticks>`+)"
    r"|(?P<link>!?\[)"
    r"|(?P<close>\](?=[(:]))"
    r"|(?P<auto><(?:[A-Za-z][A-Za-z0-9+.-]{1,31}:[^\s<>`|\\]{0,1500}|[^\s<>@`|\\]{1,100}@[^\s<>@`|\\]{1,200})>)"
    r"|(?P<html><(?=[A-Za-z/!?]))"
    rf"|(?P<url>(?<![A-Za-z0-9])(?:[A-Za-z][A-Za-z0-9+.-]{{1,20}}:(?://|(?<=javascript:)|(?<=data:)|(?<=vbscript:))[^{_NO_URL}]*"
    rf"|www\.[^{_NO_URL}]+"
    rf"|(?:[A-Za-z0-9-]{{1,63}}\.){{1,5}}[A-Za-z]{{2,24}}(?::\d+)?[/?#][^{_NO_URL}]+))",
    re.IGNORECASE,
)
_HELD_WORD: Final = re.compile(r"[^\s\u3000-\u303f\u3400-\u9fff\uff00-\uffef]+\Z")
_WORD: Final = "-A-Za-z0-9,;!'\"()=+_*"
_WORD_END: Final = r" \u4e00-\u9fff，。、；：！？（）"
_PLAIN: Final = re.compile(f"((?:[{_WORD}{_WORD_END}]*[{_WORD_END}])?)[{_WORD}]*")
"""What can be no part of a link or of code: most of most answers. The group is what `_HELD_WORD` does not hold back."""


def safe_markdown(text: str, allowed_urls: Collection[str] = ()) -> str:
    """`text` with links and images only to `allowed_urls`; others stand as text that leads nowhere."""
    outlet = Outlet(frozenset(allowed_urls))
    return outlet.feed(text) + outlet.close()


def visible(text: str) -> str:
    """The text without control, bidirectional and zero-width characters, and with at most three marks on a letter."""
    return _MARKS.sub(r"\1", _STRIPPED.sub("", _LINE_ENDS.sub("\n", text)))


@dataclass
class Outlet:
    """`safe_markdown` for text that arrives in pieces; the pieces that come out join to the same result."""

    allowed: frozenset[str]
    """Addresses that may be linked, and shown as pictures."""
    hosts: frozenset[str] = frozenset()
    """Whose https addresses may be linked too, in lower case."""
    _held: str = ""
    _return: str = ""
    _fence: str = ""
    """The fence that is open, with its indentation in front."""
    _line_begun: bool = False
    """Part of the current line is out already."""
    _blank_lines: int = field(default=0)
    _end: str = ""
    """Of what is out: a backtick, or a backslash that escapes what follows."""

    def feed(self, text: str) -> str:
        """What can be let out now."""
        if self._line_begun and not self._fence and not self._return:
            rest = self._held + text
            if len(rest) <= _LONGEST_HELD and (plain := _PLAIN.fullmatch(rest)):
                self._held = rest[plain.end(1) :]
                return self._out(plain[1])
        text = self._return + text
        self._return = "\r" if text.endswith("\r") else ""  # perhaps half of a line end
        self._held = visible(self._held + text.removesuffix("\r"))
        *lines, rest = self._held.split("\n")
        out = [self._out(self._line(line, ended=True)) for line in lines]
        settled = self._settled(rest)
        if settled:
            out.append(self._out(self._line(rest[:settled], ended=False)))
        self._held = rest[settled:]
        return "".join(out)

    def close(self) -> str:
        """What is left."""
        before = self.feed(" ").removesuffix(" ") if self._return else ""
        held, self._held = self._held.removesuffix("\u200d"), ""
        return before + (self._out(self._line(held, ended=False)) if held else "")

    def _out(self, text: str) -> str:
        """The text, which is let out now."""
        if text:
            backslashes = len(text) - len(text.rstrip("\\"))
            self._end = "`" if text.endswith("`") else "\\" * (backslashes % 2)
        return text

    # ------------------------------------------------------------ lines
    def _line(self, line: str, *, ended: bool) -> str:
        end = "\n" if ended else ""
        begun, self._line_begun = self._line_begun, not ended
        if not begun:
            if self._fence:
                return self._in_fence(line) + end
            if not line.strip():
                self._blank_lines += ended
                return line + end if self._blank_lines <= _MOST_BLANK_LINES else ""
            self._blank_lines = 0
            if (found := _FENCE.match(line)) and (ended or not self._held):
                self._fence = found[1] + found[2]
                return line + end
        elif self._fence:
            return line + end
        return self._inline(line, self._end) + end

    def _in_fence(self, line: str) -> str:
        """A line of code. Where a reader could see the code's end, it ends for all."""
        indent, mark = self._fence[: -len(self._fence.lstrip(" "))], self._fence.lstrip(" ")
        body = line.strip()
        if body and set(body) == {mark[0]} and len(body) >= len(mark):
            closing, self._fence = self._fence, ""
            return closing
        if indent and body and not line.startswith((indent, "\t")):
            closing, self._fence = self._fence, ""
            found = _FENCE.match(line)
            self._fence = found[1] + found[2] if found else ""
            return f"{closing}\n{line if found else self._inline(line)}"
        return line

    # ------------------------------------------------------------ inside a line
    def _inline(self, text: str, before: str = "") -> str:
        """`before`: the end of what stands in front of it already."""
        out = [before]
        at = 0
        while found := _TOKEN.search(text, at):
            out.append(text[at : found.start()])
            written, at = self._token(text, found)
            if written.startswith("`"):
                front = "".join(out[-2:])
                if front.endswith("`"):
                    out.append(" ")
                elif (len(front) - len(front.rstrip("\\"))) % 2:
                    out.append("\\")  # else it would be no beginning of code
            out.append(written)
        out.append(text[at:])
        return "".join(out[1:])

    def _token(self, text: str, found: re.Match[str]) -> tuple[str, int]:
        """What stands for the token found, and where reading goes on."""
        kind, end = found.lastgroup, found.end()
        if kind == "ticks":
            return self._ticks(text, found)
        if kind == "link":
            return self._link(text, found)
        if kind == "close":
            return "]\\", end
        if kind == "html":
            return "\\<", end
        if kind == "auto":
            return self._address(found[0][1:-1]), end
        if kind == "url":
            url = found[0].rstrip(".,;:!?'\")]}*_~")
            return self._address(url or found[0]), found.start() + len(url or found[0])
        return found[0], end

    def _ticks(self, text: str, found: re.Match[str]) -> tuple[str, int]:
        """Code in a line, as it is; unless a table's bar in it could cut it open."""
        span = _CODE_SPAN.match(text, found.start())
        if span and "|" not in span[0]:
            return span[0], span.end()
        return "\\`" * len(found[0]), found.end()

    def _link(self, text: str, found: re.Match[str]) -> tuple[str, int]:
        link = _LINK.match(text, found.start())
        if not link:
            return found[0], found.end()
        image, label, url = link[1], link[2], link[3]
        if self._is_allowed(url) or (not image and self._is_of_host(url)):
            return f"{image}[{self._inline(label)}]({url})", link.end()
        said = self._inline(label)
        if image or not url or label.strip() == url:
            return said or self._address(url), link.end()
        return f"{said} ({self._address(url)})", link.end()

    def _address(self, url: str) -> str:
        """An address as it may stand: as a link where it is allowed, else as code, which leads nowhere."""
        if self._is_allowed(url) or self._is_of_host(url):
            return f"<{url}>" if ":" in url else url
        return f"`{url}`"

    def _is_allowed(self, url: str) -> bool:
        return url in self.allowed or urldefrag(url)[0] in self.allowed

    def _is_of_host(self, url: str) -> bool:
        found = _OF_HOST.match(url) if self.hosts else None
        return found is not None and found[1].lower() in self.hosts

    # ------------------------------------------------------------ what is still open
    def _settled(self, rest: str) -> int:
        """How much of an unfinished line cannot change its meaning any more."""
        if len(rest) > _LONGEST_HELD:
            return _forced(rest)
        if not self._line_begun and (self._fence or rest.lstrip(" ")[:1] in ("", "`", "~")):
            return 0  # perhaps a fence
        if self._fence:
            return len(rest)
        word = _HELD_WORD.search(rest)
        return _first_open(rest[: word.start()] if word else rest)


def _forced(rest: str) -> int:
    """Where an endless line is cut: between words where there is a blank, never inside what belongs together."""
    blank = rest.rfind(" ", len(rest) - _LONGEST_HELD // 4)
    if blank > 0:
        return blank
    backslashes = len(rest) - len(rest.rstrip("\\"))
    return len(rest) - 1 if backslashes % 2 or rest[-1] in "]<!" else len(rest)


def _first_open(text: str) -> int:
    """Where the first code span or link begins that is not complete; else the length of the text."""
    at = 0
    while found := _TOKEN.search(text, at):
        at = found.end()
        if found.lastgroup == "ticks":
            span = _CODE_SPAN.match(text, found.start())
            if not span:
                return found.start()
            at = span.end()
        elif found.lastgroup == "link":
            link = _LINK.match(text, found.start())
            if link:
                at = link.end()
            elif _may_become_link(text, found.end()):
                return found.start()
    return len(text)


def _may_become_link(text: str, at: int) -> bool:
    """Whether the bracket opened before `at` is not closed yet, or is followed by an address that is not complete."""
    depth = 1
    for place in range(at, len(text)):
        if text[place] == "[":
            depth += 1
        elif text[place] == "]":
            depth -= 1
            if depth == 0:
                return text[place + 1 : place + 2] in ("", "(") and ")" not in text[place + 1 :]
    return True
