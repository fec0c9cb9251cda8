"""Engines whose model runs in a worker (`core/serving`): of this machine, or elsewhere by its address."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from tokenizers import Tokenizer

from core.engines.openai import OpenAIEngine
from core.errors import ConfigError, EngineBroke, EngineUnavailable
from core.inference import sections
from core.ports import EngineInfo, ProcessState
from core.serving.client import Address
from core.serving.memory import cache_bytes, weight_bytes
from core.serving.plan import Plan, plan_of
from core.serving.workers import RunningWorker, worker_of
from core.settings import OpenAISettings, Settings
from core.texts import say, spoken, tell
from core.types import Prompt, Queued, Sampling

logger = logging.getLogger(__name__)

Progress = Callable[[str, float], None]

_ATTEMPTS: Final = 3
"""Processes that a question may see the end of."""
_SUSPECT_SECONDS: Final = 10.0
"""After which a question that is asked again is not what ended the process, as a rule."""
_EXIT_SECONDS: Final = 3.0
"""In which a process whose connection broke is known to have ended."""
_SILENCE: Final = 30.0
"""Beyond `stall_seconds`: the supervisor is to be the first to notice."""
_READY_SECONDS: Final = 120.0
"""For which a question waits while a fresh process loads the model; then another engine may answer."""
_LONGEST_WAIT: Final = 3600.0
_RETRIED: Final = frozenset({429})
"""By the client: when a worker goes away, we know better what to do."""


async def open_local(
    adapter: str,
    settings: Settings,
    progress: Progress,
    *,
    driver: str = "",
    memory: int | None = None,
    on_gpu: bool = False,
) -> LocalEngine:
    """The engine of an adapter, its model loaded. Raises EngineUnavailable or ConfigError where it cannot be.

    `memory`: bytes that the model takes, where the caller knows better than its files do; `on_gpu`: of the cards'.
    """
    if not sections.is_set_up(settings, "engine", adapter):
        raise ConfigError(tell("worker_no_model", adapter=adapter))
    if memory is None:
        paths = sections.paths_of(settings, "engine", adapter)
        tokens = int(sections.value_of(settings, "engine", adapter, "context_size") or 0)
        memory = await asyncio.to_thread(_memory, paths, tokens)
    plan = plan_of(settings, "engine", adapter, driver=driver, memory=memory, on_gpu=on_gpu)
    engine = LocalEngine(plan, worker_of(plan, progress))
    try:
        await engine.open()
    except BaseException:
        await engine.close()
        raise
    return engine


class LocalEngine:
    """Asks a worker as any server. A question whose text has not begun is asked again of the next process."""

    def __init__(self, plan: Plan, running: RunningWorker) -> None:
        self._plan = plan
        self._worker = running
        self._client: OpenAIEngine | None = None
        self._asked: Address | None = None
        self._suspects = asyncio.Lock()
        self._tokenizer: Tokenizer | None = None
        self._closing = AsyncExitStack()

    async def open(self) -> None:
        trouble = await self._worker.open()
        if trouble is not None:
            raise EngineUnavailable(trouble.say(spoken()))
        self._tokenizer = await asyncio.to_thread(_tokenizer, self._plan)

    @property
    def info(self) -> EngineInfo:
        card = self._worker.card
        return EngineInfo(
            self._plan.kind,
            card.model if card else "",
            is_language_model=True,
            context_size=card.context_size if card else 0,
        )

    @property
    def process(self) -> ProcessState:
        return self._worker.state

    def revive(self) -> None:
        self._worker.revive()

    def count_tokens(self, text: str) -> int:
        """As the model counts, where its tokenizer lies beside it; else an estimate on the high side."""
        if self._tokenizer is not None:
            return len(self._tokenizer.encode(text, add_special_tokens=False).ids)
        return self._asking().count_tokens(text)

    async def stream(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[str | Queued, None]:
        """The answer's text piece by piece.

        A process that ends takes all its questions with it, and one of them may be what ended it: they are asked again
        one after the other, so that it is alone next time; no other waits longer for one than it may be to blame.
        """
        clock = asyncio.get_running_loop()
        for attempt in range(1, _ATTEMPTS + 1):
            trouble = await self._worker.ready(_READY_SECONDS)
            if trouble is not None:
                raise EngineUnavailable(trouble.say(prompt.language))
            life, has_begun = self._worker.life, False
            turn = AsyncExitStack()
            try:
                if attempt > 1:
                    await turn.enter_async_context(self._suspects)
                    life = self._worker.life
                cleared_at = clock.time() + _SUSPECT_SECONDS
                async with aclosing(self._asking().stream(prompt, sampling)) as pieces:
                    async for text in pieces:
                        has_begun = has_begun or isinstance(text, str)
                        if clock.time() > cleared_at:
                            await turn.aclose()
                        yield text
                return
            except EngineBroke as error:
                why = await self._worker.ended(life, _EXIT_SECONDS)
                told = why.say(prompt.language) if why else str(error)
                if has_begun:
                    raise EngineUnavailable(say("worker_interrupted", prompt.language, why=told)) from error
                if attempt == _ATTEMPTS:
                    values = {"times": attempt, "why": told}
                    raise EngineUnavailable(say("worker_over_question", prompt.language, **values)) from error
                logger.info("asking again: %s", told)
            finally:
                await turn.aclose()

    async def health(self) -> str:
        """Empty when it can be asked."""
        trouble = await self._worker.ready(0)
        if trouble is not None:
            return trouble.say(spoken())
        return await self._asking().health()

    async def close(self) -> None:
        try:
            await self._worker.close()
        finally:
            await self._closing.aclose()

    def _asking(self) -> OpenAIEngine:
        """The client of where the worker is now."""
        address = self._worker.address
        if self._client is None or self._asked != address:
            card = self._worker.card
            settings = OpenAISettings(
                base_url=f"{address.base}/v1",
                api_key=SecretStr(address.key),
                model=card.model if card else "",
                provider="vllm",
                context_size=max(1024, card.context_size if card else 0),
                first_token_timeout_seconds=_LONGEST_WAIT,
                token_timeout_seconds=self._plan.stall_seconds + _SILENCE,
            )
            self._client, self._asked = (
                OpenAIEngine(settings, transport=address.transport(), retried=_RETRIED, is_ours=True),
                address,
            )
            self._closing.push_async_callback(self._client.close)
        return self._client


def _memory(paths: list[Path], tokens: int) -> int:
    """Bytes of the weights, and of a cache for so many tokens where the model's folder says how large that is."""
    return sum(weight_bytes(path) + cache_bytes(path, tokens) for path in paths)


def _tokenizer(plan: Plan) -> Tokenizer | None:
    path = Path(str(plan.values.get("model_path") or "")) / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path)) if path.is_file() else None
    except Exception:  # noqa: BLE001  the library raises nothing more exact; counting is only a little worse without
        logger.warning("%s cannot be read; tokens are estimated", path)
        return None
