"""A Kvasir with a fake search and a fake engine, for what stands in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bots.telegram import aiogram_later  # noqa: F401  # before a test imports aiogram
from core import registry
from core.access import Action, may
from core.app import Kvasir
from core.chats.channels import Channels
from core.chats.connections import Connections
from core.chats.outbox import Outbox
from core.chats.places import Places
from core.db.session import Database
from core.identity.audit import Audit
from core.inference.embedding import EmbedderState
from core.quality.feedback import Feedback
from core.settings import Settings
from core.types import Person
from core.vault import Vault
from core.work.leases import Leases
from core.work.limits import Limits
from core.work.presence import Presence
from tests.databases import put_sqlite
from tests.fakes.house import House, furnished


@dataclass
class FakeKnowledge:
    """The knowledge bases there are, name -> private; who was let in; and what is there for a while."""

    there: dict[str, bool] = field(default_factory=lambda: {"handbook": False})

    granted: set[tuple[str, str]] = field(default_factory=set)
    """(knowledge base, key of a person)."""
    files: list[str] = field(default_factory=list)
    """Names of those that hold the files of a thread."""

    async def names(self) -> Sequence[SimpleNamespace]:
        return [SimpleNamespace(name=name, private=private) for name, private in self.there.items()]

    async def is_granted(self, kb: str, person: str, *, member: bool = True) -> bool:
        return (kb, person) in self.granted

    async def has(self, name: str) -> bool:
        return name in self.files


class FakeAccounts:
    def may(self, who: Person, action: Action, *, private: bool, granted: bool = False) -> bool:
        return may(who, action, private=private, anonymous=True, granted=granted)


@dataclass
class Front:
    """Kvasir as a handler sees it, and its parts as a test changes them."""

    kvasir: Kvasir
    house: House
    knowledge: FakeKnowledge


def connected(
    kvasir: Kvasir, settings: Settings, platforms: Sequence[str] = ("slack", "discord", "telegram")
) -> Kvasir:
    """The Kvasir of a test as the service `bots` needs it, with these platforms to be had."""
    vault, check = Vault(settings.data_dir), partial(registry.load, "kvasir.checks")
    parts: dict[str, Any] = {
        **vars(kvasir),
        "settings": settings,
        "vault": vault,
        "connections": Connections(kvasir.db, vault, settings, lambda: platforms, check),
        "outbox": Outbox(kvasir.db),
        "places": Places(kvasir.db),
        "with_settings": lambda other: SimpleNamespace(**{**parts, "settings": other}),
    }
    return cast(Kvasir, SimpleNamespace(**parts))


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    db = Database(await put_sqlite(tmp_path / "kvasir.db"))
    house = await furnished(db, tmp_path)
    knowledge = FakeKnowledge()
    presence = Presence(db)
    kvasir = SimpleNamespace(
        settings=house.settings,
        answers=house.answers,
        conversations=house.conversations,
        feedback=Feedback(db),
        audit=Audit(db),
        models=SimpleNamespace(default=lambda _kind: house.settings.answer.engine),
        knowledge=knowledge,
        grants=knowledge,
        temporary=knowledge,
        accounts=FakeAccounts(),
        channels=Channels(db, house.settings.channels),
        embedder_state=EmbedderState(ready=True),
        db=db,
        vault=Vault(tmp_path),
        leases=Leases(db),
        presence=presence,
        limits=Limits(db, presence),
    )
    yield Front(cast(Kvasir, kvasir), house, knowledge)
    await house.answers.close()
    await db.close()
