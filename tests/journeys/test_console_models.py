"""The page «Models»: add an engine, try it, make it the default, change it, switch it off, and remove it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.journeys.browsing import language_model
from tests.journeys.console import CHINESE, ENGLISH, PHONE, Console, accessible, console_up, fits, needs_browser

pytestmark = needs_browser
SAID = "Kvasir knew every answer."
KEY = "sk-very-secret-key-0003"


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with console_up(tmp_path_factory.mktemp("models")) as opened:
        yield opened


def test_an_engine_from_its_address_to_its_end(console: Console) -> None:
    with language_model("ok", SAID) as model, console.page("models", **ENGLISH) as (page, watch):
        page.get_by_role("button", name="Add a model").click()
        dialog = page.get_by_role("dialog")
        dialog.locator("[name=place]").select_option(label="OpenAI-compatible")
        dialog.locator("[name=name]").fill("house poet")
        dialog.get_by_role("button", name="Add").click()
        expect(dialog.get_by_text("Fill this in.").first).to_be_visible()
        dialog.locator("[name=base_url]").fill("nonsense")
        dialog.locator("[name=model]").fill("tiny")
        dialog.get_by_role("button", name="Add").click()
        expect(dialog.get_by_text("must be an address")).to_be_visible()
        dialog.locator("[name=base_url]").fill(model.base_url)
        dialog.locator("[name=api_key]").fill(KEY)
        dialog.get_by_role("button", name="Test").click()
        expect(dialog.get_by_text("It works")).to_be_visible()
        expect(dialog.get_by_text(SAID)).to_be_visible()
        accessible(page)
        dialog.get_by_role("button", name="Add").click()
        poet = page.locator('section.card[aria-label="house poet"]')
        expect(poet.get_by_text("ready")).to_be_visible()
        expect(poet.get_by_text("kept, encrypted")).to_be_visible()
        poet.get_by_role("button", name="Test").click()
        expect(poet.get_by_text("It works")).to_be_visible()
        poet.get_by_text("Log").click()
        expect(poet.get_by_text("answered in").first).to_be_visible()
        accessible(page)
        poet.get_by_role("button", name="Make default").click()
        page.get_by_role("dialog").get_by_role("button", name="Make default").click()
        expect(poet.get_by_text("default", exact=True)).to_be_visible()
        expect(poet.get_by_role("button", name="Remove")).to_have_count(0)
        poet.get_by_role("button", name="Edit").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.locator("[name=api_key]")).to_have_value("")
        dialog.locator("[name=base_url]").fill("https://elsewhere.example/v1")
        dialog.get_by_role("button", name="Save changes").click()
        expect(dialog.get_by_text("type the key again")).to_be_visible()
        dialog.get_by_role("button", name="Cancel").click()
        quoting = page.locator('section.card[aria-label="extractive"]')
        quoting.get_by_role("button", name="Make default").click()
        page.get_by_role("dialog").get_by_label("Switch «house poet» off").check()
        page.get_by_role("dialog").get_by_role("button", name="Make default").click()
        expect(poet.get_by_text("off", exact=True)).to_be_visible()
        poet.get_by_role("button", name="Load").click()
        expect(poet.get_by_text("ready")).to_be_visible()
        poet.get_by_role("button", name="Remove").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        expect(poet).to_have_count(0)
        assert KEY not in page.content()
        watch.troubles[:] = [one for one in watch.troubles if "422" not in one]  # what was refused above
    assert {request.headers.get("authorization") for request in model.requests if request.method == "POST"} == {
        f"Bearer {KEY}"
    }


def test_it_is_usable_on_a_phone_in_chinese(console: Console) -> None:
    with console.page("models?tab=embedders", **CHINESE, **PHONE) as (page, _):
        page.get_by_role("button", name="添加模型").click()
        dialog = page.get_by_role("dialog")
        dialog.locator("[name=place]").select_option("builtin/default")
        expect(dialog.get_by_text("模型文件夹")).to_be_visible()
        dialog.get_by_role("button", name="取消").click()
        page.get_by_role("tab", name="回答").click()
        expect(page.get_by_text("从文档中摘引，不用语言模型").first).to_be_visible()
        fits(page)
        accessible(page)
