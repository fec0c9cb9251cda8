"""From what happens on a platform of messages to what people see there: one answer each, whatever breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from bots.errors import Limited, Refused, Unreachable
from bots.handler import ChatHandler
from bots.inbox import Inbox, Item, LeaseLost
from bots.intake import Intake
from core.db.tables import AnswerRow, InboxRow, now
from core.types import Capabilities, ChatEvent, Command, Deleted, Mention, Press, Said, Thumb
from tests.bots.conftest import Front
from tests.fakes.engine import FakeEngine
from tests.fakes.messenger import ANN, BOB, PLACE, FakeMessenger

pytestmark = pytest.mark.anyio

ANSWER = "Annual leave is 28 days [1]."


def mention(message_id: str = "m1", text: str = "How long is annual leave?", **values: Any) -> Mention:
    return Mention(**{"place": PLACE, "message_id": message_id, "person": ANN, "text": text, **values})


class Desk:
    """An intake and its platform; `again` is another process on the same database and platform."""

    def __init__(self, front: Front, messenger: FakeMessenger | None = None) -> None:
        self.front = front
        self.messenger = messenger or FakeMessenger()
        self.inbox = Inbox(front.kvasir.db)
        self.intake = Intake(front.kvasir, ChatHandler(front.kvasir), self.messenger, self.inbox)

    async def ask(self, *mentions: Mention) -> None:
        for item in mentions:
            await self.intake.take(item)
        await self.idle()

    async def idle(self) -> None:
        """Until every answer stands."""
        async with asyncio.timeout(10):
            await self.intake.idle()

    async def killed(self) -> None:
        """As by kill -9: nothing is written any more."""

        async def dead(*_: object) -> None:
            raise LeaseLost

        for name in ("release", "finish", "add_post"):
            setattr(self.inbox, name, dead)
        await self.intake.close(0)

    async def again(self) -> Desk:
        desk = Desk(self.front, self.messenger)
        await desk.intake.take_over(everything=True)
        await desk.idle()
        return desk

    async def state(self, message_id: str = "m1") -> str:
        posted = await self.inbox.of(PLACE, message_id)
        return posted.state if posted else ""


@pytest.fixture
async def desk(front: Front) -> AsyncIterator[Desk]:
    desk = Desk(front)
    yield desk
    await desk.intake.close(0)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


# ---------------------------------------------------------------- one answer
async def test_a_mention_becomes_one_answer_that_can_be_rated(desk: Desk) -> None:
    await desk.ask(mention())
    (message,) = desk.messenger.messages.values()
    assert message.text == ANSWER
    assert message.history[0] != ANSWER  # a sign of life came first
    assert message.controls.rate
    assert not message.controls.stop
    assert await desk.state() == "done"


async def test_what_comes_in_just_as_it_closes_waits_for_whoever_comes_next(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_in = desk.inbox.take_in

    async def closed_meanwhile(*args: Any, **values: Any) -> Item | None:
        item = await take_in(*args, **values)
        await desk.intake.close(0)
        return item

    monkeypatch.setattr(desk.inbox, "take_in", closed_meanwhile)
    await desk.intake.take(mention())
    assert await desk.state() == "waiting"  # and not held until a lease is over
    next_one = Desk(desk.front, desk.messenger)
    await next_one.intake.take_over()
    await next_one.idle()
    assert desk.messenger.answers("m1") == [ANSWER]


async def test_the_same_event_many_times_is_one_question(desk: Desk) -> None:
    """Faults 61 and 85, from several connections at once."""
    other = Desk(desk.front, desk.messenger)
    await asyncio.gather(*(one.intake.take(mention()) for one in (desk, other, desk, other)))
    await desk.idle()
    await other.idle()
    assert desk.messenger.answers("m1") == [ANSWER]
    await desk.ask(mention())
    assert len(desk.messenger.messages) == 1


@pytest.mark.parametrize("streaming", ["edit", "draft", "post"])
async def test_a_long_answer_comes_whole_in_any_way(front: Front, streaming: Any) -> None:
    long = "".join(f"Sentence number {number} of the answer. " for number in range(3000))
    front.house.replace_engine(FakeEngine(long, size=400, is_scripted=True))
    desk = Desk(front, FakeMessenger(capabilities=Capabilities(4000, streaming, 0.0)))
    await desk.ask(mention())
    assert "".join(desk.messenger.answers("m1")) == long
    assert [message.controls.rate for message in desk.messenger.messages.values()][-2:] == [False, True]


async def test_whoever_waited_sees_the_text_grow_all_the_same(front: Front) -> None:
    """Edits that told of the queue do not slow down those of the text, of which each waits longer than the last."""
    places: asyncio.Queue[int] = asyncio.Queue()
    engine = front.house.replace_engine(FakeEngine("Word after word. " * 8, size=17, pause=0.1, places=places))
    desk = Desk(front, FakeMessenger(capabilities=Capabilities(4000, "edit", 0.01, edit_growth=3)))
    await desk.intake.take(mention())
    await asyncio.wait_for(engine.begun.wait(), 10)
    for place in range(9, 0, -1):
        places.put_nowait(place)
        says = f"number {place} in the queue"
        await until(lambda: any(says in one.text for one in desk.messenger.messages.values()))  # noqa: B023  at once
    places.put_nowait(0)
    await desk.idle()
    (message,) = desk.messenger.messages.values()
    assert any(text.startswith("Word") and text.count("Word") < 8 for text in message.history)


async def test_a_native_stream_grows_to_the_answer(front: Front) -> None:
    front.house.replace_engine(FakeEngine("First piece. Second piece [1].", size=13))
    messenger = FakeMessenger(streams=True, capabilities=Capabilities(4000, "native", 0.0))
    desk = Desk(front, messenger)
    await desk.ask(mention())
    (message,) = messenger.messages.values()
    assert message.text == "First piece. Second piece [1]."
    assert message.controls.rate


async def test_a_stream_that_the_platform_ends_is_made_good_by_an_edit(front: Front) -> None:
    from bots.errors import Gone

    messenger = FakeMessenger(streams=True, capabilities=Capabilities(4000, "native", 0.0))
    messenger.faults = [None, Gone("message_not_in_streaming_state")]
    desk = Desk(front, messenger)
    await desk.ask(mention())
    assert messenger.answers("m1") == [ANSWER]


# ---------------------------------------------------------------- the platform fails
@pytest.mark.parametrize(
    "fault", [Limited(0.01), Unreachable("reset"), Limited(0.0)], ids=["429", "5xx", "429 at once"]
)
async def test_the_end_of_an_answer_is_never_lost(
    desk: Desk, fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults 87 and 88."""
    monkeypatch.setattr("bots.streaming._FIRST_PAUSE", 0.01)
    desk.messenger.faults = [fault] * 5
    await desk.ask(mention())
    assert desk.messenger.answers("m1") == [ANSWER]
    assert await desk.state() == "done"


