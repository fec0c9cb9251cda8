"""The bytes of files that people sent in Slack."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import aiohttp

from bots.errors import Unreachable
from bots.slack.workspaces import Workspace
from core.errors import NotFound, TooLarge, Unavailable
from core.texts import tell
from core.types import JSON

if TYPE_CHECKING:
    from core.settings import SlackSettings

_SECONDS: Final = 120
_HOSTS: Final = (".slack.com", ".slack-files.com")


async def fetched(workspace: Workspace, about: JSON, most: int, settings: SlackSettings) -> bytes:
    """The file that Slack describes so. Raises NotFound, TooLarge, Unavailable, or Unreachable.

    The token goes to Slack's own hosts only, and no redirect is followed.
    """
    name = str(about.get("name") or about.get("id") or "?")
    url = str(about.get("url_private_download") or about.get("url_private") or "")
    if about.get("is_external") or not _is_slacks(url, settings.base_url):
        raise NotFound(tell("file_not_sent", name=name))
    if int(about.get("size") or 0) > most:
        raise TooLarge(tell("file_too_large", name=name, limit=most // 1_000_000))
    headers = {"Authorization": f"Bearer {workspace.installation.token}"}
    try:
        async with (
            asyncio.timeout(_SECONDS),
            aiohttp.ClientSession() as session,
            session.get(url, headers=headers, allow_redirects=False, proxy=settings.proxy or None) as response,
        ):
            is_page = response.content_type == "text/html" and about.get("mimetype") != "text/html"
            if response.status != 200 or is_page:  # a page to log in at, in the place of the file
                raise Unavailable(tell("file_not_sent", name=name))
            return await _read(response, most, name)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unreachable(f"file: {type(error).__name__}") from error


async def _read(response: aiohttp.ClientResponse, most: int, name: str) -> bytes:
    data = bytearray()
    async for piece in response.content.iter_chunked(1 << 16):
        data += piece
        if len(data) > most:
            raise TooLarge(tell("file_too_large", name=name, limit=most // 1_000_000))
    return bytes(data)


def _is_slacks(url: str, base_url: str) -> bool:
    """Whether the address is one of Slack's, or on the host that the settings name in its place."""
    there = urlsplit(url)
    if base_url:
        here = urlsplit(base_url)
        return (there.scheme, there.netloc) == (here.scheme, here.netloc)
    return there.scheme == "https" and f".{there.hostname}".endswith(_HOSTS)
