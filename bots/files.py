"""Files sent in a thread: a knowledge base of their own, which only that thread can ask, and which ends some day."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from bots.errors import DeliveryError
from bots.platform import Messenger
from core.db.tables import now
from core.errors import KvasirError, UserError
from core.indexing.ingest import Incoming
from core.kb.temporary import base_of
from core.texts import tell
from core.types import Mention
from core.work.jobs import run_job

if TYPE_CHECKING:
    from core.app import Kvasir

logger = logging.getLogger(__name__)

_SECONDS: Final = 300.0
"""Time all files of one message may take."""


class ThreadFiles:
    def __init__(self, kvasir: Kvasir, messenger: Messenger) -> None:
        self._kvasir = kvasir
        self._messenger = messenger

    async def of(self, mention: Mention, conversation_id: str) -> Sequence[str]:
        """The knowledge base of the conversation's files, with those of this mention brought in; none without files.

        Raises UserError with the reason where not one of the mention's files could be read.
        """
        name = base_of(conversation_id)
        if mention.files:
            async with asyncio.timeout(_SECONDS):
                await self._bring_in(mention, name)
        return [name] if await self._kvasir.temporary.has(name) else []

    async def _bring_in(self, mention: Mention, name: str) -> None:
        keep = timedelta(hours=self._kvasir.settings.channels.files_keep_hours)
        reasons: list[str] = []

        async def incoming() -> AsyncIterator[Incoming]:
            most = self._kvasir.settings.ingest.max_file_mb * 1_000_000
            for file in mention.files:
                try:
                    if file.size > most:
                        raise UserError(tell("file_too_large", name=file.name, limit=most // 1_000_000))
                    data = await self._messenger.download(mention, file, most)
                    yield Incoming(file.name or file.id, partial(bytes, data), source=mention.place.platform)
                except (KvasirError, DeliveryError) as error:
                    reasons.append(
                        str(error) if isinstance(error, KvasirError) else tell("file_not_sent", name=file.name)
                    )

        await self._kvasir.temporary.ensure(name, expires_at=now() + keep)
        ticket = await self._kvasir.ingest.submit(name, incoming(), claimed=True)
        await run_job(self._kvasir.jobs, ticket.job, self._kvasir.run_job)
        outcomes = [*ticket.refused, *ticket.unchanged, *await self._kvasir.ingest.outcomes(ticket.job.id)]
        reasons += [outcome.reason or "" for outcome in outcomes if outcome.status == "failed"]
        for reason in reasons:
            logger.info("a file of a thread was not read: %s", reason)
        if len(reasons) >= len(mention.files):
            raise UserError(reasons[0])
