"""What there is in this Slack, as a person sees it: workspaces, channels, and their messages with all that happened."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

JSON = dict[str, Any]

SCOPES = (
    "app_mentions:read",
    "assistant:write",
    "channels:history",
    "channels:read",
    "chat:write",
    "commands",
    "files:read",
    "groups:history",
    "groups:read",
    "im:history",
    "im:read",
    "im:write",
    "mpim:history",
    "mpim:read",
    "reactions:read",
    "reactions:write",
    "users:read",
)


class SlackError(Exception):
    """`{"ok": false, "error": …}`."""

    def __init__(self, error: str, **more: Any) -> None:
        super().__init__(error)
        self.answer = {"ok": False, "error": error, **more}


@dataclass
class Message:
    ts: str
    channel: str
    user: str
    text: str = ""
    blocks: list[JSON] = field(default_factory=list)
    thread_ts: str = ""
    bot_id: str = ""
    metadata: JSON = field(default_factory=dict)
    files: list[JSON] = field(default_factory=list)
    ephemeral_to: str = ""
    """The person who alone sees it; empty: everybody."""
    deleted: bool = False
    chunks: list[JSON] = field(default_factory=list)
    streaming: Literal["", "in_progress", "completed", "expired"] = ""
    stream_started: float = 0
    appends: int = 0
    reactions: dict[str, list[str]] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    """What people saw before, oldest first."""
    unfurl: tuple[bool, bool] = (True, True)
    """Whether links and media in it are shown with a preview."""

    @property
    def body(self) -> str:
        """The text a person reads, in the language it was sent in, without buttons and cards."""
        if self.chunks:
            text = "".join(chunk["text"] for chunk in self.chunks if chunk["type"] == "markdown_text")
            return text + "".join(_block_text(block) for block in self.blocks if block["type"] == "markdown")
        if self.blocks:
            said = [_block_text(block) for block in self.blocks]
            return "\n\n".join(part for part in said if part)
        return self.text

    @property
    def tasks(self) -> dict[str, JSON]:
        """The task cards of a stream, as the last update of each left them."""
        cards: dict[str, JSON] = {}
        for chunk in self.chunks:
            if chunk["type"] == "task_update":
                cards[chunk["id"]] = {**cards.get(chunk["id"], {}), **chunk}
        return cards

    def elements(self) -> Iterator[JSON]:
        """Every button and menu in it, feedback buttons as two."""
        blocks = [*self.blocks, *(block for chunk in self.chunks for block in chunk.get("blocks", ()))]
        for block in blocks:
            for element in [*block.get("elements", ()), *filter(None, [block.get("accessory")])]:
                if element["type"] == "feedback_buttons":
                    for side in ("positive_button", "negative_button"):
                        yield {**element[side], "type": element["type"], "action_id": element["action_id"]}
                elif "action_id" in element:
                    yield element

    def as_json(self) -> JSON:
        """As `conversations.replies` gives it."""
        known: JSON = {"type": "message", "ts": self.ts, "user": self.user, "text": self.body, "team": "T1"}
        more = {
            "thread_ts": self.thread_ts,
            "bot_id": self.bot_id,
            "blocks": self.blocks + _cards(self),
            "files": self.files,
            "metadata": self.metadata,
            "streaming_state": "in_progress" if self.streaming == "in_progress" else "completed" * bool(self.streaming),
        }
        if self.reactions:
            more["reactions"] = [{"name": name, "users": users} for name, users in self.reactions.items()]
        return known | {key: value for key, value in more.items() if value}


def _cards(message: Message) -> list[JSON]:
    return [
        {"type": "task_card", "task_id": card["id"], "title": card["title"], "status": card["status"]}
        for card in message.tasks.values()
    ]


def _block_text(block: JSON) -> str:
    kind = block["type"]
    if kind == "markdown":
        return str(block["text"])
    if kind in ("section", "header"):
        return str(block.get("text", {}).get("text", ""))
    if kind == "context":
        return " ".join(str(element.get("text", "")) for element in block["elements"])
    if kind == "table":
        return "\n".join(" | ".join(str(cell.get("text", "")) for cell in row) for row in block["rows"])
    return ""


@dataclass
class Channel:
    id: str
    kind: Literal["channel", "group", "im"] = "channel"
    members: set[str] = field(default_factory=set)
    messages: list[Message] = field(default_factory=list)
    status: dict[str, list[str]] = field(default_factory=dict)
    """Thread -> what «is thinking…» said, oldest first; "" clears."""
    prompts: list[JSON] = field(default_factory=list)
    sessions: dict[str, str] = field(default_factory=dict)
    """Thread -> the agent's status there: active, processing (people see a stop button), suspended, closed."""

    def find(self, ts: str) -> Message:
        for message in self.messages:
            if message.ts == ts and not message.deleted:
                return message
        raise SlackError("message_not_found")

    def thread(self, root: str) -> list[Message]:
        """The thread as everybody sees it, its root included."""
        return [m for m in self.visible() if root in (m.ts, m.thread_ts)]

    def visible(self) -> list[Message]:
        return [m for m in self.messages if not m.deleted and not m.ephemeral_to]

    def answers(self, root: str) -> list[Message]:
        """What bots said in the thread, to everybody."""
        return [m for m in self.thread(root) if m.bot_id]


