"""Attacks on the web page: names, paths, uploads, other people's things, and what is shown of untrusted text."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import socket
import sqlite3
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
import uvicorn
from argon2 import PasswordHasher
from sqlalchemy import text as sql

from admin.api.documents import attachment
from admin.connections import config_of
from admin.html import to_html
from core.identity.passwords import Passwords
from core.types import Role
from tests.admin.conftest import PASSWORD, OpenSite, Site

pytestmark = pytest.mark.anyio


@pytest.fixture
def parser_here() -> None:
    """Here files come from outside, and are read as they are in service: by processes of their own."""


BOUNDARY = b"----kvasir"


def part(name: str | bytes, data: bytes, *, field: str = "files") -> bytes:
    name = name if isinstance(name, bytes) else name.encode("utf-8", "surrogatepass")
    head = b'Content-Disposition: form-data; name="' + field.encode() + b'"; filename="' + name + b'"\r\n'
    return b"--" + BOUNDARY + b"\r\n" + head + b"Content-Type: text/plain\r\n\r\n" + data + b"\r\n"


END = b"--" + BOUNDARY + b"--\r\n"
MULTIPART = {"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}


async def send(browser: httpx2.AsyncClient, body: bytes, kb: str = "kb") -> httpx2.Response:
    return await browser.post(f"/api/v1/kbs/{kb}/documents", content=body, headers=MULTIPART)


@pytest.fixture
async def anna(site: Site) -> httpx2.AsyncClient:
    """An owner, and a knowledge base `kb`."""
    await site.kvasir.knowledge.create("kb")
    return await site.person("anna", Role.OWNER)


def _tree(top: Path) -> set[str]:
    return {str(path) for path in top.rglob("*")}


# ---------------------------------------------------------------- file names (1, 4, 5)
EVIL_NAMES = [
    "../../evil.txt", "/etc/cron.d/evil", "..\\..\\evil.txt", "C:\\windows\\evil.txt", "\\\\host\\share\\evil.txt",
    "....//....//evil.txt", "a/../../../evil.txt", "evil\x00.txt", "a\u202etxt.exe", "a\u200bb.txt", "CON.txt", "aux",
    "evil.txt.", "evil.txt ", "a\x1b[31mb.txt", "~/.ssh/authorized_keys", "%2e%2e%2fevil.txt", "${HOME}.txt", "-rf",
    "<img src=x onerror=alert(1)>.txt", "a\ud800b.txt",
]  # fmt: skip


async def test_a_file_name_never_becomes_a_path(
    site: Site, anna: httpx2.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    before = {entry for entry in _tree(tmp_path) if not entry.startswith(str(tmp_path / "data"))}
    for n, name in enumerate(EVIL_NAMES):
        data = b"text %d" % n
        response = await send(anna, part(name, data) + END)
        assert response.status_code == 202, response.text
        [document] = response.json()["documents"]
        assert document["name"].isprintable()
        assert ".." not in document["name"].split("/")
        download = await anna.get(f"/api/v1/documents/{document['id']}/original")
        assert download.content == data
        assert download.headers["content-disposition"].startswith("attachment; filename=")
    after = {entry for entry in _tree(tmp_path) if not entry.startswith(str(tmp_path / "data"))}
    assert after == before
    blobs = [path.name for path in (tmp_path / "data" / "blobs").rglob("*") if path.is_file()]
    assert len(blobs) == len(EVIL_NAMES)
    assert all(re.fullmatch("[0-9a-f]{64}", name) for name in blobs)


async def test_a_file_without_a_name_is_refused(anna: httpx2.AsyncClient) -> None:
    for name in ("", "/", "..", "../..", "\\", "\x00"):
        assert (await send(anna, part(name, b"x") + END)).status_code == 422


NAMES = [
    'a"b.txt',
    "a\r\nset-cookie: x=1.txt",
    "a;b.txt",
    "报告 2026.pdf",
    "a%0d%0ab.txt",
    "a\\b.txt",
    "é.txt",
    "a\u202eb",
    "",
    "x" * 500,
]


def test_a_download_header_holds_one_name_and_nothing_else() -> None:
    for name in NAMES:
        header = attachment(name)
        assert re.fullmatch(r"attachment; filename=\"[A-Za-z0-9 ._()-]+\"; filename\*=UTF-8''[A-Za-z0-9._~%-]+", header)
        assert all(char not in header for char in "\r\n\x00")


async def test_twins_of_a_name_are_documents_of_their_own(site: Site, anna: httpx2.AsyncClient) -> None:
    names = ["Report.txt", "report.txt", "caf\u00e9.txt", "cafe\u0301.txt", "a/b.txt", "b.txt"]
    body = b"".join(part(name, f"text of {n}".encode()) for n, name in enumerate(names))
    documents = (await send(anna, body + END)).json()["documents"]
    assert len({document["id"] for document in documents}) == len(names)
    for n, document in enumerate(sorted(documents, key=lambda d: names.index(d["name"]))):
        found = await anna.get(f"/api/v1/documents/{document['id']}/original")
        assert found.content == f"text of {n}".encode()


# ---------------------------------------------------------------- names of knowledge bases (2)
EVIL_KBS = ["..\\\\kb", "..", ".", "/abs", "a/b", "", " ", "x" * 10_000, "a\x00b", "a\nb", "<script>", "a'b", 'a"b',
            "a..b", "\u202ea", "%2e", "a;b", "a\ud800"]  # fmt: skip


async def test_a_strange_name_for_a_knowledge_base_is_refused(site: Site, anna: httpx2.AsyncClient) -> None:
    for name in EVIL_KBS:
        body = json.dumps({"name": name})
        response = await anna.post("/api/v1/kbs", content=body, headers={"content-type": "application/json"})
        assert response.status_code == 422, name
        reached = await anna.get(f"/api/v1/kbs/{quote(name.encode('utf-8', 'replace'), safe='')}/documents")
        assert reached.status_code in (404, 405), name
    assert [kb.name for kb in await site.kvasir.knowledge.list()] == ["kb"]


# ---------------------------------------------------------------- ids (3, 43, 45)
_GUESSES = r"""
../../kvasir.db ..%2f..%2fkvasir.db %2e%2e%2f%2e%2e%2fetc%2fpasswd /etc/passwd file:///etc/passwd 0 -1 1 1' OR '1'='1
1;DROP_TABLE_documents %00 a%00b null undefined {} [] ../ ....// %25%30%30 * % ' " \ ${x} {{7*7}} %n <x>
"""
GUESSES = [
    *_GUESSES.split(),
    "0" * 32,
    "f" * 32,
    "F" * 32,
    "0" * 31,
    "0" * 33,
    "g" * 32,
    "_" * 32,
    "\u0660" * 32,
    "x" * 5000,
]


async def test_a_guessed_id_finds_nothing(anna: httpx2.AsyncClient) -> None:
    nouns = ("documents/{}/original", "documents/{}/chunks", "jobs/{}/events", "conversations/{}")
    for guess in GUESSES:
        for noun in (*nouns, "conversations/{}/export.md"):
            response = await anna.get("/api/v1/" + noun.format(guess if "%" in guess else quote(guess, safe="")))
            assert response.status_code == 404, (noun, guess)
            assert "sql" not in response.text.lower()


async def test_a_search_text_is_only_text(site: Site, anna: httpx2.AsyncClient) -> None:
    await send(anna, part("plain.txt", b"x") + END)
    for text in ("' OR 1=1 --", "%", "_", "\\", "%' ESCAPE '", "\x00", "LAI\x00", "x\ud7ffy", "🦄", "x" * 200):
        response = await anna.get("/api/v1/kbs/kb/documents", params={"text": text})
        assert response.status_code == 200
        assert response.json()["total"] == (1 if text.startswith(("\x00", "LAI")) else 0), text


async def test_only_known_orders_and_sizes_of_pages(anna: httpx2.AsyncClient) -> None:
    for query in ("limit=0", "limit=501", "limit=x", "offset=-1", "offset=1e9", "status=1;DROP", "status=" + "x" * 99):
        assert (await anna.get(f"/api/v1/kbs/kb/documents?{query}")).status_code == 422


async def test_ids_and_tokens_cannot_be_guessed(site: Site, anna: httpx2.AsyncClient) -> None:
    body = b"".join(part(f"{n}.txt", b"%d" % n) for n in range(50))
    ids = [document["id"] for document in (await send(anna, body + END)).json()["documents"]]
    assert len(set(ids)) == 50
    for column in set(range(32)) - {12, 16}:  # all but the version and variant of a random UUID
        assert len({item[column] for item in ids}) > 1
    for path in [*Path("admin").rglob("*.py"), *Path("core").rglob("*.py")]:
        if path.name == "scripted.py":  # what it takes by chance is faults
            continue
        assert not re.search(r"\buuid1\b|^import random|^from random", path.read_text("utf-8"), re.MULTILINE), path


# ---------------------------------------------------------------- uploads that never end, or break (20-22)
@asynccontextmanager
async def served(site: Site) -> AsyncIterator[int]:
    """The site on a real server; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = uvicorn.Server(config_of(site.app))
        task = asyncio.create_task(running._serve([listener]))
        yield listener.getsockname()[1]
        running.should_exit = True
        await task


