"""Brings the knowledge bases of a Langchain-Chatchat folder in; done again, it goes on where it was stopped."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.errors import KvasirError
from core.imports.chatchat import Found, LeftOut
from core.indexing.ingest import Incoming, Outcome, Ticket
from core.kb.kb_settings import LONGEST_DESCRIPTION, LONGEST_INSTRUCTIONS
from core.kb.knowledge import checked_kb_name
from core.texts import tell
from core.work.jobs import run_job

if TYPE_CHECKING:
    from core.app import Kvasir

SOURCE: Final = "chatchat"
_BAD: Final = re.compile(r"[^\w .-]+|\.{2,}")

Watch = Callable[[str, Ticket], AbstractAsyncContextManager[None]]
"""Shows the progress of a job while it runs in the block."""


@dataclass(frozen=True, slots=True)
class Brought:
    """What became of one knowledge base."""

    kb: str
    found: str
    """Its name there."""
    outcomes: tuple[Outcome, ...]
    left_out: tuple[LeftOut, ...]

    def as_json(self) -> dict[str, Any]:
        documents = [
            {"name": one.name, "status": one.status, "chunks": one.chunks, "reason": one.reason}
            for one in self.outcomes
        ]
        left_out = [{"what": one.what, "reason": one.reason} for one in self.left_out]
        return {"kb": self.kb, "found": self.found, "documents": documents, "left_out": left_out}


def name_for(found: str) -> str:
    """A name that a knowledge base can have here. Raises UserError where nothing is left of it."""
    return checked_kb_name(_BAD.sub("-", found).strip(" .-_")[:100].strip(" .-_"))


async def bring(kvasir: Kvasir, found: Found, name: str, instructions: str, watch: Watch) -> Brought:
    """Its documents; description and instructions where it has none here yet. Raises KvasirError."""
    base = await kvasir.knowledge.get_or_create(name)
    given: Mapping[str, str] = {
        "description": "" if base.description else found.description[:LONGEST_DESCRIPTION],
        "instructions": "" if base.instructions else instructions[:LONGEST_INSTRUCTIONS],
    }
    if changes := {field: text for field, text in given.items() if text.strip()}:
        await kvasir.knowledge.change(base.name, **changes)
    ticket = await kvasir.ingest.submit(base.name, _incoming(found), claimed=True)
    async with watch(base.name, ticket):
        await run_job(kvasir.jobs, ticket.job, kvasir.run_job)
    job = await kvasir.jobs.get(ticket.job.id)
    if job.error:
        raise KvasirError(job.error)
    outcomes = [*ticket.refused, *ticket.unchanged, *await kvasir.ingest.outcomes(ticket.job.id)]
    left_out = list(found.left_out)
    if found.name != base.name:
        left_out.append(LeftOut(found.name, tell("import_renamed", name=base.name)))
    return Brought(base.name, found.name, tuple(sorted(outcomes, key=lambda outcome: outcome.name)), tuple(left_out))


async def _incoming(found: Found) -> AsyncIterator[Incoming]:
    for original in found.originals:
        yield Incoming(original.name, lambda path=original.path: _bytes(path), SOURCE, original.size)  # type: ignore[misc]
    for name, text in found.texts.items():
        yield Incoming(name, lambda text=text: text.encode(), SOURCE)  # type: ignore[misc]


def _bytes(path: Path) -> bytes:
    """Raises OSError, also where it has become a link since."""
    if path.is_symlink():
        raise OSError(tell("import_link"))
    return path.read_bytes()
