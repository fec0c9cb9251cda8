"""What there is on the server: people, channels and messages as a person would see them."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, IntFlag

from core.types import JSON

_EPOCH = 1_420_070_400_000
"""Milliseconds of 2015-01-01, where Discord's ids begin."""
_USER = re.compile(r"<@!?(\d+)>")
_ROLE = re.compile(r"<@&(\d+)>")
_LINK = re.compile(r"(?<!<)https?://[^\s<>()]+")


class Kind(IntEnum):
    """Kinds of channels, as Discord numbers them."""

    TEXT = 0
    DM = 1
    THREAD = 11
    FORUM = 15


class Flag(IntFlag):
    """Flags of a message."""

    SUPPRESS_EMBEDS = 1 << 2
    HAS_THREAD = 1 << 5
    EPHEMERAL = 1 << 6
    LOADING = 1 << 7
    COMPONENTS_V2 = 1 << 15


class Permission(IntFlag):
    MANAGE_CHANNELS = 1 << 4
    ADD_REACTIONS = 1 << 6
    VIEW_CHANNEL = 1 << 10
    SEND_MESSAGES = 1 << 11
    MANAGE_MESSAGES = 1 << 13
    EMBED_LINKS = 1 << 14
    ATTACH_FILES = 1 << 15
    READ_MESSAGE_HISTORY = 1 << 16
    MENTION_EVERYONE = 1 << 17
    USE_APPLICATION_COMMANDS = 1 << 31
    MANAGE_THREADS = 1 << 34
    CREATE_PUBLIC_THREADS = 1 << 35
    SEND_MESSAGES_IN_THREADS = 1 << 38


ALL_PERMISSIONS = Permission(sum(Permission) - Permission.MANAGE_CHANNELS)
"""What the bot has on its servers."""


@dataclass(eq=False)
class User:
    id: int
    name: str
    bot: bool = False
    roles: list[int] = field(default_factory=list)
    permissions: int = int(Permission.SEND_MESSAGES | Permission.VIEW_CHANNEL)
    locale: str = "en-US"
    """In which they read Discord."""


@dataclass(eq=False)
class Guild:
    id: int
    name: str
    bot_role: int
    """The role that Discord made for the bot."""
    permissions: int = int(ALL_PERMISSIONS)
    """The bot's, where no channel says otherwise."""
    channels: list[Channel] = field(default_factory=list)
    members: list[User] = field(default_factory=list)


@dataclass(eq=False)
class Channel:
    id: int
    name: str
    kind: Kind
    guild: Guild | None = None
    parent: Channel | None = None
    owner: User | None = None
    """Who opened it, of a thread; whose it is, of a DM."""
    denied: int = 0
    """Permissions that the bot lacks here."""
    messages: dict[int, Message] = field(default_factory=dict)
    archived: bool = False
    locked: bool = False
    bot_joined: bool = False

    def allows(self, permission: Permission) -> bool:
        """Whether the bot has it here; a thread has its channel's."""
        return not (self.parent or self).denied & permission


@dataclass(eq=False)
class Attachment:
    id: int
    name: str
    data: bytes
    url: str
    kind: str = "text/plain"


@dataclass(eq=False)
class Message:
    id: int
    channel: Channel
    author: User
    content: str = ""
    embeds: list[JSON] = field(default_factory=list)
    components: list[JSON] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    flags: int = 0
    reference: Message | None = None
    nonce: str | int | None = None
    mentions: list[User] = field(default_factory=list)
    mention_roles: list[int] = field(default_factory=list)
    pinged: set[str] = field(default_factory=set)
    """Whom it notified: «everyone», and ids of people and roles."""
    allowed_mentions: JSON | None = None
    """As it was sent; None: nothing was said, so everything in it pings."""
    previews: list[str] = field(default_factory=list)
    """Links that Discord fetched to show a preview."""
    reactions: dict[str, list[int]] = field(default_factory=dict)
    versions: list[str] = field(default_factory=list)
    """Its text from first to last."""
    deleted: bool = False
    seen_only_by: User | None = None
    thread: Channel | None = None
    edited: datetime | None = None
    at: float = field(default_factory=time.monotonic)
    """When it was made, on the monotonic clock."""

    @property
    def text(self) -> str:
        """All it says: its content, or its text displays, and its embeds."""
        displays = [part["content"] for part in walk(self.components) if part.get("type") == 10]
        return "\n".join(text for text in (self.content, *displays, *map(embed_text, self.embeds)) if text)

    @property
    def buttons(self) -> dict[str, str]:
        """Label, or else emoji, of every button -> its custom id."""
        return {
            part.get("label") or part.get("emoji", {}).get("name", ""): part["custom_id"]
            for part in walk(self.components)
            if part.get("type") == 2 and "custom_id" in part
        }


@dataclass(eq=False)
class Interaction:
    """Something a person did that the bot must answer within three seconds."""

    id: int
    token: str
    kind: int
    user: User
    channel: Channel
    data: JSON
    message: Message | None = None
    """The one that was clicked, or its modal came from."""
    at: float = field(default_factory=time.monotonic)
    answered: int | None = None
    """The type of the answer, once there is one."""
    original: Message | None = None
    responses: list[Message] = field(default_factory=list)
    modal: JSON | None = None
    choices: list[JSON] | None = None


