"""Files sent in a thread, and answers kept from it, on the real house: parsed, indexed, asked, and gone in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from bots.handler import ChatHandler
from bots.inbox import Inbox
from bots.intake import Intake
from core.app import Kvasir
from core.db.tables import KnowledgeBaseRow, now
from core.errors import UserError
from core.quality import curated
from core.settings import load
from core.types import ChatFile, Mention, Place, Press
from tests.fakes.messenger import ANN, BOB, PLACE, FakeMessenger

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("parser_here")]

NOTES = b"# Canteen\n\nThe canteen opens at half past eleven on weekdays.\n\nOn Fridays it serves fish.\n"


class Desk:
    def __init__(self, kvasir: Kvasir) -> None:
        self.kvasir = kvasir
        self.messenger = FakeMessenger(files={"F1": NOTES})
        self.intake = Intake(kvasir, ChatHandler(kvasir), self.messenger, Inbox(kvasir.db))

    async def ask(self, message_id: str, text: str, **values: Any) -> str:
        """The answer as people see it."""
        mention = Mention(**{"place": PLACE, "message_id": message_id, "person": ANN, "text": text, **values})
        await self.intake.take(mention)
        async with asyncio.timeout(30):
            await self.intake.idle()
        return "".join(self.messenger.answers(message_id))


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    settings = load(data_dir=tmp_path, embedder={"kind": "none"})
    async with Kvasir.open(settings) as kvasir:
        desk = Desk(kvasir)
        yield desk
        await desk.intake.close(1)


async def test_a_file_is_asked_about_for_the_rest_of_its_thread_and_nowhere_else(desk: Desk) -> None:
    await desk.kvasir.knowledge.create("handbook")
    files = (ChatFile("F1", "notes.md", len(NOTES)),)
    assert "half past eleven" in await desk.ask("m1", "When does the canteen open?", files=files)
    assert "fish" in await desk.ask("m2", "What does the canteen serve on Fridays?")
    elsewhere = Place("fake", "W", "C", "another thread")
    assert "fish" not in await desk.ask("m3", "What does the canteen serve on Fridays?", place=elsewhere)
    assert [kb.name for kb in await desk.kvasir.knowledge.list()] == ["handbook"]
    assert [kb.name for kb in await desk.kvasir.knowledge.names()] == ["handbook"]


async def test_files_can_be_asked_where_there_is_no_knowledge_base(desk: Desk) -> None:
    files = (ChatFile("F1", "notes.md", len(NOTES)),)
    assert "half past eleven" in await desk.ask("m1", "When does the canteen open?", files=files)


async def test_files_are_gone_after_their_time(desk: Desk) -> None:
    await desk.ask("m1", "When does the canteen open?", files=(ChatFile("F1", "notes.md"),))
    async with desk.kvasir.db.session() as session:
        await session.execute(update(KnowledgeBaseRow).values(expires_at=now() - timedelta(minutes=1)))
    assert await desk.kvasir.temporary.delete_expired() == 1
    assert "half past" not in await desk.ask("m2", "When does the canteen open?")


async def test_a_file_that_cannot_be_read_is_said(desk: Desk) -> None:
    desk.messenger.files = {"F1": b"", "F2": NOTES}
    lost, empty, good = ChatFile("F9", "lost.md"), ChatFile("F1", "empty.md"), ChatFile("F2", "notes.md")
    assert "lost.md" in await desk.ask("m1", "When does the canteen open?", files=(lost,))
    assert await desk.ask("m2", "When does the canteen open?", files=(empty,)) != ""
    large = ChatFile("F2", "big.md", 10**12)
    assert "big.md" in await desk.ask("m3", "When does the canteen open?", files=(large,))
    assert "half past eleven" in await desk.ask("m4", "When does the canteen open?", files=(empty, good))


async def test_a_helpers_words_answer_the_next_such_question(desk: Desk) -> None:
    await desk.kvasir.knowledge.create("handbook")
    question = "Where do I collect my access card?"
    assert "third floor" not in await desk.ask("m1", question)
    press = Press("keep", PLACE, "m2", BOB, text="Access cards are collected at the desk on the third floor.")
    assert "looks after" in await desk.intake.take(press)
    await desk.kvasir.channels.change(Place("fake", "W", "C"), "test", helpers=("bob",))
    assert "handbook" in await desk.intake.take(press)
    assert "third floor" in await desk.ask("m3", question, place=Place("fake", "W", "C", "another thread"))
    nowhere = Press("keep", Place("fake", "W", "D"), "m2", BOB, may_manage=True, text="Anything.")
    assert "Nothing was asked" in await desk.intake.take(nowhere)


@pytest.mark.parametrize(("question", "text"), [("", "a"), ("a", " \u200b"), ("a", "b" * 30_000)])
async def test_what_cannot_be_kept_is_refused(desk: Desk, question: str, text: str) -> None:
    await desk.kvasir.knowledge.create("handbook")
    with pytest.raises(UserError):
        await curated.keep(desk.kvasir, "handbook", question, text, "Bob")
