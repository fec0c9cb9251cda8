"""Summaries of what was asked, posted in a channel every day or week: a kind of schedule, through the outbox.

Channels that want one (`ChannelSettings.digest`) share one schedule for each period; a schedule with a place of its own
posts there. Each summary has an id of its own, so that it is posted once, however often its job is done.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.direct import InsertInto
from core.db.tables import AnswerRow, ChannelRow, RatingRow, ScheduleRow, now
from core.errors import UserError
from core.outbound import safe_markdown
from core.quality.selection import NOT_PEOPLE
from core.texts import speaking, system_language, tell
from core.types import Place

if TYPE_CHECKING:
    from core.app import Kvasir
    from core.work.jobs import Job

logger = logging.getLogger(__name__)

KIND: Final = "digest"
BY: Final = "system"
"""Who made the schedules that serve `ChannelSettings.digest`."""
_NAMES: Final = uuid.UUID("5f1d3c0e-6b5b-4f63-9d56-0d1f6e1f5a51")
_CRONS: Final[Mapping[str, str]] = {"daily": "0 9 * * *", "weekly": "0 9 * * mon"}
_PERIODS: Final[Mapping[str, timedelta]] = {"daily": timedelta(days=1), "weekly": timedelta(days=7)}
_MOST_SHOWN: Final = 5
_LONGEST_QUESTION: Final = 200

Period = Literal["daily", "weekly"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One summary."""

    place: Place
    period: Period
    everything: bool = False
    """About all that was asked, not only in this place."""
    unanswered: bool = True
    down: bool = True
    """Show questions whose answers were rated 👎."""


async def run(kvasir: Kvasir, job: Job) -> str:
    """The job `digest`: put the summaries that are due into the outbox; gives what came of it in one sentence.

    Raises UserError where its settings name no place or period.
    """
    settings = dict(job.payload.get("settings") or {})
    period = str(settings.get("period") or "daily")
    if period not in _PERIODS:
        raise UserError(tell("channel_no_digest", name=period[:40], there=", ".join(_PERIODS)))
    shown = {name: bool(settings.get(name, True)) for name in ("unanswered", "down", "everything")}
    if named := str(settings.get("place") or ""):
        wanted = [Wanted(_place(named), period, **shown)]  # type: ignore[arg-type]  # looked up just above
    else:
        shown["everything"] = False
        wanted = [Wanted(place, period, **shown) for place in await _places(kvasir, period)]  # type: ignore[arg-type]
    run_id = str(job.payload.get("run") or job.id)
    posted = 0
    for one in wanted:
        posted += await post(kvasir, one, run_id)
    return tell("digest_posted", posted=posted, quiet=len(wanted) - posted)


async def post(kvasir: Kvasir, wanted: Wanted, run_id: str, at: datetime | None = None) -> bool:
    """Put one summary into the outbox; False where nothing was asked, or this run has done so before."""
    text = await _text(kvasir, wanted, at or now())
    if not text:
        return False
    place = wanted.place
    name = f"{run_id}\n{wanted.period}\n{place.platform}\n{place.workspace}\n{place.channel}"
    return bool(await kvasir.outbox.add(place, text, "digest", id=uuid.uuid5(_NAMES, name).hex))


async def ensure(session: AsyncSession, period: str, insert: InsertInto) -> None:
    """Have the schedule that serves the channels with this period; it may be changed and turned off, as all may."""
    row = {
        "id": uuid.uuid5(_NAMES, period).hex,
        "name": tell(f"digest_schedule_{period}"),
        "kind": KIND,
        "target": "",
        "settings": {"period": period, "place": "", "everything": False, "unanswered": True, "down": True},
        "cron": _CRONS[period],
        "timezone": _timezone(),
        "enabled": True,
        "created_by": BY,
    }
    await session.execute(insert(ScheduleRow).values(row).on_conflict_do_nothing())


