"""The review of what went wrong: 👎 and unanswered questions, their cures, and the gaps they show."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, Field
from starlette.responses import Response

from admin.api.curated import Body, CuratedOut, Id, Ids, Line, Lines, curated_out
from admin.api.documents import attachment
from admin.api.records import EntryOut, PlaceOut, entry_out
from admin.api.statistics import Chosen, reviewer
from admin.deps import Caller, CallerDep, KvasirDep, is_id
from admin.schemas import Given, Out, ShortText, Text
from core.access import Action
from core.app import Kvasir
from core.chats.outbox import LONGEST as LONGEST_POSTING
from core.db.tables import now
from core.errors import NotFound, UserError
from core.quality.curated import Written
from core.quality.records import Entry
from core.quality.reviews import LONGEST_NOTE, Changed, Review, Sought
from core.texts import spoken, tell
from core.types import Finished, Question

router = APIRouter(prefix="/reviews", tags=["feedback review"], dependencies=[Depends(reviewer)])

_CHATS = ("slack", "discord", "telegram")
_LONGEST_DOCUMENT = 200_000

State = Literal["new", "working", "solved"]
Label = Literal["wrong_passage", "missing_document", "wrong_answer", "unclear_question", "out_of_scope"]


class ComplaintOut(Out):
    person: str
    name: str
    reason: str
    at: datetime


class EscalationOut(Out):
    person: str
    at: datetime
    resolved_by: str | None
    resolved_at: datetime | None


class ReviewOut(Out):
    answer_id: str
    question: str
    answer: str
    """In a list its beginning."""
    answered: bool
    kbs: Sequence[str]
    person: str
    name: str
    platform: str
    workspace: str
    channel: str
    engine: str
    model: str
    asked_at: datetime
    complaints: Sequence[ComplaintOut]
    escalation: EscalationOut | None
    state: str
    assignee: str | None
    assignee_name: str
    labels: Sequence[str]
    note: str
    cure: Mapping[str, Any]
    """`kind` (curated, chunk, document, or settings) and `object`: what of that kind; `posted`: id of a message."""
    again_id: str | None
    updated_by: str
    updated_at: datetime | None
    conversation_id: str | None


class ReviewPage(Out):
    items: Sequence[ReviewOut]
    total: int
    counts: Mapping[str, int]
    """Of each state, whatever state was asked for."""


class ReviewWhole(Out):
    review: ReviewOut
    entry: EntryOut
    """The question with its answer, passages and prompt."""
    again: EntryOut | None
    """The answer to the same question after the cure."""
    curated: CuratedOut | None
    """The curated answer that is the cure."""
    place: PlaceOut
    link: str
    """Address of the thread on its platform; empty where there is none."""
    can_post: bool
    posted: str
    """What became of the message in the thread: waiting, sending, sent, failed; empty: none was posted."""


class ReviewerOut(Out):
    id: str
    name: str


class Reviewers(Out):
    items: Sequence[ReviewerOut]


class StateOfMany(Given):
    answers: Annotated[tuple[Id, ...], Field(min_length=1, max_length=1000)]
    state: State


class ChangedMany(Out):
    changed: int


class CureGiven(Given):
    kind: Literal["curated", "chunk", "document", "settings"]
    object: ShortText = ""


class ChangedReview(Given):
    state: State | None = None
    assignee: Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")] | None = None
    """Id of an account; empty: nobody's."""
    labels: Annotated[tuple[Label, ...], Field(max_length=10)] | None = None
    note: Annotated[Text, Field(max_length=LONGEST_NOTE)] | None = None
    cure: CureGiven | None = None


class NewCure(Given):
    """A curated answer for what was asked."""

    kb: ShortText
    question: Line
    text: Body
    paraphrases: Lines = ()
    rests_on: Ids | None = None
    """Null: the documents that the answer cites."""
    expires_at: AwareDatetime | None = None


class NewDocument(Given):
    kb: ShortText
    name: ShortText
    text: Annotated[Text, Field(max_length=_LONGEST_DOCUMENT)]
    """Markdown."""


class Reply(Given):
    text: Annotated[Text, Field(max_length=LONGEST_POSTING)]


class GapOut(Out):
    question: str
    """The one most like the others."""
    size: int
    people: int
    kbs: Sequence[str]
    first_at: datetime
    last_at: datetime
    weeks: Sequence[int]
    """How many in each of the last weeks, the latest last."""
    trend: float
    """-1..1: asked less or more than before."""
    answers: Sequence[str]
    questions: Sequence[str]


