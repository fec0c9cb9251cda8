"""Our Discord server, as the unmodified discord.py sees it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import discord
import pytest
import yarl
from discord import app_commands

from tests.fakes.discord_server import DiscordServer, Kind, Message, Permission

pytestmark = pytest.mark.anyio

INTENTS = discord.Intents(guilds=True, guild_messages=True, dm_messages=True, guild_reactions=True, dm_reactions=True)


class Bot(discord.AutoShardedClient):
    """Keeps what it hears."""

    def __init__(self, **options: Any) -> None:
        super().__init__(intents=options.pop("intents", INTENTS), guild_ready_timeout=0.05, **options)
        self.heard: list[discord.Message] = []
        self.reactions: list[discord.RawReactionActionEvent] = []
        self.interactions: list[discord.Interaction] = []
        self.news = asyncio.Event()

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """The server lets sixteen identify at once."""

    async def on_message(self, message: discord.Message) -> None:
        if message.author != self.user:
            self.heard.append(message)
            self.news.set()

    async def on_raw_reaction_add(self, event: discord.RawReactionActionEvent) -> None:
        self.reactions.append(event)
        self.news.set()

    async def on_raw_reaction_remove(self, event: discord.RawReactionActionEvent) -> None:
        self.reactions.append(event)
        self.news.set()

    async def on_interaction(self, interaction: discord.Interaction) -> None:
        self.interactions.append(interaction)
        self.news.set()

    async def has(self, kept: list[Any], count: int) -> Any:
        """Wait until so many were heard; the last of them."""
        async with asyncio.timeout(10):
            while len(kept) < count:
                self.news.clear()
                await self.news.wait()
        return kept[-1]


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DiscordServer]:
    async with DiscordServer() as server:
        monkeypatch.setattr(discord.http.Route, "BASE", server.api_base)
        monkeypatch.setattr(discord.gateway.DiscordWebSocket, "DEFAULT_GATEWAY", yarl.URL(server.gateway.url))
        yield server


@asynccontextmanager
async def running(server: DiscordServer, bot: Bot) -> AsyncIterator[Bot]:
    task = asyncio.create_task(bot.start(server.token))
    try:
        async with asyncio.timeout(10):
            await asyncio.wait([task, asyncio.create_task(bot.wait_until_ready())], return_when="FIRST_COMPLETED")
        if task.done():
            task.result()
        yield bot
    finally:
        await bot.close()
        await asyncio.wait([task])


@pytest.fixture
async def bot(server: DiscordServer) -> AsyncIterator[Bot]:
    async with running(server, Bot()) as bot:
        yield bot


async def test_mention_is_heard_and_answered_as_a_person_sees_it(server: DiscordServer, bot: Bot) -> None:
    world = server.world
    question = server.mention(world.ann, world.general, "how many days?")

    heard = await bot.has(bot.heard, 1)
    sent = await heard.reply("28 days", mention_author=False, suppress_embeds=True)
    await sent.edit(content="28 days a year https://acme.example/leave", suppress=True)
    async with heard.channel.typing():
        pass

    (answer,) = server.answers(question)
    assert (heard.content, heard.author.name) == (f"<@{world.bot.id}> how many days?", "ann")
    assert answer.versions == ["28 days", "28 days a year https://acme.example/leave"]
    assert (answer.pinged, answer.previews) == (set(), [])
    assert server.teller.typed[0][0] == world.general.id


async def test_text_is_withheld_from_a_bot_without_the_intent(server: DiscordServer, bot: Bot) -> None:
    world = server.world
    server.say(world.ann, world.general, "not for the bot", files={"a.txt": b"x"})
    server.dm(world.ann, "in private")
    thread = server.open_thread(world.ann, server.mention(world.bo, world.general, "hi"), "Leave")
    server.mention(world.bo, thread, "in a thread")

    await bot.has(bot.heard, 4)
    history = [message async for message in bot.get_partial_messageable(world.general.id).history()]

    assert [message.clean_content for message in bot.heard] == ["", "in private", "@Kvasir hi", "@Kvasir in a thread"]
    assert bot.heard[0].attachments == []
    assert [message.content for message in history] == [f"<@{world.bot.id}> hi", ""]
    assert isinstance(bot.heard[3].channel, discord.Thread)


async def test_text_is_given_with_the_intent_and_refused_where_it_is_off(server: DiscordServer) -> None:
    intents = discord.Intents.default()
    intents.message_content = True
    with pytest.raises(discord.PrivilegedIntentsRequired):
        async with running(server, Bot(intents=intents)):
            pass

    server.allow_message_content()
    async with running(server, Bot(intents=intents)) as bot:
        server.say(server.world.ann, server.world.general, "for everybody")
        assert (await bot.has(bot.heard, 1)).content == "for everybody"


async def test_reply_and_pings_are_kept(server: DiscordServer, bot: Bot) -> None:
    world = server.world
    question = server.mention(world.ann, world.general, "hi")
    heard = await bot.has(bot.heard, 1)
    loud = await heard.channel.send(f"@everyone <@{world.bo.id}> see https://evil.example/x")
    await heard.channel.send("@everyone", allowed_mentions=discord.AllowedMentions.none())
    own = world.general.messages[loud.id]
    server.say(world.ann, world.general, "and why?", reply_to=own)
    server.say(world.ann, world.general, "quiet", reply_to=own, ping=False)

    followed = await bot.has(bot.heard, 3)

    assert own.pinged == {"everyone", str(world.bo.id)}
    assert own.previews == ["https://evil.example/x"]
    assert server.seen(world.general)[-3].pinged == set()
    assert bot.user in bot.heard[1].mentions
    assert bot.heard[1].content == "and why?"
    assert (reference := bot.heard[1].reference) is not None
    assert reference.message_id == loud.id
    assert bot.user not in followed.mentions
    assert question.reference is None


async def test_what_happened_is_replayed_to_a_client_that_comes_back(server: DiscordServer, bot: Bot) -> None:
    world = server.world
    server.gateway.ask_reconnect()
    server.mention(world.ann, world.general, "one")
    await bot.has(bot.heard, 1)
    await server.until(lambda: server.gateway.resumed == 1)
    server.gateway.close_all(1006 + 2994)
    server.mention(world.ann, world.general, "two")
    await bot.has(bot.heard, 2)

    assert [message.clean_content for message in bot.heard] == ["@Kvasir one", "@Kvasir two"]
    assert server.gateway.identified == [(0, 1)]


async def test_what_happened_in_a_gap_is_only_in_the_history(server: DiscordServer, bot: Bot) -> None:
    world = server.world
    first = server.mention(world.ann, world.general, "before")
    await bot.has(bot.heard, 1)
    with server.gap():
        server.mention(world.ann, world.general, "inside")
    await server.until(lambda: len(server.gateway.identified) == 2 and server.clients == 1)
    server.mention(world.ann, world.general, "after")
    await bot.has(bot.heard, 2)

    assert [message.clean_content for message in bot.heard] == ["@Kvasir before", "@Kvasir after"]
    missed = bot.get_partial_messageable(world.general.id).history(after=discord.Object(first.id), limit=1)
    assert [message.clean_content async for message in missed] == ["@Kvasir inside"]


async def test_invalid_session_makes_the_client_identify_again(server: DiscordServer, bot: Bot) -> None:
    server.gateway.invalidate()
    await server.until(lambda: len(server.gateway.identified) == 2)
    server.mention(server.world.ann, server.world.general, "hi")
    await bot.has(bot.heard, 1)


async def test_silent_gateway_is_left(server: DiscordServer) -> None:
    server.gateway.heartbeat_interval = 200
    async with running(server, Bot(heartbeat_timeout=0.5)) as bot:
        server.gateway.go_silent()
        server.mention(server.world.ann, server.world.general, "hi")
        await bot.has(bot.heard, 1)
    assert server.gateway.resumed >= 1


async def test_events_are_repeated_and_reordered_on_demand(server: DiscordServer, bot: Bot) -> None:
    world = server.world
    server.gateway.repeat = 4
    server.mention(world.ann, world.general, "one")
    await bot.has(bot.heard, 4)
    server.gateway.repeat = 1
    with server.gateway.holding():
        server.mention(world.ann, world.general, "two")
        server.mention(world.ann, world.general, "three")
    await bot.has(bot.heard, 6)

    assert [message.clean_content for message in bot.heard[3:]] == ["@Kvasir one", "@Kvasir three", "@Kvasir two"]
    assert len({message.id for message in bot.heard}) == 3


async def test_several_shards_and_two_clients(server: DiscordServer) -> None:
    server.rest.shards = 2
    world = server.world
    other = world.add_channel("other", guild=world.add_guild("Umbrella"))
    async with running(server, Bot()) as first, running(server, Bot()) as second:
        for channel in (world.general, other):
            server.mention(world.ann, channel, "hi")
        server.dm(world.ann, "hi")
        await first.has(first.heard, 3)
        await second.has(second.heard, 3)
    assert server.gateway.identified == [(0, 2), (1, 2)] * 2


async def test_wrong_token_is_refused_and_a_revoked_one_ends_the_client(server: DiscordServer) -> None:
    with pytest.raises(discord.LoginFailure):
        async with Bot() as stranger:
            await stranger.start("wrong")
    bot = Bot()
    task = asyncio.create_task(bot.start(server.token))
    await server.until(lambda: server.clients == 1)
    server.revoke_token()
    async with asyncio.timeout(5):
        with pytest.raises(discord.ConnectionClosed) as closed:
            await task
    assert closed.value.code == 4004


async def test_limits_and_errors_are_discords(server: DiscordServer, bot: Bot) -> None:
    world = server.world
    general = bot.get_partial_messageable(world.general.id)
    rows = discord.ui.View(timeout=None)
    rows.add_item(discord.ui.Button(label="x", custom_id="y" * 100))

    async def code(request: Any) -> int:
        with pytest.raises(discord.HTTPException) as error:
            await request
        return error.value.code

    await general.send("😀" * 1000, view=rows)
    assert await code(general.send("😀" * 1000 + "!")) == 50035
    assert await code(general.send(" ")) == 50006
    assert await code(general.send(embeds=[discord.Embed(description="x" * 3500)] * 2)) == 50035
    assert await code(general.get_partial_message(1).edit(content="x")) == 10008
    assert (
        await code(general.get_partial_message(server.say(world.ann, world.general, "x").id).edit(content="y")) == 50005
    )
    server.deny(world.general, Permission.SEND_MESSAGES)
    assert await code(general.send("x")) == 50013
    server.deny(world.general, Permission.VIEW_CHANNEL)
    assert await code(general.send("x")) == 50001


async def test_components_v2_and_their_sum(server: DiscordServer, bot: Bot) -> None:
    general = bot.get_partial_messageable(server.world.general.id)
    view = discord.ui.LayoutView(timeout=None)
    for part in ("a" * 2000, "b" * 2000):
        view.add_item(discord.ui.TextDisplay(part))
    await general.send(view=view)
    (message,) = server.seen(server.world.general)
    assert message.text == "a" * 2000 + "\n" + "b" * 2000


async def test_nonce_makes_one_message_of_two(server: DiscordServer, bot: Bot) -> None:
    general = bot.get_partial_messageable(server.world.general.id)
    for content in ("first", "second"):
        await general.send(content, nonce="n1")
    assert [message.content for message in server.seen(server.world.general)] == ["first"]


async def test_requests_meet_trouble(server: DiscordServer, bot: Bot) -> None:
    general = bot.get_partial_messageable(server.world.general.id)
    server.limit_next("POST", "/messages$", wait=0.05)
    await general.send("after the limit")
    server.limit_next("POST", "/messages$", wait=0.05, all=True)
    await general.send("after the bot's limit")
    server.fail("POST", "/messages$", applied=True)
    with pytest.raises(discord.DiscordServerError):
        await general.send("kept all the same")
    server.cut("POST", "/messages$")
    with pytest.raises(aiohttp.ClientError):
        await general.send("lost")
    server.limit = (2, 0.1)
    for text in ("one", "two", "three"):
        await general.send(text)

    texts = [message.content for message in server.seen(server.world.general)]
    assert texts == ["after the limit", "after the bot's limit", "kept all the same", "one", "two", "three"]
    assert [call.status for call in server.calls_of("POST", "/messages$")].count(429) >= 2


async def test_threads_and_forum_posts(server: DiscordServer, bot: Bot) -> None:
    world = server.world
    question = server.mention(world.ann, world.general, "hi")
    heard = await bot.has(bot.heard, 1)
    thread = await heard.create_thread(name="Leave")
    await thread.send("in the thread")
    with pytest.raises(discord.HTTPException) as twice:
        await heard.create_thread(name="Leave")
    forum = world.add_channel("help", Kind.FORUM)
    server.teller.channel_changed(forum)
    post = server.post(world.ann, forum, "Leave?", f"<@{world.bot.id}> how many days?")
    asked = await bot.has(bot.heard, 2)
    await asked.reply("28")

    assert twice.value.code == 160004
    assert thread.id == question.id
    assert [message.content for message in server.answers(question)] == ["in the thread"]
    assert (asked.id, asked.channel.id) == (post.id, post.id)
    assert [message.content for message in server.seen(post)][1:] == ["28"]


async def test_reactions_edits_and_files(server: DiscordServer, bot: Bot) -> None:
    world = server.world
    question = server.mention(world.ann, world.general, "read this", files={"notes.txt": b"abc"})
    heard = await bot.has(bot.heard, 1)
    assert await heard.attachments[0].read() == b"abc"
    sent = await heard.channel.send("whole", file=discord.File(io.BytesIO(b"0123"), "answer.md"))
    await heard.add_reaction("👀")
    own = world.general.messages[sent.id]
    server.react(world.ann, own, "👎")
    server.react(world.ann, own, "👎")
    server.unreact(world.ann, own, "👎")
    event = await bot.has(bot.reactions, 3)

    assert [(one.name, one.data) for one in own.attachments] == [("answer.md", b"0123")]
    assert question.reactions == {"👀": [world.bot.id]}
    assert [(one.event_type, str(one.emoji)) for one in bot.reactions[1:]] == [
        ("REACTION_ADD", "👎"),
        ("REACTION_REMOVE", "👎"),
    ]
    assert (event.user_id, event.message_id) == (world.ann.id, sent.id)


class Why(discord.ui.Modal):
    reason: discord.ui.TextInput[Any] = discord.ui.TextInput(label="Why?", custom_id="why")

    async def on_submit(self, interaction: discord.Interaction) -> None:
        await interaction.response.send_message(f"noted: {self.reason.value}", ephemeral=True)


async def test_interactions_of_every_kind(server: DiscordServer, bot: Bot) -> None:
    world, tree = server.world, app_commands.CommandTree(bot)
    group = app_commands.Group(name="kvasir", description="Ask")

    @group.command(name="ask", description="Ask something")
    async def ask(interaction: discord.Interaction, question: str) -> None:
        await interaction.response.defer(ephemeral=True)
        view = discord.ui.View(timeout=None)
        button: discord.ui.Button[Any] = discord.ui.Button(label="Why", custom_id="open")
        view.add_item(button)
        await interaction.edit_original_response(content=f"answer to {question}", view=view)
        await interaction.followup.send("more", ephemeral=True)

    @tree.context_menu(name="Ask about this")
    async def about(interaction: discord.Interaction, message: discord.Message) -> None:
        await interaction.response.send_message(f"about {message.content}")

    tree.add_command(group)
    await tree.sync()
    asked = server.slash(world.ann, world.general, "kvasir ask", question="leave")
    await server.until(lambda: len(asked.responses) == 2)
    assert [one.text for one in asked.responses] == ["answer to leave", "more"]
    assert server.seen(world.general) == []
    assert asked.responses[0].seen_only_by is world.ann

    clicked = server.click(world.ann, asked.responses[0], "Why")
    await (await bot.has(bot.interactions, 2)).response.send_modal(Why(title="Reason", custom_id="m"))
    await server.until(lambda: clicked.modal is not None)
    sent = server.submit(clicked, why="too short")
    await server.until(lambda: sent.responses)
    assert sent.responses[0].text == "noted: too short"

    menu = server.context(world.bo, server.say(world.ann, world.general, "a secret"), "Ask about this")
    await server.until(lambda: menu.responses)
    assert menu.responses[0].text == "about a secret"
    with pytest.raises(AssertionError):
        server.slash(world.ann, world.general, "kvasir sing")


async def test_interaction_must_be_answered_once_and_soon(server: DiscordServer, bot: Bot) -> None:
    world = server.world
    message = await bot.get_partial_messageable(world.general.id).send("x")
    own: Message = world.general.messages[message.id]
    server.click(world.ann, own, "fb:1", forged=True)
    first = await bot.has(bot.interactions, 1)
    await first.response.defer()
    first.response._response_type = None
    with pytest.raises(discord.HTTPException) as twice:
        await first.response.defer()
    server.interactions.deadline = 0
    server.click(world.ann, own, "fb:1", forged=True)
    late = await bot.has(bot.interactions, 2)
    with pytest.raises(discord.NotFound) as too_late:
        await late.response.send_message("sorry")
    assert (twice.value.code, too_late.value.code) == (40060, 10062)
