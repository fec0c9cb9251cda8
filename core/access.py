"""The one function that decides who may do what, and the words it decides with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from core.types import Person, Role

ACCOUNT_PREFIX = "user:"
"""Keys of people with an account begin with it; those of guests and chat platforms never do."""
OPERATOR = Person("terminal:operator", "operator", Role.OWNER)
"""Whoever runs commands on this machine; the data directory is theirs anyway."""


class Action(StrEnum):
    ASK = "ask"
    """Ask a knowledge base, and rate the answer."""
    READ = "read"
    """See a knowledge base, its documents and passages."""
    WRITE = "write"
    """Put documents into a knowledge base, or delete them."""
    MANAGE = "manage"
    """Create, change and delete knowledge bases."""
    REVIEW = "review"
    """Read what others asked and how they rated it."""
    CURATE = "curate"
    """Say what became of it, and write curated answers."""
    PEOPLE = "people"
    """Users and API keys of others."""


class Scope(StrEnum):
    """What an API key may be used for; its user's role is the other limit."""

    ASK = "ask"
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


_RANK = {role: rank for rank, role in enumerate(reversed(Role))}
_NEEDS: dict[Action, tuple[Role, Scope]] = {
    Action.ASK: (Role.VIEWER, Scope.ASK),
    Action.READ: (Role.VIEWER, Scope.READ),
    Action.WRITE: (Role.EDITOR, Scope.WRITE),
    Action.MANAGE: (Role.ADMIN, Scope.ADMIN),
    Action.REVIEW: (Role.REVIEWER, Scope.READ),
    Action.CURATE: (Role.REVIEWER, Scope.WRITE),
    Action.PEOPLE: (Role.ADMIN, Scope.ADMIN),
}
_FOR_GUESTS = frozenset({Action.ASK, Action.READ})
_CHANGING = frozenset({Action.WRITE, Action.CURATE})


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is calling, and by what."""

    person: Person
    scopes: frozenset[Scope] | None = None
    """Those of the API key; None: not by a key."""


def may(
    who: Identity | Person | None,
    action: Action,
    *,
    private: bool,
    anonymous: bool,
    granted: bool = False,
    edits: bool = False,
) -> bool:
    """Whether `who` may do `action` with a knowledge base that is `private` or not; the only place that decides it.

    `anonymous` says whether the settings let people without an account in; `granted`, whether the person was let into
    this knowledge base; `edits`, whether also to edit it. Members of a chat platform may ask what is not private; to
    read documents takes more. An account whose role does not count everywhere changes nothing but where it may edit.
    """
    scopes = who.scopes if isinstance(who, Identity) else None
    person = who.person if isinstance(who, Identity) else who
    role, scope = _NEEDS[action]
    if scopes is not None and scope not in scopes and Scope.ADMIN not in scopes:
        return False
    if person is None or not (person.key.startswith(ACCOUNT_PREFIX) or person == OPERATOR):
        if private:
            return granted and action is Action.ASK
        is_member = person is not None and person.member
        return (is_member and action is Action.ASK) or (anonymous and action in _FOR_GUESTS)
    if _RANK[person.role] < _RANK[role]:
        return False
    if person.everywhere or _RANK[person.role] >= _RANK[Role.ADMIN]:
        return True
    return edits or (action not in _CHANGING and (granted or not private))


def may_govern(who: Person, role: Role) -> bool:
    """Whether `who` may give, change or take away a `role`: nobody reaches above their own."""
    return who == OPERATOR or (_RANK[who.role] >= _RANK[Role.ADMIN] and _RANK[who.role] >= _RANK[role])
