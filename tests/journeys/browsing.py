"""A running Kvasir, a browser to look at it with, and documents to put in."""

from __future__ import annotations

import asyncio
import io
import os
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docx
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    FilePayload,
    Page,
    Playwright,
    Request,
    expect,
    sync_playwright,
)

from tests import processes
from tests.fakes.llm_server import LlmServer, llm_server

CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser"))), None)
"""The first has no windows, which are half of what a new page costs: 80 ms of CPU and not 400."""
expect.set_options(timeout=30_000)  # a busy machine is not a fault of the page
NAME, PASSWORD = "astrid", "mead of poetry 9"
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
    # No process is begun before it is needed, and scripts that run once are not optimised: 6 % of a page's CPU.
    *("--renderer-process-limit=1", "--disable-site-isolation-trials", "--js-flags=--lite-mode"),
)
_SET_UP_LINK = re.compile(r"(http://127\.0\.0\.1:\d+)/setup\?token=\S+")


# ---------------------------------------------------------------- Kvasir
@dataclass(frozen=True)
class Site:
    """A `kvasir up` of its own, with its data directory."""

    url: str
    set_up_link: str
    environment: dict[str, str]

    def run(self, *arguments: str) -> str:
        """What a command beside it prints."""
        done = processes.run([processes.KVASIR, *arguments], env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)


@contextmanager
def kvasir_up(folder: Path, **settings: str) -> Iterator[Site]:
    """Kvasir as a person starts it, on a free port, until the block ends."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KVASIR_")}
    environment = {**kept, "KVASIR_DATA_DIR": str(folder / "data"), "KVASIR_WEB__PORT": "0", "LC_ALL": "C.UTF-8"}
    environment |= {"KVASIR_EMBEDDER__KIND": "none", **settings}
    with (folder / "log.txt").open("w") as log:
        process = processes.start(
            [processes.KVASIR, "up"],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            link = _set_up_link(process, folder / "log.txt")
            yield Site(link[1], link[0], environment)
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()
                process.wait()
                assert process.stdout is not None
                process.stdout.close()


def _set_up_link(process: subprocess.Popen[str], log: Path) -> re.Match[str]:
    """The one-time link, once it is printed; what is printed later is read and dropped."""
    found: queue.Queue[re.Match[str]] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            match = _SET_UP_LINK.search(line)
            if match:
                found.put(match)

    threading.Thread(target=read, daemon=True).start()
    try:
        return found.get(timeout=60)
    except queue.Empty:
        raise AssertionError(f"no set-up link was printed; the log says: {log.read_text()}") from None


@contextmanager
def language_model(mode: str, text: str = "…") -> Iterator[LlmServer]:
    """An OpenAI-compatible server on loopback; its `mode` and `text` may be changed between questions."""
    started: queue.Queue[tuple[LlmServer, asyncio.Event, asyncio.AbstractEventLoop]] = queue.Queue()

    async def serve() -> None:
        over = asyncio.Event()
        async with llm_server(mode, text) as server:
            started.put((server, over, asyncio.get_running_loop()))
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    server, over, loop = started.get(timeout=10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)


# ---------------------------------------------------------------- the browser
@dataclass(frozen=True)
class _Driven:
    """A browser, what drives it, and the loop that this runs in our thread."""

    playwright: Playwright
    browser: Browser
    loop: asyncio.AbstractEventLoop


_driven: list[_Driven] = []
"""One for all test files of a process: to start it takes as long as to look at three pages."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, that can reach nothing but this machine; whoever opens a context closes it."""
    before = asyncio._get_running_loop()
    if not _driven:
        playwright = sync_playwright().start()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        _driven.append(_Driven(playwright, browser, asyncio.get_running_loop()))
    driven = _driven[0]
    asyncio._set_running_loop(driven.loop)
    try:
        yield driven.browser
        assert before or not driven.browser.contexts, "a context was left open"
    finally:
        asyncio._set_running_loop(before)  # other tests have loops of their own in this thread


def end_chromium() -> None:
    while _driven:
        driven = _driven.pop()
        asyncio._set_running_loop(driven.loop)
        try:
            driven.browser.close()
            driven.playwright.stop()
        finally:
            asyncio._set_running_loop(None)


