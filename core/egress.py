"""The one way out to addresses that people, documents or other sites name: it never reaches into a private network."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import re
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from email.message import Message
from functools import cache
from typing import Final, TypeAlias
from urllib.parse import unquote

import httpx2

from core.errors import BadStatus, Gone, NotAllowed, TooLarge, Unavailable, UserError
from core.texts import tell

Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"
Resolve: TypeAlias = Callable[[str, int], Awaitable[list[str]]]

MAX_HOPS: Final = 5
_MAX_URL: Final = 4096
_MAX_MARK: Final = 500
_NOTHING_THERE: Final = (404, 410)
_PIECE: Final = 1 << 16
_HEADERS: Final = {"accept": "*/*", "accept-encoding": "gzip", "user-agent": "kvasir"}

# What one URL parser takes for a path and another for a host: backslashes, blanks, controls. None of it may be there.
_GOOD_URL: Final = re.compile(r"https?://[^\s\\\x00-\x20\x7f<>\"^`{|}]+", re.IGNORECASE)
_GOOD_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,252})|[0-9a-f:.]{2,45}")

_GLOBAL_V6: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_TEREDO: Final = ipaddress.IPv6Network("2001::/32")
_REFUSED: Final = (
    ipaddress.ip_network("168.63.129.16/32"),  # a cloud's service for its own machines, at a public address
    ipaddress.ip_network("192.0.0.0/24"),  # protocols' own addresses, and another such service
    ipaddress.ip_network("192.88.99.0/24"),  # relays into 6to4
)
_SUFFIXES: Final[Mapping[str, str]] = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/plain": ".txt",
    "text/markdown": ".md",
    "text/csv": ".csv",
    "text/xml": ".xml",
    "application/xml": ".xml",
    "application/json": ".json",
    "application/pdf": ".pdf",
    "application/epub+zip": ".epub",
    "application/rtf": ".rtf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
}


@dataclass(frozen=True, slots=True)
class Fetched:
    url: str
    """Where it was in the end, after redirects."""
    data: bytes
    media_type: str
    """As the server says, without parameters; empty where it says nothing."""
    name: str
    """A document name made of the address, with a suffix that fits the media type."""
    etag: str = ""
    modified: str = ""
    """By what the server knows this version, if it says so; `if_changed` takes them the next time."""
    is_unchanged: bool = False
    """It is what was fetched before; there is no data then."""


async def fetch(
    url: str,
    *,
    max_bytes: int,
    timeout: float,  # noqa: ASYNC109  the whole of it, redirects and body too
    allow_private: bool = False,
    private_hosts: Collection[str] = (),
    resolve: Resolve | None = None,
    if_changed: tuple[str, str] = ("", ""),
) -> Fetched:
    """What is at `url`, following at most five redirects; `if_changed`: etag and time of what was fetched before.

    Raises UserError for an address that is none, NotAllowed for one inside a private network (unless `allow_private`,
    or its host is one of `private_hosts`), TooLarge past `max_bytes` decoded bytes, Gone where there is nothing (any
    more), BadStatus for other refusals, Unavailable where it cannot be had within `timeout` seconds in all.
    """
    way = _Way(max_bytes, allow_private, private_hosts, resolve or resolve_host, _conditions(*if_changed))
    try:
        async with asyncio.timeout(timeout):
            return await _follow(url, way)
    except TimeoutError as error:
        raise Unavailable(tell("fetch_slow", url=_shown(url), seconds=f"{timeout:g}")) from error
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, zlib.error) as error:
        reason = str(error) or type(error).__name__
        raise Unavailable(tell("fetch_failed", url=_shown(url), reason=reason)) from error


@dataclass(frozen=True, slots=True)
class _Way:
    """How an address is fetched, through all redirects."""

    max_bytes: int
    allow_private: bool
    private_hosts: Collection[str]
    resolve: Resolve
    conditions: Mapping[str, str]

    async def address(self, url: httpx2.URL) -> Address:
        return await _checked(url, self.allow_private or url.host in self.private_hosts, self.resolve)


async def address_of(url: str, *, private_hosts: Collection[str] = (), resolve: Resolve | None = None) -> Address:
    """The address of the host, looked up once and checked: for programs that are to connect to just that one.

    Raises as `fetch`.
    """
    return await _Way(0, False, private_hosts, resolve or resolve_host, {}).address(parse(url))


def _conditions(etag: str, modified: str) -> dict[str, str]:
    given = {"if-none-match": etag, "if-modified-since": modified}
    return {name: value for name, value in given.items() if value}


@cache
def trusted(*, as_environment: bool = True) -> ssl.SSLContext:
    """Whose certificates are believed, for any number of clients: reading them takes longer than many an answer.

    `as_environment`: those that SSL_CERT_FILE or SSL_CERT_DIR name, where one is set.
    """
    return httpx2.create_ssl_context(trust_env=as_environment)


async def _follow(url: str, way: _Way) -> Fetched:
    async with httpx2.AsyncClient(
        trust_env=False, verify=trusted(as_environment=False), follow_redirects=False, timeout=None, headers=_HEADERS
    ) as client:
        target = parse(url)
        for _ in range(MAX_HOPS + 1):
            address = await way.address(target)
            client.cookies.clear()
            async with client.stream(
                "GET",
                target.copy_with(host=str(address)),
                headers={"host": target.netloc.decode("ascii"), **way.conditions},
                extensions={"sni_hostname": target.raw_host.decode("ascii")},
            ) as response:
                if response.status_code == 304 and way.conditions:
                    return Fetched(str(target), b"", "", "", is_unchanged=True)
                if response.is_redirect:
                    target = parse(str(target.join(response.headers.get("location", ""))))
                    continue
                _check_status(response, target)
                data = await _read(response, way.max_bytes, target)
                return _fetched(target, response.headers, data)
    raise Unavailable(tell("fetch_hops", url=_shown(url), most=MAX_HOPS))


def _check_status(response: httpx2.Response, url: httpx2.URL) -> None:
    status = response.status_code
    if status != 200:
        sentence = tell("fetch_status", url=_shown(str(url)), status=status)
        raise (Gone if status in _NOTHING_THERE else BadStatus)(sentence, status)


def parse(url: str) -> httpx2.URL:
    """The address, by the only parser that is ever used on it. Raises UserError where anything about it is odd."""
    bad = UserError(tell("fetch_bad_url", url=_shown(url)))
    if len(url) > _MAX_URL or not _GOOD_URL.fullmatch(url):
        raise bad
    try:
        parsed = httpx2.URL(url)
        host = parsed.raw_host.decode("ascii")
    except (httpx2.InvalidURL, ValueError) as error:
        raise bad from error
    if parsed.scheme not in ("http", "https") or parsed.userinfo or not _GOOD_HOST.fullmatch(host):
        raise bad
    if parsed.port is not None and not 1 <= parsed.port <= 65535:
        raise bad
    return parsed.copy_with(fragment=None)


async def resolve_host(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(item[4][0]) for item in found]


async def _checked(url: httpx2.URL, allow_private: bool, resolve: Resolve) -> Address:
    """The address to connect to: looked up once, checked, and that very one is used."""
    host = url.raw_host.decode("ascii")
    try:
        found = await resolve(host, url.port or (443 if url.scheme == "https" else 80))
    except (OSError, UnicodeError) as error:
        raise Unavailable(tell("fetch_unknown_host", host=host)) from error
    addresses = [ipaddress.ip_address(item) for item in found if "%" not in item or allow_private]
    if not found or len(addresses) != len(found):
        raise NotAllowed(tell("fetch_private", host=host))
    if not allow_private and not all(is_public(address) for address in addresses):
        raise NotAllowed(tell("fetch_private", host=host))
    return addresses[0]


def is_public(address: Address) -> bool:
    """Whether the address, and any other that it stands for, is one of the public internet."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = _unwrapped(address)
        if inner is not None:
            return is_public(inner)
        if address not in _GLOBAL_V6 or address in _TEREDO or _is_isatap(address):
            return False
    is_special = address.is_multicast or address.is_reserved or any(address in network for network in _REFUSED)
    return address.is_global and not is_special