class Lag:
    """The longest time for which the event loop did nothing else."""

    async def __aenter__(self) -> Lag:
        self.worst = 0.0
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            self.worst = max(self.worst, time.perf_counter() - before - 0.005)


STORMS = {
    "10k parts": b"".join(part(f"{n}.txt", b"x") for n in range(10_000)) + END,
    "10k fields": b"".join(part(f"{n}.txt", b"x", field="other") for n in range(10_000)) + END,
    "junk before": b"\r\n" * 500_000 + part("a.txt", b"x") + END,
    "junk before 2": b"x" * 1_000_000 + part("a.txt", b"x") + END,
    "junk in a field": part("a.txt", b"x" * 1_000_000, field="other") + END,
    "no end": part("a.txt", b"x"),
    "no boundary": b"hello",
    "empty": b"",
    "headers without end": b"--" + BOUNDARY + b"\r\n" + b"X: y\r\n" * 100_000,
    "a header of 1 MB": b"--" + BOUNDARY + b"\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\nx\r\n" + END,
    "bad header": b"--" + BOUNDARY + b"\r\n\x00\xff: y\r\n\r\nx\r\n" + END,
}


async def _storm(raw: httpx2.AsyncClient, body: bytes) -> tuple[int, float, float]:
    """Status, seconds until it came, and the longest lag of the event loop meanwhile."""
    async with Lag() as lag:
        started = time.perf_counter()
        try:
            status = (await raw.post("/api/v1/kbs/kb/documents", content=body)).status_code
        except (httpx2.WriteError, httpx2.RemoteProtocolError, httpx2.ReadError):
            status = 400  # it hung up on us while we were still talking
        return status, time.perf_counter() - started, lag.worst


