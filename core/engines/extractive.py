"""The engine without a language model: it quotes the sentences that answer best, each with its source."""

from __future__ import annotations

import asyncio
import logging
import re
import unicodedata
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from itertools import groupby
from typing import Final

from core.answering.fusion import known_share
from core.answering.quoting import Sentence, choose, scored_sentences
from core.errors import EmbedderUnavailable
from core.ports import Embedder, EngineInfo
from core.settings import Settings
from core.types import Prompt, Sampling

logger = logging.getLogger(__name__)

_EMBEDDED: Final = 20
"""Sentences that are compared by their vectors, the best by their words."""
_EMBED_SECONDS: Final = 2.0
_LONGEST: Final = 700
"""Characters of a quoted sentence; a text without full stops is cut."""


def _no_embedder() -> Embedder | None:
    return None


async def open_engine(
    settings: Settings, *, embedder: Callable[[], Embedder | None] = _no_embedder, **_: object
) -> ExtractiveEngine:
    """The engine of the settings; `embedder` gives the embedder of the moment, None while there is none."""
    return ExtractiveEngine(settings.answer.sentences, embedder)


class ExtractiveEngine:
    info = EngineInfo(name="extractive", model="", is_language_model=False, context_size=1_000_000)

    def __init__(self, count: int, embedder: Callable[[], Embedder | None] = _no_embedder) -> None:
        self._count = count
        self._embedder = embedder

    async def stream(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[str]:  # noqa: ARG002 - nothing is drawn
        """One block quote a passage, its sentences in their order, the best of all in bold."""
        ranked = await asyncio.to_thread(scored_sentences, prompt.question, prompt.passages, prompt.terms)
        cosines, known = await self._cosines(prompt.question, ranked[:_EMBEDDED])
        chosen = choose(ranked, cosines, known, self._count)
        for number, block in enumerate(_blocks(chosen, prompt)):
            yield f"\n\n{block}" if number else block

    def count_tokens(self, text: str) -> int:
        return len(text) // 3 + 1

    async def health(self) -> str:
        return ""

    async def close(self) -> None:
        return None

    async def _cosines(self, question: str, ranked: Sequence[Sentence]) -> tuple[Mapping[int, float], float]:
        """Similarity to the question by index, and how far it counts; nothing where vectors cannot be had in time."""
        embedder = self._embedder()
        known = known_share(embedder.info.scripts, question) if embedder else 0.0
        if embedder is None or not known or not ranked:
            return {}, 0.0
        try:
            async with asyncio.timeout(_EMBED_SECONDS):
                vector = await embedder.embed_query(question)
                rows = await embedder.embed_documents([sentence.text for sentence in ranked])
        except (EmbedderUnavailable, TimeoutError) as error:
            logger.warning("quoting by words alone, the sentences could not be embedded: %s", error or "too slow")
            return {}, 0.0
        return dict(enumerate((rows @ vector).tolist())), known


def _blocks(chosen: Sequence[Sentence], prompt: Prompt) -> list[str]:
    order = {sentence.passage: place for place, sentence in reversed(list(enumerate(chosen)))}
    best = chosen[0] if chosen else None
    reading = sorted(chosen, key=lambda one: (order[one.passage], one.start))
    blocks = []
    for passage, quoted in groupby(reading, key=lambda one: one.passage):
        parts: list[str] = []
        end = None
        for sentence in quoted:
            if end is not None and prompt.passages[passage].text[end : sentence.start].strip():
                parts.append("…")
            text = as_text(shortened(sentence.text, prompt.terms))
            parts.append(f"**{text}**" if sentence is best else text)
            end = sentence.end
        blocks.append(f"> {' '.join(parts)} [{passage + 1}]")
    return blocks


def shortened(text: str, terms: Mapping[str, float]) -> str:
    """The text in one line, without marks of its markup, at most `_LONGEST` characters around the question's words."""
    line = " ".join(_visible(text).split())
    line = _LEADING.sub("", line) or line
    line = " · ".join(cell for cell in map(str.strip, line.strip("|").split("|")) if cell) if line[:1] == "|" else line
    if len(line) <= _LONGEST:
        return line
    first = min((place for place in (line.lower().find(term) for term in terms) if place >= 0), default=0)
    start = max(0, min(first - _LONGEST // 4, len(line) - _LONGEST))
    cut = line[start : start + _LONGEST]
    return ("…" if start else "") + cut.strip() + ("…" if start + _LONGEST < len(line) else "")


def as_text(text: str) -> str:
    """CommonMark that shows `text` as it is: no link, image, mention, tag or emphasis of a document gets through."""
    escaped = _SPECIAL.sub(r"\\\g<0>", text)
    escaped = _ADDRESS.sub(lambda found: found[0].replace(":", r"\:").replace(".", r"\."), escaped)
    return _FIRST.sub(r"\1\\\2", escaped)


def _visible(text: str) -> str:
    return "".join(
        char if unicodedata.category(char) not in ("Cc", "Cf") or char in "\n\t\u200d" else " " for char in text
    )


_LEADING: Final = re.compile(r"^(?:#{1,6} |[-*+•·] |> ?|\d{1,3}[.)] )+")
_SPECIAL: Final = re.compile(r"[\\`*_\[\]<>~|&@#$]")
_ADDRESS: Final = re.compile(r"://|\bwww\.|\bmailto:", re.IGNORECASE)
_FIRST: Final = re.compile(r"^([0-9]{0,9})([-+.)=!])")
