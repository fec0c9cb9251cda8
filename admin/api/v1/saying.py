"""What is said to a list of messages, by a language model or from knowledge bases, in pieces with an end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from admin.api.v1.models import KB, asked_kbs
from admin.api.v1.schemas import Asked, Message
from admin.chat.platform import source_out
from admin.deps import Caller
from core.answering import options
from core.answering.completion import Completed
from core.app import Kvasir
from core.errors import TooLarge
from core.ports import Engine
from core.texts import spoken, tell
from core.types import AnswerOptions, Delta, Finished, Language, PastTurn, Question, Queued, Sampling, Turn

PLATFORM: Final = "api"
_SOURCE: Final = {"n", "document", "title", "locator", "score", "text"}


@dataclass(frozen=True, slots=True)
class End:
    """Comes last."""

    reason: str
    prompt_tokens: int
    completion_tokens: int
    kvasir: dict[str, Any] | None = None
    """Sources and more of an answer from knowledge bases."""
    text: str | None = None
    """The whole as it is recorded, where that may differ from the pieces."""


Saying: TypeAlias = "AsyncGenerator[str | Queued | End, None]"


async def saying(given: Asked, messages: Sequence[Message], caller: Caller, kvasir: Kvasir) -> Saying:
    """The pieces; nothing is asked before the first is waited for. Raises UserError where it cannot be asked."""
    if given.model.startswith(KB):
        kbs = await asked_kbs(given.model, caller)
        most = kvasir.settings.web.max_question_chars
        if len(messages[-1].content) > most:
            raise TooLarge(tell("question_long", most=most))
        question = Question(
            messages[-1].content, kbs, caller.person.key, platform=PLATFORM, history=past(messages[:-1]),
            options=AnswerOptions(samplers=given.samplers),
        )  # fmt: skip
        return _answered(question, kvasir, sum(tokens_of(message.content) for message in messages))
    engine = await kvasir.completions.model(given.model)
    sampling = options.sampling(kvasir.settings, (), given.samplers)
    return _said(kvasir, engine, [Turn(message.role, message.content) for message in messages], sampling)


def past(messages: Sequence[Message]) -> tuple[PastTurn, ...]:
    """What was asked and answered before; instructions are left to Kvasir, whose answers must cite."""
    turns, asked = [], ""
    for message in messages:
        if message.role == "user":
            asked = message.content
        elif message.role == "assistant" and asked:
            turns.append(PastTurn(asked, asked, message.content, answered=bool(message.content.strip())))
            asked = ""
    return tuple(turns)


async def _said(kvasir: Kvasir, engine: Engine, turns: Sequence[Turn], sampling: Sampling) -> Saying:
    async with aclosing(kvasir.completions.complete(engine, turns, sampling)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Completed):
                yield End(piece.reason, piece.prompt_tokens, piece.completion_tokens)
            else:
                yield piece


async def _answered(question: Question, kvasir: Kvasir, prompt_tokens: int) -> Saying:
    language = question.language or spoken()
    async with aclosing(kvasir.answers.answer(question)) as events:
        async for event in events:
            if isinstance(event, Queued):
                yield event
            elif isinstance(event, Delta):
                yield event.text
            elif isinstance(event, Finished):
                told = _told(event, language)
                yield End("stop", prompt_tokens, tokens_of(event.text), told, event.text)


def _told(finished: Finished, language: Language) -> dict[str, Any]:
    return {
        "answered": finished.answered,
        "answer_id": finished.answer_id,
        "sources": [source_out(source, language).model_dump(include=_SOURCE) for source in finished.sources],
        "notice": finished.notice,
    }


def tokens_of(text: str) -> int:
    """How many tokens the text has, roughly: one for four ASCII characters, one for every other."""
    plain = len(text.encode("ascii", "ignore"))
    return len(text) - plain + -(-plain // 4)
