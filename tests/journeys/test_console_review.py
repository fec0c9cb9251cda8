"""The feedback review in a browser: from a 👎 in the chat page to an answer that the next people get, and the gaps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.journeys.browsing import file
from tests.journeys.console import (
    CHINESE,
    PHONE,
    Console,
    accessible,
    api,
    console_up,
    fits,
    needs_browser,
    put_in,
    until,
)

pytestmark = needs_browser

DOCUMENTS = {
    "leave.md": "# Leave\n\nAnnual leave is 28 days.\n\nSick leave is 10 days.",
    "年假.md": "# 年假\n\n年假为二十八天。\n\n病假为十天。",
}
ENGLISH = (
    "How many days of annual leave do I get?",
    (
        "How much paid vacation am I entitled to?",
        "How many annual leave days do I have?",
        "Please, how many days of annual leave do I get",
    ),
    "**Thirty** days since May. <img src=x onerror=alert(1)>",
)
MANDARIN = ("年假有多少天？", ("一年能歇几天？", "我有多少天年假？", "请问每年有几天年假"), "自五月起为**三十**天。")


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with console_up(tmp_path_factory.mktemp("review")) as it:
        with it.page("review") as (page, _):
            expect(page.get_by_text("Nothing to review")).to_be_visible()
            api(page, "post", "/api/v1/kbs", {"name": "handbook"})
            put_in(it, page, "handbook", DOCUMENTS)
        yield it


def asked(page: Page, question: str) -> str:
    """What the chat page would be sent for a question in a new conversation: its last event."""
    conversation = api(page, "post", "/api/v1/conversations", {})["id"]
    return str(api(page, "post", f"/api/v1/conversations/{conversation}/questions", {"text": question}))


def rated_down(page: Page, question: str) -> None:
    found = re.search(r'"answer_id": ?"([0-9a-f]{32})"', asked(page, question))
    assert found
    api(page, "put", f"/api/v1/answers/{found[1]}/rating", {"value": -1, "reason": "<b>old</b>"})


SAID = ("Write a curated answer", "Other ways to ask it", "Answer (Markdown)", "Save", "Ask again", "After")
SAID_IN_CHINESE = ("撰写人工回答", "其他问法", "回答（Markdown）", "保存", "重新提问", "之后")


@pytest.mark.parametrize(
    ("case", "words", "solve", "options"),
    [(ENGLISH, SAID, "Mark as solved", {}), (MANDARIN, SAID_IN_CHINESE, "标记为已解决", CHINESE)],
)
def test_a_thumb_down_becomes_an_answer(console: Console, case: Any, words: Any, solve: str, options: Any) -> None:
    question, others, text = case
    write, also, answer, save, again, after = words
    with console.page("review", **options) as (page, _):
        rated_down(page, question)
        page.reload()
        page.get_by_role("button", name=question).click()
        expect(page.get_by_text("<b>old</b>")).to_be_visible()
        page.get_by_text(write).click()
        page.get_by_label(also).fill(others[0])
        page.get_by_label(answer).fill(text)
        accessible(page)
        page.get_by_role("button", name=save, exact=True).click()
        page.get_by_role("button", name=again).click()
        expect(
            page.locator(".card", has=page.get_by_role("heading", name=after)).locator("strong").first
        ).to_be_visible()
        expect(page.locator("img[src=x]")).to_have_count(0)
        page.get_by_role("button", name=solve).click()
        expect(page.locator(".badge.good").first).to_be_visible()
        bold = re.search(r"\*\*(.+?)\*\*", text)
        assert bold
        for one in (question, *others):
            assert f"<strong>{bold[1]}</strong>" in asked(page, one), one
        near = "How many days of sick leave do I get?" if case is ENGLISH else "病假有多少天？"
        assert not re.search("written by a person|由人工针对", asked(page, near))


def test_a_changed_document_asks_for_a_look(console: Console) -> None:
    with console.page("review?tab=curated") as (page, _):
        made = api(
            page, "post", "/api/v1/curated",
            {"kb": "handbook", "question": "Is sick leave paid?", "text": "Yes.", "rests_on": [leave(page)]},
        )  # fmt: skip
        headers = {"origin": console.site.url}
        changed = file("leave.md", b"# Leave\n\nAnnual leave is 31 days.\n\nSick leave is 12 days.")
        assert page.request.post("/api/v1/kbs/handbook/documents", multipart={"files": changed}, headers=headers).ok
        until(page, f"/api/v1/curated/{made['id']}", lambda one: one["state"] == "review")
        page.reload()
        row = page.get_by_role("row", name="Is sick leave paid?")
        expect(row.get_by_text("to check")).to_be_visible()
        row.get_by_role("button").click()
        expect(page.get_by_text("«leave.md» has changed since it was written.")).to_be_visible()
        accessible(page)
        page.get_by_role("button", name="It is still right").click()
        expect(page.get_by_role("heading", name="Check this answer")).to_have_count(0)
        page.get_by_role("button", name="Delete", exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_text("Is sick leave paid?")).to_have_count(0)


def leave(page: Page) -> str:
    items = api(page, "get", "/api/v1/kbs/handbook/documents?text=leave.md")["items"]
    return str(items[0]["id"])


def test_gaps_and_the_queue_fit_a_phone(console: Console) -> None:
    with console.page("review?tab=gaps", **PHONE) as (page, _):
        for question in ("What is the Wi-Fi password for guests?", "Which password has the guest Wi-Fi?"):
            asked(page, question)
        page.reload()
        expect(page.get_by_role("row", name="Wi-Fi")).to_contain_text("2")
        accessible(page)
        fits(page)
        page.get_by_role("tab", name="To review").click()
        page.get_by_text("Filters").click()
        page.get_by_label("Why").select_option("unanswered")
        page.get_by_role("button", name="What is the Wi-Fi password for guests?").click()
        page.get_by_text("Add the missing document").click()
        page.get_by_label("Name of the document").fill("wifi")
        page.get_by_label("Text (Markdown)").fill("# Wi-Fi\n\nThe Wi-Fi password for guests is mjolnir.")
        page.get_by_role("button", name="Add the document").click()
        expect(page.get_by_text("Cured by a new document.")).to_be_visible()
        page.get_by_role("button", name="Ask again").click()
        expect(page.locator(".review-again")).to_contain_text("mjolnir")
        fits(page)
        accessible(page)
        page.get_by_role("button", name="Back to the list").click()
        page.get_by_role("tab", name="Gaps").click()
        page.get_by_role("row", name="Wi-Fi").get_by_role("checkbox").check()
        page.get_by_role("button", name="Mark as solved").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("2 questions")
        dialog.get_by_role("button", name="Mark as solved").click()
        expect(page.get_by_role("row", name="Wi-Fi")).to_have_count(0)