async def test_a_storm_of_parts_is_refused_at_once(site: Site, anna: httpx2.AsyncClient) -> None:
    async with served(site) as port:
        base = f"http://127.0.0.1:{port}"
        cookies = {"kvasir_session": anna.cookies["kvasir_session"]}
        async with httpx2.AsyncClient(base_url=base, headers={"origin": base} | MULTIPART, cookies=cookies) as raw:
            for storm, body in STORMS.items():
                tries = [await _storm(raw, body) for _ in range(3)]  # the machine may be busy with other things
                assert all(400 <= status < 500 for status, _, _ in tries), storm
                assert min(took for _, took, _ in tries) < 1.0, storm
                assert min(lag for _, _, lag in tries) < 0.1, storm
    assert (await site.kvasir.knowledge.documents("kb"))[1] == 0


async def test_only_a_multipart_form_is_an_upload(anna: httpx2.AsyncClient) -> None:
    form = "multipart/form-data"
    kinds = ("", "text/plain", "application/json", form, f"{form}; boundary=", "multipart/mixed; boundary=x")
    for kind in (*kinds, f"{form}; boundary={'x' * 300}"):
        response = await anna.post("/api/v1/kbs/kb/documents", content=b"x", headers={"content-type": kind})
        assert response.status_code == 415, kind


async def test_a_file_past_the_limit_is_refused_alone(open_site: OpenSite) -> None:
    async with open_site(ingest={"max_file_mb": 1}) as site:
        await site.kvasir.knowledge.create("kb")
        anna = await site.person("anna", Role.OWNER)
        body = part("small.txt", b"x") + part("large.txt", b"y" * (1 << 20) + b"y") + part("last.txt", b"z")
        answer = (await send(anna, body + END)).json()
        assert [document["name"] for document in answer["documents"]] == ["small.txt", "last.txt"]
        assert [item["name"] for item in answer["refused"]] == ["large.txt"]
        assert "1 MB" in answer["refused"][0]["reason"]
        assert not list((site.kvasir.settings.data_dir / "blobs" / "partial").iterdir())


