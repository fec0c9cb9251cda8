"""Chats as the people in them see them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from tests.fakes.telegram.texts import JSON, part, seen


@dataclass(eq=False)
class Person:
    id: int
    name: str
    username: str = ""
    language: str = "en"
    is_bot: bool = False

    def json(self) -> JSON:
        described = {"id": self.id, "is_bot": self.is_bot, "first_name": self.name, "language_code": self.language}
        return {**described, "username": self.username} if self.username else described


@dataclass(frozen=True)
class Document:
    name: str
    content: bytes
    file_id: str = ""
    mime: str = "application/octet-stream"

    def json(self) -> JSON:
        return {
            "file_id": self.file_id,
            "file_unique_id": f"u{self.file_id}",
            "file_name": self.name,
            "mime_type": self.mime,
            "file_size": len(self.content),
        }


@dataclass(eq=False)
class Message:
    chat: Chat
    id: int
    sender: Person
    text: str
    entities: list[JSON]
    date: int
    topic: int | None = None
    reply_to: Message | None = None
    keyboard: list[list[JSON]] = field(default_factory=list)
    document: Document | None = None
    rich: str | None = None
    """The Markdown or HTML of a rich message."""
    only_for: Person | None = None
    """An ephemeral message: nobody else sees it."""
    preview: bool = True
    """Addresses in it may be fetched for a preview."""
    guest_query_id: str = ""
    inline_id: str = ""
    edited: int | None = None
    deleted: bool = False
    versions: list[str] = field(default_factory=list)
    """Every text it had, in order."""
    reactions: dict[int, list[str]] = field(default_factory=dict)
    """Emoji by person."""
    of_topic: str = ""
    """A service message: this topic was opened."""

    def __post_init__(self) -> None:
        self.versions.append(self.text)

    @property
    def buttons(self) -> list[str]:
        """What stands on the buttons, row by row."""
        return [button["text"] for row in self.keyboard for button in row]

    @property
    def seen_entities(self) -> list[JSON]:
        """Formatting, and the @names, commands and addresses that become clickable by themselves."""
        return [] if self.rich is not None else seen(self.text, self.entities)

    @property
    def links(self) -> list[tuple[str, str]]:
        """What can be clicked: (words, address)."""
        return [
            (part(self.text, entity), entity.get("url") or part(self.text, entity))
            for entity in self.seen_entities
            if entity["type"] in ("text_link", "url")
        ]

    @property
    def pinged(self) -> list[str]:
        """Those who are notified by it: @names, and people named by their id."""
        entities = self.seen_entities
        named = [part(self.text, entity) for entity in entities if entity["type"] == "mention"]
        by_id = [str(entity["user"]["id"]) for entity in entities if entity["type"] == "text_mention"]
        return named + by_id + [url for _, url in self.links if url.startswith("tg://user")]

    def formatted(self, kind: str) -> list[str]:
        """The pieces of text in this formatting, e.g. `bold`."""
        return [part(self.text, entity) for entity in self.entities if entity["type"] == kind]

    def json(self, *, with_reply: bool = True) -> JSON:
        """As the Bot API gives it."""
        told: JSON = {
            "message_id": self.id,
            "date": self.date,
            "chat": self.chat.json(),
            "from": self.sender.json(),
            **self._content(),
            **self._whereabouts(),
        }
        if self.edited is not None:
            told["edit_date"] = self.edited
        if self.keyboard:
            told["reply_markup"] = {"inline_keyboard": self.keyboard}
        if self.guest_query_id:
            told["guest_query_id"] = self.guest_query_id
        if self.only_for is not None:
            told |= {"ephemeral_message_id": self.id, "receiver_user": self.only_for.json()}
        if with_reply and (answered := self.reply_to or self._root) is not None:
            told["reply_to_message"] = answered.json(with_reply=False)
        return told

    @property
    def _root(self) -> Message | None:
        """In a topic, what replies to nobody comes as a reply to the message that opened the topic."""
        return self.chat.topics.get(self.topic) if self.topic is not None and not self.of_topic else None

    def _content(self) -> JSON:
        if self.of_topic:
            return {"forum_topic_created": {"name": self.of_topic, "icon_color": 7322096}}
        if self.rich is not None:
            return {"rich_message": {"blocks": [{"type": "paragraph", "text": self.rich}]}}
        entities = self.seen_entities
        if self.document is not None:
            words = {"caption": self.text, "caption_entities": entities} if self.text else {}
            return {"document": self.document.json(), **words}
        return {"text": self.text, **({"entities": entities} if entities else {})}

    def _whereabouts(self) -> JSON:
        if self.topic is not None:
            return {"message_thread_id": self.topic, "is_topic_message": True}
        if self.chat.kind == "supergroup" and not self.chat.forum and self.reply_to is not None:
            root = self.reply_to
            while root.reply_to is not None:
                root = root.reply_to
            return {
                "message_thread_id": root.id
            }  # a trap: it names replies, not a topic, and nothing can be sent to it
        return {}


@dataclass
class Draft:
    """A text on its way, as the person in a private chat sees it."""

    id: int
    text: str
    entities: list[JSON]
    topic: int | None
    can_stop: bool
    until: float
    rich: str | None = None


@dataclass(eq=False)
class Chat:
    id: int
    kind: Literal["private", "group", "supergroup", "channel"]
    title: str
    person: Person | None = None
    """The other one in a private chat."""
    forum: bool = False
    """It has topics; so may a private chat."""
    bot_is_admin: bool = False
    bot_is_member: bool = True
    blocked: bool = False
    """The person blocked the bot."""
    moved_to: int | None = None
    """The group became a supergroup with this id."""
    messages: dict[int, Message] = field(default_factory=dict)
    topics: dict[int, Message] = field(default_factory=dict)
    """The message that opened each topic, by the topic's number."""
    drafts: list[Draft] = field(default_factory=list)
    """Every draft that was shown, in order."""
    draft: Draft | None = None
    """The one that is shown."""
    actions: list[str] = field(default_factory=list)
    """«typing» and the like, in order."""
    last_by_bot: bool = False
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(2))

    @property
    def shown(self) -> list[Message]:
        """The messages that everybody sees, in order."""
        return [m for m in self.messages.values() if not m.deleted and m.only_for is None and not m.of_topic]

    def of_bot(self) -> list[Message]:
        """Those of the bot that everybody sees."""
        return [message for message in self.shown if message.sender.is_bot]

    def json(self) -> JSON:
        told: JSON = {"id": self.id, "type": self.kind}
        if self.person is not None:
            told["first_name"] = self.person.name
            if self.person.username:
                told["username"] = self.person.username
        else:
            told["title"] = self.title
            if self.forum:
                told["is_forum"] = True
        return told


@dataclass(eq=False)
class Press:
    """A press on a button, and what the person was shown for it."""

    id: str
    person: Person
    message: Message
    data: str
    answered: bool = False
    toast: str = ""
    alert: bool = False
