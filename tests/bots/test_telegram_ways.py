"""The ways to Telegram and back: what breaks on them, webhooks, proxies, files, and the doctor."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiogram.methods import GetMe
from aiogram.types import LabeledPrice, ShippingOption
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import select

from bots.errors import DeliveryError, Gone, Limited, Refused, Unreachable
from bots.handler import ChatHandler
from bots.inbox import LeaseLost
from bots.memory import Memory
from bots.platform import Controls
from bots.rendering.parts import Part, utf16_units
from bots.runner import serve
from bots.telegram.check import check
from bots.telegram.entry import open_platform
from bots.telegram.events import place_of
from bots.telegram.surface import IN_GROUP, LONGEST, shortened
from bots.telegram.webhook import secret_of
from core.app import Kvasir
from core.db.tables import InboxRow
from core.errors import ConfigError, NotFound, TooLarge, Unavailable
from core.settings import TelegramSettings, WebSettings, load
from core.types import ChatFile, Mention, Person, Place
from tests.bots.conftest import Front
from tests.bots.proxies import http_door, proxy, socks_door
from tests.bots.town import Bot, Town
from tests.fakes.engine import FakeEngine
from tests.fakes.telegram import (
    Document,
    Fault,
    bad_gateway,
    bad_json,
    error,
    flood,
    half_open,
    lost,
    telegram_server,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    async with telegram_server() as server:
        yield Town(server)


@pytest.fixture
async def bot(front: Front, town: Town) -> AsyncIterator[Bot]:
    async with Bot(front, town.server).running() as bot:
        yield bot


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port


# ---------------------------------------------------------------- what breaks
@pytest.mark.parametrize(
    ("fault", "meaning"),
    [
        (flood(7), 7),
        (flood(0), 0),
        (flood(7, "description"), 7),
        (flood(600), 600),
        (flood(7, "bare"), None),
        (flood(7, "header"), None),
        (bad_gateway(), Unreachable),
        (error(500, "Internal Server Error"), Unreachable),
        (error(502, "Bad Gateway: restart"), Unreachable),
        (bad_json(), Unreachable),
        (Fault(200, "[]"), Unreachable),
        (half_open(), Unreachable),
        (error(400, "Bad Request: message to edit not found"), Gone),
        (error(400, "Bad Request: message can't be edited"), Gone),
        (error(400, "Bad Request: chat not found"), Refused),
        (error(403, "Forbidden: bot was kicked from the supergroup chat"), Refused),
        (error(413, "Request Entity Too Large"), Refused),
        (error(401, "Unauthorized"), Refused),
    ],
)
async def test_every_refusal_has_its_meaning(front: Front, town: Town, fault: Fault, meaning: Any) -> None:
    bot = Bot(front, town.server)
    client = bot.messenger._client
    if fault.holds:
        client.seconds = 0.2
    surface = bot.messenger.surface(
        Mention(Place("telegram", "", str(town.group.id)), "5", Person("telegram:1", "A"), "?")
    )
    town.server.fail("*", fault)
    kind = meaning if isinstance(meaning, type) else Limited
    async with client.connected():
        with pytest.raises(kind) as caught:
            await surface.edit("6", Part("x"), Controls())
    if isinstance(meaning, int):
        assert isinstance(caught.value, Limited)
        assert caught.value.seconds == meaning
    elif meaning is None:
        assert isinstance(caught.value, Limited)
        assert caught.value.seconds > 0, "some wait, where none is named"


async def test_the_answer_arrives_whatever_breaks_on_the_way(bot: Bot, town: Town) -> None:
    bot.messenger._client.seconds = 0.3
    town.server.fail("getUpdates", bad_json())
    town.server.fail("getUpdates", bad_gateway())
    town.server.fail("sendMessage", bad_gateway())
    town.server.fail("editMessageText", flood(1))
    town.server.fail("editMessageText", half_open())
    question = town.asks()
    await bot.answered(question)
    assert len(town.server.replies(question)) == 1


async def test_a_busy_group_gets_all_its_answers(bot: Bot, town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with twenty messages and edits a minute, but sooner."""
    monkeypatch.setattr("tests.fakes.telegram.world._MINUTE", 0.8)
    monkeypatch.setattr("bots.telegram.surface.IN_GROUP", replace(IN_GROUP, edit_interval=0.8))
    town.server.world.group_per_minute = 3
    questions = [town.asks(f"how long is annual leave? {number}") for number in range(3)]
    for question in questions:
        await bot.answered(question)
    assert town.server.world.floods > 0
    assert all(len(town.server.replies(question)) == 1 for question in questions)


