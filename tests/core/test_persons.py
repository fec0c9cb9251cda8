"""All that is kept about a person is found, given out and erased; what belongs to others stays."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from core.answering.conversation import Conversations
from core.app import Kvasir
from core.blobs import Blobs
from core.db.session import Database
from core.db.tables import (
    AnswerRow,
    ConversationRow,
    EscalationRow,
    InboxRow,
    KbGrantRow,
    KnowledgeBaseRow,
    PostRow,
    RatingRow,
    SessionRow,
    UserRow,
    now,
)
from core.errors import NotFound
from core.indexing.ingest import Incoming
from core.kb.temporary import base_of
from core.quality.feedback import Feedback
from core.settings import load
from core.types import Place
from core.upkeep.persons import Persons
from core.upkeep.removal import Removal
from core.work.jobs import run_job
from tests.core.test_conversation import answered
from tests.databases import put_sqlite
from tests.fakes.commands import Commands

EVE, BOB = "slack:T1:U9", "slack:T1:U2"


@pytest.fixture
def persons(db: Database, tmp_path: Path) -> Persons:
    async def no_files(_conversation: str) -> int:
        return 0

    return Persons(db, Removal(db, no_files), Blobs(tmp_path / "blobs"), no_files)


async def furnish(db: Database) -> tuple[str, str]:
    """A conversation of Eve's alone, and one she opened in which Bob asked too."""
    conversations = Conversations(db)
    alone = (await conversations.open(Place("slack", "T1", "C1", "1"), EVE)).id
    shared = (await conversations.open(Place("slack", "T1", "C1", "2"), EVE)).id
    mine = await answered(db, alone, "Am I ill?", EVE, platform="slack")
    await answered(db, shared, "What do I earn?", EVE, platform="slack")
    turns = [{"role": "user", "text": "What do I earn?"}]
    other = await answered(db, shared, "And I?", BOB, platform="slack", prompt=turns)
    await Feedback(db).rate(mine, BOB, 1)
    await Feedback(db).rate(other, EVE, -1, "Eve's reason")
    async with db.session() as session:
        kb = KnowledgeBaseRow(id="k" * 32, name="hr", private=True, chunk_size=200, chunk_overlap=40)
        session.add(kb)
        await session.flush()
        session.add(KbGrantRow(kb_id=kb.id, person=EVE))
        session.add(EscalationRow(answer_id=mine, person=EVE))
        session.add(EscalationRow(answer_id=other, person=BOB, resolved_by=EVE))
        at = now() - timedelta(days=3)
        place = {"platform": "slack", "workspace": "T1", "channel": "C1"}
        for number, (answer, mention) in enumerate([(mine, {}), ("0" * 32, {"person": {"key": EVE}, "text": "Soon?"})]):
            row = InboxRow(answer_id=answer, mention=mention, said_at=at, created_at=at, message=str(number), **place)
            row.state = "waiting" if mention else "done"
            session.add(row)
            await session.flush()
            session.add(PostRow(inbox_id=row.id, message=f"p{number}", **place))
    return alone, shared


@pytest.mark.anyio
async def test_what_is_kept_is_counted_and_given_out(db: Database, persons: Persons) -> None:
    await furnish(db)
    kept = await persons.kept(EVE)
    assert asdict(kept) == {
        "person": EVE, "name": "", "conversations": 2, "answers": 2, "ratings": 1, "messages": 2, "posts": 2,
        "grants": 1, "escalations": 1, "files": 0, "has_account": False,
    }  # fmt: skip
    found = await persons.export(EVE)
    text = json.dumps(found)
    assert {answer["question"] for answer in found["answers"]} == {"Am I ill?", "What do I earn?"}
    assert [rating["reason"] for rating in found["ratings"]] == ["Eve's reason"]
    assert "Soon?" in text
    assert "And I?" not in text  # that is Bob's


