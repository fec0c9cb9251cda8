"""Who has which part of llama.cpp's cache: answers in work, and the beginnings of earlier ones for whom they suit.

Plain counting, no library: a sequence of the cache is a seat, and a cell holds one token of one seat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

_WORTH_COPYING: Final = 32


@dataclass(slots=True)
class Seat:
    number: int
    tokens: list[int] = field(default_factory=list)
    """What the cache holds of it."""
    reserved: int = 0
    """Cells that its answer may still come to need, with those it has; 0: nobody sits there."""
    left: int = 0
    """When somebody last rose from it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a new answer goes, and what has to be done before."""

    seat: Seat
    keep: int
    """Tokens of its prompt that are in the cache already."""
    copy_from: Seat | None = None
    """They are there, in another seat."""
    clear: tuple[Seat, ...] = ()
    """Seats whose beginnings make room."""


class Cells:
    def __init__(self, seats: int, cells: int) -> None:
        self.seats = [Seat(number) for number in range(seats)]
        self._cells = cells
        self._clock = 0

    def place(self, prompt: Sequence[int], need: int, *, can_keep: bool) -> Place | None:
        """None while there is no room; `need`: cells of prompt and answer together."""
        free = [seat for seat in self.seats if not seat.reserved]
        if not free or need > self._cells - sum(seat.reserved for seat in self.seats):
            return None
        known = {seat.number: alike(seat.tokens, prompt[:-1]) if can_keep else 0 for seat in self.seats}
        seat = max(free, key=lambda one: (known[one.number], not one.tokens, -one.left))
        best = max(self.seats, key=lambda one: known[one.number])
        target = self._copied_to(best, seat, known, need)
        if target is not None:
            return Place(target, known[best.number], best, self._cleared(target, need, best))
        return Place(seat, known[seat.number], None, self._cleared(seat, need))

    def _copied_to(self, best: Seat, seat: Seat, known: Mapping[int, int], need: int) -> Seat | None:
        """Where what `best` has is worth being copied to; None: better go on in `seat`."""
        free = [one for one in self.seats if not one.reserved and one is not best]
        if best.reserved:  # its own answer goes on
            gain = known[best.number] - known[seat.number]
            return min(free, key=lambda one: (len(one.tokens), one.left)) if gain >= _WORTH_COPYING else None
        empty = next((one for one in free if not one.tokens), None)
        is_much = _WORTH_COPYING <= known[best.number] < len(best.tokens) // 2  # most of it may be wanted again
        return empty if is_much and self._taken(need) <= self._cells else None

    def _taken(self, need: int) -> int:
        return need + sum(seat.reserved or len(seat.tokens) for seat in self.seats)

    def take(self, place: Place, need: int) -> None:
        for seat in place.clear:
            seat.tokens.clear()
        place.seat.tokens = list((place.copy_from or place.seat).tokens[: place.keep])
        place.seat.reserved = need

    def leave(self, seat: Seat) -> None:
        self._clock += 1
        seat.reserved, seat.left = 0, self._clock

    def _cleared(self, seat: Seat, need: int, source: Seat | None = None) -> tuple[Seat, ...]:
        """The longest unused go first, until there is room for all that may come."""
        over = self._taken(need) - len(seat.tokens) - self._cells
        cleared: list[Seat] = []
        for one in sorted(self.seats, key=lambda one: one.left):
            if over > 0 and one.tokens and not one.reserved and one is not seat and one is not source:
                cleared.append(one)
                over -= len(one.tokens)
        return tuple(cleared)


def alike(left: Sequence[int], right: Sequence[int]) -> int:
    """Tokens that both begin with."""
    most = min(len(left), len(right))
    return next((number for number in range(most) if left[number] != right[number]), most)
