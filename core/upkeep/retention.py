"""What was asked is kept only so long: a schedule's job deletes what is older."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from core.db.tables import AnswerRow, ConversationRow, now
from core.errors import UserError
from core.texts import tell
from core.work.jobs import Job

if TYPE_CHECKING:
    from core.app import Kvasir

EVERYWHERE = "*"
LONGEST_DAYS = 36_500


async def run(kvasir: Kvasir, job: Job) -> str:
    """Delete the answers of one platform, or of all, that are older than the settings say; conversations left empty go
    with them, and the files sent there. Says how many. Raises UserError where the settings do not say how old."""
    settings = job.payload.get("settings") or {}
    days, platform = settings.get("days"), settings.get("platform") or EVERYWHERE
    if not isinstance(days, int) or isinstance(days, bool) or not 1 <= days <= LONGEST_DAYS:
        raise UserError(tell("retention_days"))
    before = now() - timedelta(days=days)
    answers, conversations = AnswerRow.created_at < before, ConversationRow.updated_at < before
    if platform != EVERYWHERE:
        answers &= AnswerRow.platform == platform
        conversations &= ConversationRow.platform == platform

    async def follow(done: int) -> None:
        await kvasir.jobs.progress(job, done=done)

    count = await kvasir.removal.answers(answers, follow)
    gone = await kvasir.removal.empty(conversations)
    return tell("retention_done", answers=count, conversations=gone.conversations, days=days)
