"""Makes a follow-up question stand alone, so that it can be searched for: «And in Berlin?» says nothing by itself.

`standalone` is a careful rule without a model, for English and Chinese. It touches a question only where something
shows that it leans on the one before: a pronoun, an ellipsis («what about …», «那…呢»), or nothing left to search for.
`standalone_by_engine` asks a language model and falls back on the rule.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Final

from core.answering.prompt import disarmed
from core.answering.rewrite import chinese, english
from core.errors import EngineUnavailable
from core.ports import Engine
from core.texts import text_language
from core.types import Language, PastTurn, Prompt, Queued, Sampling, Turn

logger = logging.getLogger(__name__)

_ENGINE_SECONDS: Final = 8.0
_ENGINE_TOKENS: Final = 120
_ENGINE_TURNS: Final = 3
_LONGEST: Final = 400
_LEADING_LABEL: Final = re.compile(
    r"^\s*(?:standalone |rewritten )?(?:question|问题|改写后?的?问题?)\s*[:：]\s*", re.IGNORECASE
)


def standalone(question: str, history: Sequence[PastTurn]) -> str:
    """The question as it can be understood without `history`; unchanged where it can be already."""
    text = " ".join(question.split())
    if not history or not text or len(text) > _LONGEST:
        return text
    previous = history[-1].standalone_question or history[-1].question
    rule = chinese if text_language(text) == "zh" else english
    before = chinese if text_language(previous) == "zh" else english
    topic = before.topic(previous)
    if not topic and history[-1].sources:
        topic = re.sub(r"\.\w+$", "", history[-1].sources[0].rpartition("/")[2])
    return rule.completed(text, previous if rule is before else "", topic) if topic else text


async def standalone_by_engine(
    engine: Engine, question: str, history: Sequence[PastTurn], *, seconds: float = _ENGINE_SECONDS
) -> str:
    """The same, by a language model; by the rule where the model is slow, fails, or says something else.

    Also where others wait for the model: so a question waits once, for its answer.
    """
    by_rule = standalone(question, history)
    if not history:
        return by_rule
    try:
        async with asyncio.timeout(seconds):
            said = await _said(engine, _prompt(question, history))
    except (TimeoutError, EngineUnavailable) as error:
        logger.info("a question was made standalone by the rule: %s", type(error).__name__)
        return by_rule
    return _sane(said, question) or by_rule


def _prompt(question: str, history: Sequence[PastTurn]) -> Prompt:
    language = text_language(question)
    lines = []
    for past in history[-_ENGINE_TURNS:]:
        lines += [f"Q: {disarmed(past.question)[:500]}", f"A: {disarmed(past.answer)[:500]}"]
    lines.append(f"Last Q: {disarmed(question)[:2000]}")
    turns = (Turn("system", _instructions(language)), Turn("user", "\n".join(lines)))
    return Prompt(turns, question, (), language)


@cache
def _instructions(language: Language) -> str:
    return (files("configs") / "prompts" / f"rewrite.{language}.md").read_text("utf-8").strip()


async def _said(engine: Engine, prompt: Prompt) -> str:
    text = ""
    stream = engine.stream(prompt, Sampling(max_tokens=_ENGINE_TOKENS, temperature=0.0))
    try:
        async for piece in stream:
            if isinstance(piece, Queued):
                return ""
            text += piece
            if len(text) > 4 * _LONGEST:
                break
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
    return text


def _sane(said: str, question: str) -> str:
    """What the model said if it is one line and looks like a question of such a length; else nothing."""
    text = _LEADING_LABEL.sub("", said.strip()).strip().strip("\"'“”«»`").strip()
    if not text or "\n" in text or len(text) > max(_LONGEST, 2 * len(question)):
        return ""
    return text if any(char.isalnum() for char in text) else ""
