"""People, invitations, one's own account and the API's reference, as an administrator sees them in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.journeys.browsing import PASSWORD
from tests.journeys.console import CHINESE, PHONE, Console, accessible, console_up, drawn, fits, needs_browser

pytestmark = needs_browser


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with console_up(tmp_path_factory.mktemp("site")) as it:
        it.site.run("kb", "create", "hr", "--private")
        yield it


def test_somebody_is_invited_and_comes_in_as_an_editor_of_one_base(console: Console) -> None:
    with console.page("people?tab=invitations") as (page, _):
        page.get_by_role("button", name="Invite somebody").first.click()
        dialog = page.get_by_role("dialog")
        dialog.locator("[name=role]").select_option("editor")
        dialog.get_by_label("In every knowledge base").uncheck()
        dialog.locator("[data-kb=hr]").select_option("edit")
        dialog.get_by_label("Note for yourself").fill("Björn of support")
        accessible(page)
        dialog.get_by_role("button", name="Invite somebody").click()
        link = page.get_by_role("dialog").get_by_role("textbox", name="Send this link").input_value()
        page.get_by_role("dialog").get_by_role("button", name="Close").click()
        expect(page.get_by_role("cell", name="Björn of support")).to_be_visible()

    with console.page("account", user={"cookies": [], "origins": []}) as (page, _):
        page.goto(link)
        expect(page.get_by_role("heading", name="Create your account")).to_be_visible()
        page.get_by_label("Name", exact=True).fill("bjorn")
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_label("Password, again").fill(PASSWORD)
        page.get_by_role("button", name="Create your account").click()
        page.get_by_label("Your question").wait_for()
        page.goto("/console/library")
        expect(page.get_by_label("Knowledge base").first).to_contain_text("hr")
        expect(page.get_by_role("link", name="People and keys")).to_have_count(0)

    with console.page("people") as (page, _):
        row = page.get_by_role("row", name="bjorn")
        expect(row).to_contain_text("Editor")
        expect(row).to_contain_text("1 knowledge base")
        row.get_by_role("button", name="bjorn").click()
        page.get_by_role("dialog").get_by_role("button", name="Disable").click()
        page.get_by_role("dialog").get_by_role("button", name="Disable").click()
        expect(page.get_by_role("row", name="bjorn")).to_contain_text("Disabled")
        page.get_by_role("tab", name="Audit log").click()
        expect(page.get_by_role("cell", name="people.change_person").first).to_be_visible()
        accessible(page)


def test_a_key_is_shown_once_and_revoked(console: Console) -> None:
    with console.page("account", **CHINESE) as (page, _):
        page.get_by_role("button", name="新建密钥").click()
        page.get_by_role("dialog").get_by_label("名称").fill("持续集成")
        page.get_by_role("dialog").get_by_role("button", name="创建").click()
        token = page.get_by_role("dialog").get_by_role("textbox", name="请妥善保存此密钥").input_value()
        assert token.startswith("kv_")
        page.get_by_role("dialog").get_by_role("button", name="关闭").click()
        row = page.get_by_role("row", name="持续集成")
        expect(row).to_contain_text("正常")
        assert token not in page.content()
        row.get_by_role("button", name="撤销").click()
        page.get_by_role("dialog").get_by_role("button", name="撤销").click()
        expect(row).to_contain_text("已撤销")
        accessible(page)


def test_a_wrong_password_is_said_beside_its_field(console: Console) -> None:
    with console.page("account") as (page, watch):
        watch.expected = ("Failed to load resource",)
        page.get_by_label("Present password").fill("wrong horse battery")
        page.get_by_label("New password", exact=True).fill(PASSWORD + "!")
        page.get_by_label("New password, again").fill(PASSWORD + "?")
        page.get_by_role("button", name="Change the password").click()
        expect(page.get_by_text("The two are not the same.")).to_be_visible()


def test_it_fits_a_phone(console: Console) -> None:
    with console.page("people", **PHONE) as (page, watch):
        for path in ("people", "account", "reference", "user-row/list", "audit-row/list"):
            page.goto(f"/console/{path}")
            page.locator(".card, .table").first.wait_for()
            drawn(page, watch)
            fits(page)
            accessible(page)


def test_the_reference_is_searched_and_opened(console: Console) -> None:
    with console.page("reference") as (page, _):
        page.get_by_label("Search operations").fill("invitations post")
        line = page.locator("summary", has_text="/api/v1/invitations").first
        line.click()
        expect(page.get_by_text("curl -X POST").first).to_be_visible()
        accessible(page)


def test_names_are_never_markup(console: Console) -> None:
    hostile: Any = "<img src=x onerror=alert(1)>"
    console.site.run("kb", "create", "x", "--description", hostile)
    with console.page("bases") as (page, watch):
        for path in ("bases", "people?tab=audit", "audit-row/list"):
            page.goto(f"/console/{path}")
            page.locator("table, .empty").first.wait_for()
            drawn(page, watch)
            assert page.locator("img[src=x]").count() == 0
