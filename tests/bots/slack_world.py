"""Slack as a place to talk to Kvasir: our server, the real client library, our adapter, a fake search and engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal, cast

from pydantic import SecretStr

from bots.handler import ChatHandler
from bots.inbox import Inbox
from bots.intake import Intake
from bots.slack.platform import Slack
from core.app import Kvasir
from core.vault import Vault
from tests.bots.conftest import Front
from tests.fakes.slack import Message, SlackServer


@dataclass
class World:
    """One workspace with one bot in it, which listens."""

    server: SlackServer
    front: Front
    slack: Slack
    intake: Intake
    running: asyncio.Task[None]

    async def mention(self, text: str, **where: Any) -> str:
        """Ask in C1; gives the question's id, when its answer stands."""
        return (await self.ask(text, **where)).ts

    async def ask(self, text: str, **where: Any) -> Message:
        asked = await self.server.people.mention(text, **where)
        await self.idle()
        return asked

    def shown(self, message_id: str) -> list[str]:
        """What our visible answers to that question say, in order."""
        found = [message for channel in self.server.workspace.channels.values() for message in channel.messages]
        root = next(message for message in found if message.ts == message_id)
        channel = self.server.workspace.channels[root.channel]
        return [message.body for message in channel.answers(root.thread_ts or root.ts) if message.ts > message_id]

    def answers(self, asked: Message) -> Sequence[Message]:
        return self.server.workspace.channels[asked.channel].answers(asked.thread_ts or asked.ts)

    async def press(self, control: str, post: str, *, user: str = "U1") -> None:
        await self.server.people.click(self.server.channel.find(post), f"kvasir:{control}", user=user)
        await self.idle()

    async def thumb(self, post: str, value: Literal[-1, 1], *, user: str = "U1") -> None:
        await self.server.people.click(self.server.channel.find(post), "up:" if value > 0 else "down:", user=user)
        await self.idle()

    async def idle(self) -> None:
        """Until every answer stands."""
        await self.until(lambda: not self.intake._working)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.02)

    def whispers(self, user: str = "U1") -> list[str]:
        """What that person alone was told."""
        said = [message for channel in self.server.workspace.channels.values() for message in channel.messages]
        return [message.body for message in said if message.ephemeral_to == user]


def kvasir_of(front: Front, server: SlackServer, **slack: Any) -> Kvasir:
    """The Kvasir of a test, with Slack on."""
    given = {
        "bot_token": SecretStr(server.workspace.token),
        "app_token": SecretStr(server.app_token),
        "base_url": server.base_url,
    }
    changed = front.house.settings.slack.model_copy(update={**given, **slack})
    web = front.house.settings.web.model_copy(update={"public_url": f"http://127.0.0.1:{changed.events_port}"})
    settings = front.house.settings.model_copy(update={"slack": changed, "web": web})
    vault = Vault(settings.data_dir)
    return cast(Kvasir, SimpleNamespace(**{**vars(front.kvasir), "settings": settings, "vault": vault}))


@asynccontextmanager
async def world(front: Front, server: SlackServer, **slack: Any) -> AsyncIterator[World]:
    """A world whose bot listens; it stops at the end, as by SIGTERM."""
    server.delivery.retry_pauses = (0.0,)
    kvasir = kvasir_of(front, server, **slack)
    platform = Slack(kvasir)
    intake = Intake(kvasir, ChatHandler(kvasir), platform, Inbox(kvasir.db))
    await intake.take_over(everything=True)
    running = asyncio.create_task(platform.run(intake))
    try:
        ready = asyncio.create_task(_ready(kvasir, server))
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if running.done():
            running.result()
        yield World(server, front, platform, intake, running)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await intake.close(0.5)


async def _ready(kvasir: Kvasir, server: SlackServer) -> None:
    """Until the bot has its connection, or listens for Slack's."""
    slack = kvasir.settings.slack
    if slack.app_token is not None:
        await server.delivery.connected()
    while slack.app_token is None or slack.client_id:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", slack.events_port)
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return
