"""Sources, jobs and schedules in a browser: from a look at a website to its documents, and a backup every night."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.journeys.console import CHINESE, PHONE, Console, accessible, console_up, fits, needs_browser

pytestmark = needs_browser

PAGES = {
    f"/{name}": f"<title>{name}</title><main><p>The {name} is ready at four.</p></main>" for name in ("tea", "cake")
}


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        text = PAGES.get(self.path)
        self.send_response(200 if text else 404)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write((text or "nothing").encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def website() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("site")
    given = {"KVASIR_SOURCES__PRIVATE_HOSTS": json.dumps(["127.0.0.1"]), "KVASIR_SOURCES__DELAY_SECONDS": "0"}
    with console_up(folder, **given) as it:
        it.site.run("kb", "create", "menu")
        yield it


def look(page: Page, name: str) -> None:
    """Keep a picture where somebody wants to see them."""
    if folder := os.environ.get("KVASIR_TEST_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{name}.png"), full_page=True)


def test_a_website_becomes_documents(console: Console, website: str) -> None:
    with console.page("sources") as (page, watch):
        watch.expected = ("Failed to load resource",)  # the first try is refused
        expect(page.get_by_role("heading", name="No sources yet")).to_be_visible()
        accessible(page)
        page.get_by_role("button", name="Add a source").first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Addresses").fill("nonsense")
        dialog.get_by_role("button", name="Try it").click()
        expect(dialog.get_by_role("alert").filter(has_text="nonsense")).to_be_visible()
        dialog.get_by_label("Addresses").fill(f"{website}/tea\n{website}/cake")
        dialog.get_by_role("button", name="Try it").click()
        expect(dialog.get_by_text("2 documents would come from it.")).to_be_visible()
        dialog.get_by_role("textbox", name=re.compile("^Name")).fill("Kitchen")
        dialog.get_by_label("How often").select_option("day")
        expect(dialog.get_by_text(re.compile("Next: .*03:00"))).to_be_visible()
        accessible(page)
        look(page, "source-new")
        dialog.get_by_role("button", name="Add it").click()
        expect(dialog).to_be_hidden()
        line = page.get_by_role("row", name=re.compile("Kitchen"))
        expect(line).to_contain_text("up to date")
        expect(line).to_contain_text("every day at 03:00")
        expect(line.get_by_role("link", name="2")).to_be_visible()
        accessible(page)
        look(page, "sources")
        line.get_by_role("button", name="History").click()
        expect(page.get_by_role("dialog")).to_contain_text("2 new, 0 changed")
        page.get_by_role("dialog").get_by_role("button", name="Close").click()


def test_a_source_on_a_phone_in_chinese_and_its_end(console: Console) -> None:
    with console.page("sources", **CHINESE, **PHONE) as (page, _):
        line = page.get_by_role("row", name=re.compile("Kitchen"))
        expect(line).to_contain_text("已同步")
        fits(page)
        look(page, "sources-phone-zh")
        line.get_by_role("button", name="Kitchen").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_label("频率")).to_have_value("day")
        look(page, "source-edit-phone-zh")
        dialog.get_by_label("频率").select_option("")
        dialog.get_by_role("button", name="保存更改").click()
        expect(line).to_contain_text("仅手动")
        line.get_by_role("button", name="删除").click()
        page.get_by_role("dialog").get_by_label(re.compile("同时删除其文档")).check()
        page.get_by_role("dialog").get_by_role("button", name="删除").click()
        expect(page.get_by_role("heading", name="还没有数据源")).to_be_visible()
    assert json.loads(console.site.run("doc", "list", "--kb", "menu", "--json"))["total"] == 0


def test_a_backup_every_night_and_one_now(console: Console) -> None:
    with console.page("work?tab=schedules") as (page, watch):
        watch.expected = ("Failed to load resource",)  # a time that is none is refused
        page.get_by_role("button", name="New schedule").first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Kind").select_option("backup")
        dialog.get_by_label("Backups to keep").fill("2")
        dialog.get_by_label("How often").select_option("own")
        dialog.get_by_label("Times, as cron writes them").fill("0 99 * * *")
        dialog.get_by_role("button", name="Make it").click()
        expect(dialog.get_by_role("alert").filter(has_text="Hour")).to_be_visible()
        dialog.get_by_label("How often").select_option("week")
        dialog.get_by_role("textbox", name="Time").fill("04:30")
        accessible(page)
        look(page, "schedule-new")
        dialog.get_by_role("button", name="Make it").click()
        expect(dialog).to_be_hidden()
        line = page.get_by_role("row", name=re.compile("Backup"))
        expect(line).to_contain_text("every Monday at 04:30")
        line.get_by_role("button", name="Run now").click()
        expect(page.get_by_text("It is queued; see it under Jobs.").first).to_be_visible()
        page.get_by_role("tab", name="Jobs").click()
        job = page.get_by_role("row", name=re.compile("A backup of everything"))
        expect(job).to_contain_text("was written")
        accessible(page)
        look(page, "jobs")
        job.get_by_role("button", name="A backup of everything").click()
        expect(page.get_by_role("dialog")).to_contain_text("Attempts")
        page.get_by_role("dialog").get_by_role("button", name="Close").last.click()
        page.get_by_role("tab", name="Schedules").click()
        expect(page.get_by_text("Schedules are minded by")).to_be_visible()
        expect(line).to_contain_text("was written")
        accessible(page)
        look(page, "schedules")
        line.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_role("heading", name="Nothing is done by itself yet")).to_be_visible()


def test_jobs_on_a_phone_in_chinese(console: Console) -> None:
    with console.page("work", **CHINESE, **PHONE) as (page, _):
        expect(page.get_by_role("row", name=re.compile("备份全部数据"))).to_contain_text("已完成")
        fits(page)
        look(page, "jobs-phone-zh")
