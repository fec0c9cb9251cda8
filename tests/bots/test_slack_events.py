"""What Slack sends, as our events."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots.commands import NAMES
from bots.slack import events
from core.types import ChatFile, Command, Deleted, Mention, Place, Press, Thumb

ASKED = {
    "type": "app_mention",
    "user": "U1",
    "text": "<@UBOT> How long is leave?",
    "ts": "1700000000.000100",
    "channel": "C1",
    "team": "T1",
}


_KEYS = (
    *("user", "text", "ts", "channel", "team", "thread_ts", "subtype", "message", "previous_message", "files", "id"),
    *("item", "reaction", "deleted_ts", "streaming_message_ts", "actions", "container", "view", "state", "values"),
    *("authorizations", "team_id", "event"),
    *("action_id", "value", "private_metadata", "command", "message_ts", "bot_id", "channel_type", "size"),
)


def read(**inner: Any) -> Any:
    return events.event_of({**ASKED, **inner}, "T1", "UBOT")


def test_a_mention() -> None:
    said = read()
    assert isinstance(said, Mention)
    assert said.place == Place("slack", "T1", "C1", "1700000000.000100")
    assert (said.message_id, said.person.key, said.text) == ("1700000000.000100", "slack:T1:U1", "How long is leave?")
    assert said.said_at == datetime.fromtimestamp(1700000000.0001, UTC)
    assert (said.trigger, said.alone, said.edited) == ("mention", False, False)
    assert said.extra == {"user": "U1", "team": "T1"}


def test_the_pair_of_a_mention_is_the_same_question() -> None:
    assert read(type="message", channel_type="channel") == read()


@pytest.mark.parametrize(
    ("inner", "trigger"),
    [
        ({"channel_type": "im", "channel": "D1", "text": "hi"}, "dm"),
        ({"channel_type": "channel", "text": "hi", "thread_ts": "1700000000.000050"}, "thread"),
        ({"channel_type": "group", "text": "hi"}, "heard"),
        ({"channel_type": "mpim", "text": "hi <@UBOT>"}, "mention"),
    ],
)
def test_how_a_question_came(inner: dict[str, str], trigger: str) -> None:
    said = read(type="message", **inner)
    assert said.trigger == trigger
    assert said.alone == (trigger == "dm")
    assert said.place.thread == inner.get("thread_ts", ASKED["ts"])


@pytest.mark.parametrize(
    "inner",
    [
        {"bot_id": "B9"},
        {"user": "UBOT"},
        {"user": "USLACKBOT"},
        {"user": None},
        {"text": "<@UBOT>"},
        {"type": "message", "subtype": "bot_message"},
        {"type": "message", "subtype": "channel_join"},
        {"type": "message", "subtype": "message_changed", "message": ASKED, "previous_message": ASKED},
        {"type": "channel_created"},
        {"ts": ""},
    ],
)
def test_what_is_no_question(inner: dict[str, Any]) -> None:
    assert read(**inner) is None


def test_edited_and_deleted() -> None:
    before = {**ASKED, "text": "<@UBOT> leave?"}
    changed = {"type": "message", "subtype": "message_changed", "channel": "C1", "channel_type": "channel"}
    edited = read(**changed, message=ASKED, previous_message=before)
    assert (edited.edited, edited.text, edited.message_id) == (True, "How long is leave?", ASKED["ts"])
    gone = Deleted(Place("slack", "T1", "C1", ASKED["ts"]), ASKED["ts"])
    tombstone = {**ASKED, "subtype": "tombstone", "text": "This message was deleted."}
    assert read(**changed, message=tombstone, previous_message=ASKED) == gone
    deleted = {"type": "message", "subtype": "message_deleted", "deleted_ts": ASKED["ts"], "previous_message": ASKED}
    assert read(**deleted) == gone


def test_files() -> None:
    said = read(text="<@UBOT>", files=[{"id": "F1", "name": "a.pdf", "size": 5}, {"name": "no id"}])
    assert (said.text, said.files) == ("", (ChatFile("F1", "a.pdf", 5),))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a &lt;b&gt; &amp;amp; c", "a <b> &amp; c"),
        ("<https://example.org>", "https://example.org"),
        ("<https://example.org|example.org>", "https://example.org"),
        ("<mailto:a@example.org|a@example.org>", "a@example.org"),
        ("<!here> <!subteam^S1|@ops> <!date^1^{date}|today>", "@here @ops today"),
        ("<@U2> <@U3|ann> <#C1|general> <#C2>", "@U2 @ann #general #C2"),
        ("<" * 50_000 + "@" * 50_000, "<" * 50_000 + "@" * 50_000),
    ],
)
def test_readable(text: str, expected: str) -> None:
    assert events.readable(text, "UBOT") == expected


@pytest.mark.parametrize(
    ("reaction", "kind", "value"),
    [("+1", "added", 1), ("thumbsup", "added", 1), ("-1::skin-tone-3", "added", -1), ("-1", "removed", 0)],
)
def test_reactions(reaction: str, kind: str, value: int) -> None:
    item = {"type": "message", "channel": "C1", "ts": "1.2"}
    thumb = read(type=f"reaction_{kind}", reaction=reaction, item=item, item_user="UBOT")
    assert (thumb.value, thumb.place, thumb.post) == (value, Place("slack", "T1", "C1"), "1.2")
    assert read(type=f"reaction_{kind}", reaction="tada", item=item, item_user="UBOT") is None
    assert read(type=f"reaction_{kind}", reaction=reaction, item=item, item_user="U2") is None


COMMAND = {
    "team_id": "T1",
    "channel_id": "C1",
    "channel_name": "general",
    "user_id": "U1",
    "trigger_id": "1.2",
    "response_url": "https://hooks.slack.com/x",
}


def command(text: str) -> Mention | Command:
    return events.command_of({**COMMAND, "text": text}, NAMES)


@pytest.mark.parametrize("text", ["ask How long?", "ASK  How long?", "问 How long?", "How long?"])
def test_questions_by_command(text: str) -> None:
    asked = command(text)
    assert isinstance(asked, Mention)
    assert (asked.text, asked.trigger, asked.alone, asked.message_id) == ("How long?", "command", True, "1.2")
    assert asked.place.thread == "@U1"
    assert asked.extra["response_url"] == "https://hooks.slack.com/x"


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("", "", ""),
        ("ask", "help", ""),
        ("KB  a, b", "kb", "a, b"),
        ("stauts", "stauts", ""),
        ("helpers <@U2|bob> <!subteam^S1|@ops>", "helpers", "U2 S1"),
        ("managers <@U2|bob>", "managers", "slack:T1:U2"),
        ("prompt Say &lt;b&gt;", "prompt", "Say <b>"),
    ],
)
def test_commands(text: str, name: str, arguments: str) -> None:
    said = command(text)
    assert isinstance(said, Command)
    assert (said.name, said.arguments, said.channel_name, said.alone) == (name, arguments, "general", True)


PRESSED = {
    "type": "block_actions",
    "team": {"id": "T1"},
    "user": {"id": "U1"},
    "channel": {"id": "C1"},
    "container": {"type": "message", "message_ts": "2.1", "thread_ts": "1.1"},
}


@pytest.mark.parametrize("control", ["stop", "again", "human"])
def test_buttons(control: str) -> None:
    pressed = events.button_of({**PRESSED, "actions": [{"action_id": f"kvasir:{control}"}]})
    assert isinstance(pressed, Press)
    assert (pressed.control, pressed.post, pressed.place.thread) == (control, "2.1", "1.1")


def test_a_thumb_by_button() -> None:
    thumb = events.button_of({**PRESSED, "actions": [{"action_id": "kvasir:rate", "value": "down:a1"}]})
    assert isinstance(thumb, Thumb)
    assert (thumb.answer_id, thumb.value, thumb.post) == ("a1", -1, "2.1")


@pytest.mark.parametrize("actions", [[], [{}], [{"action_id": "other:stop"}], [{"action_id": "kvasir:drop"}]])
def test_what_is_none_of_our_buttons(actions: list[dict[str, str]]) -> None:
    assert events.button_of({**PRESSED, "actions": actions}) is None


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(_KEYS)), inner, max_size=6),
    max_leaves=12,
)
_KINDS = ["app_mention", "message", "reaction_added", "reaction_removed", "agent_session_stopped", "block_actions"]


@given(st.dictionaries(st.sampled_from(list(_KEYS)), _ANYTHING, max_size=10), st.sampled_from(_KINDS))
def test_whatever_comes_is_read_or_said_to_be_unreadable(payload: dict[str, Any], kind: str) -> None:
    reads: list[Callable[[], object]] = [
        lambda: events.team_of(payload),
        lambda: events.event_of({**payload, "type": kind}, "T1", "UBOT"),
        lambda: events.command_of(payload, NAMES),
        lambda: events.shortcut_of({**payload, "callback_id": events.ASK}, "UBOT"),
        lambda: events.button_of(payload),
        lambda: events.reason_of(payload),
    ]
    for said in reads:
        with contextlib.suppress(events.Unreadable):
            said()