@dataclass
class Watch:
    """What must not happen while a page is looked at."""

    origin: str
    troubles: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()
    """Beginnings of console lines that a test provokes."""
    under_way: set[Request] = field(default_factory=set)
    """What was asked for and has not come yet."""

    def over(self, page: Page) -> None:
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        page.on("request", self._asked)
        page.on("requestfinished", self._came)
        page.on("requestfailed", self._came)
        page.on("dialog", self._interrupted)

    def _interrupted(self, dialog: Dialog) -> None:
        self.troubles.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(self.expected or ("\0",)):
            self.troubles.append(f"console: {message.text} ({message.location['url']})")

    def _came(self, request: Request) -> None:
        self.under_way.discard(request)

    def _asked(self, request: Request) -> None:
        if request.resource_type != "eventsource":  # these stay
            self.under_way.add(request)
        if not request.url.startswith((self.origin + "/", "blob:")):
            self.troubles.append(f"request: {request.url}")


@contextmanager
def visit(browser: Browser, site: Site, state: Any = None, **options: Any) -> Iterator[tuple[Page, Watch]]:
    """A page of its own, watched: console errors, policy violations, dialogs and foreign requests are failures."""
    options = {"viewport": {"width": 1280, "height": 860}, "locale": "en-GB", "reduced_motion": "reduce", **options}
    context: BrowserContext = browser.new_context(base_url=site.url, storage_state=state, **options)
    context.set_default_timeout(30_000)
    watch = Watch(site.url)
    try:
        page = context.new_page()
        watch.over(page)
        yield page, watch
        if page.locator(".shell").count():
            page.wait_for_load_state()  # without its style sheet it has margins
            spare = page.evaluate("document.documentElement.scrollHeight - document.documentElement.clientHeight")
            assert spare <= 0, f"the frame of the page can be scrolled away by {spare} pixels"
        assert not watch.troubles, watch.troubles
    finally:
        context.close()


def set_up(browser: Browser, site: Site) -> Any:
    """Create the administrator through the printed link; gives what a later page needs to be logged in."""
    with visit(browser, site) as (page, _):
        page.goto(site.set_up_link)
        page.get_by_label("Name", exact=True).fill(NAME)
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_label("Password, again").fill(PASSWORD)
        page.get_by_role("button", name="Create the administrator").click()
        page.get_by_label("Your question").wait_for()
        return page.context.storage_state()


def set_up_unseen(browser: Browser, site: Site) -> Any:
    """What `set_up` gives, by the request that its page makes: for all but the tests of that page."""
    token = site.set_up_link.partition("?token=")[2]
    context = browser.new_context(base_url=site.url)
    try:
        given = {"token": token, "name": NAME, "password": PASSWORD}
        made = context.request.post("/api/v1/setup", data=given, headers={"origin": site.url})
        assert made.status == 201, made.text()
        return context.storage_state()
    finally:
        context.close()


# ---------------------------------------------------------------- documents
def file(name: str, data: bytes) -> FilePayload:
    """A file as the page's picker gets it."""
    return {"name": name, "mimeType": "application/octet-stream", "buffer": data}


def make_pdf(title: str, pages: Sequence[Sequence[str]]) -> bytes:
    """A PDF with a line of text for each string."""
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"", b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"]
    kids = []
    for lines in pages:
        drawn = "".join(f"({_escaped(line)}) Tj 0 -18 Td " for line in lines)
        content = f"BT /F1 12 Tf 60 760 Td {drawn}ET".encode("latin-1")
        objects.append(b"<</Length %d>>stream\n%s\nendstream" % (len(content), content))
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</Font<</F1 3 0 R>>>>/Contents %d 0 R>>"
            % len(objects)
        )
        kids.append(len(objects))
    objects[1] = b"<</Type/Pages/Count %d/Kids[%s]>>" % (len(kids), b" ".join(b"%d 0 R" % kid for kid in kids))
    objects.append(f"<</Title({_escaped(title)})>>".encode("latin-1"))
    out, places = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"<</Size %d/Root 1 0 R/Info %d 0 R>>" % (len(objects) + 1, len(objects))
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n%strailer%s\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1,
        table,
        trailer,
        start,
    )
    return bytes(out)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")


def make_docx(title: str, sections: Sequence[tuple[str, Sequence[str]]]) -> bytes:
    """A Word document with headings and their paragraphs."""
    document = docx.Document()
    document.core_properties.title = title
    document.add_heading(title, 0)
    for heading, paragraphs in sections:
        document.add_heading(heading, 1)
        for paragraph in paragraphs:
            document.add_paragraph(paragraph)
    data = io.BytesIO()
    document.save(data)
    return data.getvalue()
