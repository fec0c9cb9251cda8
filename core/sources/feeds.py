"""Sitemaps and feeds as plain data; pure, and nothing in their XML is ever looked up elsewhere."""

from __future__ import annotations

import html
import zlib
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Final
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from core.errors import UserError
from core.texts import tell

_HEAD: Final = 200_000
_GZIP: Final = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class SitemapPage:
    url: str
    lastmod: str


@dataclass(frozen=True, slots=True)
class Sitemap:
    pages: tuple[SitemapPage, ...]
    sitemaps: tuple[str, ...]
    """Addresses of further ones."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a feed."""

    id: str
    link: str
    title: str
    html: str
    date: str


def unpacked(data: bytes, most: int) -> bytes:
    """The data of a gzip file, and any other as it is. Raises UserError where it is damaged, or more than `most`."""
    if not data.startswith(_GZIP):
        return data
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        found = unpack.decompress(data, most)
    except zlib.error as error:
        raise UserError(tell("source_bad_xml")) from error
    if not unpack.eof:
        raise UserError(tell("source_bad_xml"))
    return found


def sitemap(data: bytes) -> Sitemap:
    """Raises UserError where it is none. A plain list of addresses is one, too."""
    if data.lstrip()[:4].lower() == b"http":
        lines = data.decode("utf-8", "replace").splitlines()
        return Sitemap(tuple(SitemapPage(line.strip(), "") for line in lines if line.strip()), ())
    root = _parsed(data)
    if _local(root) not in ("urlset", "sitemapindex"):
        raise UserError(tell("source_no_sitemap"))
    found = [(_local(item), _text(item, "loc"), _text(item, "lastmod")) for item in root]
    return Sitemap(
        tuple(SitemapPage(url, lastmod) for kind, url, lastmod in found if kind == "url" and url),
        tuple(url for kind, url, _ in found if kind == "sitemap" and url),
    )


def feed(data: bytes) -> tuple[str, list[Entry]]:
    """Title and entries of RSS (0.9 to 2.0) or Atom, in their order. Raises UserError where it is neither."""
    root = _parsed(data)
    kind = _local(root)
    if kind == "feed":
        return _text(root, "title"), [_atom(item) for item in root if _local(item) == "entry"]
    channel = next((item for item in root if _local(item) == "channel"), root)
    if kind not in ("rss", "RDF"):
        raise UserError(tell("source_no_feed"))
    items = [item for item in (*root, *channel) if _local(item) == "item"]
    return _text(channel, "title"), [_rss(item) for item in items]


def feed_of(data: bytes) -> str:
    """The address of the feed that a web page names; empty where it names none."""
    found = _Links()
    found.feed(data[:_HEAD].decode("utf-8", "replace"))
    return found.address


class _Links(HTMLParser):
    address = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        is_feed = given.get("type") in ("application/rss+xml", "application/atom+xml")
        if tag == "link" and "alternate" in (given.get("rel") or "") and is_feed and not self.address:
            self.address = (given.get("href") or "").strip()


def page(entry: Entry) -> bytes:
    """An entry as a web page."""
    title, link = html.escape(entry.title), html.escape(entry.link)
    head = f"<!doctype html><html><head><meta charset='utf-8'><title>{title}</title></head>"
    date = f"<p>{html.escape(entry.date)}</p>" if entry.date else ""
    where = f"<p><a href='{link}'>{link}</a></p>" if link else ""
    return f"{head}<body><article><h1>{title}</h1>{date}{entry.html}{where}</article></body></html>".encode()


def _rss(item: Element) -> Entry:
    link = _text(item, "link")
    body = _text(item, "encoded") or _text(item, "description")
    return Entry(_text(item, "guid") or link, link, _text(item, "title"), body, _text(item, "pubDate"))


def _atom(item: Element) -> Entry:
    links = [child for child in item if _local(child) == "link" and child.get("rel", "alternate") == "alternate"]
    link = links[0].get("href", "").strip() if links else ""
    date = _text(item, "updated") or _text(item, "published")
    return Entry(_text(item, "id") or link, link, _text(item, "title"), _content(item), date)


def _content(item: Element) -> str:
    for name in ("content", "summary"):
        found = next((child for child in item if _local(child) == name), None)
        if found is not None:
            text = "".join(found.itertext()).strip()
            is_html = found.get("type", "text") == "html"
            return text if is_html else f"<p>{html.escape(text)}</p>"
    return ""


def _parsed(data: bytes) -> Element:
    try:
        root: Element = fromstring(data, forbid_entities=True, forbid_external=True)
    except (DefusedXmlException, ParseError, ValueError, LookupError) as error:
        raise UserError(tell("source_bad_xml")) from error
    return root


def _local(element: Element) -> str:
    tag = element.tag
    return tag.rsplit("}", 1)[-1] if isinstance(tag, str) else ""


def _text(element: Element, name: str) -> str:
    """The text of the first child of that name."""
    found = next((child for child in element if _local(child) == name), None)
    return "".join(found.itertext()).strip() if found is not None else ""
