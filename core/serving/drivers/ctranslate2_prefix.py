"""Which beginning of a prompt is worth keeping: CTranslate2 remembers the state after one, and never forgets it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

_REMEMBERED: Final = 16
_SHARED_BY: Final = 4
"""Earlier prompts that must begin alike: instructions stay, and one person's conversation goes by."""
_SHORTEST: Final = 64
_MOST: Final = 4


class Beginnings:
    """The beginnings that are kept, few, since they stay until the model is unloaded."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, ...]] = []
        self._last: deque[tuple[int, ...]] = deque(maxlen=_REMEMBERED)

    def split(self, prompt: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        """(what is to be kept of this prompt, how many tokens of it are known already); at least one token is left."""
        shared = sorted((common(prompt[:-1], former) for former in self._last), reverse=True)
        self._last.append(prompt)
        known = max((one for one in self._kept if prompt[:-1][: len(one)] == one), key=len, default=())
        worth = shared[_SHARED_BY - 1] if len(shared) >= _SHARED_BY else 0
        if worth >= max(_SHORTEST, 2 * len(known)) and len(self._kept) < _MOST:
            self._kept.append(prompt[:worth])
            return prompt[:worth], 0
        return known, len(known)


def common(left: Sequence[int], right: Sequence[int]) -> int:
    """Tokens that both begin with."""
    pairs = zip(left, right, strict=False)
    return next((number for number, (one, other) in enumerate(pairs) if one != other), min(len(left), len(right)))
