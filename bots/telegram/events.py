"""What Telegram sends, as our events: plain functions on plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from core.types import ChatEvent, ChatFile, Command, Language, Mention, Person, Place, Press, Thumb, Trigger

NAME: Final = "telegram"
UPDATES: Final = (
    "message",
    "edited_message",
    "callback_query",
    "message_reaction",
    "guest_message",
    "stopped_message_generation",
)
"""The kinds of updates we ask for; reactions do not come unless they are asked for."""
ASK: Final = "ask"
"""The command that asks a question."""
QUOTED: Final = "quoted"
QUOTED_BY: Final = "quoted_by"
TOPIC: Final = "topic"
GUEST: Final = "guest"
"""Keys of `Mention.extra`: the message that was replied to, its author, the topic's number, the guest query's id."""
REASONS: Final = ("wrong", "outdated", "incomplete", "sources")
"""What may be wrong with an answer, for those who press a button and write nothing."""
_UNREADABLE: Final = frozenset({"voice", "audio", "video", "video_note", "animation", "contact", "location", "poll"})
_INLINE: Final = "inline:"
_LONGEST_QUOTE: Final = 4000
GUESTS: Final = "guests"
"""The channel of all chats that the bot was summoned to without being a member."""

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Me:
    """The bot itself."""

    id: int
    username: str


def place_of(chat: int | str, thread: str = "") -> Place:
    return Place(NAME, "", str(chat), thread)


def person_of(user: Json) -> Person:
    """Whoever may use the bot at all is a member; the setting `telegram.allowed` says who may."""
    names = (str(user.get(part) or "") for part in ("first_name", "last_name"))
    name = " ".join(name for name in names if name) or str(user.get("title") or "")
    return Person(f"{NAME}:{user['id']}", name[:200], member=True)


def ids_of(update: Json) -> frozenset[str]:
    """The ids of the user and of the chat that an update comes from."""
    found: set[str] = set()
    for content in update.values():
        if isinstance(content, dict):
            said = content.get("message") or content
            found.update(str(who["id"]) for who in (content.get("from"), content.get("user"), said.get("chat")) if who)
    return frozenset(found)


def language_of(update: Json) -> Language:
    """That of the person's app."""
    for content in update.values():
        if isinstance(content, dict):
            who = content.get("from") or content.get("user") or {}
            return "zh" if str(who.get("language_code") or "").startswith("zh") else "en"
    return "en"


# ---------------------------------------------------------------- messages
def replied_post(message: Json, me: Me) -> str | None:
    """Our message that this one answers; None: it answers none of ours."""
    replied = _replied(message)
    return str(replied["message_id"]) if (replied.get("from") or {}).get("id") == me.id else None


def thread_of(message: Json) -> str:
    """The conversation that a message belongs to, as far as it says itself; empty in a private chat.

    In a supergroup Telegram names the first message of a chain of replies. A topic's number stands in front.
    """
    topic, number = _topic(message), str(message["message_id"])
    if message["chat"]["type"] == "private":
        return topic
    if topic:
        return f"{topic}/{number}"
    return str(message.get("message_thread_id") or number)


def said(message: Json, me: Me, *, thread: str = "", edited: bool = False) -> ChatEvent | None:
    """What a message is to us; None: nothing. `thread`: the one that it is known to belong to."""
    author = _author(message)
    if author is None:
        return None
    person, thread = person_of(author), thread or thread_of(message)
    text, entities = _text(message)
    command = _command(text, entities)
    if command is None:
        text, is_called = without_name(text, entities, me)
        return _mention(message, me, person, text, _trigger(message, me, is_called=is_called), thread, edited=edited)
    name, whom, text = command
    if whom and whom.lower() != me.username.lower():
        return None
    if name == ASK:
        return _mention(message, me, person, text, "command", thread, edited=edited)
    return None if edited else _about_us(message, person, thread, name, text)


def _trigger(message: Json, me: Me, *, is_called: bool) -> Trigger:
    if message["chat"]["type"] == "private":
        return "dm"
    if is_called or message.get("guest_query_id") or replied_post(message, me) is not None:
        return "mention"
    return "thread" if _replied(message) else "heard"


