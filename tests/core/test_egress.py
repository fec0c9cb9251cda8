"""The way out: what it refuses to reach, what it follows, and what it cuts off."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from core import egress
from core.errors import Gone, KvasirError, NotAllowed, TooLarge, Unavailable, UserError

pytestmark = pytest.mark.anyio

MB = 1 << 20
Respond = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


class Sink:
    """A web server on loopback that remembers who called."""

    def __init__(self, respond: Respond) -> None:
        self.requests: list[str] = []
        self.port = 0
        self._respond = respond

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.requests.append(head)
            await self._respond(head.split(" ")[1], writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has had enough
        finally:
            writer.close()


@asynccontextmanager
async def sink(respond: Respond) -> AsyncIterator[Sink]:
    made = Sink(respond)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


def reply(body: bytes, kind: str = "text/html; charset=utf-8", *headers: str, status: str = "200 OK") -> Respond:
    lines = [
        f"HTTP/1.1 {status}",
        f"content-type: {kind}",
        f"content-length: {len(body)}",
        "connection: close",
        *headers,
    ]

    async def respond(_path: str, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    return respond


async def get(url: str, *, max_bytes: int = MB, seconds: float = 5, allow_private: bool = True) -> egress.Fetched:
    return await egress.fetch(url, max_bytes=max_bytes, timeout=seconds, allow_private=allow_private)


# ---------------------------------------------------------------- where it does not go
_PRIVATE = """
http://127.0.0.1/ http://127.1/ http://127.255.255.254/ http://localhost/ http://LOCALHOST/ http://0.0.0.0/ http://0/
http://2130706433/ http://0x7f000001/ http://0x7f.1/ http://0177.0.0.1/ http://017700000001/ http://127.0.1/
http://①②⑦.⓪.⓪.①/ http://127。0。0。1/ http://１２７.0.0.1/ http://127.0.0.1./
http://10.0.0.1/ http://10.255.255.255/ http://172.16.0.1/ http://172.31.255.1/ http://192.168.1.1/ http://3232235777/
http://169.254.169.254/latest/meta-data/ http://0xa9fea9fe/ http://2852039166/ http://100.100.100.200/ http://168.63.129.16/
http://192.0.0.192/ http://100.64.0.1/ http://198.18.0.1/ http://192.0.2.1/ http://240.0.0.1/ http://255.255.255.255/
http://224.0.0.1/ http://192.88.99.1/
http://[::1]/ http://[::]/ http://[0:0:0:0:0:0:0:1]/ http://[::ffff:127.0.0.1]/ http://[::ffff:7f00:1]/ http://[::127.0.0.1]/
http://[64:ff9b::7f00:1]/ http://[64:ff9b::127.0.0.1]/ http://[64:ff9b:1::a00:1]/ http://[2002:7f00:1::]/ http://[2002:a00:1::]/
http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/ http://[fe80::1]/ http://[fc00::1]/ http://[fd00:ec2::254]/ http://[fec0::1]/
http://[ff02::1]/ http://[2001:db8::1]/ http://[2606:4700::5efe:7f00:1]/ http://[::1%25lo]/ http://[fe80::1%25eth0]/
"""
PRIVATE = _PRIVATE.split()

_ODD = r"""
file:///etc/passwd gopher://127.0.0.1/ ftp://example.org/ dict://127.0.0.1:11211/ jar:http://127.0.0.1!/
data:text/html,x javascript:alert(1) //127.0.0.1/ /etc/passwd http: http:// http:/// http:///127.0.0.1/
https:127.0.0.1 HTTP:\\127.0.0.1\ http://good\@127.0.0.1/ http://good@127.0.0.1/ http://user:pass@127.0.0.1/
http://127.0.0.1\@good/ http://good%5C@127.0.0.1/ http://127.0.0.1:99999/ http://127.0.0.1:0/ http://127.0.0.1:-1/
http://127.0.0.1:x/ http://exa%6dple.org/ http://[::1/ http://-x/ http://<x>/ http://x"y/ http://{x}/
"""
_BLANKS = (
    "http://a b/",
    "http://127.0.0.1\t/",
    "http://127.0.0.1\n.org/",
    "http://127.0.0.1\x00.org/",
    " http://x/",
    "",
)
ODD = [*_ODD.split(), *_BLANKS]


@pytest.mark.parametrize("url", PRIVATE)
async def test_no_form_of_a_private_address_is_reached(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", _connected)
    monkeypatch.setattr("httpx2.AsyncClient.stream", _connected)
    with pytest.raises((NotAllowed, UserError, Unavailable)) as refused:
        await get(url, allow_private=False)
    assert "\n" not in str(refused.value)


def _connected(*_args: object, **_options: object) -> None:
    raise AssertionError("it went there")


@pytest.mark.parametrize("url", ODD)
async def test_odd_addresses_are_refused_even_where_private_ones_are_not(url: str) -> None:
    with pytest.raises(UserError):
        await get(url, allow_private=True)


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_the_public_internet_is_public(address: str) -> None:
    assert egress.is_public(ipaddress.ip_address(address))


async def test_loopback_is_reached_only_when_allowed() -> None:
    async with sink(reply(b"<p>hello")) as server:
        with pytest.raises(NotAllowed):
            await get(f"http://127.0.0.1:{server.port}/a", allow_private=False)
        assert server.requests == []
        found = await get(f"http://127.0.0.1:{server.port}/a/b?c=d#e")
    assert (found.data, found.media_type) == (b"<p>hello", "text/html")
    assert found.url == f"http://127.0.0.1:{server.port}/a/b?c=d"


async def test_a_name_with_one_private_address_among_public_ones_is_refused() -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        return ["93.184.215.14", "127.0.0.1"]

    with pytest.raises(NotAllowed):
        await egress.fetch("http://rebound.example/", max_bytes=MB, timeout=5, resolve=resolve)


async def test_the_address_that_was_checked_is_the_one_connected() -> None:
    """DNS rebinding: the name is looked up once, and never again by whoever connects."""
    answers = iter([["127.0.0.1"], ["203.0.113.9"]])

    async def resolve(_host: str, _port: int) -> list[str]:
        return next(answers)

    async with sink(reply(b"x")) as server:
        url = f"http://rebound.example:{server.port}/x"
        await egress.fetch(url, max_bytes=MB, timeout=5, allow_private=True, resolve=resolve)
        assert f"host: rebound.example:{server.port}" in server.requests[0].lower()


# ---------------------------------------------------------------- redirects
def redirect(target: str) -> Respond:
    return reply(b"", "text/plain", f"location: {target}", status="302 Found")


async def test_every_hop_is_checked_again() -> None:
    """The first hop's name resolves to the sink's public face; the second leads to the machine itself."""
    seen: list[str] = []

    async def resolve(host: str, _port: int) -> list[str]:
        seen.append(host)
        return ["127.0.0.1"] if host == "public.example" else await egress.resolve_host(host, 80)

    async with sink(reply(b"secret")) as inner, sink(redirect(f"http://127.0.0.1:{inner.port}/")) as outer:

        def public(address: egress.Address) -> bool:
            return seen == ["public.example"] or original(address)

        original = egress.is_public
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(egress, "is_public", public)
            url = f"http://public.example:{outer.port}/"
            with pytest.raises(NotAllowed):
                await egress.fetch(url, max_bytes=MB, timeout=5, resolve=resolve)
        assert len(outer.requests) == 1
        assert inner.requests == []


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "gopher://127.0.0.1/", "http://u:p@127.0.0.1/", "", "http://[::1"]
)
async def test_a_redirect_to_something_odd_is_refused(target: str) -> None:
    async with sink(redirect(target)) as server:
        with pytest.raises(KvasirError):
            await get(f"http://127.0.0.1:{server.port}/")
    assert len(server.requests) <= 1 + egress.MAX_HOPS


async def test_five_redirects_are_followed_and_no_more() -> None:
    async def respond(path: str, writer: asyncio.StreamWriter) -> None:
        left = int(path.strip("/"))
        await (redirect(f"/{left - 1}") if left else reply(b"there"))(path, writer)

    async with sink(respond) as server:
        assert (await get(f"http://127.0.0.1:{server.port}/5")).data == b"there"
        with pytest.raises(Unavailable):
            await get(f"http://127.0.0.1:{server.port}/6")


async def test_no_cookie_or_login_is_carried_from_hop_to_hop() -> None:
    async def respond(path: str, writer: asyncio.StreamWriter) -> None:
        await reply(b"", "text/plain", "set-cookie: a=b", "location: /2", status="302 Found")(path, writer)

    async with sink(respond) as server:
        with pytest.raises(Unavailable):
            await get(f"http://127.0.0.1:{server.port}/1")
    assert not any("cookie" in head.lower() or "authorization" in head.lower() for head in server.requests)


# ---------------------------------------------------------------- how much, how long
async def test_a_declared_size_past_the_limit_is_not_read() -> None:
    async def respond(_path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n")

    async with sink(respond) as server:
        with pytest.raises(TooLarge):
            await get(f"http://127.0.0.1:{server.port}/")


async def test_a_body_without_end_is_cut_at_the_limit() -> None:
    async def respond(_path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with sink(respond) as server:
        with pytest.raises(TooLarge):
            await get(f"http://127.0.0.1:{server.port}/")


async def test_a_gzip_bomb_is_cut_while_it_unpacks() -> None:
    bomb = gzip.compress(b"\0" * (200 * MB), 9)
    async with sink(reply(bomb, "text/html", "content-encoding: gzip")) as server:
        tracemalloc.start()
        with pytest.raises(TooLarge):
            await get(f"http://127.0.0.1:{server.port}/")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 8 * MB


async def test_gzip_is_read_and_other_packings_are_refused() -> None:
    text = b"hello " * 50_000
    async with sink(reply(gzip.compress(text), "text/html", "content-encoding: gzip")) as server:
        assert (await get(f"http://127.0.0.1:{server.port}/")).data == text
        assert "accept-encoding: gzip\r\n" in server.requests[0].lower()
    for coding, body in (("br", text), ("gzip, gzip", text), ("gzip", gzip.compress(text)[:-200]), ("gzip", b"no")):
        async with sink(reply(body, "text/html", f"content-encoding: {coding}")) as server:
            with pytest.raises(Unavailable):
                await get(f"http://127.0.0.1:{server.port}/")


async def test_a_body_that_drips_is_cut_in_time() -> None:
    async def respond(_path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with sink(respond) as server:
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await get(f"http://127.0.0.1:{server.port}/", seconds=0.4)
    assert time.monotonic() - started < 3


async def test_a_server_that_fails_is_said_to_fail() -> None:
    async with sink(reply(b"no", status="403 Forbidden")) as server:
        with pytest.raises(Unavailable, match="403"):
            await get(f"http://127.0.0.1:{server.port}/?secret=1")
    with pytest.raises(Unavailable):
        await get(f"http://127.0.0.1:{server.port}/")
    with pytest.raises(Unavailable, match="nowhere"):
        await egress.fetch("http://nowhere.invalid/", max_bytes=MB, timeout=5, resolve=_no_such_host)


async def _no_such_host(_host: str, _port: int) -> list[str]:
    raise OSError("no such host")


# ---------------------------------------------------------------- names
@pytest.mark.parametrize(
    ("url", "kind", "given", "name"),
    [
        ("https://example.org/", "text/html", "", "example.org/index.html"),
        ("https://example.org/a/b.html", "text/html", "", "example.org/a/b.html"),
        ("https://example.org/a/page.php", "text/html", "", "example.org/a/page.php.html"),
        ("https://example.org/notes.md", "text/plain", "", "example.org/notes.md"),
        ("https://example.org/get?id=3", "application/pdf", "报告.pdf", "example.org/报告-"),
        ("https://example.org/x", "", "..\\..\\evil.md", "example.org/evil.md"),
        ("https://example.org/%2e%2e/x", "text/plain", "", "example.org/x.txt"),
    ],
)
def test_a_page_gets_a_name_of_its_own(url: str, kind: str, given: str, name: str) -> None:
    made = egress.document_name(egress.parse(url), kind, given)
    assert made.startswith(name)
    assert ".." not in made


def test_pages_that_differ_in_their_query_differ_in_name() -> None:
    names = {egress.document_name(egress.parse(f"https://example.org/p?id={n}"), "text/html") for n in range(50)}
    assert len(names) == 50


# ---------------------------------------------------------------- what is fetched again, and from one's own network
async def test_what_has_not_changed_is_not_sent_again() -> None:
    async def respond(_path: str, writer: asyncio.StreamWriter) -> None:
        known = any('if-none-match: "v1"' in head.lower() for head in server.requests[-1:])
        head = (
            "HTTP/1.1 304 Not Modified" if known else "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2"
        )
        writer.write(f'{head}\r\netag: "v1"\r\nlast-modified: yesterday\r\nconnection: close\r\n\r\n'.encode())
        if not known:
            writer.write(b"hi")

    async with sink(respond) as server:
        url = f"http://127.0.0.1:{server.port}/a"
        first = await egress.fetch(url, max_bytes=MB, timeout=5, allow_private=True)
        assert (first.etag, first.modified, first.is_unchanged) == ('"v1"', "yesterday", False)
        known = (first.etag, first.modified)
        again = await egress.fetch(url, max_bytes=MB, timeout=5, allow_private=True, if_changed=known)
        assert (again.is_unchanged, again.data) == (True, b"")
        assert "if-modified-since: yesterday" in server.requests[-1].lower()


@pytest.mark.parametrize(("status", "is_gone"), [(404, True), (410, True), (403, False), (500, False), (304, False)])
async def test_what_is_gone_is_told_from_what_is_broken(status: int, is_gone: bool) -> None:
    async with sink(reply(b"", status=f"{status} No")) as server:
        with pytest.raises(Unavailable) as refused:
            await get(f"http://127.0.0.1:{server.port}/a")
    assert isinstance(refused.value, Gone) is is_gone


async def test_a_named_host_of_ones_own_network_leads_to_no_other_one() -> None:
    """Protection: each address on the way is looked at for itself."""
    async with sink(reply(b"secret")) as inner:
        moved = reply(b"", "text/html", f"location: http://localhost:{inner.port}/", status="302 Found")
        async with sink(moved) as outer, sink(reply(b"fine")) as good:
            named = {"127.0.0.1"}
            url = f"http://127.0.0.1:{good.port}/"
            assert (await egress.fetch(url, max_bytes=MB, timeout=5, private_hosts=named)).data == b"fine"
            with pytest.raises(NotAllowed):
                await egress.fetch(f"http://127.0.0.1:{outer.port}/", max_bytes=MB, timeout=5, private_hosts=named)
        assert inner.requests == []
