"""Slack from end to end: what people do in our Slack, through the real client library, to what they see there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import delete, update

from bots.errors import Refused
from bots.handler import ChatHandler
from bots.inbox import LeaseLost
from bots.runner import serve
from core.app import Kvasir
from core.db.tables import InboxRow, PostRow
from core.errors import NotFound, StorageFull, TooLarge, Unavailable
from core.settings import load
from core.types import ChatFile, Mention, Person, Place
from tests.bots.conftest import Front
from tests.bots.slack_world import World, world
from tests.fakes.engine import FakeEngine
from tests.fakes.slack import Message, SlackServer
from tests.fakes.slack.faults import Refusal

pytestmark = pytest.mark.anyio

ANSWER = "Annual leave is 28 days [1]."
TAIL = "\n\n**Sources**"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for people's eyes or a platform's health waits less."""
    for name in ("_STREAM_PAUSE", "_FIRST_PAUSE"):
        monkeypatch.setattr(f"bots.streaming.{name}", 0.02)


@pytest.fixture
async def server() -> AsyncIterator[SlackServer]:
    async with SlackServer() as slack:
        yield slack


@pytest.fixture
async def here(front: Front, server: SlackServer) -> AsyncIterator[World]:
    async with world(front, server) as made:
        yield made


# ---------------------------------------------------------------- a mention
async def test_a_mention_is_answered_in_its_thread_by_a_stream(here: World) -> None:
    asked = await here.ask("How long is annual leave?")
    (answer,) = here.answers(asked)
    assert answer.streaming == "completed"
    assert answer.body.startswith(ANSWER + TAIL)
    assert "leave.md" in answer.body
    assert answer.unfurl == (False, False)
    assert [task["status"] for task in answer.tasks.values()] == ["complete"]
    assert {element["action_id"] for element in answer.elements()} == {"kvasir:rate", "kvasir:again"}


async def test_however_often_it_comes_there_is_one_answer(here: World) -> None:
    here.server.people.pair, here.server.people.copies = True, 4
    asked = await here.ask("How long is annual leave?")
    assert len(here.answers(asked)) == 1
    await here.server.people.tell(asked)
    await here.idle()
    assert len(here.answers(asked)) == 1


async def test_two_processes_give_one_answer(front: Front, server: SlackServer) -> None:
    async with world(front, server) as one, world(front, server):
        await server.delivery.connected(2)
        server.people.copies = 4
        asked = await one.ask("How long is annual leave?")
        await one.until(lambda: one.shown(asked.ts) and one.answers(asked)[0].streaming == "completed")
    assert len(one.answers(asked)) == 1