async def ensure_wanted(kvasir: Kvasir) -> None:
    """Have the schedules that channels want by now."""
    async with kvasir.db.read() as session:
        wanted = set(await session.scalars(select(ChannelRow.digest).where(ChannelRow.digest.in_(_CRONS)).distinct()))
    if wanted:
        async with kvasir.db.session() as session:
            for period in sorted(filter(None, wanted)):
                await ensure(session, period, kvasir.db.insert)


async def _places(kvasir: Kvasir, period: str) -> Sequence[Place]:
    """Channels that were set to have one."""
    places = await kvasir.channels.list()
    return [one.place for one in places if one.place.channel and one.values.get("digest") == period]


def _place(named: str) -> Place:
    """Of `platform:workspace:channel`. Raises UserError."""
    platform, *rest = named.split(":", 2)
    if len(rest) < 2 or not platform or not rest[1].strip():
        raise UserError(tell("digest_bad_place", place=named[:100]))
    return Place(platform, *rest)


def _timezone() -> str:
    """That of this machine, by its name."""
    from tzlocal import get_localzone_name  # with APScheduler; it reads files

    try:
        return str(get_localzone_name() or "UTC")
    except (LookupError, OSError, ValueError):
        return "UTC"


async def _text(kvasir: Kvasir, wanted: Wanted, at: datetime) -> str:
    """CommonMark; empty where nothing was asked."""
    place = wanted.place
    asked: list[Any] = [AnswerRow.created_at >= at - _PERIODS[wanted.period], AnswerRow.state == "complete"]
    if wanted.everything:
        asked.append(AnswerRow.platform.not_in(NOT_PEOPLE))
    else:
        asked += [AnswerRow.platform == place.platform, AnswerRow.workspace == place.workspace,
                  AnswerRow.channel == place.channel]  # fmt: skip
    async with kvasir.db.read() as session:
        counts = select(AnswerRow.answered, func.count()).where(*asked).group_by(AnswerRow.answered)
        answered: dict[bool, int] = dict(iter(await session.execute(counts)))
        votes = (
            select(RatingRow.value, func.count())
            .join(AnswerRow, AnswerRow.id == RatingRow.answer_id)
            .where(*asked)
            .group_by(RatingRow.value)
        )
        rated: dict[int, int] = dict(iter(await session.execute(votes)))
        latest = select(AnswerRow.question).where(*asked).order_by(AnswerRow.created_at.desc()).limit(_MOST_SHOWN)
        lists: dict[str, Sequence[str]] = {}
        if wanted.unanswered:
            lists["digest_unanswered"] = list(await session.scalars(latest.where(AnswerRow.answered.is_(False))))
        if wanted.down:
            disliked = select(RatingRow.answer_id).where(RatingRow.value < 0)
            lists["digest_down"] = list(await session.scalars(latest.where(AnswerRow.id.in_(disliked))))
    if not answered:
        return ""
    language = (await kvasir.channels.get(place)).language or kvasir.settings.language
    with speaking(system_language() if language == "auto" else language):
        return _written(wanted, answered, rated, lists)


def _written(
    wanted: Wanted, answered: Mapping[bool, int], rated: Mapping[int, int], lists: Mapping[str, Sequence[str]]
) -> str:
    scope = "all" if wanted.everything else "title"
    parts = [
        f"**{tell(f'digest_{scope}_{wanted.period}')}**",
        tell(
            "digest_counts", asked=sum(answered.values()), answered=answered.get(True, 0),
            up=rated.get(1, 0), down=rated.get(-1, 0),
        ),
    ]  # fmt: skip
    for key, questions in lists.items():
        if questions:
            parts.append(f"{tell(key)}\n\n" + "\n".join(f"- {_line(question)}" for question in questions))
    return "\n\n".join(parts)


def _line(question: str) -> str:
    return " ".join(safe_markdown(question[:_LONGEST_QUESTION]).split())
