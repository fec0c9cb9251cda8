"""Evaluation sets of knowledge bases: their questions, their runs, and what became of each question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from admin.api.documents import attachment
from admin.api.playground import Options
from admin.deps import CallerDep, KvasirDep, is_id
from admin.schemas import Given, Out, Text
from core.access import Action
from core.app import Kvasir
from core.errors import NotFound, UserError
from core.quality import evaluation_sets
from core.quality.evaluate import Line, parsed, written
from core.quality.evaluation_sets import EvaluationSet
from core.texts import tell

router = APIRouter(tags=["evaluations"])

FILE_TYPE: Final = "application/jsonl"

Limit = Annotated[int, Query(ge=1, le=200)]
Offset = Annotated[int, Query(ge=0, le=10_000_000)]


class NewSet(Given):
    name: Annotated[Text, Field(max_length=200)]


class SetOut(Out):
    id: str
    kb: str
    name: str
    questions: int
    created_at: datetime


class Sets(Out):
    items: Sequence[SetOut]
    total: int


class QuestionIn(Given):
    question: Annotated[Text, Field(max_length=evaluation_sets.LONGEST_QUESTION)]
    answers: Annotated[
        list[Annotated[Text, Field(max_length=evaluation_sets.LONGEST_ANSWER)]],
        Field(max_length=evaluation_sets.MOST_ANSWERS, default_factory=list),
    ]
    """Texts one of which a right answer contains."""
    document: Annotated[Text, Field(max_length=1024)] = ""
    """Name of the document it is to be found in; empty: it has no answer here."""

    def line(self) -> Line:
        return Line(self.question, tuple(self.answers), self.document)


class QuestionOut(Out):
    id: str
    question: str
    answers: Sequence[str]
    document: str
    created_at: datetime


class Questions(Out):
    items: Sequence[QuestionOut]
    total: int


class Imported(Out):
    added: int
    changed: int


class NewRun(Given):
    options: Options = Options()
    generation_id: Annotated[str, Field(max_length=64)] | None = None


class RunOut(Out):
    id: str
    set_id: str
    kb: str
    state: str
    """queued, running, done, failed, or cancelled."""
    error: str | None
    done: int
    total: int
    figures: Mapping[str, float]
    """Those of `kvasir eval`, and how many questions have a problem; empty until it is done."""
    settings: Mapping[str, Any]
    generation_id: str | None
    live: bool
    """Whether it was asked of the index that people are answered from now."""
    created_at: datetime


class Runs(Out):
    items: Sequence[RunOut]
    total: int


class AskedOut(Out):
    id: str
    question: str
    answers: Sequence[str]
    document: str
    rank: int
    """Place of the document among the passages, from 1; 0 where it is not among the first ten."""
    problem: str
    """missed, refused, words, answered, or empty."""
    answered: bool
    text: str
    milliseconds: float
    change: str
    """Against the run before: better, worse, same, or new."""
    before: str | None
    rank_before: int | None


class AskedPage(Out):
    items: Sequence[AskedOut]
    total: int


async def _set(set_id: str, caller: CallerDep, kvasir: Kvasir, action: Action) -> EvaluationSet:
    """Raises NotFound where the caller may not know of it, NotAllowed where they may not do `action`."""
    unknown = NotFound(tell("no_eval_set"))
    if not is_id(set_id):
        raise unknown
    try:
        found = await kvasir.evaluations.get(set_id)
        await caller.kb(found.kb, action)
    except NotFound as error:
        raise unknown from error
    return found


async def _run_set(run_id: str, caller: CallerDep, kvasir: Kvasir, action: Action) -> None:
    """Raises as `_set`."""
    unknown = NotFound(tell("no_eval_run"))
    if not is_id(run_id):
        raise unknown
    try:
        await caller.kb(await kvasir.evaluations.kb_of_run(run_id), action)
    except NotFound as error:
        raise unknown from error


# ---------------------------------------------------------------- sets
@router.get("/kbs/{name}/evaluation-sets")
async def list_sets(name: str, caller: CallerDep, kvasir: KvasirDep, limit: Limit = 50, offset: Offset = 0) -> Sets:
    """The sets of a knowledge base by name."""
    kb = await caller.kb(name, Action.REVIEW)
    items, total = await kvasir.evaluations.sets(kb.name, limit=limit, offset=offset)
    return Sets(items=[SetOut.model_validate(item) for item in items], total=total)


@router.post("/kbs/{name}/evaluation-sets", status_code=201)
async def create_set(name: str, given: NewSet, caller: CallerDep, kvasir: KvasirDep) -> SetOut:
    """A new, empty set."""
    kb = await caller.kb(name, Action.WRITE)
    return SetOut.model_validate(await kvasir.evaluations.create(kb.name, given.name))


@router.get("/evaluation-sets/{set_id}")
async def read_set(set_id: str, caller: CallerDep, kvasir: KvasirDep) -> SetOut:
    """One set."""
    return SetOut.model_validate(await _set(set_id, caller, kvasir, Action.REVIEW))


@router.patch("/evaluation-sets/{set_id}")
async def rename_set(set_id: str, given: NewSet, caller: CallerDep, kvasir: KvasirDep) -> SetOut:
    """Give it another name."""
    found = await _set(set_id, caller, kvasir, Action.WRITE)
    return SetOut.model_validate(await kvasir.evaluations.rename(found.id, given.name))


@router.delete("/evaluation-sets/{set_id}", status_code=204)
async def delete_set(set_id: str, caller: CallerDep, kvasir: KvasirDep) -> None:
    """With its questions and runs."""
    found = await _set(set_id, caller, kvasir, Action.WRITE)
    await kvasir.evaluations.delete(found.id)


# ---------------------------------------------------------------- questions
@router.get("/evaluation-sets/{set_id}/questions")
async def list_questions(
    set_id: str,
    caller: CallerDep,
    kvasir: KvasirDep,
    text: Annotated[str | None, Query(max_length=200)] = None,
    limit: Limit = 50,
    offset: Offset = 0,
) -> Questions:
    """In the order they came; `text` stands in the question or the document's name."""
    found = await _set(set_id, caller, kvasir, Action.REVIEW)
    wanted = "".join(char for char in text or "" if char.isprintable()) or None
    items, total = await kvasir.evaluations.questions(found.id, text=wanted, limit=limit, offset=offset)
    return Questions(items=[QuestionOut.model_validate(item) for item in items], total=total)


