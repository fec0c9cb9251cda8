"""What is being written to an index on a Weaviate server right now, so that nobody sees half of it.

The server has no transactions. So whoever writes leaves a note first, one object in the index's own tenant; it names
the editions (versions of documents) that are coming. The moment the note says `done`, those count, and the ones that
they replace do not. Searches leave out what does not count, and look at the notes again afterwards: where these are
others, they search once more. The last note stays until the next one is done, so that no state ever comes twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from weaviate.collections.classes.filters import _Filters

COMING, DONE, SWEPT, TORN = "coming", "done", "swept", "torn"
"""`torn` is all done, too, but the server was lost on the way: it may have entries of chunks that it does not have."""
ABANDONED: Final = 900.0
"""Seconds after which a writer that has said nothing more was killed."""
HELPED: Final = 60.0
"""Seconds after which another one takes out what a writer has replaced."""


@dataclass(frozen=True, slots=True)
class Change:
    """One note."""

    id: str
    state: str
    born: tuple[str, ...]
    dead: tuple[str, ...]
    since: float

    def properties(self) -> dict[str, Any]:
        return {
            "kind": "change",
            "state": self.state,
            "born": " ".join(self.born),
            "dead": " ".join(self.dead),
            "since": self.since,
        }

    @property
    def is_over(self) -> bool:
        return self.state in (SWEPT, TORN)

    def now(self, state: str) -> Change:
        """The note as it is to be from now on; where all is done, nobody needs the editions any more."""
        new = replace(self, state=state, since=time.time())
        return replace(new, born=(), dead=()) if new.is_over else new


@dataclass(frozen=True, slots=True)
class State:
    """All the notes of an index at a moment; equal states are the same moment."""

    changes: frozenset[Change]

    @property
    def hidden(self) -> tuple[str, ...]:
        """The editions that do not count."""
        found: set[str] = set()
        for change in self.changes:
            if change.state == COMING:
                found.update(change.born)
            elif change.state == DONE:
                found.update(change.dead)
        return tuple(sorted(found))

    @property
    def content(self) -> frozenset[str]:
        """The changes that count; more of them than before means that there is something new."""
        return frozenset(change.id for change in self.changes if change.state != COMING)

    @property
    def is_torn(self) -> bool:
        """Whether there may be entries of chunks that are not there."""
        return any(change.state == TORN for change in self.changes)

    def visible(self, wanted: _Filters | None) -> _Filters | None:
        """The filter, and none of what does not count."""
        from weaviate.classes.query import Filter as Where

        hidden = self.hidden
        if not hidden:
            return wanted
        counts = Where.not_(Where.by_property("edition").contains_any(list(hidden)))
        return counts if wanted is None else Where.all_of([wanted, counts])


def read(objects: Iterable[Any]) -> State:
    """From what the server gives."""
    return State(frozenset(_change(str(one.uuid), one.properties) for one in objects))


def _change(id: str, found: Any) -> Change:
    born, dead = (tuple(str(found.get(name) or "").split()) for name in ("born", "dead"))
    return Change(id, str(found["state"]), born, dead, float(found["since"]))


def left_over(state: State, now: float) -> Sequence[Change]:
    """The notes of writers that were killed, or are done: theirs is to be cleaned up by whoever comes."""
    return [
        change
        for change in state.changes
        if now - change.since > (ABANDONED if change.state == COMING else HELPED) and not change.is_over
    ]
