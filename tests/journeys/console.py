"""The console as people use it: one Kvasir and one browser for a test file, and the check for accessibility."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.journeys.browsing import CHROMIUM, Site, Watch, chromium, file, kvasir_up, set_up_unseen, visit

needs_browser = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed: apt-get install chromium"),
]
"""What a test file of the console sets `pytestmark` to."""

PHONE: Mapping[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
ENGLISH: Mapping[str, Any] = {"locale": "en-GB"}
CHINESE: Mapping[str, Any] = {"locale": "zh-CN"}


_SERIOUS = """async () => {
  const { violations } = await axe.run({ resultTypes: ["violations"] });
  const bad = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
  return bad.flatMap(({ id, nodes }) => nodes.slice(0, 3).map(({ html }) => `${id}: ${html.slice(0, 200)}`));
}"""


@dataclass(frozen=True)
class Console:
    """A `kvasir up` with its owner, and a browser to look at it with."""

    site: Site
    browser: Browser
    owner: Any
    """What a page needs to be logged in as the owner."""

    @contextmanager
    def page(self, path: str, *, user: Any = None, **options: Any) -> Iterator[tuple[Page, Watch]]:
        """A page of the console, watched, e.g. `with console.page("library?kb=x", **CHINESE) as (page, _):`."""
        with visit(self.browser, self.site, user or self.owner, **options) as (page, watch):
            page.goto(f"/console/{path}")
            yield page, watch


@contextmanager
def console_up(folder: Any, **settings: str) -> Iterator[Console]:
    """For a fixture of the test file's (scope `module`): `with console_up(tmp_path_factory.mktemp("site")) as it:`."""
    with kvasir_up(folder, **settings) as site, chromium() as browser:
        yield Console(site, browser, set_up_unseen(browser, site))


def drawn(page: Page, watch: Watch) -> None:
    """Wait until all that the page asks for has come, and is drawn."""
    end, quiet = time.monotonic() + 15, 0
    while quiet < 2:
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        quiet = 0 if watch.under_way else quiet + 1
        assert time.monotonic() < end, [request.url for request in watch.under_way]


def accessible(page: Page) -> None:
    """Fails for what axe-core calls serious or critical."""
    if page.evaluate("window.axe === undefined"):
        page.evaluate(Axe().axe_script)
    serious = page.evaluate(_SERIOUS)
    assert not serious, "\n".join(serious)


def fits(page: Page) -> None:
    """Fails where a page is wider than the window."""
    spare = page.locator("html").evaluate("(root) => root.scrollWidth - root.clientWidth")
    assert spare <= 0, f"the page is {spare} pixels wider than the window"


def api(page: Page, method: str, path: str, body: Any = None) -> Any:
    """What the API answers to whoever is logged in on the page."""
    parts = urlsplit(page.url)
    headers = {"origin": f"{parts.scheme}://{parts.netloc}"}
    answer = page.request.fetch(path, method=method, data=body, headers=headers)
    assert answer.ok, answer.text()
    return answer.json() if answer.headers.get("content-type", "").startswith("application/json") else answer.text()


def put_in(console: Console, page: Page, kb: str, documents: Mapping[str, str]) -> None:
    """Put documents (name → text) into an empty knowledge base, and wait until they can be found."""
    path = f"/api/v1/kbs/{kb}/documents"
    for name, text in documents.items():
        files: Any = {"files": file(name, text.encode())}
        sent = page.request.post(path, multipart=files, headers={"origin": console.site.url})
        assert sent.ok, sent.text()
    until(page, f"{path}?status=indexed", lambda found: found["total"] == len(documents))


def until(page: Page, path: str, holds: Callable[[Any], bool]) -> None:
    """Wait until it holds of what the API answers.

    `page.wait_for_function` cannot: it takes the promise of an async function for its yes.
    """
    end = time.monotonic() + 20
    while not holds(found := api(page, "get", path)):
        assert time.monotonic() < end, found
        page.wait_for_timeout(50)