@router.post("/evaluation-sets/{set_id}/questions", status_code=201)
async def add_question(set_id: str, given: QuestionIn, caller: CallerDep, kvasir: KvasirDep) -> QuestionOut:
    """One more question; 409 where the set has it already."""
    found = await _set(set_id, caller, kvasir, Action.WRITE)
    return QuestionOut.model_validate(await kvasir.evaluations.add(found.id, given.line()))


@router.put("/evaluation-sets/{set_id}/questions/{question_id}")
async def change_question(
    set_id: str, question_id: str, given: QuestionIn, caller: CallerDep, kvasir: KvasirDep
) -> QuestionOut:
    """Change it, or what is expected."""
    found = await _set(set_id, caller, kvasir, Action.WRITE)
    return QuestionOut.model_validate(await kvasir.evaluations.change(found.id, _id(question_id), given.line()))


@router.delete("/evaluation-sets/{set_id}/questions/{question_id}", status_code=204)
async def remove_question(set_id: str, question_id: str, caller: CallerDep, kvasir: KvasirDep) -> None:
    """Take it out; runs keep what became of it."""
    found = await _set(set_id, caller, kvasir, Action.WRITE)
    await kvasir.evaluations.remove(found.id, _id(question_id))


@router.post(
    "/evaluation-sets/{set_id}/import",
    openapi_extra={"requestBody": {"required": True, "content": {FILE_TYPE: {"schema": {"type": "string"}}}}},
)
async def import_questions(set_id: str, request: Request, caller: CallerDep, kvasir: KvasirDep) -> Imported:
    """Take in a JSONL file as `kvasir eval` reads it; a question that is there already gets what the file expects."""
    found = await _set(set_id, caller, kvasir, Action.WRITE)
    try:
        text = (await request.body()).decode("utf-8-sig").replace("\0", "")
    except UnicodeDecodeError as error:
        raise UserError(tell("eval_unreadable", file=found.name)) from error
    added, changed = await kvasir.evaluations.bring_in(found.id, parsed(text, found.name))
    return Imported(added=added, changed=changed)


