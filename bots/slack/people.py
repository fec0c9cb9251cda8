"""Who people are, by Slack's own list: their names, whether they belong to the workspace, and what they look after."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from bots.errors import Refused
from bots.slack.client import Web
from core.types import JSON, Person

_KNOWN_SECONDS: Final = 3600
_MOST: Final = 50_000


@dataclass(frozen=True, slots=True)
class Known:
    name: str
    member: bool
    """Belongs to the workspace; guests and people of other workspaces do not."""
    admin: bool


_STRANGER: Final = Known("", member=False, admin=False)
_UNKNOWN: Final = frozenset({"user_not_found", "user_not_visible", "users_not_found", "not_visible"})
"""What Slack says of people that the workspace does not have."""


class People:
    """Asks Slack once an hour for each person."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[float, Known]] = {}

    async def known(self, web: Web, person: Person, home: str) -> Known:
        """`home`: the person's own team, as the event says. Raises Limited or Unreachable where Slack does not say."""
        _, team, user = person.key.split(":", 2)
        at, known = self._known.get((team, user), (0.0, _STRANGER))
        if at > time.monotonic() - _KNOWN_SECONDS and at:
            return known
        try:
            found = _read(team, (await web.ask("users.info", user=user)).get("user") or {})
        except Refused as error:
            found = _STRANGER
            if str(error) not in _UNKNOWN and home == team:  # no right to look: whoever is of this team belongs to it
                found = Known("", member=True, admin=False)
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[team, user] = (time.monotonic(), found)
        return found

    def forget(self, team: str) -> None:
        self._known = {key: value for key, value in self._known.items() if key[0] != team}


def _read(team: str, user: JSON) -> Known:
    profile = user.get("profile") or {}
    name = str(profile.get("display_name") or user.get("real_name") or user.get("name") or "")
    outside = ("is_restricted", "is_ultra_restricted", "is_stranger", "is_bot", "deleted")
    belongs = user.get("team_id") in (None, team) and not any(user.get(mark) for mark in outside)
    return Known(name, belongs, belongs and bool(user.get("is_admin") or user.get("is_owner")))