def _mention(
    message: Json, me: Me, person: Person, text: str, trigger: Trigger, thread: str, *, edited: bool
) -> Mention | None:
    chat, number = message["chat"], str(message["message_id"])
    files, extra = _files(message), {}
    replied = _replied(message)
    if replied and trigger not in ("thread", "heard"):
        files += _files(replied)
        quoted, by = _text(replied)[0].strip()[:_LONGEST_QUOTE], replied.get("from") or {}
        if quoted and by.get("id") != me.id:
            extra = {QUOTED: quoted, QUOTED_BY: person_of(by).name if by else ""}
    text = text or extra.pop(QUOTED, "")
    if not text and not files:
        return None
    place, alone = place_of(chat["id"], thread), chat["type"] == "private"
    if topic := _topic(message):
        extra[TOPIC] = topic
    if guest := message.get("guest_query_id"):
        extra[GUEST] = str(guest)
        number = f"{chat['id']}:{number}"
        place = place_of(GUESTS, number)
        alone = False
    return Mention(
        place=place,
        message_id=number,
        person=person,
        text=text,
        trigger=trigger,
        alone=alone,
        said_at=datetime.fromtimestamp(message["date"], UTC),
        edited=edited,
        files=files,
        extra=extra,
    )


def _about_us(message: Json, person: Person, thread: str, name: str, arguments: str) -> Command | Press | None:
    chat, replied = message["chat"], _replied(message)
    place, alone = place_of(chat["id"], thread), chat["type"] == "private"
    if name == "stop":
        return Press("stop", place, str(replied.get("message_id") or ""), person, may_manage=alone)
    if name == "keep":
        words = arguments or _text(replied)[0] if replied else arguments
        return Press("keep", place, str(replied.get("message_id") or ""), person, may_manage=alone, text=words)
    name = "help" if name == "start" else name
    title = str(chat.get("title") or person.name)
    return Command(name, arguments, place, person, may_manage=alone, alone=alone, channel_name=title)


def _replied(message: Json) -> Json:
    """The message that this one answers. In a topic, Telegram names the one that opened it where there is none."""
    replied: Json = message.get("reply_to_message") or {}
    return {} if "forum_topic_created" in replied else replied


def _topic(message: Json) -> str:
    return str(message["message_thread_id"]) if message.get("is_topic_message") else ""


def _author(message: Json) -> Json | None:
    """Who wrote it: a person, or a group in whose name its administrator writes; None: a bot, or a channel's copy."""
    if message.get("is_automatic_forward") or message.get("via_bot") or message["chat"]["type"] == "channel":
        return None
    sender = message.get("sender_chat")
    if sender is not None:
        return sender if sender["id"] == message["chat"]["id"] else None
    author = message.get("from")
    return None if author is None or author.get("is_bot") else author


def _text(message: Json) -> tuple[str, Sequence[Json]]:
    if "text" in message:
        return message["text"], message.get("entities") or ()
    return message.get("caption") or "", message.get("caption_entities") or ()


def _files(message: Json) -> tuple[ChatFile, ...]:
    """A document, or a picture in the largest size there is."""
    if document := message.get("document"):
        name = str(document.get("file_name") or document["file_id"])
        return (ChatFile(str(document["file_id"]), name[:255], int(document.get("file_size") or 0)),)
    if sizes := message.get("photo"):
        best = max(sizes, key=lambda size: int(size["width"]) * int(size["height"]))
        return (
            ChatFile(str(best["file_id"]), f"picture-{message['message_id']}.jpg", int(best.get("file_size") or 0)),
        )
    return ()


def is_unreadable(message: Json) -> bool:
    """Whether somebody wrote to us alone in a way that we do not understand, such as a voice message."""
    return message["chat"]["type"] == "private" and not _UNREADABLE.isdisjoint(message)


def covered(text: str, entity: Json) -> str:
    """What an entity covers; Telegram counts in UTF-16 units."""
    raw = text.encode("utf-16-le")
    start = 2 * int(entity["offset"])
    return raw[start : start + 2 * int(entity["length"])].decode("utf-16-le", "replace")


