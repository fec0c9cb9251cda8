"""Sources of every kind against real servers: what comes in, what changes, what goes, and what is never reached."""

from __future__ import annotations

import asyncio
import base64
import gzip
import os
import re
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from core import egress
from core import settings as settings_module
from core.app import Kvasir
from core.db.tables import SourceRow
from core.errors import ConfigError, Conflict, KvasirError, NotAllowed, NotFound, UserError
from core.sources.folder import Folder, FolderSpec
from core.sources.port import Item
from core.sources.register import NewSource, SourceInfo
from core.sources.robots import Robots
from core.work.jobs import run_job
from core.work.schedules import NewSchedule
from tests.databases import put_sqlite
from tests.fakes.embedder import HashEmbedder
from tests.fakes.git_server import GitServer

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("parser_here")]

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


class House:
    def __init__(self, kvasir: Kvasir) -> None:
        self.kvasir = kvasir

    async def source(self, kind: str, token: str = "", **settings: Any) -> SourceInfo:
        return await self.kvasir.sources.create(NewSource("kb", "Site", kind, settings, token))

    async def sync(self, source: SourceInfo) -> tuple[str, str]:
        """State of the job, and its sentence; documents are worked off, too."""
        job = await self.kvasir.sources.start(source.id)
        while (claimed := await self.kvasir.jobs.claim()) is not None:
            await run_job(self.kvasir.jobs, claimed, self.kvasir.run_job)
        ended = await self.kvasir.jobs.get(job.id)
        return ended.state, ended.error or ended.progress["result"]

    async def problem(self, kind: str, settings: dict[str, Any]) -> str:
        """Why a source that is set like this gives nothing."""
        try:
            return (await self.kvasir.sources.preview(kind, settings)).problem
        except KvasirError as error:
            return str(error)

    async def names(self) -> list[str]:
        found, _ = await self.kvasir.knowledge.documents("kb")
        assert {item.status for item in found} <= {"indexed"}, [(item.name, item.reason) for item in found]
        return [item.name for item in found]

    async def text(self, name: str) -> str:
        document = await self.kvasir.knowledge.find_document("kb", name)
        return "\n".join(chunk.text for chunk in await self.kvasir.knowledge.chunks(document.id))


@asynccontextmanager
async def opened(folder: Path, url: str = "", **sources: Any) -> AsyncIterator[House]:
    given = {"private_hosts": ["127.0.0.1", "localhost"], "delay_seconds": 0, **sources}
    url = url or await put_sqlite(folder / "data" / "kvasir.db")
    settings = settings_module.load(data_dir=folder / "data", sources=given, database={"url": url})
    async with Kvasir.open(settings, embedder=HashEmbedder()) as kvasir:
        await kvasir.knowledge.get_or_create("kb")
        yield House(kvasir)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with opened(tmp_path) as made:
        yield made


class Web:
    """Pages that a test changes; it remembers what was asked for, and answers 304 as a good server does."""

    def __init__(self, server: HTTPServer) -> None:
        self.pages: dict[str, str | bytes | int] = {}
        self.asked: list[str] = []
        self.served: list[str] = []
        self.root = f"http://127.0.0.1:{server.port}"
        server.expect_request(re.compile("^/")).respond_with_handler(self._serve)

    def _serve(self, request: Request) -> Response:
        self.asked.append(request.path)
        found = self.pages.get(request.path, 404)
        if isinstance(found, int):
            return Response("no", found)
        data = found.encode() if isinstance(found, str) else found
        etag = f'"{hash(data)}"'
        if request.headers.get("If-None-Match") == etag:
            return Response("", 304)
        self.served.append(request.path)
        kind = "application/xml" if request.path.endswith(("xml", "gz")) else "text/html; charset=utf-8"
        return Response(data, 200, {"ETag": etag, "Content-Type": kind})


@pytest.fixture
def web(httpserver: HTTPServer) -> Web:
    return Web(httpserver)


def page(text: str) -> str:
    return f"<html><head><title>{text.split()[0]}</title></head><body><main><p>{text}</p></main></body></html>"


