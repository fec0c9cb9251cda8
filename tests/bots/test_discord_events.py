"""What Discord tells, as our events; files and threads as they are read; and Discord refusing us."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import discord
import pytest
from pydantic import SecretStr

from bots.discord import controls, events
from bots.discord.check import check
from bots.discord.events import Where
from bots.discord.heard import Heard
from bots.discord.platform import DiscordPlatform
from bots.errors import Refused
from bots.memory import Memory
from bots.platform import Controls
from core.errors import NotFound, TooLarge, Unavailable
from core.ports import Finding
from core.types import ChatEvent, Deleted, Mention, Person, Place, Press, Thumb
from core.vault import Vault
from tests.bots.conftest import Front
from tests.bots.discord_world import kvasir_of
from tests.fakes.discord_server import DiscordServer, Permission

pytestmark = pytest.mark.anyio


@dataclass
class Recorder:
    """An intake that only keeps what it is told."""

    told: list[ChatEvent] = field(default_factory=list)
    failures: int = 0
    """So many times it cannot store anything."""

    async def take(self, event: ChatEvent) -> str:
        if self.failures:
            self.failures -= 1
            raise Unavailable("The database is away.")
        if event not in self.told:  # what was just said may also be read from the history
            self.told.append(event)
        return ""

    async def thread_of(self, place: Place, post: str) -> str | None:
        return None

    def mention(self) -> Mention:
        return cast(Mention, self.told[-1])

    async def asked(self, text: str) -> Mention:
        """The question with this text, once it was told."""
        async with asyncio.timeout(10):
            while not (found := [one for one in self.told if isinstance(one, Mention) and one.text == text]):
                await asyncio.sleep(0.005)
        return found[0]


@pytest.fixture
async def server() -> AsyncIterator[DiscordServer]:
    async with DiscordServer() as server:
        yield server


@asynccontextmanager
async def listening(front: Front, server: DiscordServer, intake: Recorder) -> AsyncIterator[DiscordPlatform]:
    platform = DiscordPlatform(kvasir_of(front, server))
    running = asyncio.create_task(platform.run(intake))
    try:
        await server.until(lambda: server.clients == 1)
        yield platform
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _has(intake: Recorder, count: int) -> None:
    async with asyncio.timeout(10):
        while len(intake.told) < count:
            await asyncio.sleep(0.005)


# ---------------------------------------------------------------- what is said
async def test_a_mention_tells_who_asked_what_where(front: Front, server: DiscordServer) -> None:
    people, intake = server.world, Recorder()
    async with listening(front, server, intake):
        text = f"how many days has <@{people.bo.id}> in <#{people.general.id}> <:wave:1> </ask:5> <@!{people.bot.id}>?"
        said = server.mention(people.ann, people.general, text, files={"notes.txt": b"abc"})
        await _has(intake, 1)
        thread = server.open_thread(people.ann, said, "aside")
        below = server.mention(people.bo, thread, "and here?")
        await _has(intake, 2)
        private = server.dm(people.bo, "hello")
        await _has(intake, 3)
    first, second, third = cast(list[Mention], intake.told)

    assert first.text == "how many days has @Bo in #general :wave: /ask ?"
    assert first.place == Place("discord", str(people.guild.id), str(people.general.id), str(said.id))
    assert (first.person.key, first.person.name, first.person.member) == (f"discord:{people.ann.id}", "Ann", True)
    assert (first.trigger, first.alone, first.edited) == ("mention", False, False)
    assert [(file.name, file.size) for file in first.files] == [("notes.txt", 3)]
    assert first.said_at is not None
    assert second.place == first.place
    assert (second.message_id, second.extra["channel"]) == (str(below.id), str(thread.id))
    assert third.place == Place("discord", "", str(private.channel.id))
    assert (third.trigger, third.alone, third.text) == ("dm", True, "hello")


async def test_edits_deletions_and_thumbs_are_told(front: Front, server: DiscordServer) -> None:
    people, intake = server.world, Recorder()
    async with listening(front, server, intake):
        said = server.mention(people.ann, people.general, "one")
        server.open_thread(people.ann, said, "a thread is no edit")
        server.edit(said, f"<@{people.bot.id}> two")
        server.delete(said)
        await _has(intake, 3)
    first, second, third = intake.told[:3]
    assert isinstance(second, Mention)
    assert (second.text, second.edited, second.message_id) == ("two", True, cast(Mention, first).message_id)
    assert third == Deleted(Place("discord", str(people.guild.id), str(people.general.id), str(said.id)), str(said.id))


async def test_what_cannot_be_stored_is_tried_again(front: Front, server: DiscordServer) -> None:
    intake = Recorder(failures=1)
    async with listening(front, server, intake):
        server.mention(server.world.ann, server.world.general, "one")
        await _has(intake, 1)
    assert intake.mention().text == "one"


async def test_a_helpers_words_can_be_kept(front: Front, server: DiscordServer) -> None:
    people, intake = server.world, Recorder()
    people.bo.permissions |= int(Permission.MANAGE_CHANNELS)
    async with listening(front, server, intake):
        root = server.mention(people.ann, people.general, "how long is annual leave?")
        thread = server.open_thread(people.ann, root, "leave")
        said = server.say(people.bo, thread, "It is 28 days.")
        server.context(people.bo, said, "Keep as answer")
        await _has(intake, 2)
    (press,) = (event for event in intake.told if isinstance(event, Press))
    assert (press.control, press.text, press.may_manage) == ("keep", "It is 28 days.", True)
    assert press.place == Place("discord", str(people.guild.id), str(people.general.id), str(root.id))


async def test_an_answer_that_takes_longer_is_announced_and_then_takes_that_place(
    front: Front, server: DiscordServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bots.discord.desk._IN_TIME", 0.02)  # so that the test need not wait for two seconds
    people, intake = server.world, Recorder()
    async with listening(front, server, intake) as platform:
        asked = server.slash(people.ann, people.general, "ask", question="how long is annual leave?")
        await server.until(lambda: asked.answered)
        assert asked.answered == 5
        surface = platform.surface(intake.mention())
        first = await surface.send(surface.plain("28 days"), Controls(), "k-0")
        second = await surface.send(surface.plain("a year"), Controls(), "k-1")
        await surface.edit(first, surface.plain("28 days and"), Controls(again=True))
        assert [one.text for one in asked.responses] == ["28 days and", "a year"]
        assert {one.seen_only_by for one in asked.responses} == {people.ann}
        assert await platform.surface(intake.mention()).find([second]) == first
        await surface.delete(second)
        await surface.delete(second)
        assert [one.deleted for one in asked.responses] == [False, True]


# ---------------------------------------------------------------- read from Discord
async def test_a_thread_is_read_back_with_the_message_it_hangs_on(front: Front, server: DiscordServer) -> None:
    people, intake = server.world, Recorder()
    server.allow_message_content()
    root = server.say(people.ann, people.general, "our leave is odd")
    thread = server.open_thread(people.ann, root, "leave")
    server.say(people.bo, thread, "28 days, I think")
    server.say(people.bot, thread, "It is 28 days.")
    async with listening(front, server, intake) as platform:
        server.mention(people.ann, thread, "is it?")
        said = await platform.history(await intake.asked("is it?"), 20)
        assert [(one.text, one.author, one.by_us) for one in said] == [
            ("our leave is odd", "Ann", False),
            ("28 days, I think", "Bo", False),
            ("It is 28 days.", "Kvasir", True),
        ]
        server.mention(people.ann, people.general, "is it so?")
        assert await platform.history(await intake.asked("is it so?"), 20) == ()


async def test_files_are_fetched_from_discord_alone_and_not_beyond_their_size(
    front: Front, server: DiscordServer
) -> None:
    intake = Recorder()
    async with listening(front, server, intake) as platform:
        server.mention(server.world.ann, server.world.general, "read this", files={"notes.txt": b"x" * 5000})
        await _has(intake, 1)
        mention = intake.mention()
        (file,) = mention.files
        assert await platform.download(mention, file, 10_000) == b"x" * 5000
        with pytest.raises(TooLarge):
            await platform.download(mention, file, 4000)
        for url in ("http://127.0.0.1:1/secret", "https://evil.example/cdn.discordapp.com", file.id.rpartition("/")[0]):
            with pytest.raises(NotFound):
                await platform.download(mention, replace(file, id=url), 10_000)


# ---------------------------------------------------------------- refused
async def test_a_wrong_or_revoked_token_and_a_missing_intent_end_it(front: Front, server: DiscordServer) -> None:
    wrong = DiscordPlatform(kvasir_of(front, server, token=SecretStr("wrong")))
    with pytest.raises(Refused, match="does not know this token"):
        await wrong.run(Recorder())
    asking = DiscordPlatform(kvasir_of(front, server, message_content=True))
    with pytest.raises(Refused, match="not switched on"):
        await asking.run(Recorder())
    revoked = DiscordPlatform(kvasir_of(front, server))
    running = asyncio.create_task(revoked.run(Recorder()))
    await server.until(lambda: server.clients == 1)
    server.revoke_token()
    with pytest.raises(Refused):
        await running


async def test_a_connection_that_does_not_come_back_is_begun_anew(
    front: Front, server: DiscordServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bots.discord.platform._LOOK_SECONDS", 0.02)  # so that the test need not wait for minutes
    monkeypatch.setattr("bots.discord.platform._LONGEST_AWAY", 0.2)
    running = asyncio.create_task(DiscordPlatform(kvasir_of(front, server)).run(Recorder()))
    await server.until(lambda: server.clients == 1)
    with server.gap(), pytest.raises(ConnectionError, match="cannot be reached"):
        await running


async def test_the_doctor_says_what_is_missing(front: Front, server: DiscordServer) -> None:
    async def findings(**discord: object) -> list[Finding]:
        return [one async for one in check(kvasir_of(front, server, **discord).settings)]

    assert [one.ok for one in await findings()] == [True] * 6
    assert "not switched on" in " ".join(one.says for one in await findings(message_content=True) if not one.ok)
    server.allow_message_content()
    assert all(one.ok for one in await findings(message_content=True))
    server.world.guild.permissions = int(Permission.VIEW_CHANNEL | Permission.SEND_MESSAGES)
    (poor,) = (one for one in await findings() if not one.ok)
    assert "«Acme» the bot's role lacks: Read Message History, Send Messages in Threads" in poor.says
    server.world.guilds.clear()
    (alone,) = (one for one in await findings() if not one.ok)
    assert f"client_id={server.world.bot.id}&scope=bot%20applications.commands" in alone.says
    (wrong,) = await findings(token=SecretStr("wrong"))
    assert (wrong.ok, "does not know this token" in wrong.says) == (False, True)
    (off,) = await findings(token=None)
    assert (off.ok, "KVASIR_DISCORD__TOKEN" in off.says) == (False, True)
    (away,) = await findings(api_base="http://127.0.0.1:1/api/v10")
    assert (away.ok, "cannot be reached" in away.says) == (False, True)


# ---------------------------------------------------------------- pure parts
@pytest.mark.parametrize(
    ("emoji", "value"), [("👍", 1), ("👍🏿", 1), ("👎", -1), ("👎🏻", -1), ("🎉", 0), ("thumbsup", 0), ("", 0)]
)
def test_reactions_in_any_colour_of_skin(emoji: str, value: int) -> None:
    assert events.thumb_value(discord.PartialEmoji(name=emoji)) == value
    assert events.thumb_value(discord.PartialEmoji(name=emoji, id=5)) == 0


def test_a_place_is_the_channel_and_in_it_the_conversation() -> None:
    assert events.place_of(Where(None, 5), "7") == Place("discord", "", "5", "")
    assert events.place_of(Where(1, 5), "7") == Place("discord", "1", "5", "7")
    assert events.place_of(Where(1, 6, parent=5)) == Place("discord", "1", "5", "6")


def test_a_row_of_buttons_says_no_more_than_it_must() -> None:
    assert controls.rows(Controls()) == []
    (row,) = controls.rows(Controls(rate=True, again=True, human=True, share=True, answer_id="a" * 32))
    ids = [button["custom_id"] for button in row["components"]]
    assert ids == [
        f"kvasir:up:{'a' * 32}",
        f"kvasir:down:{'a' * 32}",
        "kvasir:again",
        "kvasir:human",
        f"kvasir:share:{'a' * 32}",
    ]


def test_a_window_of_somebody_elses_is_no_reason() -> None:
    window = controls.why(controls.Rated(post="12:34"))
    assert controls.reason_of({"custom_id": window["custom_id"], "components": []}) == (
        controls.Rated(post="12:34"),
        "",
    )
    for custom_id in ("kvasir:why:", "kvasir:why:p:../x", "other", "kvasir:why:a:b:c"):
        assert controls.reason_of({"custom_id": custom_id, "components": []}) is None


# ---------------------------------------------------------------- how far it was heard
async def test_a_mark_never_passes_what_is_not_dealt_with(front: Front) -> None:
    memory = Memory(front.kvasir.db, Vault(front.house.settings.data_dir), "discord")
    heard = Heard(memory)
    with heard.hearing("1", 103):
        pass
    await heard.keep(everything=True)
    assert await memory.all("heard") == {}  # it may be the second that was said
    heard.begin("1", 100)
    assert heard.since("1") == 100
    heard.filled("1")
    with heard.hearing("1", 105):
        pass
    with pytest.raises(Unavailable), heard.hearing("1", 110):
        raise Unavailable("The database is away.")
    with heard.hearing("1", 120):
        pass
    await heard.keep(everything=True)
    assert await memory.all("heard") == {"1": "109"}

    again = Heard(memory)
    await again.load(lambda _: True)
    again.gap(["1"])
    with again.hearing("1", 200):
        pass
    await again.keep(everything=True)
    assert again.since("1") == 109
    assert await memory.all("heard") == {"1": "109"}
    again.filled("1")
    await again.keep(everything=True)
    assert await memory.all("heard") == {"1": "200"}


def test_a_thumb_of_ours_is_none() -> None:
    said: Any = {"message_id": "3", "channel_id": "2", "user_id": "9", "guild_id": "1", "burst": False, "type": 0}
    event = discord.RawReactionActionEvent(said, discord.PartialEmoji(name="👍"), "REACTION_ADD")
    assert events.reaction_of(event, Where(1, 2), me=9) is None
    place = Place("discord", "1", "2")
    assert events.reaction_of(event, Where(1, 2), me=8) == Thumb(
        "", Person("discord:9", ""), 1, place=place, post="2:3"
    )
