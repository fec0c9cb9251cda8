"""What the caller thinks of their answers."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from admin.deps import CallerDep, KvasirDep, may_ask
from admin.schemas import Rate, RatingOut

router = APIRouter(prefix="/answers", dependencies=[Depends(may_ask)])


@router.put("/{answer_id}/rating")
async def rate(answer_id: str, given: Rate, caller: CallerDep, kvasir: KvasirDep) -> RatingOut:
    """Keep the caller's vote in the place of an earlier one."""
    await caller.own_answer(answer_id)
    rating = await kvasir.feedback.rate(answer_id, caller.person.key, given.value, given.reason)
    return RatingOut(value=rating.value, reason=rating.reason)


@router.delete("/{answer_id}/rating", status_code=204)
async def withdraw(answer_id: str, caller: CallerDep, kvasir: KvasirDep) -> None:
    """Take the own rating of an answer back."""
    await caller.own_answer(answer_id)
    await kvasir.feedback.withdraw(answer_id, caller.person.key)
