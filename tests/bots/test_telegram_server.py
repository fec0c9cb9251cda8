"""The Telegram of our tests behaves as the real one does, towards the unmodified client library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import (
    ClientDecodeError,
    TelegramAPIError,
    TelegramBadRequest,
    TelegramConflictError,
    TelegramForbiddenError,
    TelegramMigrateToChat,
    TelegramNetworkError,
    TelegramRetryAfter,
    TelegramUnauthorizedError,
)
from aiogram.methods import EditMessageText, SendMessageDraft, SendRichMessage
from aiogram.types import (
    BotCommand,
    BufferedInputFile,
    EphemeralMessageParameters,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    InlineQueryResultArticle,
    InputRichMessage,
    InputTextMessageContent,
    LinkPreviewOptions,
    MessageEntity,
    ReplyParameters,
    Update,
)
from aiogram.types import Message as Received
from aiohttp import web

from tests.fakes.telegram import (
    Document,
    Refused,
    TelegramServer,
    bad_gateway,
    bad_json,
    flood,
    half_open,
    lost,
    telegram_server,
    units,
)
from tests.fakes.telegram.texts import seen, settled

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server() -> AsyncIterator[TelegramServer]:
    async with telegram_server() as running:
        yield running


@pytest.fixture
async def bot(server: TelegramServer) -> AsyncIterator[Bot]:
    session = AiohttpSession(api=TelegramAPIServer.from_base(server.url))
    yield Bot(server.token, session=session)
    await (await session.create_session()).close()  # its own `close` waits for TLS, which is not spoken here


def keyboard(*labels: str) -> InlineKeyboardMarkup:
    return InlineKeyboardMarkup(
        inline_keyboard=[[InlineKeyboardButton(text=label, callback_data=f"do:{label}") for label in labels]]
    )


async def updates(bot: Bot, **asked: object) -> list[Update]:
    return await bot.get_updates(timeout=0, **asked)  # type: ignore[arg-type]


# ---------------------------------------------------------------- updates
async def test_a_bot_of_the_library_polls_and_answers(server: TelegramServer, bot: Bot) -> None:
    alice = server.person("Alice", "alice")
    group = server.group("Team")
    dispatcher = Dispatcher()

    @dispatcher.message()
    async def answer(message: Received) -> None:
        assert message.text is not None
        assert message.entities is not None
        assert message.entities[0].extract_from(message.text) == "@kvasir_bot"
        await message.reply("🦉 28 days", entities=[MessageEntity(type="bold", offset=3, length=2)])

    while_away = server.mention(group, alice, "how many days?")
    polling = asyncio.create_task(dispatcher.start_polling(bot, handle_signals=False, close_bot_session=False))
    await server.until(lambda: server.replies(while_away))
    live = server.say(group, alice, "🦉 @kvasir_bot and now?".replace("🦉 ", ""))
    await server.until(lambda: server.replies(live))
    await dispatcher.stop_polling()
    await polling
    (reply,) = server.replies(live)
    assert (reply.text, reply.formatted("bold")) == ("🦉 28 days", ["28"])
    assert [message.text for message in group.of_bot()] == ["🦉 28 days"] * 2


async def test_updates_stay_until_they_are_confirmed(server: TelegramServer, bot: Bot) -> None:
    alice = server.person("Alice")
    chat = server.private(alice)
    for text in ("one", "two", "three"):
        server.say(chat, alice, text)
    first = await updates(bot)
    again = await updates(bot)
    assert [u.message.text for u in first if u.message] == ["one", "two", "three"]
    assert [u.update_id for u in again] == [u.update_id for u in first]
    rest = await updates(bot, offset=first[1].update_id + 1)
    assert [u.update_id for u in rest] == [first[2].update_id]
    assert server.world.mail.confirmed == first[1].update_id

    server.world.mail.copies = 2
    server.world.mail.backwards = True
    server.say(chat, alice, "four")
    four = first[2].update_id + 1
    assert [u.update_id for u in await updates(bot)] == [four, four, four - 1, four - 1]
    server.world.mail.copies = 1
    server.world.mail.repeat({"update_id": first[0].update_id, "message": next(iter(chat.messages.values())).json()})
    assert [u.update_id for u in await updates(bot, offset=four + 1)] == [first[0].update_id]
    assert await updates(bot, offset=four + 1) == []


async def test_a_poll_waits_for_what_comes_and_there_is_one_poller(server: TelegramServer, bot: Bot) -> None:
    alice = server.person("Alice")
    older = asyncio.create_task(bot.get_updates(timeout=30))
    await server.until(lambda: server.world.mail._poll is not None)
    younger = asyncio.create_task(bot.get_updates(timeout=30))
    with pytest.raises(TelegramConflictError, match="terminated by other getUpdates"):
        await older
    server.say(server.private(alice), alice, "hello")
    assert len(await younger) == 1
    await bot.set_webhook("http://127.0.0.1:9/never")
    with pytest.raises(TelegramConflictError, match="webhook is active"):
        await updates(bot)


async def test_only_the_kinds_that_were_asked_for_come(server: TelegramServer, bot: Bot) -> None:
    alice = server.person("Alice")
    chat = server.private(alice)
    said = server.say(chat, alice, "hello")
    server.react(said, alice, "👍")
    assert [u.event_type for u in await updates(bot)] == ["message"]
    await updates(bot, allowed_updates=["message_reaction"])
    server.react(said, alice)
    server.say(chat, alice, "not wanted")
    reaction = (await updates(bot))[-1].message_reaction
    assert reaction is not None
    assert (reaction.old_reaction[0].type, reaction.new_reaction) == ("emoji", [])
    group = server.group("Team")
    server.react(server.say(group, alice, "hello"), alice, "👍")
    assert len(await updates(bot)) == 2, "reactions in groups are for administrators"


async def test_privacy_mode_decides_what_comes_from_a_group(server: TelegramServer, bot: Bot) -> None:
    alice = server.person("Alice")
    group = server.group("Team")
    own = await bot.send_message(group.id, "I am here")
    for text in (
        "hello",
        "@KVASIR_BOT in capitals",
        "mail@kvasir_bot.example",
        "/ask@kvasir_bot it",
        "/ask@other_bot it",
    ):
        server.say(group, alice, text)
    server.say(group, alice, "without a username", naming=server.bot)
    server.say(group, alice, "an answer", reply_to=group.messages[own.message_id])
    texts = [u.message.text for u in await updates(bot) if u.message]
    assert texts == ["@KVASIR_BOT in capitals", "/ask@kvasir_bot it", "@Kvasir without a username", "an answer"]
    group.bot_is_admin = True
    server.say(group, alice, "hello")
    assert len(await updates(bot)) == 5
    assert (await bot.get_me()).can_read_all_group_messages is False


async def test_a_webhook_is_tried_until_it_takes_the_update(server: TelegramServer, bot: Bot) -> None:
    got: list[tuple[str, str]] = []

    async def take(request: web.Request) -> web.Response:
        update = Update.model_validate(await request.json())
        assert update.message is not None
        got.append((request.headers["X-Telegram-Bot-Api-Secret-Token"], update.message.text or ""))
        return web.Response(status=500 if len(got) < 3 else 200)

    application = web.Application()
    application.router.add_post("/hook", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    alice = server.person("Alice")
    server.say(server.private(alice), alice, "hello")
    server.world.mail.retry_wait = 0.01
    await bot.set_webhook(url, secret_token="s3cret")
    await server.until(lambda: not server.world.mail.pending)
    assert got == [("s3cret", "hello")] * 3
    info = await bot.get_webhook_info()
    assert info.url == url
    assert "500" in (info.last_error_message or "")
    await bot.delete_webhook()
    await runner.cleanup()


# ---------------------------------------------------------------- messages
async def test_texts_are_held_to_the_rules(server: TelegramServer, bot: Bot) -> None:
    chat = server.private(server.person("Alice"))
    bold = [MessageEntity(type="bold", offset=1, length=1)]
    assert units("🦉") == 2
    assert (await bot.send_message(chat.id, "🦉" * 2048)).text == "🦉" * 2048
    refused = [
        ("🦉" * 2048 + "x", None, "message is too long"),
        (" \n ", None, "message text is empty"),
        ("🦉", bold, "entity begins in a middle of a UTF-16 symbol at byte offset"),
        ("x", bold, "ends after the end of the text"),
        ("x" * 200, [MessageEntity(type="bold", offset=n, length=1) for n in range(101)], "ENTITIES_TOO_LONG"),
    ]
    for text, entities, why in refused:
        with pytest.raises(TelegramBadRequest, match=why):
            await bot.send_message(chat.id, text, entities=entities)
    with pytest.raises(TelegramBadRequest, match="BUTTON_DATA_INVALID"):
        await bot.send_message(chat.id, "x", reply_markup=keyboard("中" * 21))
    with pytest.raises(TelegramBadRequest, match="chat not found"):
        await bot.send_message(12, "x")
    chat.blocked = True
    with pytest.raises(TelegramForbiddenError, match="blocked by the user"):
        await bot.send_message(chat.id, "x")


def test_texts_are_kept_as_telegram_keeps_them() -> None:
    text, entities = settled(" \n  x y  \n", [{"type": "bold", "offset": 4, "length": 5}], 100)
    assert (text, entities) == ("x y", [{"type": "bold", "offset": 0, "length": 3}])
    assert settled("  \n", [], 100, may_be_empty=True) == ("", [])
    with pytest.raises(Refused, match="unknown entity type"):
        settled("x", [{"type": "blink", "offset": 0, "length": 1}], 100)
    code = {"type": "code", "offset": 0, "length": 9}
    found = seen("@everyone @bob_smith /stop see.example x.com https://a.example/b", [code])
    assert [entity["type"] for entity in found] == ["code", "mention", "bot_command", "url", "url"]


async def test_edits_need_a_change_and_a_message(server: TelegramServer, bot: Bot) -> None:
    alice = server.person("Alice")
    chat = server.private(alice)
    off = LinkPreviewOptions(is_disabled=True)
    sent = await bot.send_message(
        chat.id, "one https://x.example", reply_markup=keyboard("👍"), link_preview_options=off
    )
    shown = chat.messages[sent.message_id]
    assert (shown.buttons, shown.preview, shown.links) == (["👍"], False, [("https://x.example",) * 2])

    async def edit(text: str, number: int = sent.message_id, labels: str = "👍") -> None:
        markup = keyboard(labels) if labels else None
        await bot(EditMessageText(chat_id=chat.id, message_id=number, text=text, reply_markup=markup))

    await edit("two")
    with pytest.raises(TelegramBadRequest, match="message is not modified"):
        await edit("two ")
    await edit("two", labels="")
    assert (shown.versions, shown.buttons) == (["one https://x.example", "two", "two"], [])
    with pytest.raises(TelegramBadRequest, match="message to edit not found"):
        await edit("three", 999)
    theirs = server.say(chat, alice, "mine")
    with pytest.raises(TelegramBadRequest, match="message can't be edited"):
        await edit("three", theirs.id)
    server.delete(shown)
    with pytest.raises(TelegramBadRequest, match="message to edit not found"):
        await edit("three")
    with pytest.raises(TelegramBadRequest, match="message to be replied not found"):
        await bot.send_message(chat.id, "x", reply_parameters=ReplyParameters(message_id=shown.id))
    await bot.send_rich_message(chat.id, InputRichMessage(markdown="# Title"))
    assert chat.of_bot()[-1].rich == "# Title"
    with pytest.raises(TelegramBadRequest, match="rich message is too long"):
        await bot(SendRichMessage(chat_id=chat.id, rich_message=InputRichMessage(markdown="中" * 11_000)))


async def test_topics_and_threads_have_their_traps(server: TelegramServer, bot: Bot) -> None:
    alice = server.person("Alice")
    forum = server.group("Forum", forum=True)
    travel = server.topic(forum, alice, "Travel")
    server.mention(forum, alice, "in the topic", topic=travel)
    server.mention(forum, alice, "in General")
    plain = server.group("Plain")
    root = server.mention(plain, alice, "first")
    server.mention(plain, alice, "second", reply_to=root)
    in_topic, general, first, second = [u.message for u in await updates(bot) if u.message]
    assert (in_topic.message_thread_id, in_topic.is_topic_message) == (travel, True)
    assert in_topic.reply_to_message is not None
    assert in_topic.reply_to_message.forum_topic_created is not None, "Telegram says so, though nobody replied"
    assert (general.message_thread_id, first.message_thread_id) == (None, None)
    assert (second.message_thread_id, second.is_topic_message) == (root.id, None)
    await in_topic.reply("here")
    assert forum.of_bot()[-1].topic == travel
    for chat, thread in ((forum, 1), (plain, root.id), (server.private(alice), 5)):
        with pytest.raises(TelegramBadRequest, match="message thread not found"):
            await bot.send_message(chat.id, "x", message_thread_id=thread)


async def test_drafts_are_for_private_chats_and_can_be_stopped(server: TelegramServer, bot: Bot) -> None:
    alice = server.person("Alice")
    chat = server.private(alice)
    await bot(SendMessageDraft(chat_id=chat.id, draft_id=7))
    await bot.send_message_draft(chat.id, 7, text="so far", can_stop=True)
    await bot.send_rich_message_draft(chat.id, 7, InputRichMessage(markdown="**so far**"), can_stop=True)
    assert [(draft.text, draft.rich) for draft in chat.drafts] == [("", None), ("so far", None), ("**so far**",) * 2]
    server.stop(chat)
    (update,) = await updates(bot)
    assert update.stopped_message_generation is not None
    assert update.stopped_message_generation.draft_id == 7
    await bot.send_message(chat.id, "done")
    assert chat.draft is None
    with pytest.raises(TelegramBadRequest, match="private chats only"):
        await bot.send_message_draft(server.group("Team").id, 7, text="x")


async def test_buttons_guests_and_what_one_person_sees(server: TelegramServer, bot: Bot) -> None:
    alice, bob = server.person("Alice"), server.person("Bob")
    group = server.group("Team")
    sent = await bot.send_message(group.id, "?", reply_markup=keyboard("👍"))
    press = server.press(group.messages[sent.message_id], alice, "👍")
    query = (await updates(bot))[-1].callback_query
    assert query is not None
    assert query.data == "do:👍"
    only_alice = EphemeralMessageParameters(receiver_user_id=alice.id, callback_query_id=query.id)
    await bot.send_message(group.id, "why?", ephemeral_message_parameters=only_alice)
    await query.answer("thanks")
    assert (press.toast, press.alert) == ("thanks", False)
    with pytest.raises(TelegramBadRequest, match="query is too old"):
        await query.answer("again")
    (whisper,) = server.ephemeral(alice)
    await bot.edit_ephemeral_message_text(group.id, alice.id, whisper.id, text="thanks")
    assert (whisper.versions, server.ephemeral(bob)) == (["why?", "thanks"], [])
    assert [message.text for message in group.shown] == ["?"]
    await bot.set_message_reaction(group.id, sent.message_id, [])

    elsewhere = server.group("Elsewhere", bot_is_member=False)
    asked = server.summon(elsewhere, bob, "what is it?")
    guest = (await updates(bot))[-1].guest_message
    assert guest is not None
    content = InputTextMessageContent(message_text="…")
    given = await guest.answer_guest_query(InlineQueryResultArticle(id="1", title="x", input_message_content=content))
    await bot(EditMessageText(inline_message_id=given.inline_message_id, text="42"))
    assert [message.versions for message in elsewhere.of_bot()] == [["…", "42"]]
    with pytest.raises(TelegramBadRequest, match="query is too old"):
        await guest.answer_guest_query(InlineQueryResultArticle(id="1", title="x", input_message_content=content))
    with pytest.raises(TelegramForbiddenError, match="not a member"):
        await bot.send_message(elsewhere.id, "x")
    assert asked.text == "@kvasir_bot what is it?"


async def test_files_go_up_and_down(server: TelegramServer, bot: Bot, tmp_path: Path) -> None:
    alice = server.person("Alice")
    chat = server.private(alice)
    server.say(chat, alice, "read this", document=Document("plan.md", b"# Plan"))
    (update,) = await updates(bot)
    assert update.message is not None
    assert update.message.caption == "read this"
    assert update.message.document is not None
    assert update.message.document.file_name == "plan.md"
    got = await bot.download(update.message.document)
    assert got is not None
    assert got.read() == b"# Plan"
    server.world.local = tmp_path
    file = await bot.get_file(update.message.document.file_id)
    assert Path(file.file_path or "").read_bytes() == b"# Plan"
    server.world.local = None
    await bot.send_document(chat.id, BufferedInputFile("答案".encode(), "answer.md"), caption="all of it")
    sent = chat.of_bot()[-1]
    assert (sent.text, sent.document and sent.document.content.decode()) == ("all of it", "答案")
    server.say(chat, alice, document=Document("big.bin", bytes(20_000_001)))
    with pytest.raises(TelegramBadRequest, match="file is too big"):
        await bot.get_file(list(server.world.files)[-1])


async def test_the_menu_and_who_is_who(server: TelegramServer, bot: Bot) -> None:
    group = server.group("Team", kind="group", bot_is_admin=True)
    await bot.set_my_commands([BotCommand(command="ask", description="Ask")], language_code="en")
    assert list(server.world.commands.values()) == [{"ask": "Ask"}]
    with pytest.raises(TelegramBadRequest, match="BOT_COMMAND_INVALID"):
        await bot.set_my_commands([BotCommand(command="Ask!", description="Ask")])
    assert (await bot.get_chat(group.id)).title == "Team"
    assert (await bot.get_chat_member(group.id, bot.id)).status == "administrator"
    successor = server.upgrade(group)
    with pytest.raises(TelegramMigrateToChat) as caught:
        await bot.send_message(group.id, "x")
    assert caught.value.migrate_to_chat_id == successor.id


# ---------------------------------------------------------------- faults
async def test_a_group_takes_so_many_messages_a_minute(server: TelegramServer, bot: Bot) -> None:
    server.world.group_per_minute = 3
    group = server.group("Team")
    sent = [await bot.send_message(group.id, f"{n}") for n in range(2)]
    await bot(EditMessageText(chat_id=group.id, message_id=sent[0].message_id, text="new"))
    with pytest.raises(TelegramRetryAfter) as caught:
        await bot.send_message(group.id, "too much")
    assert 50 < caught.value.retry_after <= 61
    assert server.world.floods == 1


async def test_faults_come_in_the_forms_that_were_seen(server: TelegramServer, bot: Bot) -> None:
    chat = server.private(server.person("Alice"))
    server.fail("sendMessage", flood(5), after=1)
    await bot.send_message(chat.id, "goes well")
    with pytest.raises(TelegramRetryAfter):
        await bot.send_message(chat.id, "x")
    cases = [
        (flood(0), TelegramAPIError),
        (flood(5, "description"), TelegramAPIError),
        (flood(5, "bare"), TelegramAPIError),
        (flood(5, "header"), ClientDecodeError),
        (bad_gateway(), ClientDecodeError),
        (bad_json(), ClientDecodeError),
        (lost(), ClientDecodeError),
    ]
    for fault, kind in cases:
        server.fail("*", fault)
        with pytest.raises(kind):
            await bot.send_message(chat.id, "x")
    assert [message.text for message in chat.of_bot()] == ["goes well", "x"], "what is lost was done"
    server.fail("sendMessage", half_open())
    with pytest.raises(TelegramNetworkError, match="timeout"):
        await bot.send_message(chat.id, "x", request_timeout=0.05)  # type: ignore[arg-type]
    server.revoked = True
    with pytest.raises(TelegramUnauthorizedError):
        await bot.get_me()
    with suppress(TelegramUnauthorizedError):
        await bot.log_out()
