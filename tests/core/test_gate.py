"""A line before something that lets only so many in."""

from __future__ import annotations

import asyncio

import pytest

from core.gate import Gate

pytestmark = pytest.mark.anyio


class Visitor:
    """Somebody who wants in, and hears at which place he waits."""

    def __init__(self, gate: Gate, person: str = "") -> None:
        self.heard: list[int] = []
        self.task = asyncio.create_task(self._enter(gate, person))

    async def _enter(self, gate: Gate, person: str) -> None:
        async for place in gate.enter(person):
            self.heard.append(place)

    @property
    def is_inside(self) -> bool:
        return self.task.done() and not self.task.cancelled()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_each_hears_of_every_step(gate: Gate) -> None:
    visitors = [Visitor(gate) for _ in range(4)]
    await settle()
    assert (gate.inside, gate.waiting) == (1, 3)
    gate.leave()
    await settle()
    gate.leave()
    await settle()
    assert [one.is_inside for one in visitors] == [True, True, True, False]
    assert [one.heard for one in visitors] == [[], [1], [2, 1], [3, 2, 1]]
    gate.leave()
    gate.leave()
    assert (gate.inside, gate.waiting) == (0, 0)
    await settle()


async def test_one_of_each_person_in_turn(gate: Gate) -> None:
    much = [Visitor(gate, "much") for _ in range(4)]
    await settle()
    little = Visitor(gate, "little")
    await settle()
    assert little.heard == [2]
    assert [one.heard[-1] for one in much[1:]] == [1, 3, 4]  # who comes with a first question goes before a third
    gate.leave()
    await settle()
    gate.leave()
    await settle()
    assert little.is_inside
    assert [one.is_inside for one in much] == [True, True, False, False]


async def test_who_goes_away_gives_the_place_up(gate: Gate) -> None:
    _, second, third, fourth = (Visitor(gate) for _ in range(4))
    await settle()
    third.task.cancel()
    await settle()
    assert (gate.waiting, fourth.heard) == (2, [3, 2])
    gate.leave()  # and who is let in at the very moment
    second.task.cancel()
    await settle()
    assert fourth.is_inside
    gate.leave()
    assert (gate.inside, gate.waiting) == (0, 0)


async def test_a_long_line_is_not_woken_at_every_step(gate: Gate) -> None:
    visitors = [Visitor(gate) for _ in range(100)]
    await settle()
    for _ in range(99):
        gate.leave()
        await settle()
    assert visitors[-1].heard == [99, 96, 64, *range(32, 0, -1)]


async def test_without_a_limit_nobody_waits() -> None:
    visitors = [Visitor(Gate(0)) for _ in range(3)]
    await settle()
    assert all(one.is_inside and not one.heard for one in visitors)


@pytest.fixture
def gate() -> Gate:
    return Gate(1)
