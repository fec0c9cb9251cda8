"""What Telegram knows: people, chats, files, and how often a bot may write."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.telegram.people import Chat, Document, Message, Person, Press
from tests.fakes.telegram.texts import JSON, Refused
from tests.fakes.telegram.updates import Mailbox

_MINUTE = 60.0


@dataclass
class World:
    bot: Person
    mail: Mailbox = field(default_factory=Mailbox)
    privacy: bool = True
    """In groups the bot gets only what is meant for it."""
    guests: bool = True
    """The bot can be summoned where it is not a member."""
    group_per_minute: int | None = None
    """Messages and edits in a group; 20 with the real one, None for no limit."""
    rich: bool = True
    """The server is new enough for rich messages."""
    local: Path | None = None
    """The folder of a local Bot API server, which gives paths of files instead of content."""
    persons: dict[int, Person] = field(default_factory=dict)
    chats: dict[int, Chat] = field(default_factory=dict)
    admins: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    """People who are administrators, by chat."""
    files: dict[str, Document] = field(default_factory=dict)
    commands: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    """The menu: description by command, for each scope (JSON) and language."""
    presses: dict[str, Press] = field(default_factory=dict)
    guest_queries: dict[str, Message] = field(default_factory=dict)
    inline: dict[str, Message] = field(default_factory=dict)
    ephemeral: dict[int, Message] = field(default_factory=dict)
    floods: int = 0
    """How often the bot wrote too much."""
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1001))
    _spent: dict[int, deque[float]] = field(default_factory=lambda: defaultdict(deque))
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.mail.noticed = self.change

    def change(self) -> None:
        """Something can be seen that could not be seen before."""
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def changed(self) -> asyncio.Event:
        """Set with the next change."""
        return self._changed

    def post(
        self, chat: Chat, sender: Person, text: str, entities: list[JSON], *, ago: float = 0, **more: Any
    ) -> Message:
        """A message that stands in the chat from now on."""
        message = Message(chat, next(chat.numbers), sender, text, entities, int(time.time() - ago), **more)
        if message.only_for is not None:
            message.id = next(self.ids)
            self.ephemeral[message.id] = message
        chat.messages[message.id] = message
        chat.last_by_bot = sender is self.bot
        self.change()
        return message

    def spend(self, chat: Chat) -> None:
        """One more message or edit; raises Refused beyond the limit of the group."""
        if self.group_per_minute is None or chat.kind == "private":
            return
        now = time.monotonic()
        spent = self._spent[chat.id]
        while spent and spent[0] <= now - _MINUTE:
            spent.popleft()
        if len(spent) >= self.group_per_minute:
            self.floods += 1
            wait = int(spent[0] + _MINUTE - now) + 1
            raise Refused(429, f"Too Many Requests: retry after {wait}", retry_after=wait)
        spent.append(now)

    def keep(self, document: Document) -> Document:
        """The file with an id of its own."""
        file_id = f"file{next(self.ids)}"
        kept = Document(document.name, document.content, file_id, document.mime)
        self.files[file_id] = kept
        return kept

    def path_of(self, document: Document) -> str:
        """Where the file is to be had: below the download address, or on disk with a local server."""
        name = f"{document.file_id}{Path(document.name).suffix}"
        if self.local is None:
            return f"documents/{name}"
        place = self.local / "documents" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(document.content)
        return str(place)

    def is_for_bot(self, message: Message) -> bool:
        """Whether privacy mode lets the bot have it."""
        chat = message.chat
        if chat.kind == "private" or not self.privacy or chat.bot_is_admin:
            return True
        if message.reply_to is not None and message.reply_to.sender is self.bot:
            return True
        name = f"@{self.bot.username}".lower()
        for entity in message.seen_entities:
            start = entity["offset"]
            raw = message.text.encode("utf-16-le")[2 * start : 2 * (start + entity["length"])]
            word = raw.decode("utf-16-le").lower()
            if entity["type"] == "text_mention" and entity["user"]["id"] == self.bot.id:
                return True
            if entity["type"] == "mention" and word == name:
                return True
            if entity["type"] == "bot_command" and ("@" not in word or word.endswith(name)):
                return True
        return False
