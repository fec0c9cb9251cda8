"""Slack's Markdown and mrkdwn: within limits, nobody pinged, read as it was meant."""

from __future__ import annotations

import re
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from markdown_it import MarkdownIt
from markdown_it.token import Token

from bots.rendering import mrkdwn, slack
from bots.rendering.parts import Rendered
from core.outbound import Outlet, safe_markdown
from core.types import Language
from tests.bots.markdown_texts import (
    EXFILTRATION,
    GOOD,
    LONG_MARKDOWN,
    MARKDOWN,
    PINGS,
    bare,
    in_order,
    long_answer,
    said,
    source,
)

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
TOKEN = re.compile(r"<(?!https?://)")


def walk(tokens: list[Token]) -> list[Token]:
    return [found for token in tokens for found in (token, *walk(token.children or []))]


def words(markdown: str) -> str:
    """What a reader of CommonMark sees."""
    kinds = ("text", "code_inline", "fence", "code_block", "html_inline", "html_block")
    return bare("".join(token.content for token in walk(READER.parse(markdown)) if token.type in kinds))


def whole(rendered: Rendered) -> str:
    return "\n\n".join(part.text for part in rendered.parts)


def pings(text: str) -> list[str]:
    """What Slack would make a mention of, even if it folded characters as no platform is known to."""
    folded = normalize("NFKC", text).casefold()
    return re.findall(r"<[!@#]|@(?:channel|here|everyone|group)", folded)


# ---------------------------------------------------------------- Markdown
@settings(max_examples=150, derandomize=True)
@given(MARKDOWN)
def test_any_text_is_read_as_it_was_meant(text: str) -> None:
    rendered = slack.render(text, language="en")
    assert all(0 < len(part.text) <= 12_000 and not part.entities for part in rendered.parts)
    assert words(whole(rendered)) == said(text) or not said(text)
    assert not pings(whole(rendered))
    whole(rendered).encode()


@settings(max_examples=15, derandomize=True)
@given(LONG_MARKDOWN)
def test_long_texts_fit_into_several_messages(text: str) -> None:
    rendered = slack.render(text, sources=[source(1, GOOD)], notice="Quoted.", language="en")
    assert all(0 < len(part.text) <= 12_000 for part in rendered.parts)
    assert in_order(said(text), words(whole(rendered)))


@pytest.mark.parametrize(
    "frame", ["{}", "`{}`", "```\n{}\n```", "**{}**", "[{}](https://docs.example.org/)", "| {} |\n|-|"]
)
def test_nobody_is_pinged(frame: str) -> None:
    for ping in PINGS:
        text = frame.format(ping)
        for part in (
            *slack.render(text, sources=[source(1, ping, ping)], notice=ping, language="en").parts,
            *mrkdwn.render(text, sources=[source(1, ping, ping)], notice=ping, language="en").parts,
            slack.preview(text, ping),
            slack.plain(text),
            mrkdwn.preview(text, ping),
            mrkdwn.plain(text),
        ):
            assert not pings(part.text)
        assert not pings(mrkdwn.notification(text))


def test_nobody_is_pinged_while_it_streams() -> None:
    for ping in PINGS:
        outlet = Outlet(frozenset())
        pieces = [outlet.feed(sign) for sign in f"hello {ping} there"]
        streamed = "".join(slack.streamed(piece) for piece in [*pieces, outlet.close()])
        assert not re.search(r"<[!@#]|@(?:channel|here|everyone|group)", streamed)


def test_links_lead_only_to_sources() -> None:
    for shape in EXFILTRATION:
        text = safe_markdown(shape, {GOOD})
        for part in slack.render(text, language="en").parts:
            targets = [str(t.attrGet("href") or t.attrGet("src")) for t in walk(READER.parse(part.text))]
            assert not [target for target in targets if target != "None" and not target.startswith(GOOD)]
            shown = "".join(token.content for token in walk(READER.parse(part.text)) if token.type == "text")
            assert "evil.example/" not in shown
        for part in mrkdwn.render(text, language="en").parts:
            assert "evil.example/" not in re.sub(r"```.*?```|`[^`\n]*`", "", part.text, flags=re.DOTALL)


