"""Telegram end to end: people write on a Telegram of our own, and Kvasir answers there by the real client library."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bots.telegram.events import place_of
from tests.bots.conftest import Front
from tests.bots.town import Bot, Town
from tests.fakes.engine import FakeEngine
from tests.fakes.telegram import telegram_server

pytestmark = pytest.mark.anyio

ANSWER = "Annual leave is 28 days [1]."


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    async with telegram_server() as server:
        yield Town(server)


@pytest.fixture
async def bot(front: Front, town: Town) -> AsyncIterator[Bot]:
    async with Bot(front, town.server).running() as bot:
        yield bot


# ---------------------------------------------------------------- one answer
async def test_a_mention_in_a_group_is_answered_by_one_message(bot: Bot, town: Town) -> None:
    question = town.asks()
    answer = await bot.answered(question)
    assert answer.text.startswith(ANSWER)
    assert "leave.md" in answer.text
    assert (answer.preview, answer.pinged, answer.topic) == (False, [], None)
    assert town.group.of_bot() == [answer]
    assert len(answer.versions) >= 2, "a first sign of life, then the answer in the same message"
    assert answer.buttons[:2] == ["👍", "👎"]


async def test_what_was_asked_while_we_were_away_is_answered(front: Front, town: Town) -> None:
    first = town.asks()
    late = town.asks(ago=3 * 3600)
    async with Bot(front, town.server).running() as bot:
        await bot.answered(first)
        await town.server.until(lambda: any("I was away" in reply.text for reply in town.server.replies(late)))


async def test_an_update_is_confirmed_only_after_it_is_kept(bot: Bot, town: Town) -> None:
    kept = bot.inbox.take_in
    seen: list[int] = []

    async def take_in(*args: Any, **values: Any) -> Any:
        seen.append(town.server.world.mail.confirmed)
        return await kept(*args, **values)

    bot.inbox.take_in = take_in  # type: ignore[method-assign]
    question = town.asks()
    await bot.answered(question)
    (update,) = town.server.world.mail.given
    await town.server.until(lambda: town.server.world.mail.confirmed == update)
    assert seen == [0]


async def test_repeated_and_shuffled_updates_are_answered_once(front: Front, town: Town) -> None:
    mail = town.server.world.mail
    mail.copies, mail.backwards = 4, True
    questions = [town.asks(), town.asks(who=town.bob), town.asks("how long is leave?")]
    updates = list(mail.pending)
    async with Bot(front, town.server).running() as bot:
        for question in questions:
            await bot.answered(question)
        for update in updates:
            mail.repeat(update)
            mail.repeat({**update, "update_id": update["update_id"] + 1000})
        last = town.asks("once more?")
        await bot.answered(last)
    assert all(len(town.server.replies(question)) == 1 for question in [*questions, last])


async def test_after_a_kill_the_answer_goes_into_the_message_that_is_there(front: Front, town: Town) -> None:
    front.house.replace_engine(FakeEngine("Annual leave is 28 days [1].", pause=30))
    question = town.asks()
    first = Bot(front, town.server)
    async with first.running():
        await town.server.until(lambda: town.server.replies(question))
    front.house.replace_engine(FakeEngine("Annual leave is 28 days [1]."))
    second = Bot(front, town.server)
    await second.intake.take_over(everything=True)
    async with second.running():
        answer = await second.answered(question)
    assert town.group.of_bot() == [answer]


# ---------------------------------------------------------------- how it grows
async def test_a_direct_message_grows_as_a_draft(front: Front, bot: Bot, town: Town) -> None:
    front.house.replace_engine(FakeEngine(ANSWER, pause=0.1))
    question = town.server.say(town.private, town.alice, "how long is annual leave?")
    await bot.answered(question)
    drafts = [draft.text for draft in town.private.drafts]
    assert any("Annual" in text and "28 days [1]" not in text for text in drafts), drafts
    assert {draft.id for draft in town.private.drafts} == {question.id}
    assert town.private.draft is None
    assert len(town.private.of_bot()) == 1


async def test_a_draft_can_be_stopped(front: Front, bot: Bot, town: Town) -> None:
    front.house.replace_engine(FakeEngine("Annual leave is 28 days. " * 200, pause=0.02))
    question = town.server.say(town.private, town.alice, "how long is annual leave?")
    await town.server.until(lambda: town.private.draft and "Annual" in town.private.draft.text)
    town.server.stop(town.private)
    await town.server.until(lambda: any("Stopped." in reply.text for reply in town.server.replies(question)))
    assert town.server.replies(question)[0].text.startswith("Annual leave")
    assert town.server.replies(question)[0].buttons == ["Answer again"]


async def test_an_answer_in_a_group_is_stopped_by_its_button(front: Front, bot: Bot, town: Town) -> None:
    front.house.replace_engine(FakeEngine(ANSWER, pause=30))
    question = town.asks()
    await town.server.until(lambda: town.server.replies(question))
    (reply,) = town.server.replies(question)
    assert reply.buttons == ["Stop"]
    nosy = town.server.press(reply, town.bob, "Stop")
    await town.server.until(lambda: nosy.answered)
    assert nosy.toast == "Only whoever asked may do this."
    town.server.press(reply, town.alice, "Stop")
    await town.server.until(lambda: reply.text == "Stopped.")


async def test_stop_as_a_command_stops_the_newest(front: Front, bot: Bot, town: Town) -> None:
    front.house.replace_engine(FakeEngine(ANSWER, pause=30))
    question = town.asks()
    await town.server.until(lambda: town.server.replies(question))
    town.server.say(town.group, town.alice, "/stop")
    await town.server.until(lambda: town.server.replies(question)[0].text == "Stopped.")


async def test_a_long_answer_arrives_whole(front: Front, bot: Bot, town: Town) -> None:
    words = [f"word{number}" for number in range(2500)]
    front.house.replace_engine(FakeEngine(" ".join(words), size=1000, is_scripted=True))
    town.server.world.group_per_minute = 20
    question = town.asks()
    await town.server.until(lambda: any("👎" in reply.buttons for reply in town.server.replies(question)))
    replies = town.server.replies(question)
    said = " ".join(reply.text for reply in replies).split()
    assert [word for word in said if word.startswith("word")] == words
    assert all("👎" not in reply.buttons for reply in replies[:-1])
    assert len(replies) > 4


# ---------------------------------------------------------------- buttons and reactions
async def test_thumbs_by_button(front: Front, bot: Bot, town: Town) -> None:
    answer = await bot.answered(town.asks())
    press = town.server.press(answer, town.bob, "👎")
    await town.server.until(lambda: press.answered)
    assert "not helpful" in press.toast
    assert await bot.rating(answer, town.bob) == -1
    assert await bot.rating(answer, town.alice) == 0


async def test_a_reason_is_asked_of_whoever_found_it_not_helpful(front: Front, bot: Bot, town: Town) -> None:
    answer = await bot.answered(town.asks())
    town.server.press(answer, town.bob, "👎")
    await town.server.until(lambda: town.server.ephemeral(town.bob))
    (whisper,) = town.server.ephemeral(town.bob)
    assert whisper.text == "What was wrong?"
    town.server.press(whisper, town.bob, "It is out of date")
    await town.server.until(lambda: not town.server.ephemeral(town.bob))
    assert town.group.of_bot() == [answer], "nobody else sees it"
    posted = await bot.inbox.posted(place_of(town.group.id), str(answer.id))
    assert posted is not None
    rating = await front.kvasir.feedback.rating(posted.answer_id, f"telegram:{town.bob.id}")
    assert rating is not None
    assert (rating.value, rating.reason) == (-1, "It is out of date")

    question = town.server.say(town.private, town.alice, "how long is annual leave?")
    private = await bot.answered(question)
    town.server.press(private, town.alice, "👎")
    await town.server.until(lambda: len(town.private.of_bot()) == 2)
    town.server.press(town.private.of_bot()[1], town.alice, "It is wrong")
    await town.server.until(lambda: town.private.of_bot() == [private])


async def test_thumbs_by_reaction_where_the_bot_is_an_administrator(front: Front, bot: Bot, town: Town) -> None:
    town.group.bot_is_admin = True
    answer = await bot.answered(town.asks())
    for emoji, wanted in ((["👍"], 1), (["👎"], -1), ([], 0)):
        town.server.react(answer, town.bob, *emoji)
        async with asyncio.timeout(10):
            while await bot.rating(answer, town.bob) != wanted:
                await asyncio.sleep(0.01)
    other = town.server.say(town.group, town.bob, "hello")
    town.server.react(other, town.alice, "👍")
    await bot.answered(town.asks())
    assert await bot.rating(other, town.alice) == 0


async def test_another_answer_takes_the_place_of_the_first(front: Front, bot: Bot, town: Town) -> None:
    answer = await bot.answered(town.asks())
    front.house.replace_engine(FakeEngine("It is 30 days [1]."))
    press = town.server.press(answer, town.alice, "Answer again")
    await town.server.until(lambda: answer.text.startswith("It is 30 days") and "👎" in answer.buttons)
    assert press.answered
    assert town.group.of_bot() == [answer]


async def test_a_human_is_called_and_nobody_else(bot: Bot, town: Town) -> None:
    town.server.world.admins[town.group.id].add(town.bob.id)
    carol = town.server.person("Carol")
    named = town.server.say(town.group, town.bob, f"/helpers @bob_smith {carol.id}")
    await town.server.until(lambda: town.server.replies(named))
    question = town.asks("how long is annual leave? @everyone_else https://evil.example/x")
    answer = await bot.answered(question)
    assert answer.buttons[-1] == "Ask a human"
    press = town.server.press(answer, town.alice, "Ask a human")
    await town.server.until(lambda: press.answered)
    assert press.toast == "I have called the helpers of this channel."
    (call,) = town.server.replies(answer)
    assert call.pinged == ["@bob_smith", str(carol.id)]
    assert (call.links, call.buttons) == ([], ["Solved"])
    stranger = town.server.person("Dave")
    refused = town.server.press(call, stranger, "Solved")
    await town.server.until(lambda: refused.answered)
    town.server.world.admins[town.group.id].clear()
    solved = town.server.press(call, town.bob, "Solved")
    await town.server.until(lambda: solved.answered)
    assert (refused.toast, solved.toast) == ("Only whoever looks after this channel may do this.", "Marked as solved.")
    again = town.server.press(call, carol, "Solved")
    await town.server.until(lambda: again.answered)
    assert again.toast == "This is solved already."


async def test_forged_buttons_do_nothing(bot: Bot, town: Town) -> None:
    answer = await bot.answered(town.asks())
    for data in ("drop", "resolved:1", "up:2", "again:999", "\0", "keep"):
        press = town.server.send_press(answer, town.bob, data)
        await town.server.until(lambda press=press: press.answered)  # type: ignore[misc]
    assert answer.text.startswith(ANSWER)


# ---------------------------------------------------------------- where and how it is asked
async def test_conversations_follow_topics_and_replies(front: Front, bot: Bot, town: Town) -> None:
    forum = town.server.group("Forum", forum=True)
    travel, food = (town.server.topic(forum, town.alice, name) for name in ("Travel", "Food"))
    first = town.server.mention(forum, town.alice, "how long is annual leave?", topic=travel)
    answer = await bot.answered(first)
    assert answer.topic == travel
    second = town.server.say(forum, town.bob, "and in the summer?", reply_to=answer)
    assert (await bot.answered(second)).topic == travel
    third = town.server.mention(forum, town.bob, "how long is annual leave?", topic=food)
    assert (await bot.answered(third)).topic == food
    engine = front.house.engine
    histories = [[turn.text for turn in prompt.turns] for prompt, _ in engine.asked]
    assert any("how long is annual leave?" in text for text in histories[-2][:-1]), "a reply goes on"
    assert not any("summer" in text for text in histories[-1]), "another topic begins anew"


async def test_the_message_replied_to_is_known(front: Front, bot: Bot, town: Town) -> None:
    theirs = town.server.say(town.group, town.bob, "The Oslo office closes in July.")
    question = town.asks("what does that mean for annual leave?", reply_to=theirs)
    await bot.answered(question)
    shown = [turn.text for prompt, _ in front.house.engine.asked for turn in prompt.turns]
    assert any("The Oslo office closes in July." in text for text in shown)


async def test_a_voice_message_gets_a_sentence(bot: Bot, town: Town) -> None:
    said = town.server.speak(town.private, town.alice)
    await town.server.until(lambda: town.server.replies(said))
    assert town.server.replies(said)[0].text == "I read texts, documents and pictures."


async def test_commands(front: Front, bot: Bot, town: Town) -> None:
    asked = town.server.say(town.group, town.alice, "/ask@kvasir_bot how long is annual leave?")
    await bot.answered(asked)
    help_ = town.server.say(town.private, town.alice, "/start")
    await town.server.until(lambda: town.server.replies(help_))
    assert "Mention me with a question" in town.server.replies(help_)[0].text
    refused = town.server.say(town.group, town.alice, "/mode off")
    await town.server.until(lambda: town.server.replies(refused))
    assert town.server.replies(refused)[0].text == "Only whoever looks after this channel may do this."
    town.server.world.admins[town.group.id].add(town.bob.id)
    changed = town.server.say(town.group, town.bob, "/mode off")
    await town.server.until(lambda: town.server.replies(changed))
    assert "silent" in town.server.replies(changed)[0].text
    ignored = town.asks()
    still = town.server.say(town.group, town.alice, "/ask how long is annual leave?")
    await bot.answered(still)
    assert town.server.replies(ignored) == []
    menus = town.server.world.commands
    assert {language for _, language in menus} == {"", "zh"}
    assert all(menu.keys() >= {"ask", "kb", "status", "help", "stop"} for menu in menus.values())


async def test_an_edited_question_is_answered_anew_in_the_same_message(front: Front, bot: Bot, town: Town) -> None:
    question = town.asks()
    answer = await bot.answered(question)
    front.house.replace_engine(FakeEngine("It is 30 days [1]."))
    town.server.edit(question, "@kvasir_bot how long is annual leave in France?")
    await town.server.until(lambda: answer.text.startswith("It is 30 days") and "👎" in answer.buttons)
    assert town.group.of_bot() == [answer]


async def test_a_guest_answers_in_one_message_that_grows(front: Front, bot: Bot, town: Town) -> None:
    elsewhere = town.server.group("Elsewhere", bot_is_member=False)
    town.server.summon(elsewhere, town.bob, "how long is annual leave?")
    await town.server.until(lambda: any("👎" in message.buttons for message in elsewhere.of_bot()))
    (answer,) = elsewhere.of_bot()
    assert answer.text.startswith(ANSWER)
    assert len(answer.versions) >= 2
    press = town.server.press(answer, town.bob, "👍")
    await town.server.until(lambda: press.answered)
    assert "helpful" in press.toast
    front.house.replace_engine(FakeEngine("word " * 3000, is_scripted=True))
    town.server.summon(elsewhere, town.bob, "tell me everything")
    await town.server.until(lambda: len(elsewhere.of_bot()) == 2 and "👎" in elsewhere.of_bot()[1].buttons)
    assert elsewhere.of_bot()[1].text.endswith("write to me directly for all of it.")


async def test_only_those_who_are_let_in_are_heard(front: Front, town: Town) -> None:
    async with Bot(front, town.server, allowed=[str(town.bob.id)]).running() as bot:
        refused = town.asks()
        await bot.answered(town.asks(who=town.bob))
        assert town.server.replies(refused) == []


# ---------------------------------------------------------------- rich messages
MARKED = "# Leave\n\nIt is **28** days [1]:\n\n- in *summer*\n- in winter\n\n| year | days |\n|---|---|\n| 2026 | 28 |"


async def test_rich_messages_are_a_switch(front: Front, town: Town) -> None:
    front.house.replace_engine(FakeEngine(MARKED))
    async with Bot(front, town.server, rich_messages=True).running():
        for question in (town.asks(), town.server.say(town.private, town.alice, "how long is leave?")):
            await town.server.until(
                lambda asked=question: any("👎" in reply.buttons for reply in town.server.replies(asked))  # type: ignore[misc]
            )
            (answer,) = town.server.replies(question)
            blocks = json.loads(answer.rich or "")
            assert [block["type"] for block in blocks][:4] == ["heading", "paragraph", "list", "table"]
            assert blocks[0]["text"] == "Leave"
            assert blocks[1]["text"][1] == {"type": "bold", "text": "28"}
            assert len(blocks[2]["items"]) == 2
            assert blocks[3]["cells"][0][0]["is_header"]
    assert town.private.drafts[-1].rich


async def test_a_server_that_knows_no_rich_messages_gets_classic_ones(front: Front, town: Town) -> None:
    front.house.replace_engine(FakeEngine(MARKED))
    town.server.world.rich = False
    async with Bot(front, town.server, rich_messages=True).running() as bot:
        question = town.asks()
        answer = await bot.answered(question)
        assert answer.formatted("bold")[0] == "Leave"
        await bot.answered(town.asks())
    assert sum("rich_message" in call.asked for call in town.server.calls) == 1