async def test_a_receipt_that_is_lost_makes_no_second_message(bot: Bot, town: Town) -> None:
    before = town.asks("one before?")
    await bot.answered(before)
    town.server.fail("sendMessage", lost())
    question = town.asks()
    answer = await bot.answered(question)
    assert town.server.replies(question) == [answer]


async def test_killed_between_sending_and_keeping_the_number(front: Front, town: Town) -> None:
    """The message is found again, and those of others stay as they are."""
    front.house.replace_engine(FakeEngine("Annual leave is 28 days [1].", pause=30))
    first = Bot(front, town.server)

    async def dead(*_: object) -> None:
        raise LeaseLost

    for name in ("add_post", "release", "finish"):
        setattr(first.inbox, name, dead)
    question = town.asks()
    async with first.running():
        await town.server.until(lambda: town.server.replies(question))
        help_ = town.server.say(town.group, town.bob, "/help")
        await town.server.until(lambda: town.server.replies(help_))
        town.server.say(town.group, town.bob, "something else")
    front.house.replace_engine(FakeEngine("Annual leave is 28 days [1]."))
    second = Bot(front, town.server)
    await second.intake.take_over(everything=True)
    async with second.running():
        answer = await second.answered(question)
    assert town.server.replies(question) == [answer]
    assert town.server.replies(help_)[0].buttons == []


async def test_a_revoked_token_ends_telegram_alone(front: Front, town: Town) -> None:
    bot = Bot(front, town.server)
    running = asyncio.create_task(bot.messenger.run(bot.intake))
    await town.server.until(lambda: town.server.made("setMyCommands"))
    town.server.revoked = True
    town.asks()
    with pytest.raises(Refused):
        await running


async def test_a_second_poller_does_not_end_us(bot: Bot, town: Town, caplog: pytest.LogCaptureFixture) -> None:
    async with aiohttp.ClientSession() as session:
        await session.get(f"{town.server.url}/bot{town.server.token}/getUpdates")
    await bot.answered(town.asks())


