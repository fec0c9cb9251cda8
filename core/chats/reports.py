"""How the processes that run a chat platform say that it is, and what follows from that for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from core.db.tables import now

State = Literal["off", "unset", "waiting", "connecting", "connected", "refused", "silent"]
"""Switched off; without tokens; not taken up by any process yet; …; refused for good; its process is not heard."""
SILENT_AFTER: Final = timedelta(seconds=45)
"""A process that says nothing for so long is taken for dead; a living one speaks every fifteen seconds."""
_FORGOTTEN_AFTER: Final = timedelta(minutes=2)
"""What a dead process said is forgotten when a living one speaks."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one process says of a platform that it runs."""

    process: str
    """Machine and number."""
    state: Literal["connecting", "connected", "standby", "refused", "stopped"]
    """`standby`: another process is connected in its place; it posts and answers all the same."""
    since: datetime
    at: datetime
    """When it said so."""
    last_event_at: datetime | None = None
    error: str = ""
    """The last one, in the platform's words or ours; it may be over."""
    error_at: datetime | None = None

    @property
    def is_silent(self) -> bool:
        return self.state != "stopped" and now() - self.at > SILENT_AFTER


def state_of(enabled: bool, configured: bool, reports: Sequence[Report], changed_at: datetime | None = None) -> State:
    """How the platform is, by what its living processes say; what they said before it was changed is out of date."""
    if not configured:
        return "unset"
    if not enabled:
        return "off"
    living = [one for one in reports if one.state != "stopped" and not one.is_silent]
    if living and changed_at is not None and all(one.at < changed_at for one in living):
        return "connecting"
    for state in ("connected", "connecting", "refused"):
        if any(one.state == state for one in living):
            return state
    if living:  # all stand by: whoever was connected is gone, and one of them takes over
        return "connecting"
    return "silent" if any(one.is_silent for one in reports) else "waiting"


def reports_of(status: Mapping[str, Any]) -> Sequence[Report]:
    """What was written down, by process."""
    return [_from_json(name, one) for name, one in sorted(status.items())]


def with_report(status: Mapping[str, Any], said: Report) -> dict[str, Any]:
    """What is to be written down when a process says something: that, and what other living ones said."""
    others = {name: one for name, one in status.items() if _is_remembered(one) and name != said.process}
    return {**others, said.process: _to_json(said)}


def _is_remembered(one: Mapping[str, Any]) -> bool:
    return now() - datetime.fromisoformat(one["at"]) < _FORGOTTEN_AFTER


def _to_json(said: Report) -> dict[str, Any]:
    return {
        "state": said.state,
        "since": said.since.isoformat(),
        "at": said.at.isoformat(),
        "last_event_at": said.last_event_at.isoformat() if said.last_event_at else None,
        "error": said.error,
        "error_at": said.error_at.isoformat() if said.error_at else None,
    }


def _from_json(process: str, one: Mapping[str, Any]) -> Report:
    heard, wrong = one.get("last_event_at"), one.get("error_at")
    return Report(
        process=process,
        state=one["state"],
        since=datetime.fromisoformat(one["since"]),
        at=datetime.fromisoformat(one["at"]),
        last_event_at=datetime.fromisoformat(heard) if heard else None,
        error=one.get("error", ""),
        error_at=datetime.fromisoformat(wrong) if wrong else None,
    )