async def test_a_full_knowledge_base_takes_no_more(open_site: OpenSite) -> None:
    async with open_site(ingest={"max_kb_mb": 1, "max_documents": 3}) as site:
        await site.kvasir.knowledge.create("kb")
        anna = await site.person("anna", Role.OWNER)
        large = b"x" * (600 << 10)
        assert (await send(anna, part("1.txt", large) + END)).status_code == 202
        assert (await send(anna, part("2.txt", large + b"2") + END)).status_code == 413
        assert (await send(anna, b"".join(part(f"{n}.txt", b"%d" % n) for n in range(9)) + END)).status_code == 413
        assert (await site.kvasir.knowledge.documents("kb"))[1] == 1


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(site: Site, anna: httpx2.AsyncClient) -> None:
    async with served(site) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        cookie = f"kvasir_session={anna.cookies['kvasir_session']}"
        head = (
            f"POST /api/v1/kbs/kb/documents HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\norigin: http://127.0.0.1:{port}\r\n"
        )
        head += f"cookie: {cookie}\r\ncontent-type: {MULTIPART['content-type']}\r\ncontent-length: 999999\r\n\r\n"
        writer.write(head.encode() + part("a.txt", b"x" * 100_000))
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.close()
        await asyncio.sleep(0.1)
    assert (await site.kvasir.knowledge.documents("kb"))[1] == 0
    blobs = site.kvasir.settings.data_dir / "blobs"
    assert not list((blobs / "partial").glob("*"))


async def test_the_same_name_raced_keeps_one_whole_file(site: Site, anna: httpx2.AsyncClient) -> None:
    bodies = [(b"%02d" % n) * 5000 for n in range(20)]
    answers = await asyncio.gather(*[send(anna, part("same.txt", body) + END) for body in bodies])
    assert {answer.status_code for answer in answers} == {202}
    [document] = (await anna.get("/api/v1/kbs/kb/documents")).json()["items"]
    assert (await anna.get(f"/api/v1/documents/{document['id']}/original")).content in bodies


async def test_an_upload_is_never_held_in_memory(site: Site, anna: httpx2.AsyncClient) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield part("large.bin", b"")[:-2]
        for n in range(384):
            yield bytes([n % 256]) * 65536
        yield b"\r\n" + END

    async with served(site) as port:
        base = f"http://127.0.0.1:{port}"
        cookies = {"kvasir_session": anna.cookies["kvasir_session"]}
        async with httpx2.AsyncClient(base_url=base, headers={"origin": base} | MULTIPART, cookies=cookies) as raw:
            tracemalloc.start()
            response = await raw.post("/api/v1/kbs/kb/documents", content=body())
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert response.json()["documents"][0]["size"] == 384 * 65536
    assert peak < 6 << 20


