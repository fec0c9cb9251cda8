"""The pages of the console, in the order of its menu: one line each; their scripts draw them from the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from core.access import Action


@dataclass(frozen=True, slots=True)
class Page:
    """`name` is its address below `/console/`, its script, and, behind `page_`, the key of its title."""

    name: str
    icon: str
    """Of `static/img/icons.svg`."""
    group: str
    """Behind `group_`, the key of the menu's heading that it stands under."""
    action: Action
    """What somebody must be allowed to do somewhere, to see it."""


PAGES: Final = (
    Page("dashboard", "chart", "answers", Action.REVIEW),
    Page("review", "thumb-down", "answers", Action.REVIEW),
    Page("conversations", "chat", "answers", Action.REVIEW),
    Page("bases", "library", "knowledge", Action.WRITE),
    Page("library", "document", "knowledge", Action.WRITE),
    Page("sources", "refresh", "knowledge", Action.WRITE),
    Page("playground", "search", "knowledge", Action.REVIEW),
    Page("models", "chip", "operation", Action.MANAGE),
    Page("channels", "plug", "operation", Action.MANAGE),
    Page("work", "clock", "operation", Action.MANAGE),
    Page("people", "people", "people", Action.PEOPLE),
    Page("account", "key", "people", Action.ASK),
    Page("reference", "link", "people", Action.ASK),
)
GROUPS: Final = tuple(dict.fromkeys(page.group for page in PAGES))
