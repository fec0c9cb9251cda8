"""What Slack sends, as our events: plain functions on plain data."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Final, Literal, ParamSpec, TypeVar

from core.types import ChatEvent, ChatFile, Command, Deleted, Mention, Person, Place, Press, Thumb, Trigger

NAME: Final = "slack"
ACTION: Final = "kvasir:"
"""Every action and callback of ours begins with it."""
ASK: Final = f"{ACTION}ask"
"""Callback of the shortcut «Ask Kvasir about this»."""
KEEP: Final = f"{ACTION}keep"
"""Callback of the shortcut with which a helper's message is kept as an answer."""
RATE: Final = f"{ACTION}rate"
WHY: Final = f"{ACTION}why"
"""Callback of the window that asks for a reason."""
SHARE: Final = f"{ACTION}share"

_HUMAN_SUBTYPES: Final = frozenset({"", "file_share", "thread_broadcast", "me_message"})
_SLACKBOT: Final = "USLACKBOT"
"""A program whose messages bear no mark of one."""
_TOKEN: Final = re.compile(r"<([^<>|]{1,3000})(?:\|([^<>]{0,3000}))?>")
_WHO: Final = re.compile(r"<(?:@|!subteam\^)([A-Z0-9]{2,30})(?:\|[^<>]{0,300})?>")
_UP: Final = frozenset({"+1", "thumbsup"})
_DOWN: Final = frozenset({"-1", "thumbsdown"})
_QUESTION_WORDS: Final = frozenset({"ask", "问", "提问"})

Payload = Mapping[str, Any]
P = ParamSpec("P")
T = TypeVar("T")


class Unreadable(Exception):
    """A payload of another shape than Slack documents."""


