"""Knowledge bases in the console: made, set, shared, built anew, taken elsewhere and deleted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.journeys.console import CHINESE, ENGLISH, PHONE, Console, accessible, console_up, fits, needs_browser

pytestmark = needs_browser

LONG = "\n\n".join(f"Paragraph {n} is about the tide table, and takes some words to say so." for n in range(20))
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("bases")
    with console_up(folder, KVASIR_WEAVIATE__URL="http://127.0.0.1:1") as console:  # set up, and away
        papers = folder / "papers"
        papers.mkdir()
        for number in range(3):
            (papers / f"{number}.md").write_text(f"# Paper {number}\n\nIt says {number}.\n\n{LONG}")
        console.site.run("ingest", str(papers), "--kb", "tides")
        yield console


def test_one_is_made_and_the_list_shows_what_each_is_like(console: Console) -> None:
    with console.page("bases", **ENGLISH) as (page, watch):
        watch.expected = ("Failed to load resource: the server responded with a status of 409",)
        expect(page.get_by_role("row", name="tides")).to_contain_text("Public")
        page.get_by_role("button", name="New knowledge base").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Name").fill("tides")
        dialog.get_by_role("button", name="Create").click()
        expect(dialog.get_by_role("alert").filter(has_text="already")).to_be_visible()
        dialog.get_by_label("Name").fill("harbours")
        dialog.get_by_label("Description").fill(HOSTILE)
        dialog.get_by_label("Private").check()
        dialog.get_by_role("button", name="Create").click()
        expect(page.get_by_role("heading", name="harbours")).to_be_visible()
        page.go_back()
        page.get_by_label("Find by name or description").fill("harb")
        expect(page.get_by_role("row")).to_have_count(2)
        expect(page.get_by_role("row", name="harbours")).to_contain_text("Private")
        expect(page.get_by_text(HOSTILE)).to_be_visible()
        accessible(page)


def test_settings_are_checked_beside_the_field_and_kept(console: Console) -> None:
    with console.page("bases?kb=tides", **ENGLISH) as (page, _):
        page.get_by_label("Passages for an answer").fill("99")
        save = page.get_by_role("button", name="Save changes")
        save.click()
        expect(page.get_by_text("A number from 1 to 50.")).to_be_visible()
        page.get_by_label("Passages for an answer").fill("7")
        page.get_by_label("Search by").select_option("keyword")
        page.get_by_label("Instructions for the language model").fill("Be brief.")
        save.click()
        expect(page.get_by_text("Saved.")).to_be_visible()
        accessible(page)
        page.reload()
        expect(page.get_by_label("Passages for an answer")).to_have_value("7")
        expect(page.get_by_label("Search by")).to_have_value("keyword")
        page.get_by_label("Passages for an answer").fill("")
        save.click()
        expect(page.get_by_text("Saved.")).to_be_visible()
        page.reload()
        expect(page.get_by_label("Instructions for the language model")).to_have_value("Be brief.")
        expect(page.get_by_label("Passages for an answer")).to_have_value("")


def test_people_are_let_in(console: Console) -> None:
    with console.page("bases?kb=harbours&tab=access", **ENGLISH) as (page, _):
        expect(page.get_by_text("Nobody is listed")).to_be_visible()
        page.get_by_label("Account, or key of a person").fill("slack:T1:*")
        page.get_by_role("button", name="Let in", exact=True).click()
        expect(page.get_by_text("Everybody of T1")).to_be_visible()
        accessible(page)
        page.get_by_role("button", name="Take back").click()
        page.get_by_role("dialog").get_by_role("button", name="Take back").click()
        expect(page.get_by_text("Nobody is listed")).to_be_visible()


def test_where_an_index_is_kept_is_shown_and_a_move_that_fails_is_told(console: Console) -> None:
    with console.page("bases?kb=tides#index", **ENGLISH) as (page, _):
        page.get_by_role("tab", name="Index").click()
        expect(page.get_by_text("The index is in the store local")).to_be_visible()
        accessible(page)
        page.get_by_label("Another store").select_option("weaviate")
        page.get_by_role("button", name="Move to another store").click()
        page.get_by_role("dialog").get_by_role("button", name="Move to another store").click()
        expect(page.get_by_role("alert").filter(has_text="There is no Weaviate server at")).to_be_visible()
        expect(page.get_by_text("The index is in the store local")).to_be_visible()
    with console.page("bases?kb=tides", **CHINESE, **PHONE) as (page, _):
        page.get_by_role("tab", name="索引").click()
        expect(page.get_by_role("button", name="迁移到其他存储")).to_be_visible()
        fits(page)


def test_an_index_is_built_compared_and_switched_to_and_back(console: Console) -> None:
    with console.page("bases?kb=tides", **ENGLISH) as (page, _):
        page.get_by_label("Size of a chunk (tokens)").fill("64")
        page.get_by_label("Overlap of neighbours (tokens)").fill("0")
        page.get_by_role("button", name="Save changes").click()
        page.get_by_role("button", name="Build it anew").click()
        page.get_by_role("button", name="Build a new index").click()
        expect(page.get_by_role("heading", name="A new index waits")).to_be_visible()
        before, after = page.get_by_role("row", name=re.compile("^Chunks")).get_by_role("cell").all_inner_texts()
        assert int(after) > int(before) > 0
        accessible(page)
        page.get_by_role("button", name="Switch to it").click()
        page.get_by_role("dialog").get_by_role("button", name="Switch to it").click()
        back = page.get_by_role("button", name="Go back to it")
        expect(back).to_be_visible()
        expect(page.get_by_text(f"{after} chunks")).to_be_visible()
        back.click()
        page.get_by_role("dialog").get_by_role("button", name="Go back to it").click()
        expect(page.get_by_text(f"{before} chunks")).to_be_visible()
        page.get_by_role("button", name="Give up").first.click()
        page.get_by_role("dialog").get_by_role("button", name="Give up").click()
        expect(back).to_be_hidden()


def test_one_is_taken_elsewhere_and_deleted_by_its_name_on_a_phone_in_chinese(console: Console, tmp_path: Path) -> None:
    with console.page("bases?kb=tides&tab=end", **CHINESE, **PHONE) as (page, _):
        with page.expect_download() as download:
            page.get_by_role("link", name="导出").click()
        file = tmp_path / "tides.zip"
        download.value.save_as(file)
        fits(page)
        page.get_by_role("link", name="所有知识库").click()
        fits(page)
        page.get_by_role("button", name="导入知识库").click()
        page.get_by_label("导出的文件（.zip）").set_input_files(file)
        page.get_by_label("在此处另起名称").fill("潮汐")
        page.get_by_role("dialog").get_by_role("button", name="导入").click()
        expect(page.get_by_text("3 份文档", exact=True)).to_be_visible()
        for tab in ("权限", "索引", "导出与删除"):
            page.get_by_role("tab", name=tab).click()
            expect(page.get_by_role("tab", name=tab)).to_have_attribute("aria-selected", "true")
            page.wait_for_load_state("networkidle")
            fits(page)
            accessible(page)
        page.get_by_role("button", name="删除该知识库").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_text("3 份文档")).to_be_visible()
        dialog.get_by_label("请输入名称以确认").fill("tides")
        dialog.get_by_role("button", name="删除该知识库").click()
        expect(dialog.get_by_text("名称不一致。")).to_be_visible()
        dialog.get_by_label("请输入名称以确认").fill("潮汐")
        dialog.get_by_role("button", name="删除该知识库").click()
        expect(page.get_by_role("row", name="tides")).to_be_visible()
        expect(page.get_by_role("row", name="潮汐")).to_be_hidden()
