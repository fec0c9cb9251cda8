"""What routes ask for: Kvasir itself, and the caller with the one way to each knowledge base and document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request
from sqlalchemy import select

from admin.auth import is_guest
from admin.rate import Rate
from core.access import Action, Identity
from core.answering.conversation import Conversation
from core.app import Kvasir
from core.db.tables import AnswerRow
from core.errors import LoginNeeded, NotAllowed, NotFound, TooMany
from core.kb.knowledge import DocumentInfo, KbName, KnowledgeBase
from core.texts import tell
from core.types import Person

_ID: Final = re.compile(r"[0-9a-f]{32}")


async def kvasir_of(request: Request) -> Kvasir:
    kvasir: Kvasir = request.app.state.kvasir
    return kvasir


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling, and what they may see and do. What they may not see does not exist for them."""

    identity: Identity
    kvasir: Kvasir
    rights: Mapping[str, str]
    """Knowledge bases by name that they were let into, with ask or edit; of accounts that are not let in everywhere."""

    @property
    def person(self) -> Person:
        return self.identity.person

    def may(self, action: Action, kb: KnowledgeBase | KbName | None = None) -> bool:
        """Whether they may do it with the knowledge base; without one: with some, as far as their role goes."""
        if kb is None:
            return self.kvasir.accounts.may(self.identity, action, private=False, granted=True, edits=True)
        right = self.rights.get(kb.name, "")
        return self.kvasir.accounts.may(
            self.identity, action, private=kb.private, granted=bool(right), edits=right == "edit"
        )

    def require(self, action: Action, kb: KnowledgeBase | KbName | None = None) -> None:
        """Raises NotAllowed."""
        if not self.may(action, kb):
            raise NotAllowed(tell("not_allowed"))

    async def kbs(self, action: Action) -> list[KnowledgeBase]:
        return [kb for kb in await self.kvasir.knowledge.list() if self.may(action, kb)]

    async def kb_names(self, action: Action) -> list[str]:
        """As `kbs`, in a fraction of the time; for queries over what belongs to them."""
        return [kb.name for kb in await self.kvasir.knowledge.names() if self.may(action, kb)]

    async def seen_kbs(self, action: Action) -> tuple[str, ...] | None:
        """Knowledge bases with whose answers they may do it, by name; None: with all, also of those that are gone."""
        if self.kvasir.accounts.may(self.identity, action, private=True):
            return None
        return tuple(await self.kb_names(action))

    async def kb(self, name: str, action: Action) -> KnowledgeBase:
        """Raises NotFound where the caller may neither read nor ask it, NotAllowed where they may not do `action`."""
        unknown = NotFound(tell("no_such_kb", name=name))
        if not name.isprintable():
            raise unknown
        try:
            kb = await self.kvasir.knowledge.get(name)
        except NotFound as error:
            raise unknown from error
        if not any(self.may(seen, kb) for seen in (Action.READ, Action.ASK)):
            raise unknown
        self.require(action, kb)
        return kb

    async def document(self, document_id: str, action: Action) -> DocumentInfo:
        unknown = NotFound(tell("no_such_document"))
        if not is_id(document_id):
            raise unknown
        try:
            document = await self.kvasir.knowledge.document(document_id)
            await self.kb(document.kb, action)
        except NotFound as error:
            raise unknown from error
        return document

    async def conversation(self, conversation_id: str) -> Conversation:
        """Raises NotFound for anybody else's."""
        if not is_id(conversation_id):
            raise NotFound(tell("no_such_conversation"))
        return await self.kvasir.conversations.get(conversation_id, self.person.key)

    async def own_answer(self, answer_id: str, conversation_id: str | None = None) -> None:
        """Raises NotFound for an answer to anybody else, or of another conversation than the named one."""
        query = select(AnswerRow.id).where(AnswerRow.id == answer_id, AnswerRow.person == self.person.key)
        if conversation_id is not None:
            query = query.where(AnswerRow.conversation_id == conversation_id)
        async with self.kvasir.db.read() as session:
            if not is_id(answer_id) or await session.scalar(query) is None:
                raise NotFound(tell("no_such_answer"))


async def caller_of(request: Request) -> Caller:
    identity: Identity | None = getattr(request.state, "identity", None)
    if identity is None:
        raise LoginNeeded(tell("login_needed"))
    kvasir = await kvasir_of(request)
    person = identity.person
    return Caller(identity, kvasir, {} if person.everywhere else await kvasir.accounts.rights_of(person))


def is_id(text: str) -> bool:
    return bool(_ID.fullmatch(text))


KvasirDep = Annotated[Kvasir, Depends(kvasir_of)]
CallerDep = Annotated[Caller, Depends(caller_of)]


async def take_turn(rate: Rate, caller: Caller, request: Request) -> None:
    """Raises TooMany. Guests count by address: a cookie is thrown away too easily."""
    address = request.client.host if request.client else ""
    wait = await rate.take(f"address:{address}" if is_guest(caller.identity) else caller.person.key)
    if wait:
        raise TooMany(tell("too_many_questions", most=rate.per_minute), wait)


async def may_ask(caller: CallerDep) -> None:
    """For routers that are of use only to those who may ask. Raises NotAllowed."""
    caller.require(Action.ASK)
