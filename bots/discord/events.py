"""What Discord tells, as our events: plain functions of what the library parsed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import discord

from core.types import ChatFile, Mention, Person, Place, Said, Thumb, Trigger

NAME: Final = "discord"
PRIVATE_POST: Final = "e:"
"""Begins the id of a message that one person alone sees, in the place of its channel."""
_TOKEN: Final = re.compile(
    r"<(?:(?P<who>@[!&]?|#)(?P<id>\d{1,20})|a?:(?P<emoji>\w{1,64}):\d{1,20}|/(?P<command>[^:<>]{1,120}):\d{1,20})>"
)
_SKIN: Final = re.compile("[\U0001f3fb-\U0001f3ff\ufe0f]")
_HUMAN_TYPES: Final = frozenset({discord.MessageType.default, discord.MessageType.reply})

NameOf = Callable[[str, int], str]
"""Gives the name of a person (`@`), role (`@&`) or channel (`#`) with this id, or nothing."""


@dataclass(frozen=True, slots=True)
class Where:
    """A channel a message can be in: below a channel it is a thread."""

    guild: int | None
    channel: int
    parent: int | None = None
    is_post: bool = False
    """It is a thread in a forum."""


def place_of(where: Where, thread: str = "") -> Place:
    """`thread`: what makes the conversation in a plain channel; a thread is one by itself, and so is a private chat."""
    if where.guild is None:
        return Place(NAME, "", str(where.channel), "")
    if where.parent is not None:
        return Place(NAME, str(where.guild), str(where.parent), thread or str(where.channel))
    return Place(NAME, str(where.guild), str(where.channel), thread)


def person_of(user: discord.abc.User) -> Person:
    """Whoever is heard of on a server is its member, and whoever writes in private shares a server with us."""
    return Person(f"{NAME}:{user.id}", user.display_name, member=True)


def post_of(channel: int, message: int) -> str:
    """Id of a message of ours, by which it can be changed: with the channel or thread it is in."""
    return f"{channel}:{message}"


def split_post(post: str) -> tuple[str, str]:
    """Channel and message of a message of ours."""
    channel, _, message = post.partition(":")
    return channel, message


def is_of_people(message: discord.Message) -> bool:
    """Whether a person wrote it: bots talk to each other for ever."""
    return not message.author.bot and message.webhook_id is None and message.type in _HUMAN_TYPES


def mention_of(message: discord.Message, where: Where, me: int, own_role: int | None, name_of: NameOf) -> Mention:
    """What a person said, as the first of its conversation. Its text is empty where we may not read it."""
    return Mention(
        place=place_of(where, "" if where.parent is not None else str(message.id)),
        message_id=str(message.id),
        person=person_of(message.author),
        text=_text(message, where, me, own_role, name_of),
        trigger=_trigger(message, where, me, own_role),
        alone=where.guild is None,
        said_at=message.edited_at or message.created_at,
        edited=message.edited_at is not None,
        files=files_of(message),
        extra={"channel": str(where.channel)},
    )


def _text(message: discord.Message, where: Where, me: int, own_role: int | None, name_of: NameOf) -> str:
    text = readable(message.content, me, own_role, name_of)
    replied = message.reference.resolved if message.reference is not None else None
    if not text and not message.attachments and isinstance(replied, discord.Message) and replied.author.id != me:
        return readable(replied.content, me, own_role, name_of)  # «look at this»
    if where.is_post and message.id == where.channel and isinstance(message.channel, discord.Thread):
        return f"{message.channel.name}\n\n{text}".strip()
    return text


def _trigger(message: discord.Message, where: Where, me: int, own_role: int | None) -> Trigger:
    if where.guild is None:
        return "dm"
    replied = message.reference.resolved if message.reference is not None else None
    to_us = isinstance(replied, discord.Message) and replied.author.id == me
    if to_us or any(user.id == me for user in message.mentions):
        return "mention"
    if any(role.id == own_role for role in message.role_mentions):
        return "mention"
    first_of_post = where.is_post and message.id == where.channel
    return "thread" if where.parent is not None and not first_of_post else "heard"


def readable(text: str, me: int, own_role: int | None, name_of: NameOf) -> str:
    """Discord's notation of a message as a person would write it, without the mention of ourselves."""

    def said(found: re.Match[str]) -> str:
        if found["emoji"]:
            return f":{found['emoji']}:"
        if found["command"]:
            return f"/{found['command']}"
        kind, number = found["who"].replace("!", ""), int(found["id"])
        if (kind == "@" and number == me) or (kind == "@&" and number == own_role):
            return ""
        return kind[0] + (name_of(kind, number) or found["id"])

    return _TOKEN.sub(said, text).strip()


def files_of(message: discord.Message) -> tuple[ChatFile, ...]:
    """Their addresses hold for a day; they are asked for at once."""
    return tuple(ChatFile(file.url, file.filename, file.size) for file in message.attachments)


def thumb_value(emoji: discord.PartialEmoji) -> Literal[-1, 0, 1]:
    """What a reaction says, in any colour of skin; 0: nothing about the answer."""
    plain = _SKIN.sub("", emoji.name or "") if emoji.is_unicode_emoji() else ""
    return 1 if plain == "👍" else -1 if plain == "👎" else 0


def reaction_of(event: discord.RawReactionActionEvent, where: Where, me: int) -> Thumb | None:
    """A reaction to a message of ours, as far as can be told; None: it is nothing to us."""
    value = thumb_value(event.emoji)
    if value == 0 or event.user_id == me or (event.member is not None and event.member.bot):
        return None
    if event.message_author_id not in {None, me}:
        return None
    person = person_of(event.member) if event.member is not None else Person(f"{NAME}:{event.user_id}", "")
    place, post = place_of(where), post_of(event.channel_id, event.message_id)
    if event.event_type == "REACTION_REMOVE":
        return Thumb("", person, 0, was=value, place=place, post=post)
    return Thumb("", person, value, place=place, post=post)


def said_of(message: discord.Message, me: int, name_of: NameOf) -> Said | None:
    """A message of a thread, for its history; None where there is nothing in it for us."""
    text = readable(message.content, me, None, name_of)
    if not text or message.type not in _HUMAN_TYPES:
        return None
    return Said(text, message.author.display_name, by_us=message.author.id == me)
