"""The pages as people use them: Debian's Chromium against a Kvasir that was started by `kvasir up`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.journeys.browsing import (
    CHROMIUM,
    NAME,
    PASSWORD,
    Site,
    chromium,
    file,
    kvasir_up,
    make_docx,
    make_pdf,
    set_up,
    visit,
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed: apt-get install chromium"),
]

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
KB = "Harbour handbook"
TRAVEL = make_pdf(
    "Travel policy",
    [
        [
            "Travel policy",
            "This policy holds for every trip that the harbour office pays for.",
            "Trips are planned at least a week ahead, so that there are good fares.",
        ],
        [
            "Trips under five hours go by train.",
            "First class on the train is allowed when the ride takes more than three hours.",
            "On shorter rides the train is booked in second class.",
            "Flights need the signature of the harbour master.",
        ],
        ["Hotel rooms may cost up to 140 euros a night, breakfast included."],
    ],
)
ONBOARDING = make_docx(
    "Onboarding checklist",
    [
        ("Before the first day", ["The laptop is ordered two weeks before a new colleague starts."]),
        ("The first day", ["The key card is handed out at the front desk, against a signature."]),
        ("The first month", ["After thirty days there is a talk with the mentor about how things go."]),
    ],
)
LEAVE = """# 年假制度

## 天数

工作满一年的员工每年有十五天年假，满十年的有二十天。

## 结转

没有休完的年假可以留到第二年三月底，之后作废。
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    chosen = {name: os.environ[name] for name in os.environ if name.startswith("KVASIR_EMBEDDER__")}
    with kvasir_up(tmp_path_factory.mktemp("site"), **chosen) as started:
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def state(browser: Browser, site: Site) -> Any:
    """A login, got through the one-time link."""
    return set_up(browser, site)


@pytest.fixture(scope="module")
def handbook(browser: Browser, site: Site, state: Any) -> str:
    """A knowledge base with a PDF and a Word document, put in through the page."""
    with visit(browser, site, state) as (page, _):
        page.goto("/documents")
        page.get_by_role("button", name="New knowledge base").first.click()
        page.get_by_label("Name", exact=True).fill(KB)
        page.get_by_label("Description").fill("How the harbour office works.")
        page.get_by_text("Advanced").click()
        page.get_by_label("Chunk size").fill("64")
        page.get_by_label("Overlap").fill("0")
        page.get_by_role("button", name="Create").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(KB)
        page.locator("input[type=file]").set_input_files(
            [
                file("travel-policy.pdf", TRAVEL),
                file("onboarding.docx", ONBOARDING),
                file("年假制度.md", LEAVE.encode()),
                file("broken.pdf", b"%PDF-1.7 and then nothing"),
            ]
        )
        expect(page.locator(".upload.good")).to_have_count(3, timeout=60_000)
        failed = page.locator(".upload.bad")
        expect(failed).to_contain_text("broken.pdf")
        expect(failed.locator(".upload-words")).not_to_be_empty()
        picture(page, "documents")
        expect(page.locator(".state.indexed")).to_have_count(3)
        expect(page.locator(".state.failed")).to_have_count(1)
    return KB


