"""One deadline for many waits."""

from __future__ import annotations

import asyncio

import pytest

from core.deadline import Deadline

pytestmark = pytest.mark.anyio


class Late(Exception):
    pass


async def test_what_is_in_time_is_not_touched() -> None:
    deadline = Deadline(60, Late())
    assert [await deadline.wait(asyncio.sleep(0, number)) for number in range(3)] == [0, 1, 2]
    with pytest.raises(TimeoutError, match="of its own"):
        await deadline.wait(failing())
    deadline.close()


async def failing() -> None:
    raise TimeoutError("of its own")


async def test_what_is_late_is_cancelled_and_so_is_what_comes_after() -> None:
    deadline, ended = Deadline(0.01, Late()), []

    async def work(name: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(name)

    await deadline.wait(asyncio.sleep(0))
    for name in ("first", "second"):
        with pytest.raises(Late):
            await deadline.wait(work(name))
    assert ended == ["first", "second"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_between_its_waits_it_disturbs_nobody() -> None:
    deadline = Deadline(0.01, Late())
    await deadline.wait(asyncio.sleep(0))
    await asyncio.sleep(0.03)
    deadline.close()


async def test_who_is_cancelled_by_others_stays_cancelled() -> None:
    deadline = Deadline(0.01, Late())
    task = asyncio.create_task(deadline.wait(asyncio.sleep(60)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    over = asyncio.create_task(both(deadline))
    await asyncio.wait([over], timeout=5)
    assert over.cancelled()
    deadline.close()


async def both(deadline: Deadline) -> None:
    """Cancelled from outside in the very moment the time is over."""
    task = asyncio.current_task()
    assert task is not None
    await asyncio.sleep(0.03)
    asyncio.get_running_loop().call_soon(task.cancel)
    await deadline.wait(asyncio.sleep(60))


async def test_it_can_be_moved_both_ways() -> None:
    late, soon = Deadline(0.02, Late()), Deadline(60, Late())
    late.move(60)
    await late.wait(asyncio.sleep(0.05))
    assert not late.is_over
    soon.move(0.01)
    with pytest.raises(Late):
        await soon.wait(asyncio.sleep(60))
    soon.move(60)  # what came in time after all begins anew
    await soon.wait(asyncio.sleep(0.02))
    assert not soon.is_over
    late.close()
    soon.close()
