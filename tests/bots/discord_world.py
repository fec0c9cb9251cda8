"""Discord as a place to talk to Kvasir: our server, the real client library, our adapter, a fake search and engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest
from pydantic import SecretStr

from bots.discord.platform import DiscordPlatform
from bots.handler import ChatHandler
from bots.inbox import Inbox
from bots.intake import Intake
from core.app import Kvasir
from core.vault import Vault
from tests.bots.conftest import Front
from tests.fakes.discord_server import DiscordServer, Message


@dataclass
class World:
    """One server with one bot on it, which listens."""

    server: DiscordServer
    front: Front
    platform: DiscordPlatform
    intake: Intake
    running: asyncio.Task[None]

    async def mention(self, text: str, **more: Any) -> str:
        """Ask in the channel everybody is in; gives the question's id, when its answer stands."""
        return str((await self.ask(text, **more)).id)

    async def ask(self, text: str, **more: Any) -> Message:
        asked = self.server.mention(self.server.world.ann, self.server.world.general, text, **more)
        await self.answered(asked)
        return asked

    async def answered(self, asked: Message, count: int = 1) -> Message:
        """Our last message in answer to it, once there are so many and all is quiet."""
        await self.server.until(lambda: len(self.server.answers(asked)) >= count)
        await self.idle()
        return self.server.answers(asked)[-1]

    def shown(self, message_id: str) -> list[str]:
        """What our visible answers to that question say, in order."""
        return [message.text for message in self.server.answers(self.message(message_id))]

    def message(self, post: str) -> Message:
        number = int(post.rpartition(":")[2])
        for channel in self.server.world.channels.values():
            if number in channel.messages:
                return channel.messages[number]
        raise KeyError(post)

    async def press(self, control: str, post: str) -> None:
        self.server.click(self.server.world.ann, self.message(post), f"kvasir:{control}")
        await self.idle()

    async def thumb(self, post: str, value: Literal[-1, 1]) -> None:
        self.server.react(self.server.world.ann, self.message(post), "👍" if value > 0 else "👎")
        await self.idle()

    async def idle(self) -> None:
        """Until every answer stands."""
        await self.until(lambda: not self.intake._working)

    async def until(self, condition: Any) -> None:
        await _until(condition)


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)


def kvasir_of(front: Front, server: DiscordServer, **discord: Any) -> Kvasir:
    """The Kvasir of a test, with Discord on."""
    settings = front.house.settings
    given = {"token": SecretStr(server.token), "api_base": server.api_base, **discord}
    settings = settings.model_copy(update={"discord": settings.discord.model_copy(update=given)})
    values = {**vars(front.kvasir), "settings": settings, "vault": Vault(settings.data_dir)}
    return cast(Kvasir, SimpleNamespace(**values))


@asynccontextmanager
async def world(front: Front, server: DiscordServer, **discord: Any) -> AsyncIterator[World]:
    """A world whose bot listens; it stops at the end, as by SIGTERM."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bots.discord.client._BETWEEN_IDENTIFIES", 0.0)  # Discord wants five seconds
        async with _listening(front, server, **discord) as town:
            yield town


@asynccontextmanager
async def _listening(front: Front, server: DiscordServer, **discord: Any) -> AsyncIterator[World]:
    kvasir = kvasir_of(front, server, **discord)
    platform = DiscordPlatform(kvasir)
    intake = Intake(kvasir, ChatHandler(kvasir), platform, Inbox(kvasir.db))
    await intake.take_over(everything=True)
    running = asyncio.create_task(platform.run(intake))
    try:
        connected = asyncio.create_task(_until(lambda: platform.connected or platform.standing_by))
        await asyncio.wait({running, connected}, return_when=asyncio.FIRST_COMPLETED)
        connected.cancel()
        if running.done():
            running.result()
        yield World(server, front, platform, intake, running)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await intake.close(0.5)