def picture(page: Page, name: str) -> None:
    """Keep what the page looks like, where somebody wants pictures."""
    folder = os.environ.get("KVASIR_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder, f"{name}.png")))


def ask(page: Page, question: str) -> None:
    """Ask, and wait for the whole answer."""
    before = page.locator(".exchange").count()
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")
    expect(page.locator(".exchange")).to_have_count(before + 1)
    expect(page.locator(".exchange").last.get_by_role("button", name="Good answer")).to_be_visible()


def test_ask_unfold_and_rate(browser: Browser, site: Site, state: Any, handbook: str) -> None:
    with visit(browser, site, state) as (page, _):
        page.goto("/")
        page.get_by_label("Knowledge base", exact=True).select_option(handbook)
        expect(page.get_by_text("What would you like to know?")).to_be_visible()
        picture(page, "welcome")
        ask(page, "When is first class allowed on the train?")
        answer = page.locator(".answer").last
        expect(answer).to_contain_text("more than three hours")

        answer.locator(".cite").first.click()
        passage = answer.locator(".piece.hit").first
        expect(passage).to_contain_text("First class on the train")
        expect(passage).to_contain_text("Cited passage")
        expect(answer.get_by_role("listitem").first).to_contain_text("pages 2")
        picture(page, "chat")
        with page.expect_download() as download:
            answer.get_by_role("link", name="Download the original").first.click()
        assert download.value.suggested_filename == "travel-policy.pdf"
        assert Path(download.value.path()).read_bytes() == TRAVEL

        page.get_by_role("button", name="Bad answer").click()
        page.get_by_label("Reason").fill("The second class is not mentioned.")
        page.get_by_role("button", name="Send feedback").click()
        expect(page.get_by_role("button", name="Bad answer")).to_have_attribute("aria-pressed", "true")
        expect(page.get_by_label("Reason")).to_have_count(0)
        page.reload()
        expect(page.get_by_role("button", name="Bad answer")).to_have_attribute("aria-pressed", "true")

    listed = json.loads(site.run("feedback", "list", "--json"))["feedback"]
    assert [(item["value"], item["reason"]) for item in listed] == [(-1, "The second class is not mentioned.")]
    assert listed[0]["question"] == "When is first class allowed on the train?"


def test_a_rating_can_be_changed_and_withdrawn(browser: Browser, site: Site, state: Any, handbook: str) -> None:
    with visit(browser, site, state) as (page, _):
        page.goto("/")
        page.get_by_label("Knowledge base", exact=True).select_option(handbook)
        ask(page, "Where is the key card handed out?")
        up, down = page.get_by_role("button", name="Good answer"), page.get_by_role("button", name="Bad answer")
        down.click()
        page.get_by_role("button", name="Skip").click()
        up.click()
        expect(up).to_have_attribute("aria-pressed", "true")
        expect(down).to_have_attribute("aria-pressed", "false")
        expect(up).to_be_enabled()
        page.reload()
        expect(up).to_have_attribute("aria-pressed", "true")
        up.click()
        expect(up).to_have_attribute("aria-pressed", "false")
        expect(up).to_be_enabled()
        page.reload()
        expect(up).to_have_attribute("aria-pressed", "false")


def test_conversations_are_kept_named_found_and_deleted(
    browser: Browser, site: Site, state: Any, handbook: str
) -> None:
    with visit(browser, site, state) as (page, _):
        page.goto("/")
        page.get_by_label("Knowledge base", exact=True).select_option(handbook)
        ask(page, "When is the laptop ordered?")
        ask(page, "Whose signature do flights need?")
        page.locator(".conversation.here").get_by_role("button", name="Rename").click()
        page.locator("dialog input").fill("Laptops & flights")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Laptops & flights")
        with page.expect_download() as download:
            page.get_by_role("link", name="Export as Markdown").click()
        exported = Path(download.value.path()).read_text("utf-8")
        assert "When is the laptop ordered?" in exported
        assert "harbour master" in exported

        page.reload()
        expect(page.locator(".exchange")).to_have_count(2)
        page.get_by_role("button", name="New conversation").first.click()
        expect(page.locator(".exchange")).to_have_count(0)
        page.get_by_label("Search conversations").fill("laptops &")
        expect(page.locator(".conversation")).to_have_count(1)
        page.locator(".conversation a").click()
        expect(page.locator(".exchange")).to_have_count(2)
        page.locator(".conversation").get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.locator(".exchange")).to_have_count(0)
        expect(page.locator(".conversations")).to_contain_text("Nothing found")


def test_answer_again_replaces_the_answer(browser: Browser, site: Site, state: Any, handbook: str) -> None:
    with visit(browser, site, state) as (page, _):
        page.goto("/")
        page.get_by_label("Knowledge base", exact=True).select_option(handbook)
        ask(page, "What may a hotel room cost?")
        page.get_by_role("button", name="Answer again").click()
        expect(page.get_by_role("button", name="Good answer")).to_be_visible()
        expect(page.locator(".answer")).to_contain_text("140 euros")
        page.reload()
        expect(page.locator(".exchange")).to_have_count(1)
        expect(page.locator(".answer")).to_contain_text("140 euros")


def test_on_a_phone_in_chinese_and_in_the_dark(browser: Browser, site: Site, state: Any, handbook: str) -> None:
    with visit(browser, site, state, **PHONE, color_scheme="dark") as (page, _):
        for path in ("/", "/documents", "/login"):
            page.goto(path)
            page.locator("html[data-ready]").wait_for()
            page.wait_for_load_state("networkidle")
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, f"{path} is {wide} pixels too wide"
        page.goto("/")
        side = page.locator("#side")
        expect(side).not_to_be_in_viewport()
        page.get_by_role("button", name="Open the side panel").click()
        expect(side).to_be_in_viewport(ratio=0.9)
        side.get_by_role("button", name="中文").click()
        expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
        expect(page.get_by_text("您想了解什么？")).to_be_visible()
        page.get_by_label("知识库", exact=True).select_option(handbook)
        page.get_by_label("您的问题").fill("没有休完的年假可以留到什么时候？")
        page.get_by_role("button", name="发送").tap()
        expect(page.get_by_role("button", name="回答得好")).to_be_visible()
        expect(page.locator(".answer")).to_contain_text("第二年三月底")
        picture(page, "phone-zh-dark")
        page.goto("/documents")
        expect(page.get_by_role("button", name="选择文件")).to_be_visible()


