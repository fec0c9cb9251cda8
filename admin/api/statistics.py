"""Figures of what was asked, and how the parts of Kvasir are: what the dashboard shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, Field

from admin.deps import CallerDep, KvasirDep
from admin.schemas import Out, ShortText
from core import health
from core.access import Action
from core.db.tables import now
from core.quality.figures import Item
from core.quality.selection import Selection

Moment = Annotated[AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), le=datetime(2200, 1, 1, tzinfo=UTC))]
_USUAL = timedelta(days=30)


class LatencyOut(Out):
    """Milliseconds."""

    p50: int
    p95: int


class FiguresOut(Out):
    questions: int
    answered: int
    refused: int
    failed: int
    stopped: int
    up: int
    down: int
    first_token: LatencyOut | None
    total: LatencyOut | None
    prompt_tokens: int
    answer_tokens: int


class PointOut(Out):
    at: datetime
    figures: FiguresOut


class OverviewOut(Out):
    since: datetime
    until: datetime
    step: str
    """hour, day, or week."""
    totals: FiguresOut
    before: FiguresOut
    """Of the time just before, as long."""
    points: Sequence[PointOut]


class ItemOut(Out):
    key: Mapping[str, str]
    """The parameters that narrow the figures down to it."""
    name: str
    figures: FiguresOut


class Breakdown(Out):
    platform: Sequence[ItemOut]
    channel: Sequence[ItemOut]
    kb: Sequence[ItemOut]
    model: Sequence[ItemOut]


class UnansweredOut(Out):
    question: str
    count: int
    last_at: datetime
    answer_id: str
    kbs: Sequence[str]


class UnansweredPage(Out):
    items: Sequence[UnansweredOut]
    total: int
    """Different questions."""


class ChannelChoice(Out):
    platform: str
    workspace: str
    channel: str
    name: str


class ModelChoice(Out):
    engine: str
    model: str


class ChoicesOut(Out):
    platforms: Sequence[str]
    channels: Sequence[ChannelChoice]
    kbs: Sequence[str]
    models: Sequence[ModelChoice]


class PartOut(Out):
    kind: str
    """database, store, engine, embedder, platform, queue, or schedules."""
    name: str
    state: str
    """good, busy, warn, bad, or off."""
    text: str
    last_at: datetime | None


class Parts(Out):
    items: Sequence[PartOut]


async def reviewer(caller: CallerDep) -> None:
    """Raises NotAllowed."""
    caller.require(Action.REVIEW)


async def chosen(
    caller: CallerDep,
    since: Moment | None = None,
    until: Moment | None = None,
    platform: ShortText | None = None,
    workspace: ShortText | None = None,
    channel: ShortText | None = None,
    kb: ShortText | None = None,
    engine: ShortText | None = None,
    model: ShortText | None = None,
) -> Selection:
    """The answers that the query names, as far as the caller may see them."""
    return Selection(
        since=since,
        until=until,
        platform=platform,
        workspace=workspace,
        channel=channel,
        kb=kb,
        engine=engine,
        model=model,
        allowed=await caller.seen_kbs(Action.REVIEW),
    )


Chosen = Annotated[Selection, Depends(chosen)]


def _bounded(selection: Selection) -> Selection:
    """With a beginning and an end: now, and thirty days before."""
    until = selection.until or now()
    return selection.within(selection.since or until - _USUAL, until)


router = APIRouter(prefix="/statistics", tags=["statistics"], dependencies=[Depends(reviewer)])


@router.get("")
async def read_overview(kvasir: KvasirDep, given: Chosen, zone: ShortText = "UTC") -> OverviewOut:
    """Totals, those of the time before, and the figures over time; days begin at midnight of `zone`."""
    selection = _bounded(given)
    found = await kvasir.statistics.overview(selection, zone)
    return OverviewOut.model_validate(
        {
            "since": selection.since,
            "until": selection.until,
            "step": found.step,
            "totals": found.totals,
            "before": found.before,
            "points": found.points,
        }
    )


@router.get("/by")
async def read_breakdown(kvasir: KvasirDep, given: Chosen) -> Breakdown:
    """The figures of each platform, channel, knowledge base and model; the twenty asked most of each."""
    return Breakdown.model_validate(await kvasir.statistics.by(_bounded(given)))


@router.get("/unanswered")
async def read_unanswered(
    kvasir: KvasirDep, given: Chosen, limit: Annotated[int, Query(ge=1, le=100)] = 10
) -> UnansweredPage:
    """The questions asked most that could not be answered."""
    items, total = await kvasir.statistics.unanswered(_bounded(given), limit)
    return UnansweredPage(items=[UnansweredOut.model_validate(item) for item in items], total=total)


@router.get("/choices")
async def read_choices(kvasir: KvasirDep, given: Chosen) -> ChoicesOut:
    """What there is to narrow figures down to."""
    found = await kvasir.statistics.choices(_bounded(given))
    return ChoicesOut(
        platforms=found.platforms,
        channels=[_channel(item) for item in found.channels],
        kbs=found.kbs,
        models=[ModelChoice(engine=engine, model=model) for engine, model in found.models],
    )


@router.get("/parts")
async def read_parts(kvasir: KvasirDep) -> Parts:
    """How database, index, engine, embedding model, platforms, jobs and schedules are."""
    return Parts(items=[PartOut.model_validate(part) for part in await health.parts(kvasir)])


def _channel(item: Item) -> ChannelChoice:
    return ChannelChoice(**item.key, name=item.name)
