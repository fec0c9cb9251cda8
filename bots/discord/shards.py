"""Which shards of the bot this process holds: each by a lease, all processes together all of them.

Whoever takes a shard over goes on with its session where that can be, so that nothing is lost between; what Discord
will not give again is read from the history (`heard.py`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bots.discord.client import Bot, Session
from bots.discord.heard import Heard
from bots.leasing import TRY_SECONDS, Held, taken
from bots.memory import Memory
from core.errors import KvasirError
from core.work.leases import Holder, Leases
from core.work.presence import Presence

if TYPE_CHECKING:
    from core.settings import DiscordSettings

logger = logging.getLogger(__name__)

_KEEP_SECONDS: Final = 10.0
_SESSION: Final = "session"
_COUNT: Final = "shards"
_RESUMABLE: Final = 1800.0
"""Seconds after which no session is asked for again."""
_OPEN_PAUSE: Final = 5.0
_LONGEST_AWAY: Final = 90.0
"""Seconds after which a shard that cannot be connected is left to others."""


@dataclass
class _Owned:
    """A shard whose lease is ours."""

    held: Held
    keeping: asyncio.Task[None]
    opening: asyncio.Task[None]
    since: float = field(default_factory=time.monotonic)
    kept: Session | None = None
    """What was written down last."""


class Shards:
    def __init__(
        self, bot: Bot, memory: Memory, heard: Heard, leases: Leases, presence: Presence, settings: DiscordSettings
    ) -> None:
        self._bot = bot
        self._memory = memory
        self._heard = heard
        self._leases = leases
        self._presence = presence
        self._settings = settings
        self._owned: dict[int, _Owned] = {}
        self._wants = False
        self._not_before = 0.0
        """When shards are taken again after those we had could not be connected."""
        self._looked = False

    # ------------------------------------------------------------ how they are
    @property
    def connected(self) -> bool:
        """Whether every shard of ours hears."""
        return bool(self._owned) and all(self._bot.hears(number) for number in self._owned)

    @property
    def standing_by(self) -> bool:
        """Whether others hold all shards there are for us."""
        return self._looked and not self._owned and not self._wants

    # ------------------------------------------------------------ life
    async def run(self) -> None:
        """Hold our share of the shards, until cancelled; give them back then, with their sessions."""
        await self._bot.launched.wait()
        self._bot.shard_count = await self._count()
        if self._presence.others("bots", "discord"):  # those who hear come first; maybe we were away alone
            await asyncio.sleep(2 * TRY_SECONDS)
        kept = time.monotonic()
        try:
            while True:
                try:
                    await self._look()
                    if time.monotonic() - kept > _KEEP_SECONDS:
                        kept = time.monotonic()
                        for number in list(self._owned):
                            await self._keep(number)
                except KvasirError as error:
                    logger.info("the shards could not be looked after: %s", error)
                await asyncio.sleep(TRY_SECONDS)
        finally:
            await asyncio.shield(self._leave_all())

    async def _count(self) -> int:
        """How many shards the bot has: as living processes have it, else by the settings, else as Discord wants it."""
        wanted = self._settings.shards or self._bot.shards_wanted
        kept = await self._memory.get(_COUNT)
        if kept and kept.isdecimal() and self._presence.others("bots", "discord"):
            if int(kept) != wanted:
                logger.warning("other processes run %s shards, where %s are wanted; all keep to theirs", kept, wanted)
            return int(kept)
        if kept != str(wanted):
            await self._memory.put(_COUNT, str(wanted))
        return wanted

    async def forget_count(self) -> None:
        """Discord does not take so few any more."""
        await self._memory.forget(_COUNT)

    async def _look(self) -> None:
        for number, owned in list(self._owned.items()):
            if owned.keeping.done():
                logger.warning("shard %s of Discord went to another process", number)
                await self._drop(number)
            elif not owned.opening.done() and time.monotonic() - owned.since > _LONGEST_AWAY:
                logger.warning("shard %s of Discord cannot be connected from here; another process may try", number)
                await self._leave(number)
                self._not_before = time.monotonic() + _LONGEST_AWAY
        count = self._bot.shards_in_all
        holders = await self._leases.holders(self._prefix)
        mine, free = self._shares(count, holders)
        self._wants = len(self._owned) < mine and bool(free)
        self._looked = True
        for number in sorted(self._owned, reverse=True)[: max(0, len(self._owned) - mine)]:
            logger.info("shard %s of Discord is left to another process", number)
            await self._leave(number)
        if time.monotonic() < self._not_before:
            return
        for number in free[: max(0, mine - len(self._owned))]:
            held = await taken(self._leases, self._name(number), self._presence.id)
            if held is not None:
                self._own(number, held)

    def _shares(self, count: int, holders: Mapping[str, Holder]) -> tuple[int, Sequence[int]]:
        """How many are ours to hold, and those that nobody holds."""
        held: dict[str, int] = {}
        free = []
        for number in range(count):
            holder = holders.get(self._name(number))
            if holder is None or not holder.is_there:
                free.append(number)
            else:
                held[holder.name] = held.get(holder.name, 0) + 1
        others = [one.id for one in self._presence.others("bots", "discord")]
        return share(count, held, [self._presence.id, *others], self._presence.id), free

    @property
    def _prefix(self) -> str:
        return f"discord/{self._bot.user.id if self._bot.user else 0}/"

    def _name(self, number: int) -> str:
        return f"{self._prefix}{number}/{self._bot.shards_in_all}"

    # ------------------------------------------------------------ one shard
    def _own(self, number: int, held: Held) -> None:
        keeping = asyncio.create_task(held.keep(), name=f"discord-lease-{number}")
        opening = asyncio.create_task(self._open(number), name=f"discord-shard-{number}")
        self._owned[number] = _Owned(held, keeping, opening)

    async def _open(self, number: int) -> None:
        """Connect it, again and again; from then on the library sees to it."""
        while True:
            try:
                await self._heard.load(lambda name: self._bot.is_of(name, number))
                session = await self._session(number)
                if session is not None:
                    await self._bot.restore(number, self._memory)
                await self._bot.open_shard(number, session)
                return
            except Exception:
                logger.exception("shard %s of Discord could not be connected; it is tried again", number)
            await asyncio.sleep(_OPEN_PAUSE)

    async def _session(self, number: int) -> Session | None:
        """That of whoever had the shard last, where Discord may still know it and we ask for the same."""
        kept = await self._memory.get_secret(_SESSION, self._of(number))
        found: Any = json.loads(kept) if kept else {}
        if found.get("asks") != self._bot.asks or time.time() - found.get("at", 0.0) > _RESUMABLE:
            return None
        return Session(found["id"], found["sequence"], found["url"])

    async def _keep(self, number: int) -> None:
        """Write down how far a shard was dealt with, for whoever takes it over."""
        owned = self._owned[number]
        if not owned.opening.done() or not owned.held.is_sure:
            return
        session = self._bot.session(number)
        if session is None or session == owned.kept or not await self._bot.settled(number):
            return
        if not owned.held.is_sure or self._owned.get(number) is not owned:
            return
        found = {"id": session.id, "sequence": session.sequence, "url": session.url}
        whole = json.dumps({**found, "asks": self._bot.asks, "at": time.time()})
        await self._memory.put_secret(_SESSION, whole, self._of(number))
        owned.kept = session

    @staticmethod
    def _of(number: int) -> str:
        return f"shard {number}"

    async def _leave(self, number: int) -> None:
        """Give it to whoever comes next."""
        owned = self._owned[number]
        owned.opening.cancel()
        await asyncio.gather(owned.opening, return_exceptions=True)
        self._bot.stop_reading(number)
        try:
            await self._keep(number)
            await self._heard.keep(everything=True, of=lambda name: self._bot.is_of(name, number))
        except KvasirError as error:
            logger.info("how far shard %s of Discord was heard could not be written down: %s", number, error)
        await self._drop(number)
        await owned.held.give_back()

    async def _drop(self, number: int) -> None:
        owned = self._owned.pop(number)
        owned.keeping.cancel()
        owned.opening.cancel()
        await asyncio.gather(owned.keeping, owned.opening, return_exceptions=True)
        await self._bot.leave_shard(number)

    async def _leave_all(self) -> None:
        await asyncio.gather(*(self._leave(number) for number in list(self._owned)), return_exceptions=True)


def share(count: int, held: Mapping[str, int], members: Sequence[str], me: str) -> int:
    """How many of `count` are mine: as many as the others', but for what cannot be divided.

    That stays with those who hold more, so that nothing changes hands needlessly.
    """
    order = sorted(set(members), key=lambda one: (-held.get(one, 0), one))
    each, over = divmod(count, len(order))
    return each + (order.index(me) < over)
