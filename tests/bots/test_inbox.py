"""The durable inbox, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import update

from bots.inbox import Inbox, LeaseLost
from core.db.session import Database
from core.db.tables import InboxRow, now
from core.types import ChatFile, Mention, Person
from tests.fakes.messenger import ANN, PLACE

pytestmark = pytest.mark.anyio

ASKED = Mention(
    PLACE,
    "m1",
    replace(ANN, groups=("G1", "G2")),
    "年假多少天？",
    kbs=("handbook",),
    alone=True,
    said_at=now() - timedelta(seconds=3),
    files=(ChatFile("F1", "a.pdf", 9),),
    extra={"token": "t"},
)


async def test_a_question_stays_as_it_was_asked_until_its_answer_stands(db: Database) -> None:
    inbox = Inbox(db)
    item = await inbox.take_in(ASKED)
    assert item is not None
    assert await inbox.take_in(ASKED) is None
    await inbox.add_post(item, "p1")
    await inbox.add_post(item, "p2")
    await inbox.drop_post(item, "p1")
    assert item.posts == list(await inbox.posts_of(item.id)) == ["p2"]
    posted = await inbox.posted(PLACE, "p2")
    assert posted is not None
    assert (posted.inbox_id, posted.answer_id, posted.state, posted.mention) == (
        item.id,
        item.answer_id,
        "working",
        ASKED,
    )
    assert await inbox.posted(PLACE, "p1") is None
    assert await inbox.posted(replace(PLACE, channel="D"), "p2") is None
    assert await inbox.keep([item]) == []
    await inbox.finish(item, "done")
    assert await inbox.of(PLACE, "m1") == replace(posted, state="done")
    assert await inbox.waiting() == 0


async def test_what_was_given_back_is_taken_up_with_its_messages(db: Database) -> None:
    inbox = Inbox(db)
    item = await inbox.take_in(ASKED)
    assert item is not None
    await inbox.add_post(item, "p1")
    await inbox.release(item)
    (again,) = await inbox.take_over("fake")
    assert (again.mention, again.answer_id, again.posts, again.attempts) == (ASKED, item.answer_id, ["p1"], 1)
    for write in (inbox.add_post(item, "p2"), inbox.finish(item, "done"), inbox.release(item)):
        with pytest.raises(LeaseLost):
            await write
    item.held_until = again.held_until = 0.0
    with pytest.raises(LeaseLost):
        await inbox.check(item)
    await inbox.check(again)
    assert item.posts == ["p1"]


async def test_many_events_at_once_are_each_taken_in_once(db: Database) -> None:
    inboxes = Inbox(db), Inbox(db)
    asked = [replace(ASKED, message_id=f"m{number}", person=Person("fake:W:ann", "Ann")) for number in range(20)]
    taken = await asyncio.gather(*(inbox.take_in(one) for one in asked for inbox in inboxes))
    assert sum(item is not None for item in taken) == 20
    async with db.session() as session:
        await session.execute(update(InboxRow).values(lease_until=now() - timedelta(seconds=1)))
    assert {item.mention.message_id for item in await inboxes[0].take_over("fake")} == {one.message_id for one in asked}
