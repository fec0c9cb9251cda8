"""What was set for a channel, its workspace and its platform: which of it holds, and what is refused."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from core.chats.channels import Channels, ChannelSettings
from core.db.session import Database
from core.db.tables import KnowledgeBaseRow, now
from core.errors import NotFound, UserError
from core.settings import ChannelsSettings
from core.types import Place

pytestmark = pytest.mark.anyio

CHANNEL = Place("slack", "T1", "C1", "1700000000.000100")
NEIGHBOUR = replace(CHANNEL, channel="C2")
WORKSPACE = Place("slack", "T1")
PLATFORM = Place("slack")


def engines() -> list[str]:
    return ["extractive", "openai"]


@pytest.fixture
async def channels(db: Database) -> Channels:
    async with db.session() as session:
        for name in ("handbook", "manual", "员工手册"):
            session.add(KnowledgeBaseRow(name=name, chunk_size=200, chunk_overlap=40))
        over = now() + timedelta(hours=1)
        session.add(KnowledgeBaseRow(name="thread-1", chunk_size=200, chunk_overlap=40, expires_at=over))
    return Channels(db, ChannelsSettings(), engines)


async def test_where_nothing_is_set_the_settings_hold(db: Database) -> None:
    assert await Channels(db, ChannelsSettings()).get(CHANNEL) == ChannelSettings()
    followed = await Channels(db, ChannelsSettings(follow_ups=True)).get(CHANNEL)
    assert followed == ChannelSettings(follow_ups=True)
    assert not followed.is_set


async def test_all_that_can_be_set_is_kept(channels: Channels, db: Database) -> None:
    values: dict[str, Any] = {
        "kbs": ("handbook", "员工手册"),
        "engine": "openai",
        "instructions": "Be brief.",
        "mode": "auto",
        "language": "zh",
        "feedback": False,
        "follow_ups": True,
        "managers": ("slack:T1:U1",),
        "helpers": ("U1", "U2"),
    }
    await channels.change(CHANNEL, "slack:T1:U1", name="#help\n", **values)
    expected = ChannelSettings(**values, is_set=True)
    assert await channels.get(CHANNEL) == expected
    assert await Channels(db, ChannelsSettings()).get(replace(CHANNEL, thread="")) == expected
    (listed,) = await channels.list()
    assert (listed.place, listed.name, listed.updated_by) == (replace(CHANNEL, thread=""), "#help", "slack:T1:U1")
    assert listed.values == values


async def test_the_nearest_place_goes_first_and_each_value_by_itself(channels: Channels) -> None:
    await channels.change(PLATFORM, "me", kbs=("handbook",), mode="off", language="zh")
    await channels.change(WORKSPACE, "me", kbs=("manual",), mode="auto")
    await channels.change(CHANNEL, "me", mode="mention", feedback=False)
    here, beside = await channels.get(CHANNEL), await channels.get(NEIGHBOUR)
    assert (here.kbs, here.mode, here.language, here.feedback) == (("manual",), "mention", "zh", False)
    assert (beside.kbs, beside.mode, beside.language, beside.feedback) == (("manual",), "auto", "zh", True)
    assert (await channels.get(Place("slack", "T2", "C1"))).kbs == ("handbook",)
    for elsewhere in (Place("discord", "T1", "C1"), Place("discord")):
        assert await channels.get(elsewhere) == ChannelSettings()


async def test_none_sets_a_value_back_and_clearing_all_of_a_place(channels: Channels) -> None:
    await channels.change(WORKSPACE, "me", kbs=("manual",))
    await channels.change(CHANNEL, "me", kbs=("handbook",), mode="off")
    await channels.change(CHANNEL, "me", kbs=None)
    assert (await channels.get(CHANNEL)).kbs == ("manual",)
    assert (await channels.get(CHANNEL)).mode == "off"
    assert await channels.clear(CHANNEL)
    assert (await channels.get(CHANNEL)).mode == "mention"
    assert not await channels.clear(CHANNEL)
    assert [item.place for item in await channels.list()] == [WORKSPACE]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"kbs": ("handbook", "nowhere")}, "nowhere"),
    ({"kbs": ("thread-1",)}, "thread-1"),
    ({"engine": "gpt"}, "extractive, openai"),
    ({"mode": "loud"}, "mention, auto, off"),
    ({"language": "fr"}, "en, zh"),
    ({"instructions": "x" * 8001}, "8000"),
    ({"managers": ("a b",)}, "a b"),
    ({"helpers": ("U1\n",)}, "U1"),
    ({"helpers": tuple(f"U{n}" for n in range(51))}, "50"),
    ({"colour": "red"}, "colour"),
    ({"updated_by": "nobody"}, "updated_by"),
]


async def test_what_cannot_be_is_refused_and_nothing_changes(channels: Channels) -> None:
    await channels.change(CHANNEL, "me", feedback=False)
    for values, said in REFUSED:
        with pytest.raises(UserError, match=said):
            await channels.change(CHANNEL, "you", **{"feedback": True, **values})
    assert await channels.get(CHANNEL) == ChannelSettings(feedback=False, is_set=True)


async def test_whoever_names_what_is_not_there_does_not_learn_what_is(channels: Channels) -> None:
    with pytest.raises(NotFound) as told:
        await channels.change(CHANNEL, "me", kbs=("nowhere",))
    assert "handbook" not in str(told.value)


async def test_what_is_read_again_and_again_is_asked_of_the_database_once(
    channels: Channels, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    genuine = channels._read

    async def counted(place: Place) -> ChannelSettings:
        nonlocal reads
        reads += 1
        return await genuine(place)

    monkeypatch.setattr(channels, "_read", counted)
    for _ in range(5):
        await channels.get(CHANNEL)
        await channels.get(replace(CHANNEL, thread="another"))
    assert reads == 1
    await channels.change(WORKSPACE, "me", mode="off")
    assert (await channels.get(CHANNEL)).mode == "off"
    assert reads == 2


async def test_what_was_read_before_a_change_is_not_kept(channels: Channels, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine, was_read, go_on = channels._read, asyncio.Event(), asyncio.Event()

    async def slow(place: Place) -> ChannelSettings:
        found = await genuine(place)
        was_read.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(channels, "_read", slow)
    reading = asyncio.create_task(channels.get(CHANNEL))
    async with asyncio.timeout(10):
        await was_read.wait()
        await channels.change(CHANNEL, "me", mode="off")
        go_on.set()
        await reading
    assert (await channels.get(CHANNEL)).mode == "off"


async def test_a_change_by_another_process_counts_after_a_while(
    channels: Channels, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await channels.get(CHANNEL)
    await Channels(db, ChannelsSettings()).change(CHANNEL, "me", mode="off")
    assert (await channels.get(CHANNEL)).mode == "mention"
    later = time.monotonic() + 4
    monkeypatch.setattr("core.chats.channels.time.monotonic", lambda: later)
    assert (await channels.get(CHANNEL)).mode == "off"