def _reading(read: Callable[P, T]) -> Callable[P, T]:
    """Let a payload that cannot be read be an error by that name, and not any of the errors of plain data."""

    @wraps(read)
    def reading(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise Unreadable(read.__name__) from error

    return reading


def person_of(team: str, user: str) -> Person:
    """Whoever it is, as far as an event says; the name and the rights come from Slack's list of users."""
    return Person(f"{NAME}:{team}:{user}", "")


def place_of(team: str, channel: str, thread: str = "") -> Place:
    return Place(NAME, team, channel, thread)


@_reading
def team_of(body: Payload) -> str:
    """The workspace that let us in, which in a shared channel need not be the one of whoever speaks."""
    authorizations = body.get("authorizations") or [{}]
    team = authorizations[0].get("team_id") or body.get("team_id") or (body.get("team") or {}).get("id")
    return str(team or (body.get("user") or {}).get("team_id") or "")


# ---------------------------------------------------------------- events
@_reading
def event_of(inner: Payload, team: str, bot_user: str) -> ChatEvent | None:
    """What an event of the Events API means for us; None: nothing."""
    match inner.get("type"):
        case "app_mention" | "message":
            return _message(inner, team, bot_user)
        case "reaction_added" | "reaction_removed":
            return _reaction(inner, team, bot_user)
        case "agent_session_stopped":
            streams = inner.get("streaming_message_ts") or [""]
            place = place_of(team, str(inner.get("channel", "")), str(inner.get("thread_ts", "")))
            return Press("stop", place, str(streams[-1]), person_of(team, str(inner.get("user", ""))))
    return None


def _message(inner: Payload, team: str, bot_user: str) -> Mention | Deleted | None:
    subtype = str(inner.get("subtype") or "")
    channel = str(inner.get("channel", ""))
    if subtype == "message_deleted":
        before = inner.get("previous_message") or {}
        thread = str(before.get("thread_ts") or inner.get("deleted_ts", ""))
        return Deleted(place_of(team, channel, thread), str(inner.get("deleted_ts", "")))
    if subtype == "message_changed":
        now, before = inner.get("message") or {}, inner.get("previous_message") or {}
        if now.get("subtype") == "tombstone":  # deleted, with a thread below it
            return Deleted(place_of(team, channel, str(now.get("ts", ""))), str(now.get("ts", "")))
        if now.get("text") == before.get("text"):
            return None  # a preview was added
        said = {**now, "channel": channel, "channel_type": inner.get("channel_type", "")}
        return _said(said, team, bot_user, edited=True)
    return _said(inner, team, bot_user)


def _said(said: Payload, team: str, bot_user: str, *, edited: bool = False) -> Mention | None:
    user, ts = str(said.get("user") or ""), str(said.get("ts") or "")
    if not user or not ts or user in (bot_user, _SLACKBOT) or said.get("bot_id"):
        return None
    if str(said.get("subtype") or "") not in _HUMAN_SUBTYPES:
        return None
    alone = said.get("channel_type") == "im"
    text = readable(str(said.get("text") or ""), bot_user)
    files = tuple(_file(file) for file in said.get("files") or () if file.get("id"))
    if not text and not files:
        return None
    return Mention(
        place=place_of(team, str(said.get("channel", "")), str(said.get("thread_ts") or ts)),
        message_id=ts,
        person=person_of(team, user),
        text=text,
        trigger="dm" if alone else _trigger(said, bot_user),
        alone=alone,
        said_at=when(ts),
        edited=edited,
        files=files,
        extra={"user": user, "team": str(said.get("user_team") or said.get("team") or team)},
    )


def _trigger(said: Payload, bot_user: str) -> Trigger:
    if said.get("type") == "app_mention" or f"<@{bot_user}" in str(said.get("text") or ""):
        return "mention"
    return "thread" if said.get("thread_ts") else "heard"


def _file(file: Payload) -> ChatFile:
    return ChatFile(
        str(file["id"]), str(file.get("name") or file.get("title") or file["id"]), int(file.get("size") or 0)
    )


def _reaction(inner: Payload, team: str, bot_user: str) -> Thumb | None:
    item, value = inner.get("item") or {}, thumb_value(str(inner.get("reaction", "")))
    user = str(inner.get("user", ""))
    if value == 0 or item.get("type") != "message" or user == bot_user:
        return None
    if inner.get("item_user", bot_user) != bot_user:
        return None
    place, post = place_of(team, str(item.get("channel", ""))), str(item.get("ts", ""))
    if inner["type"] == "reaction_removed":
        return Thumb("", person_of(team, user), 0, was=value, place=place, post=post)
    return Thumb("", person_of(team, user), value, place=place, post=post)


def thumb_value(reaction: str) -> Literal[-1, 0, 1]:
    """What a reaction says, in any colour of skin; 0: nothing about the answer."""
    name = reaction.partition("::")[0]
    return 1 if name in _UP else -1 if name in _DOWN else 0


def when(ts: str) -> datetime | None:
    """The time in a message's id."""
    try:
        return datetime.fromtimestamp(float(ts), UTC)
    except (ValueError, OverflowError, OSError):
        return None


def readable(text: str, bot_user: str) -> str:
    """Slack's notation of a message as a person would write it, without the mention of ourselves."""

    def said(found: re.Match[str]) -> str:
        what, label = found[1], found[2] or ""
        if what.startswith("@"):
            return "" if what[1:] == bot_user else "@" + (label.removeprefix("@") or what[1:])
        if what.startswith("#"):
            return "#" + (label or what[1:])
        if what.startswith("!"):
            return label or "@" + what[1:].partition("^")[0]
        url = what.removeprefix("mailto:")
        return url if label in ("", what, url, url.partition("//")[2]) else f"{label} ({url})"

    return html.unescape(_TOKEN.sub(said, text)).strip()


# ---------------------------------------------------------------- commands, shortcuts, buttons
@_reading
def command_of(body: Payload, names: Collection[str]) -> Mention | Command:
    """`/kvasir ask …`, or what begins with none of `names`, is a question whose answer the asker alone sees."""
    team, channel, user = (str(body.get(key, "")) for key in ("team_id", "channel_id", "user_id"))
    said = str(body.get("text") or "").strip()
    word, _, rest = said.partition(" ")
    rest = rest.strip()
    asks = word.lower() in _QUESTION_WORDS
    if rest and (asks or word.lower() not in names):
        text = readable(rest if asks else said, "")
        return _private_question(body, team, channel, user, text, str(body.get("trigger_id", "")))
    name = str(body.get("channel_name", ""))
    return Command(
        name="help" if asks else word.lower(),
        arguments=_named(rest, team, as_keys=word.lower() == "managers"),
        place=place_of(team, channel),
        person=person_of(team, user),
        alone=True,
        channel_name="" if name == "directmessage" else name,
    )


def _named(text: str, team: str, *, as_keys: bool) -> str:
    """The text with people as Slack's ids, or as keys of ours, and all else as it reads."""

    def said(found: re.Match[str]) -> str:
        who = found[1]
        return person_of(team, who).key if as_keys else who

    return readable(_WHO.sub(said, text), "")


@_reading
def shortcut_of(body: Payload, bot_user: str) -> Mention | Press | None:
    """A message shortcut: ask about the message, or keep it as an answer."""
    team, channel, user = _where(body)
    message = body.get("message") or {}
    text, ts = readable(str(message.get("text") or ""), bot_user), str(body.get("message_ts") or message.get("ts", ""))
    if body.get("callback_id") == KEEP:
        place = place_of(team, channel, str(message.get("thread_ts") or ts))
        return Press("keep", place, ts, person_of(team, user), text=text)
    if body.get("callback_id") == ASK and text:
        return _private_question(body, team, channel, user, text, str(body.get("trigger_id", "")))
    return None


def _private_question(body: Payload, team: str, channel: str, user: str, text: str, message_id: str) -> Mention:
    """Its conversation is the asker's own in this channel: nobody else's questions stand in it."""
    return Mention(
        place=place_of(team, channel, f"@{user}"),
        message_id=message_id,
        person=person_of(team, user),
        text=text,
        trigger="command",
        alone=True,
        extra={"response_url": str(body.get("response_url", "")), "user": user},
    )


@_reading
def button_of(body: Payload) -> Thumb | Press | None:
    """A press of one of our buttons; None for those that the platform deals with itself."""
    team, channel, user = _where(body)
    action, container = (body.get("actions") or [{}])[0], body.get("container") or {}
    name, value = str(action.get("action_id", "")), str(action.get("value", ""))
    post = str(container.get("message_ts", ""))
    place = place_of(team, channel, str(container.get("thread_ts") or ""))
    person = person_of(team, user)
    if name == RATE or name.startswith(f"{RATE}:"):
        side, _, answer_id = value.partition(":")
        return Thumb(answer_id, person, 1 if side == "up" else -1, place=place, post=post)
    match name.removeprefix(ACTION):
        case "stop" | "again" | "human" as control:
            return Press(control, place, post, person)
        case "resolved":
            return Press("resolved", place, value, person)
    return None


@_reading
def reason_of(body: Payload) -> Thumb:
    """What was written in the window that asks why; where it belongs stands in its private part."""
    team, _, user = _where(body)
    view = body["view"]
    answer_id, channel, post = [*str(view.get("private_metadata", "")).split(" "), "", ""][:3]
    inputs = (view.get("state") or {}).get("values") or {}
    texts = [str(element.get("value") or "") for block in inputs.values() for element in block.values()]
    place = place_of(team, channel) if channel else None
    return Thumb(answer_id, person_of(team, user), -1, " ".join(texts).strip(), place=place, post=post)


def _where(body: Payload) -> tuple[str, str, str]:
    """Workspace, channel and person of an interaction."""
    user, channel = body.get("user") or {}, body.get("channel") or {}
    team = (body.get("team") or {}).get("id") or user.get("team_id") or ""
    return str(team), str(channel.get("id", "")), str(user.get("id", ""))