# ---------------------------------------------------------------- pages
async def test_pages_come_in_are_asked_for_again_only_if_changed_and_go_when_gone(house: House, web: Web) -> None:
    web.pages = {"/tea": page("Tea is served at four."), "/cake": page("Cake is cut at five.")}
    source = await house.source("url", urls=[f"{web.root}/tea", f"{web.root}/cake"])
    assert (await house.kvasir.sources.get(source.id)).state == "new"
    assert await house.sync(source) == ("done", "2 new, 0 changed, 0 removed, 0 as they were.")
    assert await house.names() == ["Site/127.0.0.1/cake.html", "Site/127.0.0.1/tea.html"]

    web.served.clear()
    assert await house.sync(source) == ("done", "0 new, 0 changed, 0 removed, 2 as they were.")
    assert web.served == []

    web.pages["/tea"] = page("Tea is served at three.")
    assert await house.sync(source) == ("done", "0 new, 1 changed, 0 removed, 1 as they were.")
    assert "three" in await house.text("Site/127.0.0.1/tea.html")

    web.pages["/cake"] = 410
    assert await house.sync(source) == ("done", "0 new, 0 changed, 1 removed, 1 as they were.")
    assert await house.names() == ["Site/127.0.0.1/tea.html"]
    found = await house.kvasir.sources.get(source.id)
    assert (found.state, found.documents) == ("done", 1)


@pytest.mark.parametrize("trouble", [404, 500])
async def test_nothing_is_removed_when_everything_is_gone_or_broken(house: House, web: Web, trouble: int) -> None:
    """Protection: a site that is down, or moved as a whole, does not empty the knowledge base."""
    web.pages = {"/tea": page("Tea."), "/cake": page("Cake.")}
    source = await house.source("url", urls=[f"{web.root}/tea", f"{web.root}/cake"])
    await house.sync(source)
    web.pages = {"/tea": trouble, "/cake": trouble}
    state, said = await house.sync(source)
    assert state == "failed"
    assert ("were kept" if trouble == 404 else "nothing was removed") in said
    assert len(await house.names()) == 2
    found = await house.kvasir.sources.get(source.id)
    assert (found.state, found.reason) == ("failed", said)


async def test_one_page_that_fails_is_told_and_the_others_come(house: House, web: Web) -> None:
    web.pages = {"/tea": page("Tea."), "/cake": 500}
    source = await house.source("url", urls=[f"{web.root}/tea", f"{web.root}/cake"])
    assert (await house.sync(source))[0] == "done"
    found = await house.kvasir.sources.get(source.id)
    assert found.reason is not None
    assert "1 could not be had" in found.reason


async def test_a_document_that_was_lost_here_comes_again(house: House, web: Web) -> None:
    web.pages = {"/tea": page("Tea."), "/cake": page("Cake.")}
    source = await house.source("url", urls=[f"{web.root}/tea", f"{web.root}/cake"])
    await house.sync(source)
    lost = await house.kvasir.knowledge.find_document("kb", "Site/127.0.0.1/tea.html")
    await house.kvasir.knowledge.delete_document(lost.id)
    assert await house.sync(source) == ("done", "1 new, 0 changed, 0 removed, 1 as they were.")


async def test_a_private_host_is_not_reached_unless_the_settings_name_it(tmp_path: Path, web: Web) -> None:
    """Protection: sources go out by the one way that there is (faults 25 to 31)."""
    web.pages = {"/tea": page("Tea.")}
    async with opened(tmp_path, private_hosts=[]) as house:
        for kind, settings in (
            ("url", {"urls": [f"{web.root}/tea"]}),
            ("sitemap", {"url": f"{web.root}/sitemap.xml"}),
            ("rss", {"url": f"{web.root}/feed"}),
            ("git", {"url": f"{web.root}/git/notes"}),
        ):
            assert "private network" in await house.problem(kind, settings)
    assert web.asked == []


