"""A summary of what was asked in a channel, posted there every day or week for those who want it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from bots.errors import DeliveryError
from bots.platform import Messenger
from core.db.tables import AnswerRow, ConversationRow, PlatformStateRow, RatingRow, now
from core.errors import KvasirError
from core.outbound import safe_markdown
from core.texts import speaking, system_language, tell
from core.types import Place

if TYPE_CHECKING:
    from core.app import Kvasir

logger = logging.getLogger(__name__)

_HOUR: Final = 9
"""In the time of the machine."""
_MOST_SHOWN: Final = 5
_PERIODS: Final[Mapping[str, timedelta]] = {"daily": timedelta(days=1), "weekly": timedelta(days=7)}

Period = Literal["daily", "weekly"]


def schedule(kvasir: Kvasir, messengers: Sequence[Messenger]) -> AsyncIOScheduler:
    """A scheduler that posts the digests, not yet started; several processes may run one."""
    scheduler = AsyncIOScheduler()
    digests = Digests(kvasir, messengers)
    options: dict[str, Any] = {"misfire_grace_time": 3600, "coalesce": True, "max_instances": 1}
    scheduler.add_job(digests.post, CronTrigger(hour=_HOUR), args=["daily"], id="digest-daily", **options)
    scheduler.add_job(
        digests.post, CronTrigger(day_of_week="mon", hour=_HOUR), args=["weekly"], id="digest-weekly", **options
    )
    return scheduler


class Digests:
    def __init__(self, kvasir: Kvasir, messengers: Sequence[Messenger]) -> None:
        self._kvasir = kvasir
        self._messengers = {messenger.name: messenger for messenger in messengers}

    async def post(self, period: Period, at: datetime | None = None) -> int:
        """Post the digest of every channel that wants one now; gives how many. Each is posted by one process only."""
        posted = 0
        at = at or now()
        for place in await self._kvasir.channels.list():
            messenger = self._messengers.get(place.place.platform)
            if messenger is None or not place.place.channel or place.values.get("digest") != period:
                continue
            try:
                posted += await self._post_one(messenger, place.place, period, at)
            except (DeliveryError, KvasirError) as error:
                logger.warning("the digest for a channel of %s was not posted: %s", messenger.name, error)
        return posted

    async def _post_one(self, messenger: Messenger, place: Place, period: Period, at: datetime) -> bool:
        text = await self._text(place, period, at)
        if not text or not await self._is_ours(place, period, at):
            return False
        await messenger.call(place, "", text, ())
        return True

    async def _is_ours(self, place: Place, period: Period, at: datetime) -> bool:
        """Whether this process posts it: the row for the channel and the day is unique."""
        row = PlatformStateRow(
            platform=place.platform,
            workspace=f"{place.workspace}\n{place.channel}"[:255],
            key=f"digest-{period}-{at:%Y-%m-%d}",
        )
        try:
            async with self._kvasir.db.session() as session:
                session.add(row)
        except IntegrityError:
            return False
        return True

    async def _text(self, place: Place, period: Period, at: datetime) -> str:
        """CommonMark; empty where nothing was asked."""
        since = at - _PERIODS[period]
        here = select(ConversationRow.id).where(
            ConversationRow.platform == place.platform,
            ConversationRow.workspace == place.workspace,
            ConversationRow.channel == place.channel,
        )
        asked = (AnswerRow.conversation_id.in_(here), AnswerRow.created_at >= since, AnswerRow.state == "complete")
        async with self._kvasir.db.read() as session:
            counts = select(AnswerRow.answered, func.count()).where(*asked).group_by(AnswerRow.answered)
            answered = dict(iter(await session.execute(counts)))
            votes = (
                select(RatingRow.value, func.count())
                .join(AnswerRow, AnswerRow.id == RatingRow.answer_id)
                .where(*asked)
                .group_by(RatingRow.value)
            )
            rated = dict(iter(await session.execute(votes)))
            open_questions = await session.scalars(
                select(AnswerRow.question)
                .where(*asked, AnswerRow.answered.is_(False))
                .order_by(AnswerRow.created_at.desc())
                .limit(_MOST_SHOWN)
            )
            questions = list(open_questions)
        if not answered:
            return ""
        language = (await self._kvasir.channels.get(place)).language or self._kvasir.settings.language
        with speaking(system_language() if language == "auto" else language):
            said = tell(
                "digest_counts", asked=sum(answered.values()), answered=answered.get(True, 0),
                up=rated.get(1, 0), down=rated.get(-1, 0),
            )  # fmt: skip
            lines = [f"**{tell(f'digest_title_{period}')}**", said]
            if questions:
                shown = "\n".join(f"- {' '.join(safe_markdown(question).split())[:200]}" for question in questions)
                lines.append(f"{tell('digest_unanswered')}\n\n{shown}")
        return "\n\n".join(lines)
