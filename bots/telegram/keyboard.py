"""The buttons under our messages. A press names the message it is under, so the buttons themselves need no ids."""

from __future__ import annotations

from typing import Final

from aiogram.types import InlineKeyboardButton, InlineKeyboardMarkup

from bots.platform import Controls
from bots.telegram.events import REASONS
from core.texts import tell


def keyboard(controls: Controls) -> InlineKeyboardMarkup | None:
    """What can be pressed; None where nothing can."""
    rows = []
    if controls.stop:
        rows.append([_button(tell("control_stop"), "stop")])
    if controls.rate:
        rows.append([_button("👍", "up"), _button("👎", "down")])
    rest = []
    if controls.again:
        rest.append(_button(tell("control_again"), "again"))
    if controls.human:
        rest.append(_button(tell("control_human"), "human"))
    if rest:
        rows.append(rest)
    return InlineKeyboardMarkup(inline_keyboard=rows) if rows else None


def marked(question: int) -> InlineKeyboardMarkup:
    """A stop button unlike every other; see `lost.py`."""
    return InlineKeyboardMarkup(inline_keyboard=[[_button(tell("control_stop"), f"stop:{question}")]])


def solved(post: str) -> InlineKeyboardMarkup:
    """Under a call for help: the answer it is about stands in another message."""
    return InlineKeyboardMarkup(inline_keyboard=[[_button(tell("control_resolved"), f"resolved:{post}")]])


_LONGEST_DATA: Final = 64
"""Bytes that Telegram keeps for a button."""


def reasons(post: str) -> InlineKeyboardMarkup | None:
    """What may be wrong with the answer in this post; None where its id is too long for a button."""
    if len(f"why:{max(REASONS, key=len)}:{post}".encode()) > _LONGEST_DATA:
        return None
    buttons = [_button(tell(f"reason_{reason}"), f"why:{reason}:{post}") for reason in REASONS]
    return InlineKeyboardMarkup(inline_keyboard=[buttons[:2], buttons[2:]])


def _button(label: str, data: str) -> InlineKeyboardButton:
    return InlineKeyboardButton(text=label, callback_data=data)
