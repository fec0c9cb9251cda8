"""Conversations of everybody: found, read, deleted, and kept only so long."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import func, select

from core.answering.conversation import Conversations
from core.db.session import Database
from core.db.tables import (
    AnswerRow,
    ChannelRow,
    ConversationRow,
    EscalationRow,
    InboxRow,
    PostRow,
    RatingRow,
    ReviewRow,
    Table,
    UserRow,
    now,
)
from core.errors import NotFound, UserError
from core.quality.feedback import Feedback
from core.quality.records import Found, Records, Wanted
from core.quality.selection import Selection
from core.types import Place
from core.upkeep import retention
from core.upkeep.removal import TOGETHER, Removal
from core.work.jobs import Jobs
from tests.core.test_conversation import ANN, BOB, answered

pytestmark = pytest.mark.anyio


class Files:
    """Keeps whose files were asked to be deleted."""

    def __init__(self) -> None:
        self.dropped: list[str] = []

    async def drop(self, conversation_id: str) -> int:
        self.dropped.append(conversation_id)
        return 2


@pytest.fixture
def files() -> Files:
    return Files()


@pytest.fixture
def records(db: Database) -> Records:
    return Records(db)


@pytest.fixture
def removal(db: Database, files: Files) -> Removal:
    return Removal(db, files.drop)


async def count(db: Database, table: type[Table]) -> int:
    async with db.read() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


async def talk(db: Database, thread: str = "1", person: str = ANN, *questions: str, **values: Any) -> str:
    place = Place("slack", "T1", "C1", thread)
    conversation = await Conversations(db).open(place, person)
    for question in questions or ("How long is leave?",):
        given = {"platform": "slack", "workspace": "T1", "channel": "C1", **values}
        await answered(db, conversation.id, question, person, **given)
    return conversation.id


async def titles(records: Records, **wanted: Any) -> Sequence[str]:
    return [found.title for found in (await records.search(Wanted(**wanted)))[0]]


async def test_conversations_are_found_with_what_was_said_last_in_them(db: Database, records: Records) -> None:
    async with db.session() as session:
        session.add(ChannelRow(platform="slack", workspace="T1", channel="C1", name="help"))
        session.add(UserRow(id="b" * 32, name="bob", password_hash="", role="viewer"))
    first = await talk(db, "1", ANN, "First?", "Second?")
    account = "user:" + "b" * 32
    await answered(db, first, "Third?", account, answered=False, platform="slack", workspace="T1", channel="C1")
    lone = await answered(db, None, "Alone?", BOB, platform="api")
    await Feedback(db).rate(lone, BOB, -1)
    items, total = await records.search(Wanted())
    assert total == 2
    alone, talked = items
    assert (alone.id, alone.title, alone.count, alone.down, alone.place) == (lone, "Alone?", 1, 1, Place("api"))
    assert talked == Found(
        id=first,
        title="First?",
        place=Place("slack", "T1", "C1", "1"),
        channel="help",
        person=account,
        name="bob",
        kbs=("kb",),
        question="Third?",
        count=3,
        refused=1,
        up=0,
        down=0,
        last_at=talked.last_at,
    )


async def test_a_page_says_how_many_there_are(db: Database, records: Records) -> None:
    for number in range(3):
        await talk(db, str(number), ANN, f"Question {number}?")
    items, total = await records.search(Wanted(), limit=2, offset=1)
    assert ([item.title for item in items], total) == (["Question 1?", "Question 0?"], 3)
    assert await records.search(Wanted(), limit=2, offset=10) == ([], 3)


async def test_what_is_searched_for_narrows_them_down(db: Database, records: Records) -> None:
    async with db.session() as session:
        session.add(UserRow(id="c" * 32, name="cecilia", password_hash="", role="viewer"))
    await talk(db, "1", ANN, "年假有多少天？", text="年假为 20 天。")
    await talk(db, "2", "user:" + "c" * 32, "What of 100% LEAVE_pay?", answered=False, kbs=["secret", "kb"])
    rated = await answered(db, None, "Rated?", BOB, created_at=now() - timedelta(days=40))
    await Feedback(db).rate(rated, ANN, 1)
    assert await titles(records, text="20 天") == ["年假有多少天？"]
    assert await titles(records, text="leave_PAY") == ["What of 100% LEAVE_pay?"]
    assert await titles(records, text="100_ LEAVE") == []
    assert await titles(records, person="cecil") == ["What of 100% LEAVE_pay?"]
    assert await titles(records, person="user:ann") == ["年假有多少天？"]
    assert await titles(records, rating=1) == ["Rated?"]
    assert await titles(records, rating=-1) == []
    assert await titles(records, answered=False) == ["What of 100% LEAVE_pay?"]
    assert await titles(records, selection=Selection(until=now() - timedelta(days=30))) == ["Rated?"]
    assert await titles(records, selection=Selection(allowed=("kb",))) == ["年假有多少天？", "Rated?"]


async def test_one_is_read_with_everything_that_is_known_of_it(db: Database, records: Records) -> None:
    key = await talk(db, "1", ANN, "First?", prompt=[{"role": "user", "text": "P"}], timings={"total": 5.0})
    other = await answered(db, key, "Second?", BOB, created_at=now() + timedelta(seconds=1))
    await Feedback(db).rate(other, ANN, -1, "wrong")
    async with db.session() as session:
        session.add(EscalationRow(answer_id=other, person=BOB))
    whole = await records.get(key)
    assert (whole.title, whole.place.thread, whole.hidden) == ("First?", "1", 0)
    first, second = whole.entries
    assert (first.question, first.person, first.timings_ms, first.prompt[0].text) == (
        "First?",
        ANN,
        {"total": 5.0},
        "P",
    )
    assert ([source.n for source in first.passages], first.cited, first.asked_for_help) == ([1, 2], (1,), False)
    assert [(vote.person, vote.value, vote.reason) for vote in second.votes] == [(ANN, -1, "wrong")]
    assert second.asked_for_help
    lone = await answered(db, None, "Alone?")
    assert (await records.get(lone)).title == "Alone?"


async def test_what_rests_on_an_unreadable_base_is_not_there(db: Database, records: Records) -> None:
    """Protection: `seen` in `Records.get`, and titles that are not shown."""
    key = await talk(db, "1", ANN, "Secret?", kbs=["secret"])
    await answered(db, key, "Open?")
    lone = await answered(db, None, "Secret?", kbs=["secret", "kb"])
    whole = await records.get(key, ("kb",))
    assert ([entry.question for entry in whole.entries], whole.hidden, whole.title) == (["Open?"], 1, "Open?")
    assert await titles(records, selection=Selection(allowed=("kb",))) == ["Open?"]  # its title is the other question
    assert await titles(records, selection=Selection(platform="slack")) == ["Secret?"]
    for unseen in (lone, "0" * 32):
        with pytest.raises(NotFound):
            await records.get(unseen, ("kb",))


async def test_deleting_takes_all_that_belongs_to_it(db: Database, removal: Removal, files: Files) -> None:
    key = await talk(db, "1", ANN, "First?", "Second?")
    kept = await talk(db, "2", BOB)
    lone = await answered(db, None, "Alone?")
    async with db.session() as session:
        ids = list(await session.scalars(select(AnswerRow.id).where(AnswerRow.conversation_id == key)))
        session.add(EscalationRow(answer_id=ids[0], person=ANN))
        session.add(ReviewRow(answer_id=ids[0]))
        for number, (answer, days) in enumerate(zip(ids, (3, 0), strict=True)):
            item = f"{number:032x}"
            at = now() - timedelta(days=days)
            place = {"platform": "slack", "workspace": "T1", "channel": "C1", "message": str(number)}
            mention = {"text": "First?"}
            session.add(
                InboxRow(id=item, answer_id=answer, state="done", mention=mention, said_at=at, created_at=at, **place)
            )
            session.add(PostRow(inbox_id=item, **place))
    await Feedback(db).rate(ids[1], BOB, 1)
    gone = await removal.conversations([key, lone, key, "f" * 32])
    assert (gone.answers, gone.conversations, gone.files) == (3, 1, 2)
    assert files.dropped == [key]
    assert [await count(db, table) for table in (RatingRow, EscalationRow, ReviewRow)] == [0, 0, 0]
    async with db.read() as session:
        assert (await session.scalars(select(ConversationRow.id))).all() == [kept]
        left = (await session.scalars(select(InboxRow))).one()
        assert (left.message, left.mention) == ("1", {})  # so that nobody answers it once more
    assert await count(db, PostRow) == 1


# ---------------------------------------------------------------- retention
async def retain(db: Database, removal: Removal, **settings: Any) -> str:
    jobs = Jobs(db)
    job = await jobs.add("retention", {"target": "", "settings": settings, "run": ""}, claimed=True)
    kvasir = cast(Any, SimpleNamespace(removal=removal, jobs=jobs))
    return await retention.run(kvasir, job)


async def test_only_what_is_older_goes(db: Database, removal: Removal, files: Files) -> None:
    old = now() - timedelta(days=31)
    gone = await talk(db, "1", ANN, "Old?", created_at=old)
    both = await talk(db, "2", ANN, "Old too?", created_at=old)
    await talk(db, "2", ANN, "New?")
    await answered(db, None, "Elsewhere?", platform="web", created_at=old)
    async with db.session() as session:
        (await session.get_one(ConversationRow, gone)).updated_at = old
    assert "1 answers" not in await retain(db, removal, days=365)
    said = await retain(db, removal, days=30, platform="slack")
    assert said == "Deleted 2 answers and 1 conversations that were older than 30 days."
    async with db.read() as session:
        assert (await session.scalars(select(ConversationRow.id))).all() == [both]
        questions = (await session.scalars(select(AnswerRow.question).order_by(AnswerRow.question))).all()
    assert questions == ["Elsewhere?", "New?"]
    assert files.dropped == [gone]
    assert "Deleted 1 answers" in await retain(db, removal, days=30)


async def test_many_go_in_small_steps(db: Database, removal: Removal) -> None:
    row = {"person": ANN, "platform": "web", "question": "?", "standalone_question": "?"}
    async with db.session() as session:
        session.add_all(AnswerRow(**row, created_at=now() - timedelta(days=9)) for _ in range(TOGETHER + 1))
    done: list[int] = []

    async def follow(number: int) -> None:
        done.append(number)

    assert await removal.answers(AnswerRow.person == ANN, follow) == TOGETHER + 1
    assert done == [TOGETHER, TOGETHER + 1]


@pytest.mark.parametrize("days", [0, -1, True, "30", None, 1e9])
async def test_without_a_sensible_age_nothing_is_deleted(db: Database, removal: Removal, days: object) -> None:
    await answered(db, None, "Old?", created_at=now() - timedelta(days=4000))
    with pytest.raises(UserError, match="how many days"):
        await retain(db, removal, days=days)
    assert await count(db, AnswerRow) == 1