async def test_a_synchronisation_that_is_stopped_goes_on_where_it_was(
    house: House, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protection: documents come in by and by, with what was seen of them."""
    monkeypatch.setattr("core.sources.sync._BATCH", 1)
    web.pages = {f"/p{number}": page(f"Page {number}") for number in range(3)}
    source = await house.source("url", urls=[f"{web.root}/p{number}" for number in range(3)])
    fetch, fetched = egress.fetch, 0
    job = await house.kvasir.sources.start(source.id, claimed=True)

    async def cancelled_at_the_third(url: str, **options: Any) -> egress.Fetched:
        nonlocal fetched
        fetched += 1
        if fetched == 3:
            await house.kvasir.jobs.cancel(job.id)
            await asyncio.sleep(60)
        return await fetch(url, **options)

    monkeypatch.setattr(egress, "fetch", cancelled_at_the_third)
    async with asyncio.timeout(20):
        await run_job(house.kvasir.jobs, job, house.kvasir.run_job)
    assert (await house.kvasir.jobs.get(job.id)).state == "cancelled"
    assert (await house.kvasir.sources.get(source.id)).job_id is None
    monkeypatch.setattr(egress, "fetch", fetch)
    web.served.clear()
    assert await house.sync(source) == ("done", "1 new, 0 changed, 0 removed, 2 as they were.")
    assert web.served == ["/p2"]
    assert len(await house.names()) == 3


async def test_one_visit_takes_only_so_much(tmp_path: Path, web: Web) -> None:
    web.pages = {f"/{name}": page(name) + f"<!-- {'x' * 600_000} -->" for name in "abc"}
    async with opened(tmp_path, max_mb=1) as house:
        source = await house.source("url", urls=[f"{web.root}/{name}" for name in "abc"])
        state, said = await house.sync(source)
        assert (state, said) == ("failed", "More than 1 MB were fetched in one go; the rest follows the next time.")
        assert (await house.sync(source))[0] == "done"
        assert len(await house.names()) == 3


async def test_one_request_at_a_time_to_a_host_whoever_visits_it(tmp_path: Path, httpserver: HTTPServer) -> None:
    """Protection: two synchronisations at once do not hurry a host."""
    now_there = most = 0

    def slow(_request: Request) -> Response:
        nonlocal now_there, most
        now_there += 1
        most = max(most, now_there)
        time.sleep(0.02)
        now_there -= 1
        return Response("<p>x</p>", 200, {"Content-Type": "text/html"})

    httpserver.expect_request(re.compile("^/")).respond_with_handler(slow)
    async with opened(tmp_path) as house:
        visits = [house.kvasir.sources.tools().visit for _ in range(4)]
        root = f"http://127.0.0.1:{httpserver.port}"
        await asyncio.gather(*(visit.fetch(f"{root}/{number}", 1000) for number, visit in enumerate(visits)))
    assert most == 1


# ---------------------------------------------------------------- sitemaps
def sitemap(*pages: str, kind: str = "urlset") -> str:
    item = "url" if kind == "urlset" else "sitemap"
    inner = "".join(f"<{item}><loc>{url}</loc></{item}>" for url in pages)
    return f'<?xml version="1.0"?><{kind} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{inner}</{kind}>'


async def test_a_sitemap_with_its_parts_patterns_and_robots(house: House, web: Web) -> None:
    one = sitemap(
        f"{web.root}/docs/a", f"{web.root}/docs/old/b", f"{web.root}/docs/secret", "http://elsewhere.example/"
    )
    two = gzip.compress(sitemap(f"{web.root}/docs/c", f"{web.root}/blog/d").encode())
    web.pages = {
        "/sitemap.xml": sitemap(f"{web.root}/one.xml", f"{web.root}/two.xml.gz", kind="sitemapindex"),
        "/one.xml": one,
        "/two.xml.gz": two,
        "/robots.txt": "User-agent: *\nDisallow: /docs/secret\n",
        "/docs/a": page("Apple."),
        "/docs/c": page("Cherry."),
    }
    source = await house.source("sitemap", url=f"{web.root}/sitemap.xml", include=["/docs/*"], exclude=["*/old/*"])
    preview = await house.kvasir.sources.preview_again(source.id)
    assert [item.address for item in preview.items] == [f"{web.root}/docs/a", f"{web.root}/docs/c"]
    assert (preview.total, preview.problem) == (2, "")
    assert any("robots.txt" in note for note in preview.notes)
    assert (await house.sync(source))[1].startswith("2 new")
    assert "/docs/secret" not in web.asked

    web.pages["/two.xml.gz"] = gzip.compress(sitemap().encode())
    assert await house.sync(source) == ("done", "0 new, 0 changed, 1 removed, 1 as they were.")

    web.pages["/one.xml"] = sitemap()
    state, said = await house.sync(source)
    assert (state, "were kept" in said) == ("failed", True)
    assert await house.names() == ["Site/127.0.0.1/docs/a.html"]


async def test_the_address_of_a_website_is_enough(house: House, web: Web) -> None:
    web.pages = {
        "/robots.txt": f"Sitemap: {web.root}/map.xml\nSitemap: http://elsewhere.example/map.xml",
        "/map.xml": sitemap(f"{web.root}/a"),
        "/a": page("Apple."),
    }
    preview = await house.kvasir.sources.preview("sitemap", {"url": web.root})
    assert [item.address for item in preview.items] == [f"{web.root}/a"]
    web.pages = {"/sitemap.xml": web.pages["/map.xml"], "/a": page("Apple.")}
    assert (await house.kvasir.sources.preview("sitemap", {"url": f"{web.root}/"})).total == 1


async def test_a_page_that_names_its_feed_is_enough(house: House, web: Web) -> None:
    link = '<link rel="alternate" type="application/rss+xml" href="feed.xml">'
    web.pages = {"/blog/": f"<html><head>{link}</head></html>", "/blog/feed.xml": rss(("1", "First", "One."))}
    assert (await house.kvasir.sources.preview("rss", {"url": f"{web.root}/blog/"})).total == 1
    web.pages["/blog/"] = "<html>nothing</html>"
    with pytest.raises(UserError, match=r"no RSS or Atom|damaged"):
        await house.kvasir.sources.preview("rss", {"url": f"{web.root}/blog/"})


async def test_what_is_beyond_the_limit_is_not_taken_for_gone(house: House, web: Web) -> None:
    pages = [f"{web.root}/p{number}" for number in range(4)]
    web.pages = {"/sitemap.xml": sitemap(*pages)}
    web.pages |= {f"/p{number}": page(f"Page {number}") for number in range(4)}
    source = await house.source("sitemap", url=f"{web.root}/sitemap.xml", limit=3)
    await house.sync(source)
    web.pages["/sitemap.xml"] = sitemap(*reversed(pages))
    await house.sync(source)
    assert len(await house.names()) == 4
    found = await house.kvasir.sources.get(source.id)
    assert found.reason == "There is more than 3; the rest is left out."


@pytest.mark.parametrize(
    "bomb",
    [
        '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><urlset>&b;</urlset>',
        '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><urlset><url><loc>&a;</loc></url></urlset>',
        "<urlset><url>",
        "<html>no</html>",
        b"\x1f\x8b\x08broken",
    ],
)
async def test_a_hostile_sitemap_is_refused(house: House, web: Web, bomb: str | bytes) -> None:
    web.pages = {"/sitemap.xml": bomb}
    with pytest.raises(UserError, match=r"damaged|no sitemap"):
        await house.kvasir.sources.preview("sitemap", {"url": f"{web.root}/sitemap.xml"})


async def test_a_robots_file_that_cannot_be_read_keeps_us_out(house: House, web: Web) -> None:
    web.pages = {"/sitemap.xml": sitemap(f"{web.root}/a"), "/a": page("A."), "/robots.txt": 503}
    state, _ = await house.sync(await house.source("sitemap", url=f"{web.root}/sitemap.xml"))
    assert state == "failed"
    assert "/a" not in web.asked


async def test_a_host_that_keeps_its_robots_file_to_itself_lets_us_in(house: House, web: Web) -> None:
    """Many a host of plain files says 403 for what is not there."""
    web.pages = {"/sitemap.xml": sitemap(f"{web.root}/a"), "/a": page("A."), "/robots.txt": 403}
    assert (await house.kvasir.sources.preview("sitemap", {"url": f"{web.root}/sitemap.xml"})).total == 1


@pytest.mark.parametrize(
    ("robots", "path", "allowed"),
    [
        ("", "/a", True),
        ("User-agent: *\nDisallow: /", "/a", False),
        ("User-agent: *\nDisallow:", "/a", True),
        ("User-agent: *\nDisallow: /a\nAllow: /a/b", "/a/b/c", True),
        ("User-agent: *\nDisallow: /a\nAllow: /a", "/a", True),
        ("User-agent: other\nDisallow: /", "/a", True),
        ("User-agent: *\nDisallow: /\n\nUser-agent: Kvasir\nDisallow: /x", "/a", True),
        ("User-agent: a\nUser-agent: *\nDisallow: /p", "/p/q", False),
        ("User-agent: *\nDisallow: /*.pdf$", "/files/a.pdf", False),
        ("User-agent: *\nDisallow: /*.pdf$", "/files/a.pdf?x", True),
        ("User-agent: *\nDisallow: /*/edit", "/wiki/page/edit", False),
        ("User-agent: *\nDisallow: /a # all of it", "/a/b", False),
    ],
)
def test_robots(robots: str, path: str, allowed: bool) -> None:
    assert Robots.parse(robots).allows(path) is allowed


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    robots = Robots.parse("User-agent: *\nDisallow: /" + "*a" * 500 + "b$\nCrawl-delay: 3")
    assert robots.allows("/" + "a" * 3000)
    assert robots.delay == 3


# ---------------------------------------------------------------- feeds
def rss(*entries: tuple[str, str, str]) -> str:
    items = "".join(
        f"<item><guid>{key}</guid><title>{title}</title><link>LINK/{key}</link><description>{text}</description></item>"
        for key, title, text in entries
    )
    return f'<?xml version="1.0"?><rss version="2.0"><channel><title>News</title>{items}</channel></rss>'


async def test_a_feed_keeps_what_has_left_it(house: House, web: Web) -> None:
    web.pages["/feed"] = rss(("1", "First", "One &lt;b&gt;apple&lt;/b&gt;."), ("2", "Second", "Two pears."))
    source = await house.source("rss", url=f"{web.root}/feed")
    assert (await house.sync(source))[1].startswith("2 new")
    web.pages["/feed"] = rss(("3", "Third", "Three plums."), ("2", "Second", "Two ripe pears."))
    assert await house.sync(source) == ("done", "1 new, 1 changed, 0 removed, 0 as they were.")
    names = await house.names()
    assert [name.rpartition("-")[0] for name in names] == ["Site/First", "Site/Second", "Site/Third"]
    assert "One apple" in await house.text(names[0])
    await house.kvasir.sources.update(source.id, settings={"forget": True})
    assert (await house.sync(source))[1].startswith("0 new, 0 changed, 1 removed")


async def test_atom_with_full_pages(house: House, web: Web) -> None:
    entry = f'<entry><id>x</id><title>Tea</title><link href="{web.root}/tea"/><summary>Tea…</summary></entry>'
    web.pages = {
        "/atom": f'<feed xmlns="http://www.w3.org/2005/Atom"><title>T</title>{entry}</feed>',
        "/tea": page("Tea is served at four, with lemon."),
    }
    await house.sync(await house.source("rss", url=f"{web.root}/atom", full_text=True))
    (name,) = await house.names()
    assert "with lemon" in await house.text(name)
    assert "/robots.txt" in web.asked


# ---------------------------------------------------------------- folders
async def test_a_watched_folder(tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    (shelf / "deep").mkdir(parents=True)
    (shelf / "a.md").write_text("# A\n\nApples.")
    (shelf / "deep" / "b.txt").write_text("Bananas.")
    (shelf / "deep" / "c.xyz").write_text("?")
    (shelf / ".hidden.md").write_text("no")
    async with opened(tmp_path, folders=[str(shelf)]) as house:
        source = await house.source("folder", path=str(shelf))
        assert (await house.sync(source))[1].startswith("2 new")
        assert await house.names() == ["Site/a.md", "Site/deep/b.txt"]
        (shelf / "a.md").write_text("# A\n\nApricots, and more of them.")
        (shelf / "deep" / "b.txt").unlink()
        assert await house.sync(source) == ("done", "0 new, 1 changed, 1 removed, 0 as they were.")
        shutil.rmtree(shelf)
        state, _ = await house.sync(source)
        assert state == "failed"
        assert await house.names() == ["Site/a.md"]


async def test_no_way_leads_out_of_the_allowed_folders(tmp_path: Path) -> None:
    """Protection: neither by path nor by link, nor by a link that is put there after the look."""
    shelf, private = tmp_path / "shelf", tmp_path / "private"
    shelf.mkdir()
    private.mkdir()
    (private / "secret.md").write_text("The secret.")
    (shelf / "good.md").write_text("Good.")
    (shelf / "link.md").symlink_to(private / "secret.md")
    (shelf / "folder").symlink_to(private)
    async with opened(tmp_path, folders=[str(shelf)]) as house:
        for path in (
            str(private), str(tmp_path), "/", "/etc", f"{shelf}/../private", f"{shelf}/folder", "shelf", f"{shelf}\0",
        ):  # fmt: skip
            with pytest.raises((NotAllowed, UserError)):
                await house.source("folder", path=path)
        source = await house.source("folder", path=str(shelf))
        assert (await house.sync(source))[1].startswith("1 new")
        assert await house.names() == ["Site/good.md"]

        reader = Folder(shelf, FolderSpec(path=str(shelf)), house.kvasir.sources.tools())
        for name in ("link.md", "folder/secret.md"):
            with pytest.raises(KvasirError):
                await reader.read(Item(name, name, name), {})
        os.mkfifo(shelf / "pipe.md")
        with pytest.raises(KvasirError):
            await reader.read(Item("pipe.md", "", ""), {})


async def test_without_folders_in_the_settings_there_are_none(house: House) -> None:
    with pytest.raises(NotAllowed, match=r"sources\.folders"):
        await house.source("folder", path="/tmp")


# ---------------------------------------------------------------- git
@needs_git
async def test_a_repository_from_its_first_commit_on(house: House, httpserver: HTTPServer, tmp_path: Path) -> None:
    git = GitServer(tmp_path / "repo", httpserver)
    git.commit(
        {"README.md": "# Tea\n\nTea at four.", "docs/a.md": "Apples.", "docs/deep/b.md": "Bananas.", "x.bin": b"\0"}
    )
    (git.work / "docs" / "link.md").symlink_to("/etc/passwd")
    git.commit({".github/c.md": "Hidden."})
    source = await house.source("git", url=git.url)
    assert (await house.sync(source))[1].startswith("3 new")
    assert await house.names() == ["Site/README.md", "Site/docs/a.md", "Site/docs/deep/b.md"]

    git.requests.clear()
    assert await house.sync(source) == ("done", "Nothing has changed; 3 documents.")
    assert not [
        path for path in git.requests if "git-upload-pack" in path and "info/refs" not in path and len(git.requests) > 3
    ]

    git.commit({"docs/a.md": "Apricots.", "docs/deep/b.md": None})
    assert await house.sync(source) == ("done", "0 new, 1 changed, 1 removed, 1 as they were.")
    assert "Apricots" in await house.text("Site/docs/a.md")

    await house.kvasir.sources.update(source.id, settings={"folder": "docs", "include": ["*.md"]})
    await house.sync(source)
    assert await house.names() == ["Site/a.md"]


@needs_git
async def test_a_private_repository_needs_its_token_which_goes_nowhere_else(
    house: House, httpserver: HTTPServer, tmp_path: Path
) -> None:
    login = "Basic " + base64.b64encode(b"git:s3cr3t-t0ken").decode()
    git = GitServer(tmp_path / "repo", httpserver, login=login)
    git.commit({"README.md": "Tea at four."})
    with pytest.raises(KvasirError, match="valid token"):
        await house.kvasir.sources.preview("git", {"url": git.url})
    source = await house.source("git", "s3cr3t-t0ken", url=git.url)
    assert source.has_secret
    assert "s3cr3t" not in repr(source)
    assert (await house.sync(source))[1].startswith("1 new")
    async with house.kvasir.db.read() as session:
        row = await session.get(SourceRow, source.id)
        assert row is not None
        assert "s3cr3t" not in row.secrets
        assert row.secrets
    moved = await house.kvasir.sources.update(source.id, settings={"url": git.url.replace("127.0.0.1", "localhost")})
    assert not moved.has_secret


@needs_git
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"branch": "none"}, "no such branch"),
        ({"folder": "nowhere"}, "no folder"),
        ({"branch": "--upload-pack=touch /tmp/x"}, "Branch"),
        ({"url": "file:///etc"}, "address|Address"),
        ({"url": "ext::sh -c id"}, "address|Address"),
        ({"url": "http://user:pw@127.0.0.1/x"}, "address|Address"),
    ],
)
async def test_what_git_is_not_let_do(
    house: House, httpserver: HTTPServer, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    git = GitServer(tmp_path / "repo", httpserver)
    git.commit({"README.md": "Tea."})
    with pytest.raises(KvasirError, match=said):
        await house.kvasir.sources.preview("git", {"url": git.url} | settings)


@needs_git
async def test_a_redirect_of_a_git_server_is_not_followed(house: House, httpserver: HTTPServer, tmp_path: Path) -> None:
    """Protection: http.followRedirects, without which any server could send git into our network."""
    git = GitServer(tmp_path / "repo", httpserver)
    git.commit({"README.md": "Tea."})
    target = git.url.replace("127.0.0.1", "localhost")

    def elsewhere(request: Request) -> Response:
        return Response("", 302, {"Location": target + request.full_path.removeprefix("/moved")})

    httpserver.expect_request(re.compile("^/moved/")).respond_with_handler(elsewhere)
    with pytest.raises(KvasirError):
        await house.kvasir.sources.preview("git", {"url": f"http://127.0.0.1:{httpserver.port}/moved"})
    assert git.requests == []


@needs_git
async def test_git_connects_to_the_address_that_was_checked(
    house: House, httpserver: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protection: http.curloptResolve; a name that means another address the second time leads nowhere else."""
    git = GitServer(tmp_path / "repo", httpserver)
    git.commit({"README.md": "Tea at four."})

    async def resolve(host: str, _port: int) -> list[str]:
        assert host == "git.example"
        return ["127.0.0.1"]

    monkeypatch.setattr(egress, "resolve_host", resolve)
    tools = house.kvasir.sources.tools()
    monkeypatch.setattr(tools.visit, "private_hosts", frozenset({"git.example"}))
    monkeypatch.setattr(house.kvasir.sources, "tools", lambda: tools)
    preview = await house.kvasir.sources.preview("git", {"url": git.url.replace("127.0.0.1", "git.example")})
    assert [item.name for item in preview.items] == ["README.md"]


@needs_git
async def test_git_gets_nothing_of_ours_and_no_secret_on_its_command_line(
    house: House, httpserver: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protection: other users of the machine may read command lines."""
    git = GitServer(tmp_path / "repo", httpserver)
    git.commit({"README.md": "Tea at four."})
    log, real = tmp_path / "calls.txt", shutil.which("git")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "git"
    script.write_text(f'#!/bin/sh\necho "ARGS $@" >> {log}\nenv >> {log}\nexec {real} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("KVASIR_SECRET_KEY", "k" * 40)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:1")
    monkeypatch.setattr("core.sources.git_command.shutil.which", lambda _name: str(script))
    await house.kvasir.sources.preview("git", {"url": git.url}, "s3cr3t-t0ken")
    lines = log.read_text().splitlines()
    commands = [line for line in lines if line.startswith("ARGS ")]
    assert any("clone" in line for line in commands)
    assert not [line for line in commands if "s3cr3t" in line or base64.b64encode(b"git:s3cr3t").decode()[:8] in line]
    assert not [line for line in lines if "KVASIR" in line or "proxy.example" in line]


@needs_git
async def test_a_repository_that_is_too_large_is_given_up(tmp_path: Path, httpserver: HTTPServer) -> None:
    git = GitServer(tmp_path / "repo", httpserver)
    git.commit({"big.bin": os.urandom(2 << 20), "a.md": "Apples."})
    async with opened(tmp_path, max_mb=1) as house:
        assert "larger than 1 MB" in await house.problem("git", {"url": git.url})


async def test_without_git_there_is_a_sentence(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.sources.git_command.shutil.which", lambda _name: None)
    with pytest.raises(ConfigError, match="git is not installed"):
        await house.source("git", url="https://git.example/x")


async def test_a_token_goes_by_https_only(house: House) -> None:
    with pytest.raises(UserError, match="https"):
        await house.source("git", "s3cr3t", url="http://git.example/x")


# ---------------------------------------------------------------- keeping them
@pytest.mark.parametrize("documents", [True, False])
async def test_a_source_goes_with_its_documents_or_without(house: House, web: Web, documents: bool) -> None:
    web.pages = {"/tea": page("Tea.")}
    source = await house.source("url", urls=[f"{web.root}/tea"])
    await house.sync(source)
    assert await house.kvasir.sources.delete(source.id, documents=documents) == (1 if documents else 0)
    assert len(await house.names()) == (0 if documents else 1)
    with pytest.raises(NotFound):
        await house.kvasir.sources.get(source.id)
    if not documents:  # who comes after looks after them
        heir = await house.source("url", urls=[f"{web.root}/tea"])
        await house.sync(heir)
        assert await house.kvasir.sources.delete(heir.id, documents=True) == 1


async def test_one_synchronisation_at_a_time_and_one_name_a_knowledge_base(house: House) -> None:
    source = await house.source("url", urls=["http://127.0.0.1:9/x"])
    await house.kvasir.sources.start(source.id)
    with pytest.raises(Conflict, match="already"):
        await house.kvasir.sources.start(source.id)
    assert (await house.kvasir.sources.get(source.id)).state == "queued"
    with pytest.raises(Conflict):
        await house.source("url", urls=["http://127.0.0.1:9/y"])


async def test_of_two_synchronisations_at_once_the_older_goes_on(house: House, web: Web) -> None:
    """Protection: a schedule and a person may start it at the same moment."""
    web.pages = {"/tea": page("Tea.")}
    source = await house.source("url", urls=[f"{web.root}/tea"])
    jobs, payload = house.kvasir.jobs, {"target": source.id, "settings": {}, "run": "", "name": "Site", "kb": "kb"}
    older, younger = [await jobs.add("sync", payload, claimed=True) for _ in range(2)]
    await run_job(jobs, younger, house.kvasir.run_job)
    await run_job(jobs, older, house.kvasir.run_job)
    results = [(await jobs.get(job.id)).progress["result"] for job in (older, younger)]
    assert results[0].startswith("1 new")
    assert results[1].startswith("Left out")


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("ftp", {}, "no kind of source"),
        ("url", {}, "Addresses: please fill this in"),
        ("url", {"urls": []}, "Addresses: please fill this in"),
        ("url", {"urls": ["nonsense"]}, "address"),
        ("sitemap", {"url": "http://a.example/s.xml", "limit": 0}, "At most: from 1 to 100000"),
        ("rss", {"url": "http://a.example/f", "color": "red"}, "no setting «color»"),
        ("git", {"url": "https://a.example/x?y=1"}, "address"),
    ],
)
async def test_settings_that_cannot_be_are_named(house: House, kind: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(KvasirError, match=said):
        await house.source(kind, **settings)


async def test_sources_on_every_database(database_url: str, tmp_path: Path, web: Web) -> None:
    web.pages = {"/tea": page("Tea."), "/cake": page("Cake.")}
    async with opened(tmp_path, database_url) as house:
        kvasir = house.kvasir
        source = await house.source("url", urls=[f"{web.root}/tea", f"{web.root}/cake"])
        planned = await kvasir.schedules.create(NewSchedule("sync", "daily", target=source.id, settings={"kb": "kb"}))
        await kvasir.schedules.run_now(planned.id)
        while (job := await kvasir.jobs.claim()) is not None:
            await run_job(kvasir.jobs, job, kvasir.run_job)
        (run,), _ = await kvasir.schedules.runs(planned.id)
        assert run.result == "2 new, 0 changed, 0 removed, 0 as they were."
        runs, total = await kvasir.sources.runs(source.id)
        assert (total, runs[0].payload["kb"]) == (1, "kb")
        assert (await kvasir.jobs.page(kbs=["kb"]))[1] == 2
        assert (await kvasir.jobs.page(kbs=["other"]))[1] == 0
        assert (await kvasir.jobs.counts(["kb"]))["sync"]["done"] == 1
        assert (await kvasir.jobs.documents([runs[0].id])) == {}
        (found,), _ = await kvasir.sources.list(kbs=["kb"])
        assert (found.documents, found.state) == (2, "done")
        web.pages["/cake"] = 404
        assert (await house.sync(source))[1].startswith("0 new, 0 changed, 1 removed")
        await kvasir.knowledge.delete("kb")
        assert (await kvasir.sources.list())[1] == 0
        assert (await kvasir.schedules.list())[1] == 0
