"""Answers that a person wrote: each is a small document of its knowledge base, found and cited like any other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from core.db.tables import new_id, now
from core.errors import KvasirError, UserError
from core.ingest import Incoming
from core.jobs import run_job
from core.outbound import visible
from core.texts import tell

if TYPE_CHECKING:
    from core.app import Kvasir

FOLDER: Final = "curated"
_LONGEST: Final = 20_000
_LONGEST_TITLE: Final = 300


async def keep(kvasir: Kvasir, kb: str, question: str, answer: str, by: str) -> str:
    """Put an answer into a knowledge base; gives the name of its document, which is searched when this returns.

    Raises UserError where there is nothing to keep, KvasirError with the reason where it cannot be indexed.
    """
    title, text = " ".join(visible(question).split())[:_LONGEST_TITLE], visible(answer).strip()
    if not title or not text:
        raise UserError(tell("curated_empty"))
    if len(text) > _LONGEST:
        raise UserError(tell("curated_long", most=_LONGEST))
    name = f"{FOLDER}/{new_id()}.md"
    written = f"# {title}\n\n{text}\n\n{tell('curated_by', name=by, day=f'{now():%Y-%m-%d}')}\n".encode()

    async def incoming() -> AsyncIterator[Incoming]:
        yield Incoming(name, lambda: written, source=FOLDER)

    ticket = await kvasir.ingest.submit(kb, incoming(), claimed=True)
    await run_job(kvasir.jobs, ticket.job, kvasir.run_job)
    outcomes = [*ticket.refused, *await kvasir.ingest.outcomes(ticket.job.id)]
    for outcome in outcomes:
        if outcome.status == "failed":
            raise KvasirError(outcome.reason or tell("curated_empty"))
    return name
