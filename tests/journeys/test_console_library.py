"""Documents in the console: a folder comes in, chunks are bettered, versions go back; in both languages, on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.journeys.console import CHINESE, PHONE, Console, accessible, console_up, fits, needs_browser

pytestmark = needs_browser

TEA = "# Tea\n\nTea is at four. <img src=x onerror=alert(1)>"
LONG = "# Tides\n\n" + " ".join(f"Sentence {n} is about the tide table and the harbour." for n in range(120))
DROP = """(files) => {
  const entry = ([name, path, text]) =>
    ({ isFile: true, name, fullPath: path, file: (give) => give(new File([text], name)) });
  const folder = (inside) => {
    const parts = [inside.slice(0, 1), inside.slice(1), []];
    return { isFile: false, createReader: () => ({ readEntries: (give) => give(parts.shift()) }) };
  };
  const items = [folder(files.map(entry))].map((one) => ({ webkitGetAsEntry: () => one }));
  const event = new Event("drop", { bubbles: true, cancelable: true });
  Object.defineProperty(event, "dataTransfer", { value: { items, files: [] } });
  document.querySelector(".drop").dispatchEvent(event);
}"""
"""A folder as a browser hands it out: its files in several portions."""


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with console_up(tmp_path_factory.mktemp("library")) as it:
        with it.page("library") as (page, _):
            expect(page.get_by_text("No knowledge base yet")).to_be_visible()
        it.site.run("kb", "create", "handbook", "--chunk-size", "64", "--chunk-overlap", "16")
        it.site.run("kb", "create", "attic")
        yield it


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files") / "house"
    (folder / "yard").mkdir(parents=True)
    (folder / "tea.md").write_text(TEA)
    (folder / "tides.md").write_text(LONG)
    (folder / "yard" / "copy.md").write_text(TEA)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 broken")
    (folder / ".hidden.md").write_text("Not for anybody.")
    return folder


def test_a_folder_comes_in_with_its_paths_and_is_looked_after(console: Console, house: Path) -> None:
    with console.page("library?kb=handbook") as (page, _):
        expect(page.get_by_text("No documents yet")).to_be_visible()
        accessible(page)
        page.locator("input[webkitdirectory]").set_input_files(house)
        expect(page.locator(".upload-progress")).to_contain_text("4 of 4 done · 1 failed · 1 hidden file left out")
        list_of = page.locator(".upload-list")
        expect(list_of).to_contain_text("house/yard/copy.md")
        expect(list_of.locator("li").first).to_contain_text("house/broken.pdf")
        list_of.get_by_role("button", name="Try again").click()
        expect(list_of.locator("li.failed")).to_have_count(1)
        rows = page.locator("tbody tr")
        expect(rows).to_have_count(4)
        expect(page.get_by_text("4 of 100,000")).to_be_visible()
        accessible(page)
        fits(page)

        files = [["a.md", "/drawer/a.md", "# A\n\nOf a."], ["b.md", "/drawer/deep/b.md", "# B\n\nOf b."],
                 ["bad\u202e<b>.md", "/drawer/bad\u202e<b>.md", "# Bad\n\nIts name."]]  # fmt: skip
        page.evaluate(DROP, files)
        expect(page.locator(".upload-progress")).to_contain_text("7 of 7 done")
        expect(rows).to_have_count(7)
        expect(page.locator("tbody")).to_contain_text("drawer/deep/b.md")

        page.get_by_label("Find by name or title").fill("drawer")
        expect(rows).to_have_count(3)
        page.get_by_role("checkbox", name="Choose all").check()
        page.get_by_role("button", name="Move", exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name="Move", exact=True).click()
        expect(page.get_by_text("3 documents moved.")).to_be_visible()
        expect(page.get_by_text("No document is like that.")).to_be_visible()
        page.get_by_role("button", name="Show all").click()
        page.get_by_role("button", name="Same content twice (2)").click()
        expect(rows).to_have_count(2)
        expect(page.locator("tbody")).to_contain_text("1 copy")
        page.get_by_role("button", name="Same content twice (2)").click()

        page.get_by_label("State", exact=True).select_option("failed")
        expect(rows).to_have_count(1)
        page.get_by_role("button", name="Change all…").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("Change 1 document")
        dialog.get_by_label("What to do").select_option("delete")
        dialog.get_by_role("button", name="Do it").click()
        expect(page.get_by_text("1 document deleted.")).to_be_visible()


def _open(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).first.click()
    expect(page.get_by_role("heading", level=2).first).to_be_visible()


def test_chunks_are_bettered_and_a_version_goes_back(console: Console, house: Path) -> None:
    with console.page("library?kb=handbook") as (page, _):
        _open(page, "Tides")
        chunks = page.locator(".chunk")
        expect(chunks.nth(1).locator("mark")).to_contain_text("is about the tide table")
        page.get_by_role("button", name="Edit chunk 2", exact=True).click()
        page.get_by_label("Text of the chunk").fill("The harbour is <b>closed</b> on Sundays.")
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_text("Saved. Search uses it now.")).to_be_visible()
        expect(chunks.nth(1)).to_contain_text("The harbour is <b>closed</b> on Sundays.")
        expect(chunks.nth(1)).to_contain_text("edited")
        found = console.site.run("search", "harbour closed on Sundays", "--kb", "handbook", "--json", "--limit", "1")
        assert "closed" in found

        page.get_by_role("button", name="Disable chunk 1", exact=True).click()
        expect(chunks.nth(0)).to_contain_text("Disabled")
        page.get_by_role("button", name="Add a chunk", exact=True).click()
        page.get_by_label("Text of the chunk").fill(" ")
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_text("A chunk needs text.")).to_be_visible()
        page.get_by_label("Text of the chunk").fill("Added by hand.")
        page.get_by_role("button", name="Save", exact=True).click()
        expect(chunks.last).to_contain_text("Added by hand.")
        page.get_by_role("button", name="Changes", exact=True).click()
        expect(page.locator(".change")).to_have_count(3)
        accessible(page)
        fits(page)
        page.locator(".change").nth(1).get_by_role("button", name="Undo").click()
        expect(page.locator(".change")).to_have_count(2)
        expect(chunks.nth(0)).to_contain_text("#1")

        page.get_by_role("tab", name="Versions").click()
        expect(page.get_by_text("Former versions appear here")).to_be_visible()
        page.get_by_role("button", name="← All documents").click()
        (house / "tides.md").write_text(LONG.replace("tide table", "tide chart"))
        page.locator("input[type=file]").first.set_input_files(house / "tides.md")
        expect(page.locator(".upload-progress")).to_contain_text("1 of 1 done")
        expect(page.locator("tbody tr")).to_have_count(4)  # `tides.md` is not `house/tides.md`
        page.locator("input[webkitdirectory]").set_input_files(house)
        expect(page.locator(".upload-progress")).to_contain_text("5 of 5 done")
        page.get_by_role("button", name="Tides").filter(has_text="house/").click()
        expect(page.get_by_text("1 change to a chunk was not found")).to_be_visible()
        page.get_by_role("tab", name="Versions").click()
        page.get_by_role("button", name="Restore").click()
        page.get_by_role("dialog").get_by_role("button", name="Restore").click()
        expect(page.get_by_text("Version 1 is in use again.")).to_be_visible()
        page.get_by_role("tab", name="Text and chunks").click()
        expect(chunks.nth(1)).to_contain_text("closed")
        page.get_by_role("tab", name="Details").click()
        expect(page.get_by_text("No other document of this knowledge base")).to_be_visible()
        page.reload()
        expect(page.get_by_text("No other document of this knowledge base")).to_be_visible()


def test_a_refused_address_is_told_beside_its_field(console: Console) -> None:
    with console.page("library?kb=attic") as (page, watch):
        watch.expected = ("Failed to load resource",)
        field = page.get_by_label("Address")
        expect(page.locator(".drop")).to_be_visible()
        if not field.is_visible():
            page.get_by_text("Or the address of a web page or file").click()
        field.fill("http://127.0.0.1:9/")
        page.get_by_role("button", name="Fetch").click()
        expect(page.locator(".field-error").first).to_contain_text("127.0.0.1")


def test_a_phone_shows_it_in_chinese(console: Console) -> None:
    with console.page("library?kb=handbook", **{**CHINESE, **PHONE}) as (page, _):
        expect(page.get_by_text("把文件或文件夹拖到这里")).to_be_visible()
        accessible(page)
        fits(page)
        page.get_by_role("button", name="Tides").first.click()
        expect(page.get_by_role("tab", name="文本与片段")).to_be_visible()
        expect(page.locator(".chunk").first).to_be_visible()
        accessible(page)
        fits(page)
        page.get_by_role("button", name="删除", exact=True).click()
        expect(page.get_by_role("dialog")).to_contain_text("原始文件、以前的版本以及对片段的修改都会一并删除")
