"""The list of channels: what was set and where somebody asked, in one, with names and in order of their last use."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core.chats.channels import Channels
from core.chats.places import Places
from core.db.session import Database
from core.db.tables import ConversationRow, InboxRow, now
from core.settings import ChannelsSettings
from core.types import Place

pytestmark = pytest.mark.anyio

C1, C2, C3 = (Place("slack", "T1", f"C{number}") for number in (1, 2, 3))
PLATFORMS = ("slack", "telegram")


async def ask(db: Database, place: Place, hours_ago: int, *, questions: int = 1) -> None:
    where = {"platform": place.platform, "workspace": place.workspace, "channel": place.channel}
    async with db.session() as session:
        for number in range(questions):
            at = now() - timedelta(hours=hours_ago + number)
            session.add(ConversationRow(**where, thread=str(number), person="ann", updated_at=at))
            message = f"{hours_ago}-{number}"
            session.add(InboxRow(**where, message=message, state="done", said_at=at))


async def test_places_are_listed_once_by_their_last_use(db: Database) -> None:
    places, channels = Places(db), Channels(db, ChannelsSettings())
    assert await places.list(PLATFORMS) == ([], 0)
    await ask(db, C1, 5, questions=3)
    await ask(db, C2, 1)
    await ask(db, Place("web"), 1)
    await ask(db, Place("discord", "G", "1"), 1)
    await channels.change(C2, "user:1", mode="auto", name="#two")
    await channels.change(C3, "user:1", mode="off")
    await channels.change(Place("slack", "T1"), "user:1", language="zh")
    found, total = await places.list(PLATFORMS)
    assert total == 4
    assert [(one.place, one.questions, dict(one.values)) for one in found] == [
        (C2, 1, {"mode": "auto"}),
        (C1, 3, {}),
        (Place("slack", "T1"), 0, {"language": "zh"}),
        (C3, 0, {"mode": "off"}),
    ]
    first = found[0]
    assert first.last_at is not None
    assert first.last_at.tzinfo is not None
    assert (first.name, first.updated_by, found[1].updated_by) == ("#two", "user:1", "")
    page, total = await places.list(PLATFORMS, limit=2, offset=2)
    assert ([one.place for one in page], total) == ([found[2].place, C3], 4)
    assert await places.list(PLATFORMS, offset=9) == ([], 4)
    assert [one.place for one in (await places.list(PLATFORMS, text="#TWO"))[0]] == [C2]
    assert await places.list(PLATFORMS, text="100%") == ([], 0)


async def test_names_are_learned_once_and_found(db: Database) -> None:
    places = Places(db)
    for place in (C1, C2, Place("telegram", "", "-100")):
        await ask(db, place, 1)
    assert sorted(one.channel for one in await places.nameless("slack", limit=10)) == ["C1", "C2"]
    assert len(await places.nameless("slack", limit=1)) == 1
    await places.name(C1, "#general\n")
    await places.name(C2, "")  # a private chat
    assert await places.nameless("slack", limit=10) == []
    await places.name(C1, "#all")
    ((found,), total) = await places.list(PLATFORMS, text="#all")
    assert (found.place, found.platform_name, found.name, total) == (C1, "#all", "", 1)