def test_an_answer_of_100000_characters_arrives_whole() -> None:
    text = long_answer()
    rendered = slack.render(text, sources=[source(1)], notice="Quoted.", language="zh")
    assert len(rendered.parts) < 12
    assert in_order(said(text), words(whole(rendered)))
    assert all(part.text.count("\n```") % 2 == 0 or part.text.startswith("```") for part in rendered.parts)
    assert all(len(part.text) <= 3000 for part in mrkdwn.render(text, language="en").parts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# Head\n\nA **bold**, *it*, ~~no~~ `x<y>` word", None),
        ("- one\n  - two\n\n    more\n\n    ```py\n    x\n\n    y\n    ```\n3. three", None),
        ("> quote\n> - item\n>\n> ```\n> code\n> ```", None),
        ("| a | b |\n| --- | --- |\n| 1 \\| 2 | `x` |", None),
        ("snake_case, 5 * 3 * 2, C#, a+b, [x] and (y)", None),
        ("a  \nb", None),
        ("a\n\n---\n\nb", None),
        ("*a\\*b* 1\\. \\# \\`x\\`", "*a\\*b* 1. # \\`x\\`"),
        ("1\\. no list\n\\- none\n\\# no head\n\\> no quote", "1\\. no list\n\\- none\n\\# no head\n&gt; no quote"),
        ("**注意：**请看**“这里”**吧", "**注意**：请看“**这里**”吧"),
        ("x <b> y & z &amp;lt;", "x &lt;b&gt; y & z &amp;lt;"),
        ("![plan](https://docs.example.org/a.png)", "[plan](https://docs.example.org/a.png)"),
        ("[hi](tg://user?id=1)", "hi"),
        ("[https://docs.example.org](https://evil.example/)", "`https://docs.example.org`"),
        ("<div>\nraw\n</div>", "&lt;div&gt;\nraw\n&lt;/div&gt;"),
        ("", "…"),
        ("\u200b\u202e", "…"),
        ("half \ud83d", "half \ufffd"),
    ],
)
def test_what_is_written(text: str, expected: str | None) -> None:
    (part,) = slack.render(text, language="en").parts
    assert part.text == (text if expected is None else expected)
    (again,) = slack.render(part.text, language="en").parts
    assert again == part


@pytest.mark.parametrize(
    ("language", "head", "place"), [("en", "**Sources**", "page 2, Days"), ("zh", "**来源**", "第 2 页，Days")]
)
def test_sources_and_notice_stand_at_the_end(language: Language, head: str, place: str) -> None:
    sources = [source(1, GOOD), source(2)]
    (part,) = slack.render("28 days [1][2], [1, 2].", sources=sources, notice="Quoted.", language=language).parts
    lines = [line.rstrip() for line in part.text.split("\n")]
    assert lines[0] == f"28 days [[1]]({GOOD})[2], [[1]({GOOD}), 2]."
    assert lines[2] == head
    assert lines[3] == f"[1] [Leave]({GOOD}) — {place}"
    assert lines[4].startswith("[2] Leave — `handbook/leave.md`")
    assert lines[-1] == "*Quoted.*"


def test_a_footer_that_does_not_fit_has_a_part_of_its_own() -> None:
    text = "word " * 2395
    first, last = slack.render(text, sources=[source(n, GOOD) for n in range(1, 9)], language="en").parts
    assert "Sources" not in first.text
    assert last.text.startswith("**Sources**")


# ---------------------------------------------------------------- while it arrives
def test_a_preview_shows_the_end_and_closes_code() -> None:
    text = "Begin\n\n" + "A sentence. " * 4000 + "\n\n1. Run:\n   ```sh\n" + "   echo one\n" * 4000
    part = slack.preview(text, "Reading…")
    assert len(part.text) <= 12_000
    assert part.text.startswith("…\n\n```sh\n")
    assert part.text.endswith("echo one\n```\n\n*Reading…*")
    assert slack.preview("Short **te").text == "Short \\*\\*te"
    assert slack.preview("", "Searching").text == "*Searching*"
    assert slack.preview("").text == "…"


@settings(max_examples=15, derandomize=True)
@given(LONG_MARKDOWN)
def test_previews_and_plain_texts_fit(text: str) -> None:
    for part in (slack.preview(text, "Reading…"), slack.plain(text)):
        assert 0 < len(part.text) <= 12_000
        assert not pings(part.text)
    for part in (mrkdwn.preview(text, "Reading…"), mrkdwn.plain(text)):
        assert 0 < len(part.text) <= 3000
        assert not pings(part.text)


# ---------------------------------------------------------------- mrkdwn
@settings(max_examples=150, derandomize=True)
@given(MARKDOWN)
def test_any_text_is_valid_mrkdwn(text: str) -> None:
    for part in mrkdwn.render(text, language="en").parts:
        assert 0 < len(part.text) <= 3000
        assert part.text.count("```") % 2 == 0
        assert not TOKEN.search(part.text)
        assert not re.search(r"&(?!amp;|lt;|gt;)", part.text)
    assert "\n" not in mrkdwn.notification(text)
    assert 0 < len(mrkdwn.notification(text)) <= 1000


def test_what_mrkdwn_is_written() -> None:
    text = (
        "# Head *x*\n\nA **bold** and *it* ~~no~~ [a|b](https://docs.example.org/?a=1&b=2) <@U1>\n"
        "\n- one\n  1. two\n\n> quote\n\n| a | 单元 |\n|---|---|\n| 1 | 2 |\n\n中**粗**文"
    )
    (part,) = mrkdwn.render(text, language="en").parts
    assert part.text == (
        "*Head* *_x_*\n\nA *bold* and _it_ ~no~ <https://docs.example.org/?a=1&amp;b=2|a|b> &lt;@U1&gt;\n"
        "\n• one\n  1. two\n\n> quote\n\n```\na │ 单元\n──┼─────\n1 │ 2\n```\n\n中\u200b*粗*\u200b文"
    )


def test_a_notification_is_one_line() -> None:
    assert mrkdwn.notification("# Leave\n\n**28** days <!channel> & more\n\n```\ncode\n```") == (
        "Leave 28 days &lt;!channel&gt; &amp; more code"
    )
    assert len(mrkdwn.notification("word " * 900)) == 200