class GapPage(Out):
    items: Sequence[GapOut]
    total: int
    questions: int
    """Unanswered questions that were looked at."""


async def sought(
    selection: Chosen,
    state: Annotated[list[State] | None, Query(max_length=3)] = None,
    label: Label | None = None,
    assignee: Annotated[str, Query(pattern=r"^([0-9a-f]{32}|none)?$")] = "",
    text: ShortText = "",
    why: Literal["down", "unanswered"] | None = None,
) -> Sought:
    """What the query asks for, as far as the caller may see it; `state` may be given several times."""
    return Sought(selection, tuple(state or ()), label or "", assignee, text.strip(), why)


Wanted = Annotated[Sought, Depends(sought)]


# ---------------------------------------------------------------- lists
@router.get("")
async def list_reviews(
    kvasir: KvasirDep,
    wanted: Wanted,
    limit: Annotated[int, Query(ge=1, le=200)] = 25,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> ReviewPage:
    """Answers that were rated 👎 and questions that were not answered, the newest first."""
    page = await kvasir.reviews.list(wanted, limit=limit, offset=offset)
    return ReviewPage(
        items=[ReviewOut.model_validate(item) for item in page.items], total=page.total, counts=page.counts
    )


@router.get("/people")
async def list_reviewers(kvasir: KvasirDep) -> Reviewers:
    """Accounts that something can be given to."""
    return Reviewers(items=[ReviewerOut.model_validate(one) for one in await kvasir.reviews.reviewers()])


@router.get("/export", response_class=Response)
async def export_reviews(kvasir: KvasirDep, wanted: Wanted, format: Literal["csv", "jsonl"] = "csv") -> Response:
    """The filtered list as a file; a spreadsheet runs nothing of it."""
    text = await kvasir.reviews.export(wanted, format)
    kind = "text/csv" if format == "csv" else "application/jsonl"
    headers = {"content-disposition": attachment(f"kvasir-reviews-{now():%Y-%m-%d}.{format}")}
    return Response(text, media_type=f"{kind}; charset=utf-8", headers=headers)


@router.get("/gaps")
async def list_gaps(
    kvasir: KvasirDep,
    selection: Chosen,
    limit: Annotated[int, Query(ge=1, le=200)] = 25,
    offset: Annotated[int, Query(ge=0, le=10_000)] = 0,
) -> GapPage:
    """The latest unanswered questions put together by what they are about, the largest first."""
    found = await kvasir.gaps.list(selection)
    return GapPage(
        items=[GapOut.model_validate(gap) for gap in found[offset : offset + limit]],
        total=len(found),
        questions=sum(gap.size for gap in found),
    )


@router.post("/states")
async def change_states(given: StateOfMany, caller: CallerDep, kvasir: KvasirDep) -> ChangedMany:
    """Gives several one state, e.g. all questions of a gap; those that are not there are passed by."""
    caller.require(Action.CURATE)
    allowed = await caller.seen_kbs(Action.REVIEW)
    return ChangedMany(changed=await kvasir.reviews.set_state(given.answers, given.state, caller.person, allowed))


# ---------------------------------------------------------------- one
async def seen_review(answer_id: str, caller: CallerDep, kvasir: KvasirDep) -> Review:
    """Raises NotFound, also where the caller may not see what it was answered from."""
    if not is_id(answer_id):
        raise NotFound(tell("no_such_review"))
    return await kvasir.reviews.get(answer_id, await caller.seen_kbs(Action.REVIEW))


Seen = Annotated[Review, Depends(seen_review)]


@router.get("/{answer_id}")
async def read_review(review: Seen, caller: CallerDep, kvasir: KvasirDep) -> ReviewWhole:
    """One with passages, prompt, where it was asked, and what became of it."""
    return await _whole(review, caller, kvasir)


@router.patch("/{answer_id}")
async def change_review(given: ChangedReview, review: Seen, caller: CallerDep, kvasir: KvasirDep) -> ReviewWhole:
    """Sets state, assignee, labels, note, or what cured it."""
    caller.require(Action.CURATE)
    cure = None if given.cure is None else {**review.cure, **given.cure.model_dump()}
    changed = Changed(given.state, given.assignee, given.labels, given.note, cure)
    return await _whole(await kvasir.reviews.change(review.answer_id, changed, caller.person), caller, kvasir)


@router.post("/{answer_id}/curated", status_code=201)
async def cure_by_answer(given: NewCure, review: Seen, caller: CallerDep, kvasir: KvasirDep) -> ReviewWhole:
    """Writes a curated answer for it; it is given from now on."""
    kb = await caller.kb(given.kb, Action.CURATE)
    written = Written(given.question, given.text, given.paraphrases, given.rests_on, given.expires_at, review.answer_id)
    made = await kvasir.curated.add(kb.name, written, caller.person.name)
    return await _cured(review, caller, kvasir, "curated", made.id)


@router.post("/{answer_id}/document", status_code=201)
async def cure_by_document(given: NewDocument, review: Seen, caller: CallerDep, kvasir: KvasirDep) -> ReviewWhole:
    """Writes a document that was missing; it is searched when this returns."""
    kb = await caller.kb(given.kb, Action.WRITE)
    name, text = given.name.strip(), given.text.strip()
    if not name or not text:
        raise UserError(tell("review_empty_document"))
    document = await kvasir.curated.write(
        kb.name, name if name.endswith(".md") else f"{name}.md", text, by=caller.person.name
    )
    return await _cured(review, caller, kvasir, "document", document)


@router.post("/{answer_id}/again")
async def ask_again(review: Seen, caller: CallerDep, kvasir: KvasirDep) -> ReviewWhole:
    """Asks the same question once more, and keeps the answer beside the first one."""
    caller.require(Action.CURATE)
    there = set(await caller.kb_names(Action.ASK))
    kbs = tuple(kb for kb in review.kbs if kb in there)
    if not kbs:
        raise UserError(tell("review_no_kb"))
    entry = await _entry(kvasir, review.answer_id, review.conversation_id, None)
    question = Question(entry.standalone_question or review.question, kbs, caller.person.key, platform="console")
    last = None
    async for event in kvasir.answers.answer(question):
        last = event
    assert isinstance(last, Finished)  # noqa: S101 - the last event of every answer
    changed = Changed(state="working" if review.state == "new" else None, again_id=last.answer_id)
    return await _whole(await kvasir.reviews.change(review.answer_id, changed, caller.person), caller, kvasir)


@router.post("/{answer_id}/reply", status_code=202)
async def reply(given: Reply, review: Seen, caller: CallerDep, kvasir: KvasirDep) -> ReviewWhole:
    """Posts a text in the thread it was asked in, once its platform takes it."""
    caller.require(Action.CURATE)
    place, _ = await kvasir.reviews.place(review.answer_id)
    if place.platform not in _CHATS:
        raise UserError(tell("review_nowhere"))
    posted = await kvasir.outbox.add(place, given.text, "reply")
    changed = Changed(cure={**review.cure, "posted": posted})
    return await _whole(await kvasir.reviews.change(review.answer_id, changed, caller.person), caller, kvasir)


async def _cured(review: Review, caller: Caller, kvasir: Kvasir, kind: str, of: str) -> ReviewWhole:
    cure = {**review.cure, "kind": kind, "object": of}
    changed = Changed(state="working" if review.state == "new" else None, cure=cure)
    return await _whole(await kvasir.reviews.change(review.answer_id, changed, caller.person), caller, kvasir)


async def _entry(kvasir: Kvasir, answer_id: str, conversation_id: str | None, allowed: tuple[str, ...] | None) -> Entry:
    whole = await kvasir.records.get(conversation_id or answer_id, allowed)
    return next(entry for entry in whole.entries if entry.answer_id == answer_id)


async def _whole(review: Review, caller: Caller, kvasir: Kvasir) -> ReviewWhole:
    allowed = await caller.seen_kbs(Action.REVIEW)
    entry = await _entry(kvasir, review.answer_id, review.conversation_id, allowed)
    again, curated, posted = None, None, ""
    if review.again_id:
        try:
            again = await _entry(kvasir, review.again_id, None, allowed)
        except NotFound:
            again = None  # it was deleted since
    if review.cure.get("kind") == "curated":
        try:
            curated = await kvasir.curated.get(str(review.cure.get("object", "")))
        except NotFound:
            curated = None  # as above
    if review.cure.get("posted"):
        try:
            posted = (await kvasir.outbox.get(str(review.cure["posted"]))).state
        except NotFound:
            posted = "sent"  # old messages are forgotten
    place, link = await kvasir.reviews.place(review.answer_id)
    language = spoken()
    first, second = await asyncio.to_thread(
        lambda: (entry_out(entry, language), entry_out(again, language) if again else None)
    )
    return ReviewWhole(
        review=ReviewOut.model_validate(replace(review, answer=entry.text)),
        entry=first,
        again=second,
        curated=curated_out(curated) if curated else None,
        place=PlaceOut.model_validate(place),
        link=link,
        can_post=place.platform in _CHATS,
        posted=posted,
    )
