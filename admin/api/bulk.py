"""Changes to many documents at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter
from pydantic import Field, model_validator

from admin.api.documents import printable
from admin.deps import CallerDep, KvasirDep
from admin.schemas import Given, Out
from core.access import Action
from core.indexing.bulk import Change
from core.kb.documents import Wanted

router = APIRouter(tags=["documents"])

MOST: Final = 1000

Id = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class WantedIn(Given):
    """As the list of documents takes it."""

    status: Annotated[str, Field(max_length=16)] = ""
    kind: Annotated[str, Field(max_length=100)] = ""
    source: Annotated[str, Field(max_length=64)] = ""
    text: Annotated[str, Field(max_length=200)] = ""
    duplicates: bool = False


class Changes(Given):
    change: Change
    ids: Annotated[list[Id], Field(max_length=MOST)] = Field(default_factory=list)
    all: WantedIn | None = None
    """In the place of ids: all that a list shows."""
    into: Annotated[str, Field(max_length=200)] = ""
    """Name of the knowledge base to move them to."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Changes:
        if bool(self.ids) == (self.all is not None):
            raise ValueError("either ids or all")
        return self


class LeftOutOut(Out):
    id: str
    name: str
    reason: str


class ChangedOut(Out):
    done: int
    left_out: Sequence[LeftOutOut]
    """Those that could not be changed, 100 at most."""
    left_out_total: int
    job_id: str | None
    """The job that reads them, where they are to be read."""


@router.post("/kbs/{name}/documents/changes")
async def change_documents(name: str, changes: Changes, caller: CallerDep, kvasir: KvasirDep) -> ChangedOut:
    """Delete, read again, cancel, disable, enable or move documents, by id or all that a list shows."""
    kb = await caller.kb(name, Action.WRITE)
    into = (await caller.kb(changes.into, Action.WRITE)).name if changes.change == "move" else ""
    which = changes.ids if changes.all is None else _wanted(changes.all)
    changed = await kvasir.bulk.change(kb.name, changes.change, which, into=into)
    return ChangedOut(
        done=changed.done,
        left_out=[LeftOutOut.model_validate(one) for one in changed.left_out[:100]],
        left_out_total=len(changed.left_out),
        job_id=changed.job.id if changed.job else None,
    )


def _wanted(given: WantedIn) -> Wanted:
    return Wanted(
        printable(given.status), printable(given.kind), printable(given.source), printable(given.text), given.duplicates
    )