@router.get("/evaluation-sets/{set_id}/export.jsonl")
async def export_questions(set_id: str, caller: CallerDep, kvasir: KvasirDep) -> Response:
    """Its questions as a JSONL file that `kvasir eval` reads."""
    found = await _set(set_id, caller, kvasir, Action.REVIEW)
    text = written(await kvasir.evaluations.lines(found.id))
    headers = {"content-disposition": attachment(f"{found.name}.jsonl")}
    return Response(text.encode("utf-8", "replace"), media_type=FILE_TYPE, headers=headers)


# ---------------------------------------------------------------- runs
@router.get("/evaluation-sets/{set_id}/runs")
async def list_runs(set_id: str, caller: CallerDep, kvasir: KvasirDep, limit: Limit = 50, offset: Offset = 0) -> Runs:
    """The newest first."""
    found = await _set(set_id, caller, kvasir, Action.REVIEW)
    items, total = await kvasir.evaluations.runs(found.id, limit=limit, offset=offset)
    return Runs(items=[RunOut.model_validate(item) for item in items], total=total)


@router.post("/evaluation-sets/{set_id}/runs", status_code=202)
async def start_run(set_id: str, given: NewRun, caller: CallerDep, kvasir: KvasirDep) -> RunOut:
    """Queue a run; 409 where the set is being run."""
    found = await _set(set_id, caller, kvasir, Action.WRITE)
    generation_id = _id(given.generation_id) if given.generation_id is not None else None
    run = await kvasir.evaluations.start(found.id, generation_id=generation_id, options=given.options.options())
    return RunOut.model_validate(run)


@router.get("/evaluation-runs/{run_id}")
async def read_run(run_id: str, caller: CallerDep, kvasir: KvasirDep) -> RunOut:
    """One run, and how far it is."""
    await _run_set(run_id, caller, kvasir, Action.REVIEW)
    run, _ = await kvasir.evaluations.run(run_id)
    return RunOut.model_validate(run)


@router.delete("/evaluation-runs/{run_id}", status_code=204)
async def delete_run(run_id: str, caller: CallerDep, kvasir: KvasirDep) -> None:
    """Forget it; one that is under way is stopped."""
    await _run_set(run_id, caller, kvasir, Action.WRITE)
    await kvasir.evaluations.delete_run(run_id)


@router.get("/evaluation-runs/{run_id}/questions")
async def read_outcomes(
    run_id: str,
    caller: CallerDep,
    kvasir: KvasirDep,
    show: Literal["all", "problems", "changed"] = "all",
    limit: Limit = 50,
    offset: Offset = 0,
) -> AskedPage:
    """What became of each question, beside the run before."""
    await _run_set(run_id, caller, kvasir, Action.REVIEW)
    _, outcomes = await kvasir.evaluations.run(run_id)
    shown = [
        one
        for one in outcomes
        if show == "all" or (one.problem if show == "problems" else one.change in ("better", "worse"))
    ]
    page = shown[offset : offset + limit]
    return AskedPage(items=[AskedOut.model_validate(one) for one in page], total=len(shown))


def _id(text: str) -> str:
    if not is_id(text):
        raise NotFound(tell("no_eval_question"))
    return text