def walk(components: list[JSON]) -> Iterator[JSON]:
    """Every component, those inside others included."""
    for part in components:
        yield part
        inner = part.get("components", [])
        single = [part[key] for key in ("accessory", "component") if key in part]
        yield from walk([*inner, *single])


def embed_text(embed: JSON) -> str:
    """All characters of an embed that count for its limit."""
    fields = [text for pair in embed.get("fields", []) for text in (pair["name"], pair["value"])]
    foot, author = embed.get("footer", {}).get("text", ""), embed.get("author", {}).get("name", "")
    return "\n".join(text for text in (embed.get("title"), embed.get("description"), *fields, foot, author) if text)


def moment(snowflake: int) -> datetime:
    """When the thing with this id was made."""
    return datetime.fromtimestamp(((snowflake >> 22) + _EPOCH) / 1000, UTC)


class World:
    """Everything there is, and who may be told of it."""

    def __init__(self) -> None:
        self._increments = itertools.count(1)
        self.channels: dict[int, Channel] = {}
        self.users: dict[int, User] = {}
        self.guilds: dict[int, Guild] = {}
        self.files: dict[int, Attachment] = {}
        self.interactions: dict[str, Interaction] = {}
        """By their token."""
        self.commands: list[JSON] = []
        self.bot = self.add_user("Kvasir", bot=True)
        self.guild = self.add_guild("Acme")
        self.ann = self.add_user("Ann")
        self.bo = self.add_user("Bo")
        self.general = self.add_channel("general")

    def new_id(self, age: float = 0) -> int:
        """An id made `age` seconds ago."""
        now = int((time.time() - age) * 1000) - _EPOCH
        return (now << 22) | (next(self._increments) & 0x3FFFFF)

    def add_user(self, name: str, *, bot: bool = False) -> User:
        user = User(self.new_id(), name, bot)
        self.users[user.id] = user
        for guild in self.guilds.values():
            guild.members.append(user)
        return user

    def add_guild(self, name: str) -> Guild:
        guild = Guild(self.new_id(), name, self.new_id())
        self.guilds[guild.id] = guild
        guild.members = list(self.users.values())
        self.bot.roles.append(guild.bot_role)
        return guild

    def add_channel(self, name: str, kind: Kind = Kind.TEXT, guild: Guild | None = None) -> Channel:
        guild = guild or self.guild
        channel = Channel(self.new_id(), name, kind, guild)
        guild.channels.append(channel)
        self.channels[channel.id] = channel
        return channel

    def add_thread(self, parent: Channel, name: str, owner: User, id: int | None = None) -> Channel:
        """A thread below `parent`; with `id`, the one that hangs on that message or is that forum post."""
        thread = Channel(id or self.new_id(), name, Kind.THREAD, parent.guild, parent, owner)
        thread.bot_joined = owner is self.bot
        self.channels[thread.id] = thread
        return thread

    def dm_of(self, user: User) -> Channel:
        """The one private channel between the bot and this person."""
        for channel in self.channels.values():
            if channel.kind == Kind.DM and channel.owner is user:
                return channel
        channel = Channel(self.new_id(), "", Kind.DM, owner=user)
        self.channels[channel.id] = channel
        return channel

    def threads(self, guild: Guild) -> list[Channel]:
        return [one for one in self.channels.values() if one.kind == Kind.THREAD and one.guild is guild]

    def active_threads(self, guild: Guild) -> int:
        return sum(1 for one in self.threads(guild) if not one.archived)

    def keep(self, message: Message) -> None:
        """Put a message in its place, and note whom it pings and which links are fetched for it."""
        message.versions.append(message.text)
        self._note_mentions(message)
        self._note_previews(message)
        message.channel.messages[message.id] = message

    def change(self, message: Message, **changes: object) -> None:
        for name, value in changes.items():
            setattr(message, name, value)
        message.edited = datetime.now(UTC)
        self._note_mentions(message, silent=True)
        self._note_previews(message)
        message.versions.append(message.text)

    def _note_mentions(self, message: Message, *, silent: bool = False) -> None:
        """An edit shows mentions, but rings nobody."""
        said = message.text
        message.mentions = [self.users[int(one)] for one in _USER.findall(said) if int(one) in self.users]
        message.mention_roles = [int(one) for one in _ROLE.findall(said)]
        allowed = message.allowed_mentions
        parse = ["users", "roles", "everyone"] if allowed is None else allowed.get("parse", [])
        rung = {str(user.id) for user in message.mentions if self._rings(allowed, parse, "users", user.id)}
        rung |= {str(role) for role in message.mention_roles if self._rings(allowed, parse, "roles", role)}
        if "everyone" in parse and re.search("@(everyone|here)", said):
            rung.add("everyone")
        replied = message.reference
        if replied is not None and (allowed is None or allowed.get("replied_user", False)):
            message.mentions.append(replied.author)
            rung.add(str(replied.author.id))
        if not silent:
            message.pinged |= rung

    @staticmethod
    def _rings(allowed: JSON | None, parse: list[str], kind: str, id: int) -> bool:
        return kind in parse or (allowed is not None and str(id) in map(str, allowed.get(kind, [])))

    @staticmethod
    def _note_previews(message: Message) -> None:
        if not message.flags & (Flag.SUPPRESS_EMBEDS | Flag.COMPONENTS_V2):
            message.previews += [link for link in _LINK.findall(message.content) if link not in message.previews]

    def mentions_bot(self, message: Message) -> bool:
        return self.bot in message.mentions