# ---------------------------------------------------------------- when the machine fails (69, 74, 76)
async def test_a_full_disk_refuses_uploads_and_serves_the_rest(site: Site, anna: httpx2.AsyncClient) -> None:
    [kept] = (await send(anna, part("kept.txt", b"kept") + END)).json()["documents"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        full = await send(anna, part("large.txt", b"x" * (2 << 20)) + END)
        assert full.status_code == 507
        assert full.headers["content-type"] == "application/problem+json"
        assert (await anna.get(f"/api/v1/documents/{kept['id']}/original")).content == b"kept"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((site.kvasir.settings.data_dir / "blobs" / "partial").iterdir())
    assert (await send(anna, part("large.txt", b"x" * (2 << 20)) + END)).status_code == 202


@pytest.mark.sqlite("the lock of its file")
async def test_while_another_process_writes_one_reads_on_and_loses_nothing(
    site: Site, anna: httpx2.AsyncClient
) -> None:
    other = sqlite3.connect(site.kvasir.settings.data_dir / "kvasir.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(anna.post("/api/v1/kbs", json={"name": "new"}))
    async with asyncio.timeout(5):
        assert (await anna.get("/api/v1/kbs")).status_code == 200
        assert (await anna.get("/api/v1/me")).status_code == 200
    assert not writing.done()
    other.execute("ROLLBACK")
    other.close()
    assert (await writing).status_code == 201


async def test_a_database_that_fails_is_said_without_its_words(site: Site, anna: httpx2.AsyncClient) -> None:
    for table, path in (("knowledge_bases", "/api/v1/kbs"), ("sessions", "/api/v1/me")):
        async with site.kvasir.db.session() as session:
            await session.execute(sql(f"ALTER TABLE {table} RENAME TO lost_{table}"))
        response = await anna.get(path)
        assert response.status_code == 503
        assert "retry-after" in response.headers
        assert "table" not in response.text
        assert "relation" not in response.text
        assert "kvasir.db" not in response.text


async def test_passwords_are_hashed_beside_the_event_loop() -> None:
    threads: set[int] = set()

    class Watched(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> bool:  # type: ignore[override]  # as it is called
            threads.add(threading.get_ident())
            return super().verify(hash, password)

    passwords = Passwords(Watched(time_cost=1, memory_cost=64, parallelism=1))
    await asyncio.gather(*[passwords.verify(None, "x" * 20) for _ in range(20)])
    passwords.close()
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


# ---------------------------------------------------------------- who may what (39-42)
async def test_what_one_may_not_see_is_not_there(site: Site, anna: httpx2.AsyncClient) -> None:
    """A private knowledge base, and everything in it, for a guest."""
    [document] = (await send(anna, part("a.txt", b"x") + END)).json()["documents"]
    await site.kvasir.knowledge.change("kb", private=True)
    object.__setattr__(site.kvasir.settings.web, "anonymous", True)
    guest = site.client()
    for method, path in (
        ("GET", "/api/v1/kbs/kb/documents"),
        ("POST", "/api/v1/kbs/kb/documents"),
        ("DELETE", "/api/v1/kbs/kb"),
        ("GET", f"/api/v1/documents/{document['id']}/original"),
        ("GET", f"/api/v1/documents/{document['id']}/chunks"),
        ("DELETE", f"/api/v1/documents/{document['id']}"),
    ):
        there, nowhere = await guest.request(method, path), await guest.request(method, path.replace("kb/", "nokb/"))
        assert there.status_code == 404, path
        if "kb/" in path:
            assert there.text.replace("«kb»", "«nokb»") == nowhere.text


async def test_the_jobs_of_what_one_may_not_see_are_not_there(site: Site, anna: httpx2.AsyncClient) -> None:
    ticket = (await send(anna, part("a.txt", b"x") + END)).json()
    await site.kvasir.knowledge.change("kb", private=True)
    object.__setattr__(site.kvasir.settings.web, "anonymous", True)
    async with asyncio.timeout(5):
        assert (await site.client().get(f"/api/v1/jobs/{ticket['job_id']}/events")).status_code == 404


async def test_each_role_may_do_its_part_and_no_more(site: Site, anna: httpx2.AsyncClient) -> None:
    allowed = {
        Role.VIEWER: (200, 403, 403, 403, 403),
        Role.REVIEWER: (200, 403, 403, 403, 403),
        Role.EDITOR: (200, 202, 204, 403, 403),
        Role.ADMIN: (200, 202, 204, 201, 204),
    }
    for role, wanted in allowed.items():
        [document] = (await send(anna, part(f"{role}.txt", role.encode()) + END)).json()["documents"]
        person = await site.person(role.value, role)
        got = (
            (await person.get("/api/v1/kbs/kb/documents")).status_code,
            (await send(person, part(f"by {role}.txt", b"x") + END)).status_code,
            (await person.delete(f"/api/v1/documents/{document['id']}")).status_code,
            (await person.post("/api/v1/kbs", json={"name": f"of {role}"})).status_code,
            (await person.delete(f"/api/v1/kbs/of {role}" if role is Role.ADMIN else "/api/v1/kbs/kb")).status_code,
        )
        assert got == wanted, role


async def test_fields_that_nobody_asked_for_are_refused(site: Site, anna: httpx2.AsyncClient) -> None:
    token = {"token": "x", "name": "eve", "password": PASSWORD}
    for path, body in (
        ("/api/v1/login", {"name": "anna", "password": PASSWORD, "role": "owner"}),
        ("/api/v1/setup", token | {"role": "owner"}),
        ("/api/v1/kbs", {"name": "x", "id": "0" * 32}),
        ("/api/v1/kbs", {"name": "x", "live_generation_id": "0" * 32}),
    ):
        assert (await anna.post(path, json=body)).status_code == 422, path


# ---------------------------------------------------------------- what is shown (18, 44, 51)
_PAYLOADS = r"""
<script>alert(1)</script>
<img src=x onerror=alert(1)>
<svg/onload=alert(1)>
</script><script>alert(1)</script>
<a href=javascript:alert(1)>x</a>
<iframe srcdoc='<script>alert(1)</script>'>
<math><mtext></p><script>alert(1)</script>
<style>@import 'http://evil.example'</style>
<base href=//evil.example>
<form action=//evil.example><input></form>
<!--<img src='--><img src=x onerror=alert(1)>
<a href="data:text/html,x">y</a>
<details open ontoggle=alert(1)>
<x
onerror=alert(1)>
\<script>alert(1)\</script>
&lt;script&gt;alert(1)&lt;/script&gt;
&#60;script&#62;
# <script>alert(1)</script>
> <object data=x>
* <embed src=x>
1. <meta http-equiv=refresh content=0>
`</code><script>alert(1)</script>`
http://evil.example/x
<http://evil.example>
[x](javascript:alert(1))
[x]( javascript:alert(1))
[x](vbscript:x)
[x](data:text/html;base64,PHNjcmlwdD4=)
[x](http://evil.example)
![x](http://evil.example/?q=1)
![x](data:image/svg+xml,<svg>)
"""
PAYLOADS = [
    *_PAYLOADS.strip().split("\n"),
    "[x][1]\n\n[1]: http://evil.example",
    "```\n</pre><script>alert(1)</script>\n```",
    "| <script>alert(1)</script> |\n|---|\n| <b onclick=x> |",
]
_TAGS = re.compile(r"<\s*([a-zA-Z!/?][^>]*)>?")
_HARMLESS = {
    "p",
    "h1",
    "pre",
    "code",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "blockquote",
    "ul",
    "ol",
    "li",
    "em",
    "strong",
    "s",
    "hr",
    "br",
}


def test_markdown_becomes_html_that_can_do_nothing() -> None:
    for payload in PAYLOADS:
        for text in (payload, f"before {payload} after", f"**{payload}**", payload * 20):
            html = to_html(text)
            for tag in _TAGS.findall(html):
                assert tag.strip("/ ").split()[0] in _HARMLESS, html
            assert not re.search(r"<[^>]*\s(?:on\w+|href|src|style)\s*=", html), html


def test_an_allowed_link_leads_out_without_telling_where_from() -> None:
    html = to_html("[a](https://ok.example/x) [b](https://no.example/)", ["https://ok.example/x"])
    assert 'href="https://ok.example/x" rel="noopener noreferrer nofollow"' in html
    assert "href" not in html.replace('href="https://ok.example/x"', "")


async def test_an_original_is_only_ever_saved(anna: httpx2.AsyncClient) -> None:
    for name in ("page.html", "picture.svg", "notes.md", "script.js", "data.xml"):
        data = f"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>{name}</script></svg>".encode()
        [document] = (await send(anna, part(name, data) + END)).json()["documents"]
        response = await anna.get(f"/api/v1/documents/{document['id']}/original")
        assert response.content == data
        assert response.headers["content-type"] == "application/octet-stream"
        assert response.headers["content-disposition"].startswith("attachment")
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert response.headers["cache-control"] == "no-store"


# ---------------------------------------------------------------- logs (48)
async def test_no_secret_and_no_question_comes_into_the_log(
    site: Site, anna: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    for logger in ("admin", "core", "uvicorn", "asyncio"):
        caplog.set_level("INFO", logger)
    token = await site.kvasir.accounts.setup_token() or "no-token"
    await anna.get(f"/setup?token={token}secret")
    await anna.post("/api/v1/login", json={"name": "anna", "password": "planted-password"})
    await anna.get("/api/v1/nothing", headers={"authorization": "Bearer kv_planted-key"})
    await anna.get("/x\r\ninjected: line".replace("\r\n", "%0d%0a"))
    logged = "\n".join(
        record.getMessage() for record in caplog.records if record.name.split(".")[0] in ("admin", "core", "uvicorn")
    )
    for secret in ("planted-password", "planted-key", f"{token}secret", anna.cookies["kvasir_session"], PASSWORD):
        assert secret not in logged
    assert "\ninjected" not in logged