async def test_it_is_stored_before_slack_hears_that_it_arrived(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    here.server.delivery.ack_seconds, here.server.delivery.retry_pauses = 0.2, (0.0, 0.0)

    async def full(*_: object, **__: object) -> None:
        raise StorageFull("The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(here.intake._inbox, "take_in", full)
        asked = await here.server.people.mention("How long is annual leave?")
    (receipt,) = here.server.delivery.receipts
    assert (receipt.sent, receipt.acks) == (3, [])
    await here.server.people.tell(asked)
    await here.idle()
    assert len(here.answers(asked)) == 1


async def test_a_message_is_read_as_people_wrote_it(here: World) -> None:
    await here.ask("Is a &lt; b, see <https://example.org/a|this> by <@U2> in <#C2|ops>?")
    asked = here.front.house.search.asked[-1][0]
    assert asked == "Is a < b, see this (https://example.org/a) by @U2 in #ops?"


async def test_bots_are_not_heard(here: World) -> None:
    people = here.server.people
    asked = await people.say("hello")
    asked.bot_id, asked.user = "B9", "U9"
    await people.tell(asked)
    await here.idle()
    assert here.shown(asked.ts) == []


async def test_what_a_model_writes_calls_nobody(here: World) -> None:
    said = "Hello <!channel> <@U2> @here, see `<!everyone>`.\n\n```\n<@U1>\n```\n"
    for scripted in (FakeEngine(said, size=3), FakeEngine(said, size=10_000)):
        here.front.house.replace_engine(scripted)
        asked = await here.ask(f"How long is annual leave? {scripted.size}")
        (answer,) = here.answers(asked)
        for token in ("<!channel", "<@U", "@here", "<!everyone"):
            assert token not in answer.body


# ---------------------------------------------------------------- streams that end
async def test_a_stream_that_slack_ends_is_completed_by_an_edit(here: World) -> None:
    here.server.faults.stream_appends = 0
    here.front.house.replace_engine(FakeEngine("One piece. Another piece [1].", size=10, pause=0.05))
    asked = await here.ask("How long is annual leave?")
    (answer,) = here.answers(asked)
    assert answer.body.startswith("One piece. Another piece")
    assert answer.streaming == "expired"
    assert here.server.called("chat.update")


@pytest.mark.parametrize("method", ["chat.startStream", "chat.appendStream", "chat.stopStream"])
async def test_an_answer_lost_on_the_way_is_said_once(here: World, method: str) -> None:
    here.server.faults.lose_answers(method)
    here.front.house.replace_engine(FakeEngine("One piece. Another piece [1].", size=10, pause=0.05))
    asked = await here.ask("How long is annual leave?")
    (answer,) = here.answers(asked)
    assert answer.body.startswith("One piece. Another piece")
    assert answer.body.count("One piece.") == 1
    assert answer.streaming in ("", "completed")


@pytest.mark.parametrize("error", ["feature_not_enabled", "unknown_method"])
async def test_without_streams_an_answer_grows_by_edits(here: World, error: str) -> None:
    here.server.faults.off["chat.startStream"] = error
    for number in range(2):
        asked = await here.ask(f"How long is annual leave? {number}")
        (answer,) = here.answers(asked)
        assert answer.body.startswith("Annual leave is 28 days")
        assert answer.history[0] != answer.body
    assert len(here.server.called("chat.startStream")) == 1


@pytest.mark.parametrize("streams", [True, False])
async def test_a_workspace_that_does_not_know_all_blocks_gets_plain_ones(here: World, streams: bool) -> None:
    here.server.workspace.unknown_blocks = {"markdown", "context_actions"}
    if not streams:
        here.server.faults.off["chat.startStream"] = "feature_not_enabled"
    for number in range(2):
        asked = await here.ask(f"How long is annual leave? {number}")
        (answer,) = here.answers(asked)
        assert answer.body.startswith("Annual leave is 28 days")
        await here.thumb(answer.ts, 1)
    assert [value for _, value, _ in await ratings(here)] == [1, 1]


async def test_a_long_answer_comes_whole(here: World) -> None:
    long = "".join(f"Sentence number {number} of the answer. " for number in range(1200))
    here.front.house.replace_engine(FakeEngine(long, size=3000, is_scripted=True))
    asked = await here.ask("How long is annual leave?")
    bodies = here.shown(asked.ts)
    assert len(bodies) > 3
    assert " ".join(bodies).split("**Sources**")[0].split() == long.split()
    *others, last = here.answers(asked)
    assert [list(message.elements()) for message in others] == [[]] * len(others)
    assert list(last.elements())


@pytest.mark.parametrize("retry_after", ["0", None, "0.05", "soon"])
async def test_slack_may_want_us_to_wait(here: World, retry_after: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bots.slack.client._UNSAID_WAIT", 0.05)
    for method in ("chat.startStream", "chat.postMessage", "chat.update"):
        here.server.faults.rate_limit(method, retry_after)
    asked = await here.ask("How long is annual leave?")
    (answer,) = here.answers(asked)
    assert answer.body.startswith("Annual leave is 28 days")


async def test_a_long_wait_for_one_method_holds_up_no_other(here: World) -> None:
    """Fault 87: ten minutes for streams cost neither this answer nor that of another thread."""
    here.front.house.replace_engine(FakeEngine("One piece. Another piece [1].", size=10, pause=0.05))
    here.server.faults.rate_limit("chat.appendStream", "600")
    asked = await here.ask("How long is annual leave?")
    here.server.faults.rate_limit("chat.startStream", "600")
    for number in range(2):
        await here.ask(f"How long is annual leave? {number}")
    assert len(here.server.called("chat.appendStream")) == 1
    assert len(here.server.called("chat.startStream")) == 2
    answers = [message for message in here.server.channel.visible() if message.bot_id]
    assert [answer.body[:29] for answer in answers] == ["One piece. Another piece [1]."] * 3
    assert here.answers(asked)[0].streaming == "completed"


async def test_slack_may_be_unwell(here: World) -> None:
    for method in ("chat.startStream", "chat.postMessage", "chat.update", "users.info"):
        here.server.faults.refuse(method, Refusal(503, body="<html>Bad gateway</html>"))
    here.server.delivery.retry_pauses, here.server.delivery.ack_seconds = (0.0, 0.0), 0.2
    asked = await here.ask("How long is annual leave?")
    (answer,) = here.answers(asked)
    assert answer.body.startswith("Annual leave is 28 days")


# ---------------------------------------------------------------- recovery
async def test_after_a_crash_the_answer_goes_into_the_stream_that_is_there(front: Front, server: SlackServer) -> None:
    """Fault 83: killed after the stream had begun, before its id was kept."""
    slow = front.house.replace_engine(FakeEngine("Annual leave is 28 days [1].", pause=60))
    async with world(front, server) as killed:
        asked = await server.people.mention("How long is annual leave?")
        await slow.begun.wait()
        await killed.until(lambda: killed.shown(asked.ts))
        await killed_now(killed)
    (begun,) = server.channel.answers(asked.ts)
    assert begun.streaming == "in_progress"
    front.house.replace_engine(front.house.engine)
    async with world(front, server) as again:
        await again.idle()
    (answer,) = server.channel.answers(asked.ts)
    assert (answer.ts, answer.streaming) == (begun.ts, "completed")
    assert answer.body.startswith("Annual leave is 28 days")


async def killed_now(killed: World) -> None:
    """As by kill -9: our database never hears of what stands in Slack."""
    db = killed.front.kvasir.db
    async with db.session() as session:
        await session.execute(delete(PostRow))
        await session.execute(update(InboxRow).values(lease_until=None))
    inbox = killed.intake._inbox
    for name in ("release", "finish", "add_post"):
        setattr(inbox, name, _dead)
    await killed.intake.close(0)


async def _dead(*_: object) -> None:
    raise LeaseLost


async def test_a_deleted_answer_is_written_again(here: World) -> None:
    here.server.faults.off["chat.startStream"] = "feature_not_enabled"
    slow = here.front.house.replace_engine(FakeEngine("Annual leave is 28 days [1].", pause=0.02))
    asked = await here.server.people.mention("How long is annual leave?")
    await slow.begun.wait()
    await here.until(lambda: here.answers(asked))
    here.answers(asked)[0].deleted = True
    await here.idle()
    (answer,) = here.answers(asked)
    assert answer.body.startswith("Annual leave is 28 days")


# ---------------------------------------------------------------- edited and deleted questions
async def test_an_edited_question_is_answered_anew_in_the_same_message(here: World) -> None:
    asked = await here.ask("How long is annual leave?")
    here.front.house.replace_engine(FakeEngine("Ask Bob [1]."))
    await here.server.people.edit(asked, "<@UBOT> Whom do I ask?")
    await here.idle()
    (answer,) = here.answers(asked)
    assert answer.body.startswith("Ask Bob [1].")


async def test_the_answer_to_a_deleted_question_is_taken_back(here: World) -> None:
    asked = await here.ask("How long is annual leave?")
    await here.server.people.delete(asked)
    await here.idle()
    assert here.answers(asked) == []


async def test_a_question_deleted_while_it_is_answered_leaves_nothing(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bots.slack.surface._STOPPABLE_AFTER", 0)
    slow = here.front.house.replace_engine(FakeEngine("Annual leave is 28 days [1].", pause=0.2))
    asked = await here.server.people.mention("How long is annual leave?")
    await slow.begun.wait()
    await here.until(lambda: here.server.channel.sessions.get(asked.ts) == "processing")
    await here.server.people.delete(asked)
    await here.idle()
    assert here.answers(asked) == []
    assert slow.ended_early == 1
    assert here.server.channel.sessions[asked.ts] == "active"


# ---------------------------------------------------------------- thumbs
async def ratings(here: World) -> list[tuple[str, int, str]]:
    return [(r.person, r.value, r.reason) for r in await here.front.kvasir.feedback.list()]


async def test_thumbs_by_buttons_and_reactions_are_one_vote(here: World) -> None:
    asked = await here.ask("How long is annual leave?")
    (answer,) = here.answers(asked)
    await here.thumb(answer.ts, 1)
    assert await ratings(here) == [("slack:T1:U1", 1, "")]
    await here.server.people.react(answer, "-1::skin-tone-2")
    assert await ratings(here) == [("slack:T1:U1", -1, "")]
    await here.server.people.react(answer, "thumbsup")
    assert await ratings(here) == [("slack:T1:U1", 1, "")]
    await here.server.people.unreact(answer, "thumbsup")
    assert await ratings(here) == [("slack:T1:U1", -1, "")]  # the other reaction still stands
    await here.server.people.unreact(answer, "-1::skin-tone-2")
    assert await ratings(here) == []
    await here.server.people.react(answer, "tada")
    await here.server.people.react(asked, "+1")
    assert await ratings(here) == []


async def test_after_a_thumb_down_people_are_asked_why(here: World) -> None:
    asked = await here.ask("How long is annual leave?")
    (answer,) = here.answers(asked)
    await here.thumb(answer.ts, -1, user="U2")
    await here.until(lambda: here.server.workspace.modals and here.whispers("U2"))
    await here.server.people.submit(here.server.workspace.modals[0], {"reason": "It is out of date."}, user="U2")
    assert await ratings(here) == [("slack:T1:U2", -1, "It is out of date.")]


async def test_an_answer_can_be_asked_for_again(here: World) -> None:
    asked = await here.ask("How long is annual leave?")
    (answer,) = here.answers(asked)
    here.front.house.replace_engine(FakeEngine("Twenty-eight days [1]."))
    await here.press("again", answer.ts)
    await here.until(lambda: here.answers(asked)[0].body.startswith("Twenty-eight days [1]."))
    assert len(here.answers(asked)) == 1


async def test_an_answer_can_be_stopped(here: World) -> None:
    here.server.faults.off["chat.startStream"] = "feature_not_enabled"
    slow = here.front.house.replace_engine(FakeEngine("Annual leave is 28 days [1].", pause=0.2))
    asked = await here.server.people.mention("How long is annual leave?")
    await slow.begun.wait()
    await here.until(lambda: here.answers(asked))
    await here.press("stop", here.answers(asked)[0].ts)
    await here.idle()
    (answer,) = here.answers(asked)
    assert "Stopped." in answer.body
    assert slow.ended_early == 1


async def test_slacks_own_stop_button_stops_a_stream(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bots.slack.surface._STOPPABLE_AFTER", 0)
    slow = here.front.house.replace_engine(FakeEngine("Annual leave is 28 days [1].", pause=0.2))
    asked = await here.server.people.mention("How long is annual leave?")
    await slow.begun.wait()
    await here.until(lambda: here.server.channel.sessions.get(asked.ts) == "processing")
    await here.server.people.stop(asked)
    await here.until(lambda: "Stopped." in here.answers(asked)[0].body)
    await here.idle()
    assert slow.ended_early == 1
    assert here.server.channel.sessions[asked.ts] == "active"


async def test_a_human_is_called_and_says_that_it_is_solved(here: World) -> None:
    await here.server.people.command("helpers <@U2|bob>")
    asked = await here.ask("How long is annual leave?")
    (answer,) = here.answers(asked)
    await here.server.people.click(answer, "kvasir:human")
    await here.until(lambda: len(here.answers(asked)) == 2)
    called = here.answers(asked)[1]
    assert called.text.startswith("<@U2> ")
    await here.server.people.click(called, "kvasir:resolved", user="U2")
    await here.until(lambda: "✓" in called.body)
    assert list(called.elements()) == []


# ---------------------------------------------------------------- direct messages and the agent's page
async def test_each_direct_message_is_a_thread_of_its_own(here: World) -> None:
    here.front.house.engine.is_language_model = False
    first = await here.server.people.dm("How long is annual leave?")
    await here.idle()
    await here.server.people.dm("Who approves it?", thread_ts=first.ts)
    await here.idle()
    assert len(here.answers(first)) == 2
    assert "annual leave" in here.front.house.search.asked[-1][0]
    await here.server.people.dm("Where do I park?")
    await here.idle()
    assert here.front.house.search.asked[-1][0] == "Where do I park?"


async def test_the_home_tab_says_what_can_be_done_here(here: World) -> None:
    await here.server.people.open_home()
    await here.until(lambda: here.server.workspace.homes)
    shown = str(here.server.workspace.homes["U1"])
    assert "handbook" in shown
    assert "Mention me" in shown


async def test_the_page_of_messages_suggests_what_to_ask(here: World) -> None:
    await here.server.people.open_home(tab="messages")
    await here.until(lambda: here.server.workspace.im("U1").prompts)
    assert here.server.workspace.im("U1").prompts == [
        {"title": "What is «handbook» about?", "message": "What is «handbook» about?"}
    ]


# ---------------------------------------------------------------- commands and shortcuts
async def test_a_question_by_command_is_answered_to_its_asker_alone(here: World) -> None:
    receipt = await here.server.people.command("ask How long is annual leave?")
    await here.idle()
    assert receipt.answers[0]["text"] == "Searching…"
    (private,) = here.whispers("U1")
    assert private.startswith(ANSWER)
    assert here.server.channel.visible() == []


async def test_a_private_answer_can_be_shared_and_rated(here: World) -> None:
    await here.server.people.command("how long is annual leave?")
    await here.idle()
    private = here.server.channel.messages[-1]
    await here.server.people.click(private, "up:")
    assert await ratings(here) == [("slack:T1:U1", 1, "")]
    await here.server.people.click(private, "kvasir:share")
    await here.until(lambda: private.deleted)
    (shared,) = here.server.channel.visible()
    assert shared.body.startswith(ANSWER)
    assert "<@U1>" in shared.body


@pytest.mark.parametrize("member", [True, False])
async def test_a_long_private_answer_is_shared_whole_or_not_at_all(here: World, member: bool) -> None:
    long = "".join(f"Sentence number {number} of the answer. " for number in range(1800))
    here.front.house.replace_engine(FakeEngine(long, size=3000, is_scripted=True))
    await here.server.people.command("ask How long is annual leave?")
    await here.idle()
    private = [message for message in here.server.channel.messages if message.ephemeral_to]
    assert " ".join(message.body for message in private).split() == long.split()
    if not member:
        here.server.channel.members.discard("UBOT")
    await here.server.people.click(private[-1], "kvasir:share")
    await here.until(lambda: private[-1].deleted or "invite me" in here.whispers()[-1])
    shared = " ".join(message.body for message in here.server.channel.visible())
    assert shared.split("Shared by")[0].split() == (long.split() if member else [])


async def test_questions_by_command_share_no_history_with_others(here: World) -> None:
    await here.server.people.command("ask How long is annual leave?")
    await here.idle()
    await here.server.people.command("ask Who approves it?", user="U2")
    await here.idle()
    assert here.front.house.search.asked[-1][0] == "Who approves it?"


async def test_commands_say_and_set_how_it_works_here(here: World) -> None:
    shown = await here.server.people.command("status")
    assert "handbook" in str(shown.answers[0]["blocks"])
    refused = await here.server.people.command("mode off", user="U2")
    assert "looks after this channel" in str(refused.answers[0]["blocks"])
    await here.server.people.command("mode off", user="U1")  # an administrator
    asked = await here.ask("How long is annual leave?")
    assert here.answers(asked) == []
    helped = await here.server.people.command("")
    assert "Mention me" in str(helped.answers[0]["blocks"])


async def test_the_shortcut_asks_about_a_message(here: World) -> None:
    said = await here.server.people.say("How long is annual leave?")
    await here.server.people.shortcut(said, "kvasir:ask", user="U2")
    await here.until(lambda: len(here.whispers("U2")) == 2)
    assert here.whispers("U2")[-1].startswith(ANSWER)
    assert here.answers(said) == []


async def test_where_we_are_not_a_member_a_command_still_answers(here: World) -> None:
    here.server.channel.members.discard("UBOT")
    await here.server.people.command("ask How long is annual leave?")
    await here.idle()
    assert here.whispers("U1")[-1].startswith(ANSWER)


# ---------------------------------------------------------------- threads
async def test_a_thread_is_answered_without_a_mention_where_that_is_on(here: World) -> None:
    asked = await here.ask("How long is annual leave?")
    await here.server.people.say("And who approves it?", thread_ts=asked.ts)
    await here.idle()
    assert len(here.answers(asked)) == 1
    await here.server.people.command("followups on")
    await here.server.people.say("And who approves it, please?", thread_ts=asked.ts)
    await here.idle()
    assert len(here.answers(asked)) == 2


async def test_what_was_said_before_us_is_read_back(here: World) -> None:
    async with here.server.delivery.holding() as held:
        root = await here.server.people.say("Annual leave is what we talk about.")
        held.clear()
    await here.server.people.mention("Who approves it?", thread_ts=root.ts)
    await here.idle()
    assert here.server.called("conversations.replies")
    asked = here.front.house.search.asked[-1][0]
    assert "leave" in asked


# ---------------------------------------------------------------- trouble
async def test_a_revoked_token_ends_this_platform_alone(front: Front, server: SlackServer) -> None:
    server.workspace.revoked = "token_revoked"
    with pytest.raises(Refused, match="token_revoked"):
        async with world(front, server):
            pass


async def test_a_token_revoked_meanwhile_is_noticed(front: Front, server: SlackServer) -> None:
    async with world(front, server) as here:
        running = here.running
        server.workspace.revoked = "token_revoked"
        await server.people.mention("How long is annual leave?")
        with pytest.raises(Refused, match="token_revoked"):
            await asyncio.wait_for(asyncio.shield(running), 10)


async def test_a_bad_app_token_is_refused(front: Front, server: SlackServer) -> None:
    with pytest.raises(Refused, match="invalid_auth"):
        async with world(front, server, app_token=SecretStr("xapp-wrong")):
            pass


async def test_a_cut_connection_comes_back_and_loses_nothing(here: World) -> None:
    here.server.delivery.ack_seconds, here.server.delivery.retry_pauses = 0.3, (0.0,) * 30
    await here.server.delivery.live[0].cut()
    asked = await here.ask("How long is annual leave?")
    assert len(here.answers(asked)) == 1


async def test_a_channel_we_may_not_write_to_costs_only_its_own_answer(here: World) -> None:
    here.server.channel.members.discard("UBOT")
    await here.ask("How long is annual leave?")
    here.server.channel.members.add("UBOT")
    asked = await here.ask("How long is annual leave, again?")
    assert len(here.answers(asked)) == 1


# ---------------------------------------------------------------- files
async def test_files_come_with_the_bots_own_token_and_no_further_than_allowed(here: World) -> None:
    people = here.server.people
    file = people.file("note.md", b"# Note", "text/markdown")
    mention = Mention(Place("slack", "T1", "C1", "1.1"), "1.1", Person("slack:T1:U1", "Ann"), "Read this")
    assert await here.slack.download(mention, ChatFile(file["id"], "note.md"), 100) == b"# Note"
    with pytest.raises(TooLarge):
        await here.slack.download(mention, ChatFile(file["id"], "note.md"), 3)
    lies = people.file("big.bin", b"x" * 100_000, "application/octet-stream", size=0)
    with pytest.raises(TooLarge):
        await here.slack.download(mention, ChatFile(lies["id"], "big.bin"), 1000)
    elsewhere = people.file("evil.md", b"", url_private_download="https://example.org/steal")
    with pytest.raises(NotFound):
        await here.slack.download(mention, ChatFile(elsewhere["id"], "evil.md"), 100)
    login = people.file("page.md", b"", url_private_download=f"{here.server.url}/files/F0/x")
    with pytest.raises(Unavailable):
        await here.slack.download(mention, ChatFile(login["id"], "page.md"), 100)
    with pytest.raises(Refused):
        await here.slack.download(mention, ChatFile("F99", "gone.md"), 100)


async def test_a_file_sent_with_a_question_can_be_asked_about(server: SlackServer, tmp_path: Path) -> None:
    slack = {"bot_token": server.workspace.token, "app_token": server.app_token, "base_url": server.base_url}
    text = b"# Travel\n\nThe daily allowance in Norway is 74 euros. Receipts are kept for ten years.\n"
    people = server.people
    async with Kvasir.open(load(data_dir=tmp_path / "data", slack=slack, embedder={"kind": "none"})) as kvasir:
        served = asyncio.create_task(serve(kvasir, ChatHandler(kvasir)))
        await server.delivery.connected()
        file = people.file("travel.md", text, "text/markdown")
        asked = await people.mention("what is the daily allowance in Norway?", files=(file,))
        await said(server, asked, "74 euros")
        again = await people.mention("how long are receipts kept?", thread_ts=asked.ts)
        await said(server, again, "ten years")
        served.cancel()
        await asyncio.gather(served, return_exceptions=True)


async def said(server: SlackServer, asked: Message, words: str) -> None:
    async with asyncio.timeout(30):
        while not any(words in answer.body for answer in server.channel.answers(asked.thread_ts or asked.ts)):
            await asyncio.sleep(0.02)


async def test_a_helpers_words_are_kept_as_an_answer(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[tuple[str, ...]] = []

    async def keep(_: object, *what: str) -> None:
        kept.append(what)

    monkeypatch.setattr("core.quality.curated.keep", keep)
    asked = await here.ask("How long is annual leave?")
    helped = await here.server.people.say("It is 30 days since May.", user="U2", thread_ts=asked.ts)
    await here.server.people.shortcut(helped, "kvasir:keep", user="U2")
    await here.until(lambda: here.whispers("U2"))
    assert kept == []
    await here.server.people.shortcut(helped, "kvasir:keep", user="U1")  # an administrator
    await here.until(lambda: kept)
    assert kept == [("handbook", "How long is annual leave?", "It is 30 days since May.", "ann")]


async def test_a_connection_that_fell_silent_is_replaced(
    front: Front, server: SlackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 88: half-open; nothing is heard and nobody says so."""
    monkeypatch.setattr("bots.slack.socket._PING_SECONDS", 0.3)
    async with world(front, server) as here:
        server.delivery.ack_seconds, server.delivery.retry_pauses = 0.2, (0.1,) * 50
        server.delivery.live[0].silent = True
        asked = await here.ask("How long is annual leave?")
        assert len(here.answers(asked)) == 1
        assert len(server.delivery.sockets) > 1