async def test_a_database_that_is_away_loses_no_question(bot: Bot, town: Town) -> None:
    kept, failures = bot.inbox.take_in, 2

    async def take_in(*args: Any, **values: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise Unavailable("The database is away.")
        return await kept(*args, **values)

    bot.inbox.take_in = take_in  # type: ignore[method-assign]
    await bot.answered(town.asks())
    assert failures == 0


async def test_telegram_that_is_away_is_waited_for_and_named_once(
    front: Front, town: Town, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("bots.telegram.polling._FIRST_WAIT", 0.02)
    caplog.set_level(logging.INFO, "bots.telegram")
    town.server.fail("getMe", bad_gateway(), times=2)
    town.server.fail("getUpdates", bad_gateway(), times=4)
    async with Bot(front, town.server).running() as bot:
        await bot.answered(town.asks())
    said = [record.getMessage() for record in caplog.records]
    assert sum("cannot be reached" in line for line in said) == 1
    assert sum("gives no updates" in line for line in said) == 1
    assert sum("gives updates again" in line for line in said) == 1
    assert town.server.token not in "".join(said)


async def test_a_reply_to_a_command_waits_where_telegram_wants_that(bot: Bot, town: Town) -> None:
    town.server.fail("sendMessage", flood(0), times=2)
    asked = town.server.say(town.private, town.alice, "/status")
    await town.server.until(lambda: town.server.replies(asked))
    assert "Knowledge bases: handbook" in town.server.replies(asked)[0].text


async def test_updates_are_counted_anew_after_a_quiet_week(
    bot: Bot, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bots.telegram.polling.POLL_SECONDS", 1)
    first = town.asks()
    await bot.answered(first)
    mail = town.server.world.mail
    await town.server.until(lambda: not mail.pending)
    polls = mail.polls
    await town.server.until(lambda: mail.polls >= polls + 2)
    mail.count_from(5)
    await bot.answered(town.asks())


async def test_updates_that_nobody_understands_are_passed_over(
    bot: Bot, town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    town.server.world.mail.put("message", {"message_id": "what?"})
    town.server.world.mail.put("callback_query", {"id": 5})
    town.server.world.mail.put("message_reaction", {})
    with caplog.at_level(logging.CRITICAL):
        await bot.answered(town.asks())


async def test_a_group_that_became_a_supergroup_gets_its_answer(front: Front, town: Town) -> None:
    small = town.server.group("Small", kind="group")
    town.server.mention(small, town.alice, "how long is annual leave?")
    successor = town.server.upgrade(small)
    async with Bot(front, town.server).running():
        await town.server.until(lambda: any("28 days" in message.text for message in successor.of_bot()))


# ---------------------------------------------------------------- webhook
async def test_the_webhook_takes_calls_with_its_secret_only(front: Front, town: Town) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    bot = Bot(front, town.server, webhook=True, webhook_port=port, web={"public_url": url})
    town.server.world.mail.copies = 2
    async with bot.running():
        await town.server.until(lambda: town.server.world.mail.webhook)
        hook = town.server.world.mail.webhook
        assert hook is not None
        assert hook.url == f"{url}/hooks/telegram"
        assert len(hook.secret) >= 32
        question = town.asks()
        await bot.answered(question)
        assert len(town.server.replies(question)) == 1
        forged = {"update_id": 1, "message": town.asks().json()}
        async with aiohttp.ClientSession() as session:
            for headers in ({}, {"X-Telegram-Bot-Api-Secret-Token": "wrong"}):
                async with session.post(hook.url, json=forged, headers=headers) as response:
                    assert response.status == 401
            right = {"X-Telegram-Bot-Api-Secret-Token": hook.secret}
            for body in (b"", b"[]", b"{", b'{"update_id": "x"}', b"\xff"):
                async with session.post(hook.url, data=body, headers=right) as response:
                    assert response.status == 400
    again = Bot(front, town.server, webhook=True, webhook_port=free_port(), web={"public_url": url})
    async with again.running():
        await town.server.until(lambda: len(town.server.made("setWebhook")) == 2)
    assert town.server.made("setWebhook")[1]["secret_token"] == hook.secret, "it is kept"


async def test_the_webhook_gives_back_what_it_could_not_keep(front: Front, town: Town) -> None:
    port = free_port()
    web = {"public_url": f"http://127.0.0.1:{port}"}
    bot = Bot(front, town.server, webhook=True, webhook_port=port, webhook_secret="s3cret", web=web)
    kept, failures = bot.inbox.take_in, 2

    async def take_in(*args: Any, **values: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise Unavailable("The database is away.")
        return await kept(*args, **values)

    bot.inbox.take_in = take_in  # type: ignore[method-assign]
    async with bot.running():
        await bot.answered(town.asks())
    assert town.server.made("setWebhook")[0]["secret_token"] == "s3cret"


async def test_a_webhook_needs_an_address(front: Front, town: Town) -> None:
    with pytest.raises(ConfigError, match=r"web\.public_url"):
        Bot(front, town.server, webhook=True)


# ---------------------------------------------------------------- proxies
@pytest.mark.parametrize(("scheme", "door"), [("http", http_door), ("socks5", socks_door)])
async def test_everything_goes_through_the_proxy(front: Front, town: Town, scheme: str, door: Any) -> None:
    async with proxy(door) as between:
        address = f"{scheme}://user:secret@127.0.0.1:{between.port}"
        async with Bot(front, town.server, proxy=address).running() as bot:
            await bot.answered(town.asks())
        assert set(between.reached) == {town.server.url.removeprefix("http://")}


async def test_a_proxy_that_refuses_is_a_way_that_is_closed(front: Front, town: Town) -> None:
    async with proxy(http_door) as between:
        for password, port in (("wrong", between.port), ("secret", free_port())):
            bot = Bot(front, town.server, proxy=f"http://user:{password}@127.0.0.1:{port}")
            with pytest.raises(Unreachable) as caught:
                await bot.messenger._client.call(GetMe())
            assert "user" not in str(caught.value)


async def test_the_token_stands_in_no_error(front: Front, town: Town) -> None:
    client = Bot(front, town.server).messenger._client
    words = f"https://api.telegram.org/bot{town.server.token}/getMe"
    for fault in (error(400, words), error(500, words), error(404, words), Fault(302, words, {"Location": "x:y"})):
        town.server.fail("getMe", fault)
        with pytest.raises(DeliveryError) as caught:
            await client.call(GetMe())
        told = "".join(traceback.format_exception(caught.value))
        assert town.server.token not in told


@pytest.mark.parametrize(
    ("given", "says"),
    [({"token": "nonsense"}, "no token"), ({"token": "1:a", "proxy": "gopher://x:1"}, r"telegram\.proxy")],
)
async def test_settings_that_cannot_be_used_are_named(front: Front, town: Town, given: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Bot(front, town.server, **given)


# ---------------------------------------------------------------- files
async def test_files_are_fetched_up_to_a_size(front: Front, town: Town, tmp_path: Path) -> None:
    bot = Bot(front, town.server)
    said = town.server.say(town.private, town.alice, document=Document("plan.md", b"# Plan\n"))
    assert said.document is not None
    mention = Mention(Place("telegram", "", str(town.private.id)), "1", Person("telegram:1", "A"), "?")
    file = ChatFile(said.document.file_id, "plan.md", 7)

    async def get(file: ChatFile, most: int = 100) -> bytes:
        return await bot.messenger.download(mention, file, most)

    assert await get(file) == b"# Plan\n"
    with pytest.raises(TooLarge, match=r"plan\.md"):
        await get(file, most=3)
    with pytest.raises(NotFound, match=r"gone\.md"):
        await get(ChatFile("nowhere", "gone.md"))
    big = town.server.say(town.private, town.alice, document=Document("big.bin", bytes(20_000_001)))
    assert big.document is not None
    with pytest.raises(TooLarge, match="20 MB"):
        await get(ChatFile(big.document.file_id, "big.bin"), most=10**9)
    town.server.fail("download", bad_gateway())
    with pytest.raises(Unavailable) as caught:
        await get(file)
    assert town.server.token not in f"{caught.value!r}{caught.value.__cause__!r}"

    town.server.world.local = tmp_path
    local = Bot(front, town.server, local_files=True)
    assert len(await local.messenger.download(mention, ChatFile(big.document.file_id, "big.bin"), 10**9)) == 20_000_001
    with pytest.raises(TooLarge):
        await local.messenger.download(mention, file, 3)


async def test_a_document_can_be_asked_about(town: Town, tmp_path: Path) -> None:
    server = town.server
    telegram = {"token": server.token, "api_base": server.url}
    settings = load(data_dir=tmp_path / "data", telegram=telegram, embedder={"kind": "none"}, log={"level": "WARNING"})
    text = "# Travel\n\nThe daily allowance in Norway is 74 euros. Receipts are kept for ten years.\n"
    async with Kvasir.open(settings) as kvasir:
        served = asyncio.create_task(serve(kvasir, ChatHandler(kvasir)))
        asked = server.say(
            town.private,
            town.alice,
            "what is the daily allowance in Norway?",
            document=Document("travel.md", text.encode()),
        )
        await server.until(lambda: any("74 euros" in reply.text for reply in server.replies(asked)), 30)
        again = server.say(town.private, town.alice, "how long are receipts kept?")
        await server.until(lambda: any("ten years" in reply.text for reply in server.replies(again)), 30)
        bad = server.say(town.private, town.alice, "and this?", document=Document("photo.xyz", b"\x00\x01"))
        await server.until(lambda: any("are not read" in reply.text for reply in server.replies(bad)), 30)
        bare = server.say(town.private, town.alice, document=Document("rules.md", b"# Rules\n\nNo dogs.\n"))
        await server.until(lambda: any("What would you like" in reply.text for reply in server.replies(bare)), 30)
        served.cancel()
        await asyncio.gather(served, return_exceptions=True)


# ---------------------------------------------------------------- the doctor
async def findings(server_url: str, token: str, **more: Any) -> dict[str, tuple[bool, str]]:
    web = WebSettings(**more.pop("web", {}))
    settings = load().model_copy(
        update={"web": web, "telegram": TelegramSettings(token=SecretStr(token), api_base=server_url, **more)}
    )
    return {finding.what: (finding.ok, finding.says) async for finding in check(settings)}


async def test_the_doctor_says_what_is_missing(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    server = town.server
    good = await findings(server.url, server.token)
    assert all(ok for ok, _ in good.values())
    assert good["Telegram: token"][1] == "the bot is @kvasir_bot"
    assert "everybody" in good["Telegram: who may ask"][1]
    assert "privacy mode is on" in good["Telegram: groups"][1]
    assert not (await findings("", ""))["Telegram: token"][0]
    assert "no token" in (await findings(server.url, "nonsense"))["Telegram: token"][1]
    assert "BotFather" in (await findings(server.url, "1:wrong"))["Telegram: token"][1]
    assert "telegram.proxy" in (await findings("http://127.0.0.1:9", server.token))["Telegram: connection"][1]
    hook = await findings(server.url, server.token, webhook=True, web={"public_url": "https://ask.example.org"})
    assert "not call" in hook["Telegram: updates"][1]
    server.world.mail.allowed = None
    await server.world.mail.set_webhook("http://127.0.0.1:9/other", "", 1, None)
    assert "http://127.0.0.1:9/other" in (await findings(server.url, server.token))["Telegram: updates"][1]
    assert server.world.mail.given.total() == 0, "a running bot is not disturbed"
    monkeypatch.setattr("bots.telegram.check.time", SimpleNamespace(time=lambda: time.time() + 900))
    ok, says = (await findings(server.url, server.token))["Telegram: clock"]
    assert not ok
    assert "clock is" in says


# ---------------------------------------------------------------- the rest
async def test_without_a_token_there_is_no_telegram(front: Front) -> None:
    assert open_platform(front.kvasir) is None


@given(st.text(max_size=60).map(lambda text: text * 200))
def test_what_is_cut_for_a_guest_fits(text: str) -> None:
    part = Part(text.encode("utf-8", "ignore").decode())
    cut = shortened(part, "The rest is elsewhere.")
    assert utf16_units(cut.text) <= LONGEST
    assert cut.text.endswith("The rest is elsewhere.")


# ---------------------------------------------------------------- two processes
async def test_one_asks_for_updates_and_the_other_stands_by_until_it_is_gone(
    front: Front, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bots.leasing.TRY_SECONDS", 0.02)
    first = Bot(front, town.server)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(first.running())
        await first.answered(town.asks())
        front.kvasir.presence.id = "another"
        async with Bot(front, town.server).running() as other:
            async with asyncio.timeout(10):
                while not other.messenger.standing_by:
                    await asyncio.sleep(0.01)
            await first.answered(town.asks("and in Spain?"))
            assert (first.messenger.connected, first.messenger.standing_by) == (True, False)
            assert (other.messenger.connected, other.messenger.standing_by) == (False, True)
            await other.messenger.post(place_of(town.group.id), "Posted while it stands by.")
            assert town.server.world.mail.conflicts == 0
            await stack.aclose()
            await other.answered(town.asks("and in France?"))
            assert other.messenger.connected


async def test_processes_that_begin_together_have_one_secret(front: Front, town: Town) -> None:
    settings = front.house.settings
    memories = [Memory(front.kvasir.db, front.kvasir.vault, "telegram") for _ in range(4)]
    found = await asyncio.gather(*(secret_of(settings, memory) for memory in memories))
    assert len(set(found)) == 1
    assert found[0] not in str(await memories[0].all("webhook_secret")), "it is kept encrypted"


async def test_a_reply_to_what_an_earlier_process_heard_belongs_to_the_same_conversation(
    front: Front, town: Town
) -> None:
    async with Bot(front, town.server).running() as bot:
        await bot.answered(question := town.asks("how long is annual leave?"))
    async with Bot(front, town.server).running() as bot:
        await bot.answered(town.asks("and in Spain?", who=town.bob, reply_to=question))
    async with front.kvasir.db.read() as session:
        threads = {row.mention["place"]["thread"] for row in await session.scalars(select(InboxRow))}
    assert len(threads) == 1


def test_a_type_of_the_library_is_made_when_it_is_first_needed() -> None:
    """To make all of them as they are imported takes longer than all else that a start does."""
    assert not ShippingOption.__pydantic_complete__
    assert ShippingOption(id="1", title="By mail", prices=[LabeledPrice(label="Stamp", amount=1)]).prices[0].amount == 1
    assert ShippingOption.__pydantic_complete__
