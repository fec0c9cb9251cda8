"""From a mention to an answer, on a platform that keeps a transcript."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest

from bots.handler import ChatHandler
from core.answering.retrieve import Retrieved
from core.types import AnswerEvent, Mention, Person, Place, Question, Role, Thumb
from tests.bots.conftest import Front
from tests.fakes.platform import FakeAnswer, FakePlatform

pytestmark = pytest.mark.anyio

ANN = Person("user:ann", "Ann")
GUEST = Person("fake:guest", "Guest")


def mention(text: str = "How long is annual leave?", **values: Any) -> Mention:
    return Mention(**{"place": Place("fake", "W", "C", "T"), "message_id": text, "person": ANN, "text": text, **values})


async def said(front: Front, *mentions: Mention, handler: ChatHandler | None = None) -> list[FakeAnswer]:
    platform, handler = FakePlatform(), handler or ChatHandler(front.kvasir)
    for item in mentions:
        await handler.on_mention(platform, item)
    return platform.answers


async def test_the_order_of_what_people_see(front: Front) -> None:
    (answer,) = await said(front, mention())
    assert answer.transcript == [
        "status: Searching…",
        "sources for How long is annual leave?: leave.md, parking.md",
        "finish: Annual leave is 28 days [1].",
    ]
    assert answer.text == "Annual leave is 28 days [1]."
    row = await front.house.row()
    assert (row.platform, row.workspace, row.channel) == ("fake", "W", "C")


async def test_a_thread_is_one_conversation_for_all_who_talk_there(front: Front) -> None:
    front.house.engine.is_language_model = False
    await said(front, mention(), mention("Who approves it?", person=GUEST))
    assert "annual leave" in front.house.search.asked[-1][0]
    await said(front, mention("Who approves it?", place=Place("fake", "W", "C", "other")))
    assert front.house.search.asked[-1][0] == "Who approves it?"


async def test_an_engine_may_be_named(front: Front) -> None:
    (answer,) = await said(front, mention(), handler=ChatHandler(front.kvasir, engine="gone"))
    assert answer.failure == "The engine «gone» is not there."


async def test_every_failure_is_a_sentence(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    front.house.engine.fail_after = 2
    (answer,) = await said(front, mention())
    assert answer.failure == "The fake engine broke down."
    front.house.search.error = RuntimeError("password=hunter2")
    (answer,) = await said(front, mention("年假有多少天？"))
    assert "内部出错" in answer.failure
    assert "hunter2" not in answer.failure
    assert "hunter2" in caplog.text
    (answer,) = await said(front, mention(""))
    assert answer.failure == "Write a question first."


async def test_a_platform_that_breaks_breaks_nothing_else(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakePlatform):
        async def open_answer(self, mention: Mention) -> FakeAnswer:
            raise OSError(f"socket closed before {mention.message_id}")

    await ChatHandler(front.kvasir).on_mention(Broken(), mention())
    assert "could not show an answer" in caplog.text


@pytest.mark.parametrize(
    ("there", "named", "chosen", "default", "person", "expected"),
    [
        ({"a": False}, (), None, "", ANN, ("a",)),
        ({"a": True}, (), None, "", ANN, ("a",)),
        ({"a": False, "b": False, "c": True}, (), None, "", ANN, ("a", "b")),
        ({"a": False, "b": False, "c": True}, (), None, "b", ANN, ("b",)),
        ({"a": False, "b": False}, (), "a", "b", ANN, ("a",)),
        ({"a": False, "b": False}, ("b",), "a", "", ANN, ("b",)),
        ({"a": False, "c": True}, ("c",), None, "", ANN, ("c",)),
        ({"a": False, "c": True}, ("c",), None, "", GUEST, None),
        ({"a": False, "c": True}, (), "c", "", GUEST, None),
        ({"a": False, "c": True}, (), None, "c", GUEST, None),
        ({"a": False, "c": True}, (), None, "", GUEST, ("a",)),
        ({"c": True}, (), None, "", GUEST, None),
        ({}, (), None, "", ANN, None),
        ({"a": False}, ("nowhere",), None, "", ANN, None),
    ],
)
async def test_which_knowledge_bases_answer(
    front: Front,
    monkeypatch: pytest.MonkeyPatch,
    there: dict[str, bool],
    named: tuple[str, ...],
    chosen: str | None,
    default: str,
    person: Person,
    expected: tuple[str, ...] | None,
) -> None:
    front.knowledge.there = there
    channels = front.kvasir.settings.channels.model_copy(update={"default_kb": default})
    changed = front.kvasir.settings.model_copy(update={"channels": channels})
    monkeypatch.setattr(front.kvasir, "settings", changed)
    place = Place("fake", "W", "C", "kb")
    await front.house.conversations.open(place, person.key, kb=chosen)
    asked: list[Question] = []

    async def noted(question: Question) -> AsyncIterator[AnswerEvent]:
        asked.append(question)
        for event in list[AnswerEvent]():
            yield event

    monkeypatch.setattr(front.house.answers, "answer", noted)
    (answer,) = await said(front, mention(place=place, kbs=named, person=person))
    assert [question.kbs for question in asked] == ([expected] if expected else [])
    assert bool(answer.failure) == (expected is None)
    if person is GUEST:
        assert "c" not in answer.failure.partition("there are")[2].replace("«c»", "")


async def test_one_question_at_a_time_in_a_thread_and_in_order(front: Front) -> None:
    front.house.engine.pause = 0.01
    handler, platform = ChatHandler(front.kvasir), FakePlatform()
    front.house.engine.is_language_model = False
    texts = ["How long is annual leave?", "How do I connect to the VPN?", "Where is the coffee machine?"]
    async with asyncio.TaskGroup() as group:
        for text in texts:
            group.create_task(handler.on_mention(platform, mention(text)))
            await asyncio.sleep(0.005)
    assert [question for question, *_ in front.house.search.asked] == texts
    assert all(answer.finished for answer in platform.answers)
    told = [line for line in platform.answers[2].transcript if "queue" in line]
    assert told == [f"status: You are number {place} in the queue…" for place in (2, 1)]
    assert front.house.engine.most_running == 1


async def test_threads_run_side_by_side_up_to_the_limit(front: Front) -> None:
    front.house.engine.pause = 0.02
    handler, platform = ChatHandler(front.kvasir, parallel=2), FakePlatform()
    async with asyncio.TaskGroup() as group:
        for number in range(5):
            place = Place("fake", "W", "C", str(number))
            group.create_task(handler.on_mention(platform, mention("How long is leave?", place=place)))
    assert front.house.engine.most_running == 2
    assert all(answer.finished for answer in platform.answers)
    assert sum("queue" in answer.transcript[0] for answer in platform.answers) == 3


async def test_cancelling_stops_the_answer_and_lets_the_next_one_in(front: Front) -> None:
    front.house.engine.text, front.house.engine.pause = "word " * 1000, 0.01
    handler, platform = ChatHandler(front.kvasir, parallel=1), FakePlatform()
    first = asyncio.create_task(handler.on_mention(platform, mention()))
    async with asyncio.timeout(5):
        await front.house.engine.begun.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert front.house.engine.running == 0
    assert (await front.house.row()).state == "stopped"
    front.house.engine.text = "Short [1]."
    async with asyncio.timeout(5):
        await handler.on_mention(platform, mention("And now?"))
    assert platform.answers[-1].finished is not None


async def test_regenerating_replaces_the_old_answer(front: Front) -> None:
    conversation = await front.house.conversations.start("fake", ANN.key)
    (old,) = await said(front, mention(conversation_id=conversation.id))
    assert old.finished is not None
    front.house.engine.text = "28 days a year [1]."
    again = mention("", conversation_id=conversation.id, regenerate=old.finished.answer_id)
    (new,) = await said(front, again)
    assert new.finished is not None
    exchanges = await front.house.conversations.exchanges(conversation.id, ANN.key)
    assert [(exchange.question, exchange.text) for exchange in exchanges] == [
        ("How long is annual leave?", "28 days a year [1].")
    ]
    assert len(front.house.engine.asked[-1][0].turns) == 2  # the old answer is no history


async def test_regenerating_that_fails_leaves_the_old_answer(front: Front) -> None:
    conversation = await front.house.conversations.start("fake", ANN.key)
    (old,) = await said(front, mention(conversation_id=conversation.id))
    assert old.finished is not None
    front.house.engine.fail_after = 0
    await said(front, mention("", conversation_id=conversation.id, regenerate=old.finished.answer_id))
    states = [exchange.state for exchange in await front.house.conversations.exchanges(conversation.id, ANN.key)]
    assert states == ["complete", "failed"]
    (strange,) = await said(front, mention("", person=GUEST, regenerate=old.finished.answer_id))
    assert "no such answer" in strange.failure


async def test_another_s_conversation_is_closed(front: Front) -> None:
    conversation = await front.house.conversations.start("fake", ANN.key)
    (answer,) = await said(front, mention(person=GUEST, conversation_id=conversation.id))
    assert "no such conversation" in answer.failure
    assert front.house.search.asked == []


async def test_words_follow_the_question_s_language(front: Front) -> None:
    front.house.search.found = Retrieved((), 0.0, {}, True)
    (chinese, english) = await said(front, mention("年假有多少天？"), mention("年假有多少天？", language="en"))
    assert chinese.transcript[0] == "status: 正在搜索……"
    assert "没有找到" in chinese.text
    assert english.transcript[0] == "status: Searching…"


async def test_thumbs_become_ratings(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    (answer,) = await said(front, mention())
    assert answer.finished is not None
    handler = ChatHandler(front.kvasir)
    votes: tuple[Literal[-1, 0, 1], ...] = (1, -1, -1)
    for value in votes:
        await handler.on_thumb(Thumb(answer.finished.answer_id, ANN, value, "too short"))
    await handler.on_thumb(Thumb(answer.finished.answer_id, GUEST, 1))
    assert await front.kvasir.feedback.totals() == (1, 1)
    await handler.on_thumb(Thumb(answer.finished.answer_id, GUEST, 0))
    assert await front.kvasir.feedback.totals() == (0, 1)
    await handler.on_thumb(Thumb("0" * 32, Person("x", "X", Role.VIEWER), 1))
    assert await front.kvasir.feedback.totals() == (0, 1)
