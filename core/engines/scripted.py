"""The engine for tests and demonstrations: it says what the settings say, at their pace, and fails where they want."""

from __future__ import annotations

import asyncio
import random
import re
import sys
from collections.abc import AsyncGenerator, Iterator
from itertools import islice
from typing import Final

from core.answering.prompt import filled
from core.engines.local import Progress, open_local
from core.errors import EngineUnavailable
from core.ports import Engine, EngineInfo
from core.settings import ScriptedSettings, Settings
from core.texts import say
from core.types import Prompt, Sampling

_TOKEN: Final = re.compile(r"\s*[\u2e80-\uffef]|\s*[^\s\u2e80-\uffef]+|\s+")
"""A word with the blanks before it, or one East Asian character."""
_BREATH: Final = 32
"""Tokens after which an engine that never waits lets others work."""


async def open_engine(settings: Settings, *, progress: Progress | None = None, **_: object) -> Engine:
    """It, in this process or in a worker. Raises EngineUnavailable where that does not start."""
    if settings.scripted.process:
        return await open_local("scripted", settings, progress or (lambda _stage, _done: None))
    return ScriptedEngine(settings.scripted)


class ScriptedEngine:
    info = EngineInfo("scripted", "scripted", is_language_model=True, context_size=1_000_000, is_scripted=True)

    def __init__(self, settings: ScriptedSettings) -> None:
        self._settings = settings

    async def stream(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[str, None]:  # noqa: ARG002  nothing is drawn
        """The reply token by token. A question without passages is to be rewritten; it comes back as it is, at once."""
        if not prompt.passages:
            yield " ".join(prompt.question.split())
            return
        clock = asyncio.get_running_loop()
        due = clock.time() + self._settings.first_token_seconds
        for number, token in enumerate(self._tokens(prompt)):
            await self._go_on(number, prompt)
            wait = due - clock.time()  # by the clock, so that a late token makes none of those after it late
            if wait > 0 or number % _BREATH == 0:
                await asyncio.sleep(max(wait, 0))
            yield token
            due += self._gap(number)
        await self._go_on(sys.maxsize, prompt)

    def count_tokens(self, text: str) -> int:
        return sum(1 for _ in _TOKEN.finditer(text))

    async def health(self) -> str:
        return ""

    async def close(self) -> None:
        return None

    def _tokens(self, prompt: Prompt) -> Iterator[str]:
        reply = self._settings.reply or say("scripted_reply", prompt.language)
        text = filled(reply, {"question": prompt.question, "n": str(len(prompt.passages))})
        tokens = _TOKEN.findall(text)
        return islice(_repeated(tokens), self._settings.tokens) if self._settings.tokens else iter(tokens)

    async def _go_on(self, said: int, prompt: Prompt) -> None:
        """Fail, or never return, where the settings want it after so many tokens."""
        if 0 < self._settings.fail_after <= said:
            raise EngineUnavailable(say("scripted_failed", prompt.language))
        if 0 < self._settings.hang_after <= said:
            await asyncio.get_running_loop().create_future()  # until whoever reads gives up

    def _gap(self, number: int) -> float:
        gap, seed = self._settings.token_seconds, self._settings.seed
        return gap * random.Random(seed * 1_000_003 + number).uniform(0.5, 1.5) if seed and gap else gap  # noqa: S311


def _repeated(tokens: list[str]) -> Iterator[str]:
    """The tokens again and again, a paragraph each time."""
    yield from tokens
    while tokens:
        yield f"\n\n{tokens[0].lstrip()}"
        yield from tokens[1:]