@pytest.mark.anyio
async def test_erasing_leaves_nothing_but_what_belongs_to_others(db: Database, persons: Persons) -> None:
    alone, shared = await furnish(db)
    gone = await persons.erase(EVE)
    assert (gone.answers, gone.conversations, gone.grants) == (2, 2, 1)
    with pytest.raises(NotFound):
        await persons.kept(EVE)
    async with db.read() as session:
        rows = list(await session.scalars(select(AnswerRow)))
        assert [(row.question, row.prompt) for row in rows] == [("And I?", [])]
        conversations = list(await session.scalars(select(ConversationRow)))
        assert [(row.id, row.person, row.title) for row in conversations] == [(shared, "", "")]
        assert await session.scalar(select(func.count()).select_from(InboxRow)) == 0
        assert await session.scalar(select(func.count()).select_from(RatingRow)) == 0
        assert [row.resolved_by for row in await session.scalars(select(EscalationRow))] == [None]
    assert alone != shared
    assert (await persons.kept(BOB)).answers == 1
    with pytest.raises(NotFound):
        await persons.erase(EVE)


@pytest.mark.anyio
async def test_people_are_found_by_key_and_by_name(db: Database, persons: Persons) -> None:
    await furnish(db)
    async with db.session() as session:
        session.add(UserRow(id="a" * 32, name="annabel", password_hash="secret-hash", role="viewer"))
        await session.flush()
        session.add(SessionRow(token_hash="secret-token", user_id="a" * 32, address="10.0.0.1", expires_at=now()))
    ann = "user:" + "a" * 32
    await answered(db, None, "Hello?", ann)
    found, total = await persons.find("nnab")
    assert [(one.key, one.name, one.answers) for one in found] == [(ann, "annabel", 1)]
    assert total == 1
    assert [one.key for one in (await persons.find("t1:u", limit=1))[0]] == [BOB]
    assert (await persons.find("T1:U", limit=1, offset=1))[1] == 2
    assert await persons.find("100%") == ([], 0)
    given = json.dumps(await persons.export(ann))
    assert "10.0.0.1" in given
    assert "secret-" not in given
    assert (await persons.erase(ann)).has_account
    assert (await persons.kept(ann)).has_account


# ---------------------------------------------------------------- with files, and as commands
@pytest.fixture
async def kvasir(tmp_path: Path) -> AsyncIterator[Kvasir]:
    await put_sqlite(tmp_path / "data" / "kvasir.db")
    async with Kvasir.open(load(data_dir=tmp_path / "data", embedder={"kind": "none"})) as made:
        yield made


@pytest.mark.anyio
async def test_files_of_their_conversations_go_too(kvasir: Kvasir) -> None:
    conversation = (await kvasir.conversations.open(Place("slack", "T1", "C1", "1"), EVE)).id
    await answered(kvasir.db, conversation, "What does it say?", EVE)
    base = base_of(conversation)
    await kvasir.temporary.ensure(base, now() + timedelta(days=1))

    async def incoming() -> AsyncIterator[Incoming]:
        yield Incoming("diary.txt", lambda: b"Dear diary, today I was in the garden.", source="slack")

    ticket = await kvasir.ingest.submit(base, incoming(), claimed=True)
    await run_job(kvasir.jobs, ticket.job, kvasir.run_job)
    assert (await kvasir.persons.kept(EVE)).files == 1
    (file,) = (await kvasir.persons.export(EVE))["files"]
    assert base64.b64decode(file["content_base64"]).startswith(b"Dear diary")
    await kvasir.persons.erase(EVE)
    assert not await kvasir.temporary.has(base)


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVASIR_EMBEDDER__KIND", "none")
    monkeypatch.setenv("LANG", "en_GB.UTF-8")
    monkeypatch.chdir(tmp_path)
    commands = Commands(tmp_path / "data")
    commands("kb", "create", "handbook")
    commands("ask", "Is anybody there?", "--kb", "handbook")
    (found,) = commands.json("person", "find")["persons"]
    key = found["key"]
    commands("person", "export", key, "me.json")
    written = tmp_path / "me.json"
    assert written.stat().st_mode & 0o077 == 0
    assert json.loads(written.read_text())["answers"][0]["question"] == "Is anybody there?"
    assert "me.json" in commands.fails("person", "export", key, "me.json")
    assert "1 answers" in commands.fails("person", "erase", key)  # nobody is there to say yes
    commands("person", "erase", key, "--yes")
    assert "Nothing is kept" in commands.fails("person", "erase", key, "--yes")