async def test_a_message_whose_arrival_is_unsure_is_looked_for_first(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bots.streaming._FIRST_PAUSE", 0.01)
    desk.messenger.lost = ["send"]
    await desk.ask(mention())
    assert desk.messenger.answers("m1") == [ANSWER]


async def test_a_channel_that_is_closed_to_us_costs_one_question_only(desk: Desk) -> None:
    desk.messenger.faults = [Refused("not_in_channel")] * 100
    await desk.ask(mention())
    assert await desk.state() == "failed"
    desk.messenger.faults = []
    await desk.ask(mention("m2", place=replace(PLACE, channel="D")))
    assert desk.messenger.answers("m2") == [ANSWER]


async def test_a_placeholder_somebody_deleted_is_sent_anew(desk: Desk) -> None:
    slow = desk.front.house.replace_engine(FakeEngine(ANSWER, size=4))
    slow.pause = 0.005
    await desk.intake.take(mention())
    await until(lambda: desk.messenger.messages)
    desk.messenger.messages.clear()
    await desk.idle()
    assert desk.messenger.answers("m1") == [ANSWER]


# ---------------------------------------------------------------- we fail
@pytest.mark.parametrize("steps", range(0, 40, 3))
async def test_killed_at_any_moment_it_is_answered_once(front: Front, steps: int) -> None:
    """Faults 82 and 83: the next process goes on in the same message."""
    front.house.replace_engine(FakeEngine(ANSWER, size=4))
    desk = Desk(front)
    await desk.intake.take(mention())
    for _ in range(steps):
        await asyncio.sleep(0.0005)
    await desk.killed()
    await (await desk.again()).intake.take(mention())
    assert desk.messenger.answers("m1") == [ANSWER]
    assert await desk.state() == "done"


async def test_killed_after_the_answer_was_recorded_it_is_not_generated_again(front: Front) -> None:
    desk = Desk(front)
    await desk.ask(mention())
    async with front.kvasir.db.session() as session:
        await session.execute(update(InboxRow).values(state="working"))
    front.house.replace_engine(FakeEngine("Something else."))
    await desk.again()
    assert desk.messenger.answers("m1") == [ANSWER]
    async with front.kvasir.db.read() as session:
        assert await session.scalar(select(func.count()).select_from(AnswerRow)) == 1


async def test_told_to_stop_it_gives_back_what_is_not_done(front: Front) -> None:
    """Fault 84."""
    engine = front.house.replace_engine(FakeEngine(ANSWER, size=1))
    engine.pause = 0.05
    desk = Desk(front)
    for number in range(20):
        await desk.intake.take(mention(f"m{number}", place=replace(PLACE, thread=f"{number}")))
    await desk.intake.close(0.01)
    front.house.replace_engine(FakeEngine(ANSWER))
    await desk.again()
    assert [desk.messenger.answers(f"m{number}") for number in range(20)] == [[ANSWER]] * 20


async def test_a_process_that_lost_its_lease_writes_nothing_more(front: Front) -> None:
    """Fault 92."""
    inbox, other = Inbox(front.kvasir.db), Inbox(front.kvasir.db)
    item = await inbox.take_in(mention())
    assert item is not None
    (taken,) = await other.take_over("fake", everything=True)
    for write in (inbox.add_post(item, "p1"), inbox.finish(item, "done"), inbox.release(item)):
        with pytest.raises(LeaseLost):
            await write
    assert await inbox.keep([item]) == [item]
    await other.add_post(taken, "p2")
    await other.finish(taken, "done")
    assert await other.take_over("fake", everything=True) == []


async def test_a_question_of_long_ago_gets_one_polite_line(desk: Desk) -> None:
    """Fault 89."""
    await desk.ask(mention(said_at=now() - timedelta(hours=2)))
    (said,) = desk.messenger.answers("m1")
    assert "ask again" in said


# ---------------------------------------------------------------- people change their minds
async def test_deleted_while_it_is_answered_it_is_taken_back(front: Front) -> None:
    """Fault 86."""
    engine = front.house.replace_engine(FakeEngine(ANSWER, size=1))
    engine.pause = 0.05
    desk = Desk(front)
    await desk.intake.take(mention())
    await until(lambda: desk.messenger.messages)
    await desk.intake.take(Deleted(PLACE, "m1"))
    assert desk.messenger.answers("m1") == []
    assert await desk.state() == "withdrawn"


@pytest.mark.parametrize("order", ["before", "after"])
async def test_deleted_before_or_after_the_answer_nothing_stays(desk: Desk, order: str) -> None:
    """Fault 86."""
    events: list[ChatEvent] = [mention(), Deleted(PLACE, "m1")]
    for event in events if order == "after" else reversed(events):
        await desk.intake.take(event)
        await desk.idle()
    assert desk.messenger.answers("m1") == []


async def test_an_edited_question_is_answered_anew_once_in_the_same_message(desk: Desk) -> None:
    """Fault 86."""
    await desk.ask(mention())
    for text in ("And for managers?", "And for interns?"):
        desk.front.house.replace_engine(FakeEngine(f"About «{text}» [1]."))
        await desk.ask(mention(text=text, edited=True), mention(text=text, edited=True))
    assert desk.messenger.answers("m1") == ["About «And for managers?» [1]."]


async def test_a_second_edit_does_not_end_the_answer_to_the_first(front: Front) -> None:
    engine = front.house.replace_engine(FakeEngine(ANSWER, size=1))
    engine.pause = 0.02
    desk = Desk(front)
    await desk.intake.take(mention())
    await until(lambda: desk.messenger.messages)
    for text in ("And for managers?", "And for interns?"):
        await desk.intake.take(mention(text=text, edited=True))
    await desk.idle()
    assert desk.messenger.answers("m1") == [ANSWER]
    assert desk.front.house.search.asked[-1][0] == "And for managers?"
    assert await desk.state() == "done"


async def test_a_deleted_question_is_no_longer_part_of_the_conversation(desk: Desk) -> None:
    await desk.ask(mention())
    await desk.intake.take(Deleted(PLACE, "m1"))
    await desk.ask(mention("m2", "Who approves it?"))
    assert desk.front.house.search.asked[-1][0] == "Who approves it?"


async def test_an_edit_that_comes_before_its_question_is_the_question(desk: Desk) -> None:
    await desk.ask(mention(text="What is edited?", edited=True), mention())
    assert desk.front.house.search.asked[-1][0] == "What is edited?"
    assert len(desk.front.house.search.asked) == 1


async def test_stop_keeps_what_is_there_and_only_for_the_asker(front: Front) -> None:
    engine = front.house.replace_engine(FakeEngine("One two three four five six seven.", size=4))
    engine.pause = 0.02
    desk = Desk(front)
    await desk.intake.take(mention())
    await until(lambda: any("One two" in text for text in desk.messenger.answers("m1")))
    (post,) = desk.messenger.messages
    assert "whoever asked" in await desk.intake.take(Press("stop", PLACE, post, BOB))
    assert await desk.intake.take(Press("stop", PLACE, post, ANN)) == ""
    (said,) = desk.messenger.answers("m1")
    assert said.startswith("One two")
    assert said.endswith("(Stopped.)")
    assert await desk.intake.take(Press("stop", PLACE, post, ANN)) != ""


async def test_stop_may_be_pressed_as_soon_as_the_message_is_seen(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The platform shows a message before we hear that it does."""
    engine = front.house.replace_engine(FakeEngine(ANSWER, size=1))
    engine.pause = 0.2
    desk = Desk(front)
    keep = desk.inbox.add_post

    async def slowly(item: Item, post: str) -> None:
        await asyncio.sleep(0.1)
        await keep(item, post)

    monkeypatch.setattr(desk.inbox, "add_post", slowly)
    await desk.intake.take(mention())
    await until(lambda: desk.messenger.messages)
    (post,) = desk.messenger.messages
    assert "whoever asked" in await desk.intake.take(Press("stop", PLACE, post, BOB))
    assert await desk.intake.take(Press("stop", PLACE, post, ANN)) == ""
    assert "Stopped" in "".join(desk.messenger.answers("m1"))


async def test_answer_again_replaces_the_answer_where_it_stands(desk: Desk) -> None:
    await desk.ask(mention())
    (post,) = desk.messenger.messages
    desk.front.house.replace_engine(FakeEngine("Another answer [1]."))
    assert await desk.intake.take(Press("again", PLACE, post, ANN)) == ""
    await desk.idle()
    assert desk.messenger.answers("m1") == ["Another answer [1]."]
    async with desk.front.kvasir.db.read() as session:
        states = set(await session.scalars(select(AnswerRow.state)))
    assert states == {"complete", "replaced"}


async def test_answer_again_may_be_asked_for_as_soon_as_the_answer_is_seen(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The platform shows the end before we hear that it does."""
    monkeypatch.setattr("bots.streaming._FIRST_PAUSE", 0.05)
    desk.messenger.lost = ["edit"]
    await desk.intake.take(mention())
    await until(lambda: any(message.controls.again for message in desk.messenger.messages.values()))
    (post,) = desk.messenger.messages
    desk.front.house.replace_engine(FakeEngine("Another answer [1]."))
    assert await desk.intake.take(Press("again", PLACE, post, ANN)) == ""
    await desk.idle()
    assert desk.messenger.answers("m1") == ["Another answer [1]."]


# ---------------------------------------------------------------- thumbs
async def test_one_vote_a_person_the_last_one_counts(desk: Desk) -> None:
    """Fault 64."""
    await desk.ask(mention())
    (post,) = desk.messenger.messages
    for person, value in ((ANN, 1), (BOB, -1), (ANN, -1), (BOB, 0), (ANN, 1)):
        assert await desk.intake.take(Thumb("", person, value, place=PLACE, post=post))  # type: ignore[arg-type]
    assert await desk.front.kvasir.feedback.totals() == (1, 0)
    await desk.intake.take(Thumb("", ANN, 0, place=PLACE, post=post, was=-1))  # an older reaction goes
    assert await desk.front.kvasir.feedback.totals() == (1, 0)
    assert await desk.intake.take(Thumb("", ANN, -1, place=PLACE, post="somebody else's")) == ""
    assert await desk.front.kvasir.feedback.totals() == (1, 0)


async def test_feedback_may_be_off_in_a_channel(desk: Desk) -> None:
    await desk.front.kvasir.channels.change(replace(PLACE, thread=""), "test", feedback=False)
    await desk.ask(mention())
    (message,) = desk.messenger.messages.values()
    assert not message.controls.rate
    await desk.intake.take(Thumb("", ANN, 1, place=PLACE, post=message.id))
    assert await desk.front.kvasir.feedback.totals() == (0, 0)


# ---------------------------------------------------------------- when to answer
@pytest.mark.parametrize(
    ("mode", "trigger", "text", "answered"),
    [
        ("mention", "mention", "How long is annual leave?", True),
        ("mention", "heard", "How long is annual leave?", False),
        ("auto", "heard", "How long is annual leave?", True),
        ("auto", "heard", "年假有多少天", True),
        ("auto", "heard", "I am off for lunch", False),
        ("off", "mention", "How long is annual leave?", False),
        ("off", "dm", "How long is annual leave?", True),
        ("mention", "thread", "How long is annual leave?", False),
    ],
)
async def test_the_mode_of_a_channel(desk: Desk, mode: str, trigger: Any, text: str, answered: bool) -> None:
    await desk.front.kvasir.channels.change(replace(PLACE, thread=""), "test", mode=mode)
    await desk.ask(mention(text=text, trigger=trigger))
    assert bool(desk.messenger.answers("m1")) is answered


async def test_overheard_questions_without_an_answer_are_passed_over_in_silence(desk: Desk) -> None:
    await desk.front.kvasir.channels.change(replace(PLACE, thread=""), "test", mode="auto")
    desk.front.house.search.found = replace(desk.front.house.search.found, evidence=0.0)
    await desk.ask(mention(trigger="heard"))
    assert desk.messenger.messages == {}
    desk.front.house.search.error = RuntimeError("broken")
    await desk.ask(mention("m2", trigger="heard"))
    assert desk.messenger.messages == {}


async def test_follow_ups_in_our_thread_when_switched_on(desk: Desk) -> None:
    await desk.front.kvasir.channels.change(replace(PLACE, thread=""), "test", follow_ups=True)
    await desk.ask(mention("m0", "Who approves it", trigger="thread"))
    assert desk.messenger.answers("m0") == []  # it is not our thread yet
    await desk.ask(mention())
    await desk.ask(mention("m2", "Who approves it", trigger="thread"))
    assert desk.messenger.answers("m2") == [ANSWER]


async def test_quota_is_told_once_and_leaves_others_alone(front: Front) -> None:
    """Fault 65."""
    limits = front.kvasir.settings.channels.model_copy(update={"questions_per_minute": 2})
    front.kvasir.settings = front.kvasir.settings.model_copy(update={"channels": limits})  # type: ignore[misc]
    desk = Desk(front)
    said = [await desk.intake.take(mention(f"m{number}")) for number in range(6)]
    said.append(await desk.intake.take(mention("bob", person=BOB)))
    await desk.idle()
    assert [bool(sentence) for sentence in said] == [False, False, True, False, False, False, False]
    assert [bool(desk.messenger.answers(f"m{number}")) for number in range(6)] == [True, True, *[False] * 4]
    assert desk.messenger.answers("bob") == [ANSWER]


# ---------------------------------------------------------------- who may hear what
@pytest.mark.parametrize(
    ("alone", "granted", "heard"), [(True, True, True), (False, True, False), (True, False, False)]
)
async def test_private_is_asked_alone_and_by_those_let_in(desk: Desk, alone: bool, granted: bool, heard: bool) -> None:
    """Fault 57."""
    desk.front.knowledge.there = {"manual": True}
    if granted:
        desk.front.knowledge.granted.add(("manual", ANN.key))
    await desk.ask(mention(alone=alone))
    assert (desk.messenger.answers("m1") == [ANSWER]) is heard
    assert bool(desk.front.house.search.asked) is heard


@pytest.mark.parametrize("private", [False, True])
async def test_only_what_is_not_private_is_offered_to_be_shared(desk: Desk, private: bool) -> None:
    desk.front.knowledge.there = {"handbook": private}
    desk.front.knowledge.granted.add(("handbook", ANN.key))
    await desk.ask(mention(alone=True, trigger="command"))
    (message,) = desk.messenger.messages.values()
    assert message.text == ANSWER
    assert message.controls.share is not private


async def test_a_channel_is_answered_from_its_own(desk: Desk) -> None:
    desk.front.knowledge.there = {"handbook": False, "manual": False}
    await desk.front.kvasir.channels.change(replace(PLACE, thread=""), "test", kbs=("manual",))
    await desk.ask(mention(), mention("m2", place=replace(PLACE, channel="D")))
    assert {kbs for _, kbs, _ in desk.front.house.search.asked} == {("manual",), ("handbook", "manual")}


# ---------------------------------------------------------------- what was said before
async def test_a_thread_is_read_back_once_where_we_do_not_know_it(desk: Desk) -> None:
    desk.front.house.engine.is_language_model = False
    desk.messenger.said = [Said("Good morning", "Eve"), Said("How long is annual leave?", "Bob")]
    await desk.ask(mention(text="Who approves it?"))
    assert "annual leave" in desk.front.house.search.asked[-1][0]


# ---------------------------------------------------------------- commands
async def test_commands_change_a_channel_only_for_whoever_looks_after_it(desk: Desk) -> None:
    desk.front.knowledge.there = {"handbook": False, "manual": False, "salaries": True}

    def command(name: str, arguments: str = "", **values: Any) -> Command:
        return Command(name, arguments, PLACE, ANN, **values)

    assert "salaries" not in await desk.intake.take(command("kb"))
    assert "looks after" in await desk.intake.take(command("kb", "manual"))
    assert "manual" in await desk.intake.take(command("kb", "manual", may_manage=True))
    assert (await desk.front.kvasir.channels.get(PLACE)).kbs == ("manual",)
    assert "There is no" in await desk.intake.take(command("kb", "nonsense", may_manage=True))
    assert "on or off" in await desk.intake.take(command("feedback", "perhaps", may_manage=True))
    await desk.intake.take(command("mode", "off", may_manage=True))
    assert "silent" in await desk.intake.take(command("status"))
    await desk.intake.take(command("reset", may_manage=True))
    assert (await desk.front.kvasir.channels.get(PLACE)).mode == "mention"
    assert "help" in await desk.intake.take(command("dance"))


async def test_what_a_command_changes_is_written_down(desk: Desk) -> None:
    await desk.intake.take(Command("mode", "auto", PLACE, ANN, may_manage=True))
    await desk.intake.take(Command("reset", "", PLACE, ANN, may_manage=True))
    await desk.intake.take(Command("status", "", PLACE, ANN))
    written, _ = await desk.front.kvasir.audit.list()
    assert [(one.action, one.person) for one in written] == [("channel.reset", ANN.key), ("channel.change", ANN.key)]
    assert written[1].changes == {"mode": "auto"}


# ---------------------------------------------------------------- humans
async def test_a_human_is_called_once_and_the_matter_can_be_closed(desk: Desk) -> None:
    await desk.ask(mention())
    (post,) = desk.messenger.messages
    assert "No helpers" in await desk.intake.take(Press("human", PLACE, post, ANN))
    await desk.front.kvasir.channels.change(replace(PLACE, thread=""), "test", helpers=("bob",))
    assert "called" in await desk.intake.take(Press("human", PLACE, post, ANN))
    ((text, people),) = desk.messenger.calls
    assert "annual leave" in text
    assert people == ("bob",)
    assert "already" in await desk.intake.take(Press("human", PLACE, post, ANN))
    stranger = replace(BOB, key="fake:W:eve")
    assert "looks after" in await desk.intake.take(Press("resolved", PLACE, post, stranger))
    assert "solved" in await desk.intake.take(Press("resolved", PLACE, post, BOB))
    assert "already" in await desk.intake.take(Press("resolved", PLACE, post, BOB))


async def test_only_some_people_may_be_answered(desk: Desk) -> None:
    await desk.front.kvasir.channels.change(replace(PLACE, thread=""), "test", askers=("bob", "support"))
    assert "only some people" in await desk.intake.take(mention())
    await desk.ask(mention("m2", person=BOB), mention("m3", person=replace(ANN, groups=("support",))))
    assert [desk.messenger.answers(name) for name in ("m1", "m2", "m3")] == [[], [ANSWER], [ANSWER]]
