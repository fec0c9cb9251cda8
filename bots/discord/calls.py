"""Calls of Discord's REST API. Every failure becomes one of `bots/errors.py`, here and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

import aiohttp
import discord
from discord.http import Route

from bots.discord.windows import open_windows
from bots.errors import DeliveryError, Gone, Limited, Refused, Unreachable
from core.types import JSON

_SECONDS: Final = 15.0
"""Time of one call."""
_STANDING_SECONDS: Final = 20.0
"""How long a call waits for the bot to be logged in."""
LONGEST_WAIT: Final = 2.0
"""Seconds the library may sit out a limit by itself; with more to wait it tells us, and we leave the place alone."""
_UNSAID_WAIT: Final = 60.0
"""Seconds to wait where a limit is not Discord's own, but of those who guard it."""

UNKNOWN_CHANNEL: Final = 10003
UNKNOWN_MESSAGE: Final = 10008
UNKNOWN_INTERACTION: Final = 10062
ALREADY_ANSWERED: Final = 40060
THREAD_EXISTS: Final = 160004
NO_REPLIES: Final = 160002
"""The right to read the history is missing, without which nothing can be replied to."""
_GONE: Final = frozenset({UNKNOWN_MESSAGE, UNKNOWN_INTERACTION, 10015, 50027})
"""Unknown webhook, invalid webhook token: an interaction that is too old."""

T = TypeVar("T")


class Refusal(Refused):
    """Refused, with Discord's own code."""

    def __init__(self, code: int, says: str) -> None:
        super().__init__(f"{code}: {says}")
        self.code = code


class Lost(Gone):
    """Gone, with Discord's own code."""

    def __init__(self, code: int, says: str) -> None:
        super().__init__(f"{code}: {says}")
        self.code = code


class Calls:
    """The REST API as the bot that is logged in may use it; calls before that wait a while."""

    def __init__(self) -> None:
        self._client: discord.Client | None = None
        self._standing = asyncio.Event()

    def stand(self, client: discord.Client) -> None:
        """The bot is logged in."""
        open_windows(client.http, LONGEST_WAIT)
        self._client = client
        self._standing.set()

    def fall(self) -> None:
        """The bot is not logged in any more."""
        self._client = None
        self._standing.clear()

    async def client(self) -> discord.Client:
        """The client that is logged in. Raises Unreachable where there is none for too long."""
        try:
            async with asyncio.timeout(_STANDING_SECONDS):
                await self._standing.wait()
        except TimeoutError as error:
            raise Unreachable("not logged in to Discord") from error
        if self._client is None:
            raise Unreachable("not logged in to Discord")
        return self._client

    async def own_id(self) -> int:
        """The bot's user id."""
        client = await self.client()
        return client.user.id if client.user is not None else 0

    async def application_id(self) -> int:
        """Its application's, which is another for bots made before 2017."""
        return (await self.client()).application_id or 0

    async def do(self, method: str, path: str, body: JSON | None = None, **where: Any) -> Any:
        """The answer to a call, as JSON; `where` fills the path, what is left of it stands behind the question mark.

        Raises Limited, Unreachable, Gone or Refused.
        """
        client = await self.client()
        names = {name: value for name, value in where.items() if f"{{{name}}}" in path}
        query = {name: value for name, value in where.items() if name not in names}
        more: dict[str, Any] = {"json": body} if body is not None else {}
        if query:
            more["params"] = query
        return await guarded(client.http.request(Route(method, path, **names), **more))


async def guarded(call: Awaitable[T], seconds: float = _SECONDS) -> T:
    """Await a call of the library; its errors become ours."""
    try:
        async with asyncio.timeout(seconds):
            return await call
    except discord.RateLimited as error:
        raise Limited(error.retry_after) from error
    except discord.HTTPException as error:
        raise _translated(error) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unreachable(type(error).__name__) from error


def _translated(error: discord.HTTPException) -> DeliveryError:
    if error.status == 429:
        return Limited(_UNSAID_WAIT)
    if error.status >= 500:
        return Unreachable(f"status {error.status}")
    if error.code in _GONE:
        return Lost(error.code, error.text)
    return Refusal(error.code, error.text or f"status {error.status}")
