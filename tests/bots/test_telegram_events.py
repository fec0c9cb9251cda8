"""What people do on Telegram, as events: read from what the Bot API sends."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots.telegram.events import GUEST, QUOTED, QUOTED_BY, TOPIC, Me, ids_of, place_of, pressed, reacted, said, stopped
from bots.telegram.events import without_name as strip
from core.types import ChatFile, Command, Mention, Press, Thumb
from tests.fakes.telegram.people import Chat, Document, Message, Person
from tests.fakes.telegram.texts import units

ME = Me(42, "kvasir_bot")
BOT = Person(42, "Kvasir", "kvasir_bot", is_bot=True)
ALICE = Person(7, "Alice", "alice")
BOB = Person(8, "Bob")
GROUP = Chat(-1001, "supergroup", "Team")
FORUM = Chat(-1002, "supergroup", "Forum", forum=True)
BASIC = Chat(-1003, "group", "Small")
PRIVATE = Chat(7, "private", "Alice", ALICE)
_ids = itertools.count(100)


def message(chat: Chat, text: str = "", sender: Person = ALICE, **more: Any) -> Message:
    return Message(chat, next(_ids), sender, text, more.pop("entities", []), 1_700_000_000, **more)


def mention(told: Message, thread: str = "") -> Mention:
    event = said(told.json(), ME, thread=thread)
    assert isinstance(event, Mention)
    return event


# ---------------------------------------------------------------- questions
def test_a_mention_in_a_group() -> None:
    asked = message(GROUP, "Hi @Kvasir_Bot, how many days?")
    event = mention(asked)
    assert event.text == "Hi , how many days?"
    assert (event.place, event.message_id) == (place_of(-1001, str(asked.id)), str(asked.id))
    assert (event.person.key, event.person.name, event.person.member) == ("telegram:7", "Alice", True)
    assert (event.trigger, event.alone, event.edited) == ("mention", False, False)
    assert event.said_at == datetime.fromtimestamp(1_700_000_000, UTC)


def test_names_behind_emoji_and_people_without_a_username() -> None:
    words = "🦉🦉 @Kvasir wie viele?"
    by_id = {"type": "text_mention", "offset": 5, "length": 7, "user": BOT.json()}
    assert mention(message(GROUP, words, entities=[by_id])).text == "🦉🦉  wie viele?"
    assert mention(message(GROUP, "🦉 @kvasir_bot 年假几天？")).text == "🦉  年假几天？"
    other = said(message(GROUP, "@kvasir_bottle what?").json(), ME)
    assert isinstance(other, Mention)
    assert other.trigger == "heard"


@given(st.text(max_size=40), st.text(max_size=40))
def test_our_name_is_cut_out_and_nothing_else(before: str, after: str) -> None:
    text = f"{before}@kvasir_bot{after}"
    entity = {"type": "mention", "offset": units(before), "length": units("@kvasir_bot")}
    words, is_called = strip(text, [entity], ME)
    assert is_called
    assert words == (before + (after if before else after.removeprefix(" "))).strip()


def test_a_direct_message_is_one_conversation() -> None:
    event = mention(message(PRIVATE, "how many days?"))
    assert (event.trigger, event.alone, event.place) == ("dm", True, place_of(7))


def test_a_chain_of_replies_is_one_conversation() -> None:
    asked = message(GROUP, "@kvasir_bot first")
    answer = message(GROUP, "28 days", BOT, reply_to=asked)
    again = message(GROUP, "and now?", BOB, reply_to=answer)
    assert mention(asked).place == mention(again).place, "Telegram names the root of the chain in a supergroup"
    assert mention(again).trigger == "mention"
    assert QUOTED not in mention(again).extra, "our own words are in the history already"
    basic = message(BASIC, "and now?", reply_to=message(BASIC, "28", BOT))
    assert mention(basic, thread="55").place.thread == "55"


def test_a_topic_is_part_of_the_conversation() -> None:
    opening = message(FORUM, of_topic="Travel")
    FORUM.topics[9] = opening
    asked = message(FORUM, "@kvasir_bot first", topic=9)
    event = mention(asked)
    assert (event.place.thread, event.extra[TOPIC]) == (f"9/{asked.id}", "9")
    assert QUOTED not in event.extra
    assert mention(message(FORUM, "more", topic=9)).trigger == "heard", "the opening of a topic is nobody's words"


def test_what_is_replied_to_is_asked_about() -> None:
    theirs = message(GROUP, "The report is due on Friday.", BOB, document=Document("report.md", b"x", "f1"))
    event = mention(message(GROUP, "@kvasir_bot is that right?", reply_to=theirs))
    assert (event.extra[QUOTED], event.extra[QUOTED_BY]) == ("The report is due on Friday.", "Bob")
    assert event.files == (ChatFile("f1", "report.md", 1),)
    bare = mention(message(GROUP, "@kvasir_bot", reply_to=theirs))
    assert (bare.text, QUOTED in bare.extra) == ("The report is due on Friday.", False)
    assert said(message(GROUP, "@kvasir_bot").json(), ME) is None, "nothing was asked"


def test_files_come_with_their_caption() -> None:
    event = mention(message(PRIVATE, "what does it say?", document=Document("plan.pdf", b"abc", "f2")))
    assert (event.text, event.files) == ("what does it say?", (ChatFile("f2", "plan.pdf", 3),))
    assert mention(message(PRIVATE, document=Document("plan.pdf", b"abc", "f2"))).text == ""


def test_pictures_are_files() -> None:
    sizes = [{"file_id": f"p{width}", "width": width, "height": width, "file_size": width} for width in (90, 800, 320)]
    told = {**message(PRIVATE).json(), "photo": sizes, "caption": "what is this?"}
    del told["text"]
    event = said(told, ME)
    assert isinstance(event, Mention)
    assert (event.text, event.files[0].id, event.files[0].size) == ("what is this?", "p800", 800)
    assert event.files[0].name.endswith(".jpg")


def test_what_is_not_said_to_us_is_only_heard() -> None:
    assert mention(message(GROUP, "what day is it?")).trigger == "heard"
    chained = message(GROUP, "I think so", reply_to=message(GROUP, "is it?", BOB))
    assert mention(chained).trigger == "thread"


def test_bots_and_copies_are_nobody() -> None:
    other = Person(9, "Other", "other_bot", is_bot=True)
    assert said(message(GROUP, "@kvasir_bot hello", other).json(), ME) is None
    copied = {**message(GROUP, "@kvasir_bot hello").json(), "is_automatic_forward": True}
    assert said(copied, ME) is None
    channel = {**message(GROUP, "@kvasir_bot hello").json(), "sender_chat": {"id": -5, "type": "channel"}}
    assert said(channel, ME) is None
    as_group = {**message(GROUP, "@kvasir_bot hello", other).json(), "sender_chat": GROUP.json()}
    event = said(as_group, ME)
    assert isinstance(event, Mention), "an administrator who writes in the group's name"
    assert event.person.key == "telegram:-1001"


def test_a_guest_is_asked_in_a_channel_of_its_own() -> None:
    asked = message(GROUP, "@kvasir_bot what is it?")
    asked.guest_query_id = "g1"
    event = mention(asked)
    assert event.place == place_of("guests", f"-1001:{asked.id}")
    assert (event.message_id, event.extra[GUEST], event.alone) == (f"-1001:{asked.id}", "g1", False)


def test_an_edit_is_marked() -> None:
    event = said(message(GROUP, "@kvasir_bot now").json(), ME, edited=True)
    assert isinstance(event, Mention)
    assert event.edited
    assert said(message(GROUP, "/status").json(), ME, edited=True) is None


# ---------------------------------------------------------------- commands
def test_a_question_as_a_command() -> None:
    event = mention(message(GROUP, "/ask@kvasir_bot how many days?"))
    assert (event.trigger, event.text) == ("command", "how many days?")
    assert said(message(GROUP, "/ask@other_bot how many?").json(), ME) is None
    theirs = message(GROUP, "How many days?", BOB)
    assert mention(message(GROUP, "/ask", reply_to=theirs)).text == "How many days?"


def test_commands_about_us() -> None:
    event = said(message(GROUP, "/KB handbook, hr").json(), ME)
    assert isinstance(event, Command)
    assert (event.name, event.arguments, event.channel_name) == ("kb", "handbook, hr", "Team")
    assert (event.may_manage, event.alone) == (False, False)
    start = said(message(PRIVATE, "/start").json(), ME)
    assert isinstance(start, Command)
    assert (start.name, start.may_manage, start.alone) == ("help", True, True)


def test_stop_and_keep() -> None:
    answer = message(GROUP, "28 days", BOT)
    stop = said(message(GROUP, "/stop", reply_to=answer).json(), ME)
    assert isinstance(stop, Press)
    assert (stop.control, stop.post) == ("stop", str(answer.id))
    helped = message(GROUP, "It is 30 days.", BOB, reply_to=answer)
    keep = said(message(GROUP, "/keep", reply_to=helped).json(), ME)
    assert isinstance(keep, Press)
    assert (keep.control, keep.text, keep.place.thread) == ("keep", "It is 30 days.", str(answer.id))


# ---------------------------------------------------------------- buttons and reactions
def query(told: Message, data: str, who: Person = ALICE) -> dict[str, Any]:
    return {"id": "q", "from": who.json(), "message": told.json(), "data": data}


def test_presses() -> None:
    answer = message(GROUP, "28 days", BOT)
    up = pressed(query(answer, "up"))
    assert isinstance(up, Thumb)
    assert (up.value, up.post, up.place, up.answer_id) == (1, str(answer.id), place_of(-1001), "")
    again = pressed(query(answer, "again"))
    assert isinstance(again, Press)
    assert not again.may_manage
    own = pressed(query(message(PRIVATE, "28", BOT), "stop"))
    assert isinstance(own, Press)
    assert own.may_manage
    solved = pressed(query(message(GROUP, "@bob help", BOT), "resolved:77"))
    assert isinstance(solved, Press)
    assert (solved.control, solved.post) == ("resolved", "77")
    guest = pressed({"id": "q", "from": ALICE.json(), "inline_message_id": "abc", "data": "down"})
    assert isinstance(guest, Thumb)
    assert (guest.post, guest.place) == ("inline:abc", place_of("guests"))
    assert pressed(query(answer, "drop table")) is None
    assert pressed({"id": "q", "from": ALICE.json(), "data": "up"}) is None


def reaction(old: str, new: str) -> dict[str, Any]:
    emoji = {name: [{"type": "emoji", "emoji": one} for one in chars] for name, chars in (("o", old), ("n", new))}
    about = {"chat": GROUP.json(), "message_id": 5, "date": 1, "user": ALICE.json()}
    return {**about, "old_reaction": emoji["o"], "new_reaction": emoji["n"]}


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [("", "👍", 1), ("👍", "👎", -1), ("👎", "", 0), ("", "❤", None), ("👍", "👍❤", None), ("❤", "", None)],
)
def test_reactions(old: str, new: str, value: int | None) -> None:
    thumb = reacted(reaction(old, new))
    assert (thumb.value if thumb else None) == value
    assert reacted({**reaction("", "👍"), "user": BOT.json()}) is None
    assert reacted({**reaction("", "👍"), "user": None}) is None, "anonymous"


def test_a_draft_is_stopped_by_the_number_of_its_question() -> None:
    press = stopped({"chat": PRIVATE.json(), "draft_id": 5})
    assert (press.control, press.post, press.place, press.person.key) == ("stop", "5", place_of(7), "telegram:7")


def test_who_an_update_comes_from() -> None:
    assert ids_of({"update_id": 1, "message": message(GROUP, "x").json()}) == {"7", "-1001"}
    assert ids_of({"update_id": 1, "callback_query": query(message(GROUP, "x", BOT), "up", BOB)}) == {"8", "-1001"}
    assert ids_of({"update_id": 1, "message_reaction": reaction("", "👍")}) == {"7", "-1001"}