def test_by_keyboard_alone(browser: Browser, site: Site, state: Any, handbook: str) -> None:
    with visit(browser, site, state) as (page, _):
        page.goto("/")
        page.get_by_label("Knowledge base", exact=True).select_option(handbook)
        box = page.get_by_label("Your question")
        page.get_by_role("link", name="Documents").focus()
        page.keyboard.press("/")
        expect(box).to_be_focused()
        page.keyboard.type("Where is the key card")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("handed out?")
        expect(box).to_have_value("Where is the key card\nhanded out?")
        box.dispatch_event("keydown", {"key": "Enter", "isComposing": True, "bubbles": True, "cancelable": True})
        expect(page.locator(".exchange")).to_have_count(0)
        page.keyboard.press("Enter")
        expect(page.locator(".answer")).to_contain_text("front desk")
        expect(box).to_be_focused()


def test_everything_one_can_use_has_a_name(browser: Browser, site: Site, state: Any, handbook: str) -> None:
    """What a screen reader says of each control, as the browser computes it."""
    with visit(browser, site, state) as (page, _):
        page.goto("/")
        page.get_by_label("Knowledge base", exact=True).select_option(handbook)
        ask(page, "What may a hotel room cost?")
        page.locator(".cite").first.click()
        page.get_by_role("button", name="Bad answer").click()
        expect(page.locator(".piece.hit").first).to_be_visible()
        assert nameless(page) == []
        for path in ("/documents", "/login", "/setup"):
            page.goto(path)
            page.wait_for_load_state("networkidle")
            assert nameless(page) == []
        page.goto("/documents")
        page.get_by_role("button", name="New knowledge base").first.click()
        assert nameless(page) == []


def nameless(page: Page) -> list[str]:
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    used = {"button", "link", "textbox", "combobox", "checkbox", "searchbox", "spinbutton", "dialog", "heading"}
    shown = [node for node in tree if not node["ignored"] and node["role"]["value"] in used]
    assert len(shown) > 3
    return [node["role"]["value"] for node in shown if not node.get("name", {}).get("value", "").strip()]


def test_login_and_its_errors(browser: Browser, site: Site, state: Any) -> None:
    assert state
    with visit(browser, site) as (page, watch):
        watch.expected = ("Failed to load resource",)
        page.goto("/documents")
        expect(page).to_have_url(re.compile(r"/login\?next="))
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("Fill in")
        page.get_by_label("Name").fill(NAME)
        page.get_by_label("Password", exact=True).fill("not the password")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).not_to_contain_text("Fill in")
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page).to_have_url(f"{site.url}/documents")
        page.get_by_role("button", name="Log out").click()
        expect(page).to_have_url(re.compile("/login"))
        page.goto("/login?next=https://evil.example/")
        page.get_by_label("Name").fill(NAME)
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page).to_have_url(f"{site.url}/")


def test_documents_are_found_and_deleted(browser: Browser, site: Site, state: Any) -> None:
    with visit(browser, site, state) as (page, _):
        page.goto("/documents")
        page.get_by_role("button", name="New knowledge base").first.click()
        page.get_by_label("Name", exact=True).fill("Notes")
        page.get_by_text("Private").click()
        page.get_by_text("Advanced").click()
        page.get_by_label("Chunk size").fill("120")
        page.get_by_role("button", name="Create").click()
        expect(page.locator(".badge")).to_contain_text("Private")
        notes = [file(f"note {n}.md", b"# Note %d\n\nText." % n) for n in (1, 2)]
        page.locator("input[type=file]").set_input_files(notes)
        expect(page.locator(".upload.good")).to_have_count(2, timeout=60_000)
        page.get_by_label("Search documents").fill("note 2")
        expect(page.locator(".documents tbody tr")).to_have_count(1)
        page.get_by_role("button", name="Delete “Note 2”").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.locator(".documents tbody")).to_contain_text("Nothing found")
        page.get_by_role("button", name="Delete knowledge base").click()
        page.get_by_role("dialog").get_by_label("Type Notes to confirm").fill("Note")
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_role("dialog").get_by_role("alert")).to_be_visible()
        page.get_by_role("dialog").get_by_label("Type Notes to confirm").fill("Notes")
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.locator(".kb")).not_to_contain_text(["Notes"])
