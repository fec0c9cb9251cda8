"""A Telegram with people on it, and a process of ours that answers them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from bots.handler import ChatHandler
from bots.inbox import Inbox
from bots.intake import Intake
from bots.telegram.events import place_of
from bots.telegram.platform import Telegram
from core.vault import Vault
from tests.bots.conftest import Front
from tests.fakes.telegram import Chat, Message, Person, TelegramServer


class Bot:
    """One process of ours on a Telegram; `again` is the next one, after this was killed."""

    def __init__(self, front: Front, server: TelegramServer, **telegram: Any) -> None:
        self.front, self.server = front, server
        kvasir = cast(Any, front.kvasir)
        settings = front.house.settings
        values = {"token": server.token, "api_base": server.url, **telegram}
        web = settings.web.model_copy(update=values.pop("web", {}))
        section = type(settings.telegram)(**values)
        kvasir.settings = settings.model_copy(update={"telegram": section, "web": web})
        kvasir.vault = Vault(settings.data_dir)
        self.messenger = Telegram(kvasir)
        self.inbox = Inbox(kvasir.db)
        self.intake = Intake(kvasir, ChatHandler(kvasir), self.messenger, self.inbox)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Bot]:
        task = asyncio.create_task(self.messenger.run(self.intake))
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.intake.close(0)

    async def answered(self, question: Message, text: str = "28 days") -> Message:
        """The one answer to the question, when it stands."""

        def stands() -> bool:
            return [text in reply.text and "👎" in reply.buttons for reply in self.server.replies(question)] == [True]

        await self.server.until(stands)
        return self.server.replies(question)[0]

    async def rating(self, answer: Message, who: Person) -> int:
        """What the person thinks of the answer; 0: nothing is known."""
        posted = await self.inbox.posted(place_of(answer.chat.id), str(answer.id))
        rating = await self.front.kvasir.feedback.rating(posted.answer_id, f"telegram:{who.id}") if posted else None
        return rating.value if rating else 0


class Town:
    """A server with people on it."""

    def __init__(self, server: TelegramServer) -> None:
        self.server = server
        self.alice, self.bob = server.person("Alice", "alice"), server.person("Bob", "bob_smith")
        self.group = server.group("Team")
        self.private: Chat = server.private(self.alice)

    def asks(self, text: str = "how long is annual leave?", who: Person | None = None, **more: Any) -> Message:
        return self.server.mention(self.group, who or self.alice, text, **more)
