"""Text straight from a language model, without any knowledge base; nothing of it is kept."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from core.deadline import Deadline
from core.errors import EngineUnavailable, KvasirError, NotFound, TooLarge
from core.ports import Engine
from core.settings import AnswerSettings
from core.texts import spoken, tell
from core.types import Ended, Prompt, Queued, Sampling, Turn

_PATIENCE: Final = 4
"""How many times its limit a model may say: tokens are counted piece by piece, and on the high side."""


@dataclass(frozen=True, slots=True)
class Completed:
    """Last event of every completion."""

    reason: Literal["stop", "length"]
    """`length`: it reached its limit, or Kvasir cut it short since it did not keep to that."""
    prompt_tokens: int
    """As its server counts, else as the engine does, which may be an estimate; so is the next."""
    completion_tokens: int


class Completions:
    """The language models that the settings make usable, and what they say to a list of messages."""

    def __init__(
        self,
        engines: Callable[[str], Awaitable[Engine]],
        names: Callable[[], Sequence[str]],
        settings: AnswerSettings,
    ) -> None:
        """`names` of all engines, the one that writes answers first."""
        self._engines = engines
        self._names = names
        self._settings = settings

    async def models(self) -> list[Engine]:
        """Those that can be asked as things are set; the one that writes answers first."""
        found = []
        for name in self._names():
            try:
                engine = await self._engines(name)
            except KvasirError:  # not set up; whoever asks for it by name hears that it is not there
                continue
            if engine.info.is_language_model:
                found.append(engine)
        return found

    async def model(self, name: str) -> Engine:
        """The engine of that name, or that runs the model of that name. Raises NotFound."""
        found = await self.models()
        for engine in found:
            if engine.info.name == name:
                return engine
        for engine in found:
            if engine.info.model == name:
                return engine
        raise NotFound(tell("no_such_model", name=name))

    async def complete(
        self, engine: Engine, turns: Sequence[Turn], sampling: Sampling | None = None
    ) -> AsyncGenerator[str | Queued | Completed, None]:
        """Where it waits, the model's words as they come, then Completed. Closing it cancels everything behind it.

        Raises TooLarge where the messages cannot fit the model, EngineUnavailable where it fails.
        """
        info, counted = engine.info, sum(engine.count_tokens(turn.text) for turn in turns)
        if counted > info.context_size:
            raise TooLarge(tell("messages_long", model=info.model or info.name, most=info.context_size))
        sampling = sampling or Sampling(self._settings.max_tokens, self._settings.temperature)
        question = next((turn.text for turn in reversed(turns) if turn.role == "user"), "")
        heard: list[Ended] = []
        said = engine.stream(Prompt(tuple(turns), question, (), spoken(), on_end=heard.append), sampling)
        seconds = self._settings.timeout_seconds
        deadline = Deadline(seconds, EngineUnavailable(tell("answer_timeout", seconds=seconds)))
        pieces: list[str] = []
        tokens, is_too_long = 0, False
        try:
            while not is_too_long and (piece := await deadline.wait(anext(said, None))) is not None:
                yield piece
                if isinstance(piece, Queued):
                    continue
                pieces.append(piece)
                tokens += engine.count_tokens(piece)
                is_too_long = tokens > _PATIENCE * sampling.max_tokens and not info.is_scripted
        finally:
            deadline.close()
            close = getattr(said, "aclose", None)
            if close is not None:
                await close()
        ended = heard[-1] if heard else Ended()
        yield Completed(
            "length" if is_too_long or ended.reason == "length" else "stop",
            counted if ended.prompt_tokens is None else ended.prompt_tokens,
            engine.count_tokens("".join(pieces)) if ended.answer_tokens is None else ended.answer_tokens,
        )
