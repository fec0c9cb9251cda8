"""The dashboard, the conversations of all, and a person's data, as a reviewer and an administrator use them."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from bench.console import fill
from tests.journeys.console import CHINESE, ENGLISH, PHONE, Console, accessible, console_up, fits, needs_browser

pytestmark = [*needs_browser, pytest.mark.sqlite("its half a year of questions is written into the file")]

EVIL = "What of <img src=x onerror=alert(1)> & leave?"
EVE = "slack:T1:EVE"


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with console_up(tmp_path_factory.mktemp("site")) as it:
        yield it


@pytest.fixture(scope="module")
def used(console: Console) -> Console:
    """The same after half a year of questions; in four of them Eve did not find what she wanted to know."""
    path = Path(console.site.environment["KVASIR_DATA_DIR"], "kvasir.db")
    fill(path, 20, 900, 150)
    with closing(sqlite3.connect(path, timeout=30)) as database:
        (conversation,) = database.execute("SELECT conversation_id FROM answers ORDER BY created_at DESC").fetchone()
        where = "WHERE id IN (SELECT id FROM answers ORDER BY created_at DESC LIMIT 4)"
        values = (EVIL, EVE, "slack", "openai", "qwen-72b", conversation)
        database.execute(
            "UPDATE answers SET question = ?, person = ?, platform = ?, answered = 0, engine = ?, model = ?, "
            f"kbs = '[\"handbook\"]', conversation_id = ? {where}",
            values,
        )
        database.execute("UPDATE conversations SET title = ?, person = ? WHERE id = ?", (EVIL, EVE, conversation))
        database.execute("DELETE FROM answers WHERE conversation_id = ? AND person != ?", (conversation, EVE))
        database.commit()
    return console


def look(page: Page, name: str) -> None:
    """Keep a picture where somebody wants to see them."""
    if folder := os.environ.get("KVASIR_TEST_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{name}.png"), full_page=True)


def test_an_unused_house_says_what_to_do(console: Console) -> None:
    with console.page("", **ENGLISH) as (page, _):
        expect(page).to_have_url(re.compile("/console/dashboard"))
        expect(page.get_by_role("heading", name="Nobody has asked anything yet")).to_be_visible()
        expect(page.get_by_role("heading", name="How the parts are")).to_be_visible()
        expect(page.get_by_text("Every question found its answer.")).to_be_visible()
        accessible(page)


def test_the_dashboard_shows_figures_and_narrows_them_down(used: Console) -> None:
    with used.page("dashboard?range=90", **ENGLISH) as (page, _):
        figures = page.get_by_role("region", name="At a glance")
        expect(figures.get_by_text(re.compile("than before|as before")).first).to_be_visible()
        expect(page.get_by_role("link", name=EVIL)).to_have_attribute("href", re.compile("^/console/review"))
        expect(page.get_by_text("asked 4 times")).to_be_visible()
        expect(page.locator(".chart canvas")).to_be_visible()
        page.get_by_role("button", name="Speed").click()
        page.get_by_text("The same as a table").click()
        expect(page.get_by_role("columnheader", name="Whole answer (95 %)")).to_be_visible()
        accessible(page)
        look(page, "dashboard")
        before = figures.inner_text()
        page.get_by_role("button", name="Models", exact=True).click()
        page.get_by_role("button", name="qwen-72b").click()
        expect(page).to_have_url(re.compile("model="))
        expect(page.get_by_role("combobox", name="Model")).to_have_value('["openai","qwen-72b"]')
        expect(figures).not_to_have_text(before, use_inner_text=True)
        page.reload()
        expect(page.get_by_role("combobox", name="Model")).to_have_value('["openai","qwen-72b"]')
        page.get_by_role("button", name="Show everything").click()
        expect(page).not_to_have_url(re.compile("model="))
        page.get_by_role("button", name="Own dates").click()
        page.get_by_label("From").fill("2020-01-01")
        page.get_by_label("From").blur()
        expect(page.get_by_text("a year is the most")).to_be_visible()


def test_the_dashboard_on_a_phone_in_chinese(used: Console) -> None:
    with used.page("dashboard?range=7", **CHINESE, **PHONE) as (page, _):
        expect(page.get_by_role("heading", name="未能回答的问题")).to_be_visible()
        expect(page.locator(".chart canvas")).to_be_visible()
        fits(page)
        accessible(page)
        look(page, "dashboard-phone")


def test_a_conversation_is_found_and_read(used: Console) -> None:
    with used.page("conversations?range=90", **ENGLISH) as (page, _):
        page.get_by_role("searchbox", name="Search in questions and answers").fill("onerror=")
        page.get_by_role("button", name="Search").click()
        line = page.get_by_role("row", name=re.compile("What of <img"))
        expect(line).to_contain_text("4 not answered")
        accessible(page)
        look(page, "conversations")
        line.get_by_role("button").click()
        expect(page.get_by_role("article")).to_have_count(4)
        first = page.get_by_role("article").first
        expect(first).to_contain_text("not answered")
        first.get_by_text("5 passages").click()
        expect(first.get_by_text("cited", exact=True)).to_be_visible()
        first.get_by_text("Model, times and tokens").click()
        expect(first.get_by_text("qwen-72b")).to_be_visible()
        accessible(page)
        look(page, "conversation")
        page.go_back()
        expect(page.get_by_role("searchbox", name="Search in questions and answers")).to_have_value("onerror=")


def test_a_person_s_data_is_given_out_and_erased(used: Console, tmp_path: Path) -> None:
    with used.page("conversations?tab=people&who=eve", **CHINESE, **PHONE) as (page, _):
        page.get_by_role("button", name=EVE).click()
        expect(page.get_by_role("heading", name=re.compile(EVE))).to_be_visible()
        fits(page)
        accessible(page)
        with page.expect_download() as download:
            page.get_by_role("link", name="下载全部数据").click()
        download.value.save_as(tmp_path / "eve.json")
        given = json.loads((tmp_path / "eve.json").read_text())
        assert [answer["question"] for answer in given["answers"]] == [EVIL] * 4
        page.get_by_role("button", name="全部抹除").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("4 个回答")
        dialog.get_by_role("textbox").fill("slack:T1:ADAM")
        dialog.get_by_role("button", name="全部抹除").click()
        expect(dialog.get_by_text("与标识不符")).to_be_visible()
        accessible(page)
        dialog.get_by_role("textbox").fill(EVE)
        dialog.get_by_role("button", name="全部抹除").click()
        expect(page.get_by_text("没有找到", exact=True)).to_be_visible()
        look(page, "person-erased")
    assert json.loads(used.site.run("person", "find", EVE, "--json")) == {"persons": [], "total": 0}


def test_several_conversations_are_deleted(used: Console) -> None:
    with used.page("conversations?range=90", **ENGLISH) as (page, _):
        count = page.get_by_text(re.compile(r"1 to 25 of \d+"))
        expect(count).to_be_visible()
        before = int(count.inner_text().split()[-1])
        boxes = page.get_by_role("checkbox", name="Choose", exact=True)
        boxes.nth(0).check()
        boxes.nth(1).check()
        page.get_by_role("button", name="Delete", exact=True).click()
        expect(page.get_by_role("dialog")).to_contain_text("Delete 2 conversations?")
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_text(f"1 to 25 of {before - 2}")).to_be_visible()