@dataclass
class Workspace:
    """A team with one bot in it."""

    id: str = "T1"
    name: str = "Acme"
    token: str = "xoxb-1-bot"
    bot_user: str = "UBOT"
    bot_id: str = "BBOT"
    scopes: set[str] = field(default_factory=lambda: set(SCOPES))
    people: dict[str, str] = field(default_factory=lambda: {"U1": "ann", "U2": "bob"})
    admins: set[str] = field(default_factory=lambda: {"U1"})
    guests: set[str] = field(default_factory=set)
    channels: dict[str, Channel] = field(default_factory=dict)
    homes: dict[str, JSON] = field(default_factory=dict)
    """Person -> home tab."""
    modals: list[JSON] = field(default_factory=list)
    files: dict[str, tuple[JSON, bytes]] = field(default_factory=dict)
    unknown_blocks: set[str] = field(default_factory=set)
    """Kinds of blocks that this workspace refuses."""
    revoked: str = ""
    """The error every call gets, e.g. `token_revoked`."""

    def channel(self, name: str) -> Channel:
        if name not in self.channels:
            raise SlackError("channel_not_found")
        return self.channels[name]

    def im(self, person: str) -> Channel:
        """The direct messages with one person."""
        name = f"D{person.removeprefix('U')}"
        return self.channels.setdefault(name, Channel(name, "im", {person, self.bot_user}))


class Clock:
    """Time stamps that never repeat."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def ts(self) -> str:
        return f"{int(time.time())}.{next(self._numbers):06d}"


def check_blocks(blocks: Sequence[Mapping[str, Any]]) -> None:
    """Raise as Slack does where blocks are more or longer than a message may have."""
    if len(blocks) > 50:
        raise SlackError("invalid_blocks")
    if sum(len(block["text"]) for block in blocks if block["type"] == "markdown") > 12_000:
        raise SlackError("msg_blocks_too_long")
    for block in blocks:
        longest = {"section": 3000, "header": 150}.get(block["type"], 0)
        if longest and len(block.get("text", {}).get("text", "")) > longest:
            raise SlackError("invalid_blocks")
        elements = block.get("elements", ())
        if block["type"] in ("actions", "context") and len(elements) > (25 if block["type"] == "actions" else 10):
            raise SlackError("invalid_blocks")
        for element in elements:
            _check_element(element)


def _check_element(element: Mapping[str, Any]) -> None:
    sides = [element.get(side, {}) for side in ("positive_button", "negative_button")]
    for button in (element, *sides) if element["type"] in ("button", "feedback_buttons") else ():
        text = button.get("text", {})
        if len(text.get("text", "")) > 75 or len(str(button.get("value", ""))) > 2000:
            raise SlackError("invalid_blocks")
    if len(str(element.get("action_id", ""))) > 255:
        raise SlackError("invalid_blocks")
