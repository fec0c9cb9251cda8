"""A Telegram Bot API server on loopback, and the people and chats behind it; the real client libraries talk to it."""

from tests.fakes.telegram.faults import (
    Fault,
    bad_gateway,
    bad_json,
    error,
    flood,
    half_open,
    lost,
    slow,
)
from tests.fakes.telegram.people import Chat, Document, Draft, Message, Person, Press
from tests.fakes.telegram.server import TOKEN, TelegramServer, telegram_server
from tests.fakes.telegram.texts import Refused, units

__all__ = [
    "TOKEN",
    "Chat",
    "Document",
    "Draft",
    "Fault",
    "Message",
    "Person",
    "Press",
    "Refused",
    "TelegramServer",
    "bad_gateway",
    "bad_json",
    "error",
    "flood",
    "half_open",
    "lost",
    "slow",
    "telegram_server",
    "units",
]
