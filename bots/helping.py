"""When Kvasir does not suffice: calling a human, and keeping what the human said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from bots.errors import DeliveryError
from bots.inbox import Posted
from bots.platform import Messenger
from core.db.tables import EscalationRow, now
from core.errors import NotAllowed, NotFound
from core.quality import curated
from core.texts import tell
from core.types import Press

if TYPE_CHECKING:
    from core.app import Kvasir
    from core.chats.channels import ChannelSettings


class Helping:
    """Each method gives the sentence for whoever pressed; raises NotAllowed or NotFound with one."""

    def __init__(self, kvasir: Kvasir, messenger: Messenger) -> None:
        self._kvasir = kvasir
        self._messenger = messenger

    async def call(self, press: Press, posted: Posted) -> str:
        """Call the channel's helpers below an answer; once."""
        channel = await self._kvasir.channels.get(press.place)
        if not channel.helpers:
            return tell("human_nobody")
        row = EscalationRow(answer_id=posted.answer_id, person=press.person.key)
        try:
            async with self._kvasir.db.session() as session:
                session.add(row)
        except IntegrityError:
            return tell("human_called_before")
        question = " ".join(posted.mention.text.split())[:300]
        try:
            text = tell("human_wanted", name=press.person.name, question=question)
            await self._messenger.call(posted.mention.place, press.post, text, channel.helpers)
        except DeliveryError:
            async with self._kvasir.db.session() as session:
                await session.delete(row)
            return tell("human_not_called")
        return tell("human_called")

    async def resolve(self, press: Press, posted: Posted) -> str:
        """A helper, the asker, or whoever looks after the channel says that it is solved."""
        channel = await self._kvasir.channels.get(press.place)
        if press.person.key != posted.mention.person.key and not _helps(press, channel):
            raise NotAllowed(tell("chat_not_manager"))
        async with self._kvasir.db.session() as session:
            row = await session.scalar(select(EscalationRow).where(EscalationRow.answer_id == posted.answer_id))
            if row is None or row.resolved_at is not None:
                return tell("human_resolved_before")
            row.resolved_by, row.resolved_at = press.person.key, now()
        return tell("human_resolved")

    async def keep(self, press: Press) -> str:
        """Keep a helper's words in the thread as the answer to the last question there."""
        channel = await self._kvasir.channels.get(press.place)
        if not _helps(press, channel):
            raise NotAllowed(tell("chat_not_manager"))
        last = await self._kvasir.conversations.last_question(press.place)
        if last is None:
            raise NotFound(tell("curated_no_question"))
        question, kbs = last
        there = {kb.name for kb in await self._kvasir.knowledge.names()}
        kb = next((name for name in (*channel.kbs, *kbs) if name in there), None)
        if kb is None:
            raise NotFound(tell("no_kb_yet"))
        await curated.keep(self._kvasir, kb, question, press.text, press.person.name)
        return tell("curated_kept", kb=kb)


def _helps(press: Press, channel: ChannelSettings) -> bool:
    helper = press.person.key.rpartition(":")[2]
    return press.may_manage or press.person.key in channel.managers or helper in channel.helpers