def _unwrapped(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address inside a mapped, NAT64 or 6to4 one."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _is_isatap(address: ipaddress.IPv6Address) -> bool:
    return (int(address) >> 32) & 0xFDFFFFFF == 0x00005EFE


async def _read(response: httpx2.Response, max_bytes: int, url: httpx2.URL) -> bytes:
    too_large = TooLarge(tell("fetch_large", url=_shown(str(url)), most=f"{max_bytes / (1 << 20):g}"))
    declared = response.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > max_bytes:
        raise too_large
    body = bytearray()
    async for piece in _decoded(response):
        body += piece
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


async def _decoded(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The body's bytes, unpacked by us in pieces of bounded size: a library unpacks all that a bomb holds at once."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        async for raw in response.aiter_raw(_PIECE):
            yield raw
        return
    if encoding not in ("gzip", "x-gzip"):
        raise Unavailable(tell("fetch_encoding", encoding=encoding[:40]))
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    async for raw in response.aiter_raw(_PIECE):
        left = raw
        while left and not unpack.eof:
            yield unpack.decompress(left, _PIECE)
            left = unpack.unconsumed_tail
    yield unpack.flush()
    if not unpack.eof:
        raise zlib.error("the packed page ends too early")


def _fetched(url: httpx2.URL, headers: httpx2.Headers, data: bytes) -> Fetched:
    message = Message()
    message["content-type"] = headers.get("content-type", "")
    message["content-disposition"] = headers.get("content-disposition", "")
    media_type = message.get_content_type() if "content-type" in headers else ""
    name = document_name(url, media_type, message.get_filename() or "")
    etag, modified = (headers.get(key, "")[:_MAX_MARK] for key in ("etag", "last-modified"))
    return Fetched(str(url), data, media_type, name, etag, modified)


def document_name(url: httpx2.URL, media_type: str, file_name: str = "") -> str:
    """Host and path, so that two pages never share a name; the file name that the server gives, where it gives one."""
    path = "/".join(part for part in unquote(url.path).split("/") if part not in ("", ".", "..")) or "index"
    given = file_name.replace("\\", "/").rpartition("/")[2]
    if given:
        path = f"{path.rpartition('/')[0]}/{given}".strip("/")
    suffix = _SUFFIXES.get(media_type, "")
    if url.query:
        stem, dot, rest = path.rpartition(".")
        mark = hashlib.sha256(url.query).hexdigest()[:8]
        path = f"{stem}-{mark}.{rest}" if dot and stem and "/" not in rest else f"{path}-{mark}"
    if suffix and not path.lower().endswith((suffix, ".htm" if suffix == ".html" else suffix)):
        # «page.php» is a page; «notes.md» sent as text/plain is Markdown all the same.
        path += "" if suffix == ".txt" and "." in path.rpartition("/")[2] else suffix
    return f"{url.host}/{path}"[:500]


def _shown(url: str) -> str:
    """Fit for a message: no secrets of the query, no length."""
    return "".join(char for char in url.partition("?")[0] if char.isprintable())[:200]