def without_name(text: str, entities: Sequence[Json], me: Me) -> tuple[str, bool]:
    """The text without our name, and whether it was there."""
    raw, is_called = text.encode("utf-16-le"), False
    for entity in sorted(entities, key=lambda entity: -int(entity["offset"])):
        by_name = entity["type"] == "mention" and covered(text, entity).lower() == f"@{me.username}".lower()
        by_id = entity["type"] == "text_mention" and (entity.get("user") or {}).get("id") == me.id
        if by_name or by_id:
            is_called = True
            start = 2 * int(entity["offset"])
            before, after = raw[:start], raw[start + 2 * int(entity["length"]) :]
            raw = before + (after.removeprefix(" ".encode("utf-16-le")) if not before else after)
    return raw.decode("utf-16-le", "replace").strip(), is_called


def _command(text: str, entities: Sequence[Json]) -> tuple[str, str, str] | None:
    """Its name, whom it is for (may be empty), and what follows it."""
    first = next((entity for entity in entities if entity["type"] == "bot_command" and entity["offset"] == 0), None)
    if first is None:
        return None
    word = covered(text, first)
    name, _, whom = word[1:].partition("@")
    return name.lower(), whom, text[len(word) :].strip()


# ---------------------------------------------------------------- buttons and reactions
def pressed(query: Json) -> Thumb | Press | None:
    """A press on a button. What is rated or stopped is the message under which Telegram says the button was."""
    control, _, post = str(query.get("data") or "").partition(":")
    message, inline = query.get("message"), str(query.get("inline_message_id") or "")
    if message is None and not inline:
        return None
    place = place_of(message["chat"]["id"] if message else GUESTS)
    under = str(message["message_id"]) if message else inline_post(inline)
    person = person_of(query["from"])
    match control:
        case "up" | "down":
            return Thumb("", person, 1 if control == "up" else -1, place=place, post=under)
        case "stop" | "again" | "human":
            return Press(control, place, under, person, may_manage=place.channel == str(query["from"]["id"]))
        case "why":
            reason, _, answer = post.partition(":")
            return Thumb("", person, -1, reason, place=place, post=answer) if reason in REASONS else None
        case "resolved":  # under a call for help, which names the answer it is about
            return Press(control, place, post, person, may_manage=_is_called(message or {}, query["from"]))
    return None


def _is_called(message: Json, user: Json) -> bool:
    """Whether a message of ours calls this user by name."""
    text, entities = _text(message)
    name = f"@{user.get('username') or ''}".lower()
    return any(entity["type"] == "mention" and covered(text, entity).lower() == name for entity in entities)


def inline_post(inline_message_id: str) -> str:
    """How a message that was sent as a guest is named among our posts."""
    return f"{_INLINE}{inline_message_id}"


def inline_of(post: str) -> str:
    """The inline message of a post; empty where it is an ordinary message."""
    return post.removeprefix(_INLINE) if post.startswith(_INLINE) else ""


def reacted(reaction: Json) -> Thumb | None:
    """A thumb set or taken back; None: neither."""
    user = reaction.get("user")
    if user is None or user.get("is_bot"):
        return None
    old, new = _thumb(reaction.get("old_reaction") or ()), _thumb(reaction.get("new_reaction") or ())
    if old == new:
        return None
    place = place_of(reaction["chat"]["id"])
    return Thumb("", person_of(user), new, was=old if new == 0 else 0, place=place, post=str(reaction["message_id"]))


def _thumb(reactions: Sequence[Json]) -> Literal[-1, 0, 1]:
    emoji = {str(reaction.get("emoji") or "") for reaction in reactions}
    return -1 if "👎" in emoji else 1 if "👍" in emoji else 0


def stopped(generation: Json) -> Press:
    """The stop button of a draft, which has the number of its question."""
    chat, topic = generation["chat"], str(generation.get("message_thread_id") or "")
    return Press("stop", place_of(chat["id"], topic), str(generation["draft_id"]), person_of(chat), may_manage=True)
