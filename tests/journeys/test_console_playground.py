"""The playground in a browser: variants side by side, evaluation sets, saving, in both languages and on a phone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

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

LEAVE = "How many days of annual leave does an employee have?"
DOCUMENTS = {
    "leave.md": "# Leave\n\nEvery employee has 28 days of annual leave.",
    "travel.md": "# Travel\n\nTravel days of an employee count as working days. <img src=x onerror=alert(1)>",
    "canteen.md": "# Canteen\n\nThe canteen serves fish on Fridays.",
}


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """A knowledge base with three documents, keywords alone."""
    with console_up(tmp_path_factory.mktemp("playground")) as it:
        with it.page("playground") as (page, _):
            expect(page.get_by_text("No knowledge base yet")).to_be_visible()
            api(page, "post", "/api/v1/kbs", {"name": "handbook"})
            put_in(it, page, "handbook", DOCUMENTS)
        yield it


def test_a_question_is_tried_kept_and_measured(console: Console) -> None:
    with console.page("playground") as (page, _):
        page.get_by_label("Question", exact=True).fill(LEAVE)
        page.keyboard.press("Enter")
        first = page.get_by_role("region", name="Variant A")
        expect(first.get_by_role("article", name="Answer")).to_contain_text("28 days")
        expect(first.locator(".playground-verdict")).to_contain_text("it is answered")
        expect(first.locator(".playground-passages li strong").first).to_contain_text("#1 leave.md")
        expect(first.locator(".playground-passages")).to_contain_text("onerror=alert(1)")
        expect(first.get_by_text("only quotes from the passages")).to_be_visible()

        page.get_by_role("button", name="Compare with another variant").click()
        other = page.get_by_role("region", name="Variant B")
        other.get_by_label("Engine").select_option("scripted")
        other.get_by_label("Passages for an answer").fill("1")
        other.get_by_label("Evidence needed").fill("1")
        page.get_by_role("button", name="Try it").click()
        expect(other.locator(".playground-verdict")).to_contain_text("it is refused")
        expect(other.get_by_role("article", name="Answer")).to_contain_text("Refused")
        expect(other.locator(".playground-passages .playground-move").first).to_contain_text("As in A")
        expect(other.locator(".playground-cut")).to_have_count(1)
        other.get_by_text("Prompt, as it is sent").click()
        expect(other.get_by_text("Not sent: the evidence does not reach.")).to_be_visible()
        expect(other.locator("pre").last).to_contain_text(LEAVE)
        accessible(page)
        page.get_by_role("button", name="Remove variant A").click()
        expect(page.get_by_role("region", name="Variant A").get_by_label("Engine")).to_have_value("scripted")

        page.get_by_role("button", name="Save into an evaluation set").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Name of the set").fill("Everyday")
        expect(dialog.get_by_label("The answer is in")).to_have_value("leave.md")
        dialog.get_by_label("A right answer contains one of").fill("28 days\n28天")
        dialog.get_by_role("button", name="Save question").click()
        expect(page.get_by_text("Saved into «Everyday».")).to_be_visible()

        page.get_by_role("tab", name="Evaluation sets").click()
        page.get_by_role("tab", name="Questions").click()
        page.get_by_role("button", name="Add question").click()
        dialog.get_by_label("Question", exact=True).fill("Who won the cup?")
        dialog.get_by_role("button", name="Add question").click()
        expect(page.get_by_role("row")).to_have_count(3)
        lines = b'{"question": "When is there fish?", "answers": ["Mondays"], "document": "canteen.md"}\n'
        page.locator("input[type=file]").set_input_files([file("more.jsonl", lines)])
        expect(page.get_by_text("1 added, 0 changed.")).to_be_visible()
        expect(page.get_by_role("row")).to_have_count(4)
        accessible(page)

        page.get_by_role("tab", name="Results").click()
        page.get_by_role("button", name="Run now").click()
        latest = page.get_by_role("heading", name="Latest result").locator("..")
        expect(latest).to_contain_text("1 / 3")
        page.get_by_role("button", name="Run with other settings…").click()
        dialog.get_by_label("Evidence needed").fill("1")
        dialog.get_by_role("button", name="Run now").click()
        expect(latest).to_contain_text("2 / 3")
        expect(page.get_by_role("img", name="Trend over 2 runs")).to_be_visible()
        accessible(page)
        page.locator(".row-link").first.click()
        rows = page.get_by_role("row")
        expect(rows.filter(has_text=LEAVE)).to_contain_text("refused")
        expect(rows.filter(has_text=LEAVE)).to_contain_text("worse")
        page.get_by_role("button", name="Changed since the run before").click()
        expect(rows).to_have_count(2)
        page.go_back()
        expect(latest).to_be_visible()


def test_a_variant_becomes_the_setting_on_a_phone_in_chinese(console: Console) -> None:
    with console.page("playground?q=年假有几天", **CHINESE, **PHONE) as (page, _):
        page.get_by_role("button", name="试一试").click()
        variant = page.get_by_role("region", name="方案 A")
        expect(variant.locator(".playground-verdict")).to_be_visible()
        variant.get_by_text("此方案的设置").click()
        variant.get_by_label("检索方式").select_option("keyword")
        variant.get_by_label("回答所用段落数").fill("3")
        fits(page)
        accessible(page)
        variant.get_by_role("button", name="保存为知识库设置").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("语义＋关键词 → 仅关键词")
        dialog.get_by_role("button", name="保存为知识库设置").click()
        expect(page.get_by_text("已保存：知识库现在按此方式回答。")).to_be_visible()
        expect(variant.get_by_text("与知识库的设置相同")).to_be_visible()
        now = api(page, "get", "/api/v1/kbs/handbook/playground")
        assert (now["mode"], now["top_k"]) == ("keyword", 3)
        page.get_by_role("tab", name="评测集").click()
        expect(page.get_by_role("button", name="立即运行").or_(page.get_by_text("还没有评测集")).first).to_be_visible()
        fits(page)
        accessible(page)


def test_an_index_is_tried_before_it_is_switched_to(console: Console) -> None:
    with console.page("playground") as (page, _):
        api(page, "patch", "/api/v1/kbs/handbook", {"chunk_size": 64, "chunk_overlap": 8})
        api(page, "post", "/api/v1/kbs/handbook/indexes", {"beside": True})
        until(page, "/api/v1/kbs/handbook", lambda kb: "ready" in kb["indexes"])
        page.reload()
        page.get_by_label("Question", exact=True).fill(LEAVE)
        page.get_by_role("button", name="Compare with another variant").click()
        other = page.get_by_role("region", name="Variant B")
        other.get_by_label("Index").select_option(index=1)
        expect(other.locator(".playground-chosen")).to_contain_text("Index: ready beside it")
        with page.expect_request(lambda asked: '"generation_id":"' in (asked.post_data or "")):
            page.get_by_role("button", name="Try it").click()
        expect(other.locator(".playground-passages li strong").first).to_contain_text("#1 leave.md")
        expect(other.locator(".playground-move").first).to_contain_text("As in A")
