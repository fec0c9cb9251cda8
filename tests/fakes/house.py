"""Answers with all that stands around them, but a fake search and a fake engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import select

from core.answer import Answers
from core.answering.conversation import Conversations
from core.answering.curated_match import CuratedMatch
from core.answering.retrieve import Retrieved, Retriever
from core.db.session import Database
from core.db.tables import AnswerRow, KnowledgeBaseRow
from core.errors import EngineUnavailable
from core.ports import Engine
from core.settings import Settings, load
from core.types import AnswerEvent, Finished, Locator, Passage, Question
from tests.fakes.engine import FakeEngine

E = TypeVar("E", bound=Engine)

LEAVE = Passage(
    "handbook", "d1", "leave.md", "Leave", 0, "Annual leave is 28 days.", ("Leave",), Locator("page", "", 2), 0.9
)
PARKING = Passage("handbook", "d2", "parking.md", "Parking", 0, "Park in the yard.", (), Locator(), 0.4)


class FakeSearch:
    """Finds what it was given; keeps what it was asked."""

    def __init__(self, passages: Sequence[Passage] = (LEAVE, PARKING), evidence: float = 0.9) -> None:
        self.found = Retrieved(tuple(passages), evidence, {"leave": 2.0}, True)
        self.asked: list[tuple[str, tuple[str, ...], int]] = []
        self.how: dict[str, Any] = {}
        """How it was last asked to search."""
        self.error: Exception | None = None

    async def retrieve(self, question: str, kbs: Sequence[str], *, limit: int, **how: Any) -> Retrieved:
        self.asked.append((question, tuple(kbs), limit))
        self.how = how
        if self.error:
            raise self.error
        return self.found


class House:
    """Answers with all that stands around them."""

    def __init__(self, db: Database, settings: Settings, engine: FakeEngine) -> None:
        self.db, self.settings, self.engine, self.search = db, settings, engine, FakeSearch()
        self.conversations = Conversations(db)

        self.current: Engine = engine
        self.engines: dict[str, Engine] = {}

        async def engines(name: str) -> Engine:
            if name == "gone":
                raise EngineUnavailable("The engine «gone» is not there.")
            return self.engines.get(name, self.current)

        self.answers = Answers(db, cast(Retriever, self.search), engines, settings, CuratedMatch(db))

    def replace_engine(self, engine: E) -> E:
        """Let another engine answer from now on."""
        self.current = engine
        return engine

    async def ask(self, text: str = "How long is annual leave?", **values: Any) -> list[AnswerEvent]:
        question = Question(**{"text": text, "kbs": ("handbook",), "person": "ann", **values})
        return [event async for event in self.answers.answer(question)]

    async def finished(self, text: str = "How long is annual leave?", **values: Any) -> Finished:
        last = (await self.ask(text, **values))[-1]
        assert isinstance(last, Finished)
        return last

    async def row(self) -> AnswerRow:
        """The newest record."""
        await self.answers.close()
        async with self.db.read() as session:
            row = await session.scalar(select(AnswerRow).order_by(AnswerRow.created_at.desc()).limit(1))
        assert row is not None
        return row


async def furnished(db: Database, tmp_path: Path) -> House:
    async with db.session() as session:
        for name, top_k in (("handbook", None), ("manual", 9)):
            session.add(KnowledgeBaseRow(name=name, chunk_size=200, chunk_overlap=40, top_k=top_k))
    return House(db, load(data_dir=tmp_path), FakeEngine("Annual leave is 28 days [1]."))
