"""An administrator connects Slack in the console, tries it, sets a channel, and switches it off again."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, expect

from tests.journeys.console import CHINESE, ENGLISH, PHONE, Console, accessible, console_up, fits, needs_browser
from tests.processes import start

pytestmark = needs_browser

_SAID = re.compile(r"KVASIR_SLACK__([A-Z_]+)=(\S+)")


@contextmanager
def slack_up() -> Iterator[dict[str, str]]:
    """A Slack of our own; gives its address and tokens."""
    process = start([sys.executable, "-m", "tests.fakes.slack"], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(3)]
        yield {found[1]: found[2] for found in map(_SAID.search, lines) if found}
    finally:
        process.terminate()
        process.wait(10)
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture(scope="module")
def slack() -> Iterator[dict[str, str]]:
    with slack_up() as found:
        yield found


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with console_up(tmp_path_factory.mktemp("channels")) as found:
        yield found


def test_slack_is_connected_tried_and_switched_off(console: Console, slack: dict[str, str]) -> None:
    with console.page("channels", **ENGLISH) as (page, watch):
        watch.expected = ("Failed to load resource: the server responded with a status of 422",)  # the wrong token
        page.get_by_role("button", name="Connect Slack").click()
        expect(page.get_by_role("link", name="Download the manifest")).to_be_visible()
        with page.expect_download() as manifest:
            page.get_by_role("link", name="Download the manifest").click()
        assert manifest.value.suggested_filename == "kvasir-slack.json"
        page.locator("[name=bot_token]").fill("xoxb-wrong")
        page.locator("[name=app_token]").fill(slack["APP_TOKEN"])
        page.get_by_text("More options").click()
        page.locator("[name=base_url]").fill(slack["BASE_URL"])
        page.get_by_role("button", name="Check and save").click()
        beside = page.locator(".field", has=page.locator("[name=bot_token]")).locator(".field-error")
        expect(beside).to_contain_text("invalid_auth")
        accessible(page)

        page.locator("[name=bot_token]").fill(slack["BOT_TOKEN"])
        page.get_by_role("button", name="Check and save").click()
        expect(page.get_by_text("It is that of the workspace «Acme».")).to_be_visible()
        expect(page.locator(".card .badge").first).to_have_text("Connected", timeout=20_000)
        assert slack["BOT_TOKEN"] not in page.content()
        assert page.locator("[name=bot_token]").input_value() == ""

        page.get_by_role("button", name="Send a test message").first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Send").click()
        expect(dialog.get_by_text("Choose a channel, or give its id.")).to_be_visible()
        dialog.locator("[name=channel]").fill("C1")
        dialog.get_by_role("button", name="Send").click()
        expect(page.get_by_text("The message was sent.")).to_be_visible(timeout=20_000)
        expect(page.get_by_role("region", name="Messages").get_by_text("Sent")).to_be_visible()

        page.get_by_role("button", name="Switch off").click()
        expect(page.get_by_role("dialog")).to_contain_text("Nobody there is answered")
        page.get_by_role("dialog").get_by_role("button", name="Switch off").click()
        expect(page.locator(".card .badge").first).to_have_text("Switched off")


def test_a_channel_is_set_and_shows_where_things_come_from(console: Console) -> None:
    with console.page("channels?tab=channels", **ENGLISH) as (page, _):
        expect(page.get_by_text("No channel yet")).to_be_visible()
        _set(page, workspace="T1", channel="", when="Also questions without a mention")
        _set(page, workspace="T1", channel="C1", when=None, name="#help", model="extractive")
        row = page.get_by_role("row", name="#help")
        expect(row).to_contain_text("Model: extractive")
        row.get_by_role("button", name="#help").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.locator("[name=mode]").locator("option:checked")).to_have_text(
            "Also questions without a mention – from the workspace"
        )
        accessible(page)
        dialog.get_by_role("button", name="Set everything back").click()
        page.get_by_role("dialog").get_by_role("button", name="Set everything back").click()
        expect(page.get_by_role("row", name="#help")).to_have_count(0)


def _set(page: Page, *, workspace: str, channel: str, when: str | None, name: str = "", model: str = "") -> None:
    page.get_by_role("button", name="Set up a place").click()
    dialog = page.get_by_role("dialog")
    dialog.locator("[name=platform]").select_option("slack")
    dialog.locator("[name=workspace]").fill(workspace)
    dialog.locator("[name=channel]").fill(channel)
    dialog.get_by_role("button", name="Next").click()
    dialog.locator("[name=name]").fill(name)
    if when:
        dialog.locator("[name=mode]").select_option(label=when)
    if model:
        dialog.locator("[name=engine]").select_option(model)
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_have_count(0)


def test_it_is_chinese_and_fits_a_phone(console: Console) -> None:
    pages = {"": "连接 Telegram", "?platform=telegram": "机器人令牌", "?tab=channels": "添加位置"}
    with console.page("channels", **CHINESE, **PHONE) as (page, _):
        for path, words in pages.items():
            page.goto(f"/console/channels{path}")
            expect(page.get_by_role("tab", name="连接")).to_be_visible()
            expect(page.locator("#page [aria-busy=true]")).to_have_count(0)
            expect(page.get_by_text(words).first).to_be_visible()
            fits(page)
            accessible(page)
