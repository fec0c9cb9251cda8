"""From a question to passages: embed, search every knowledge base, fuse, rerank, weigh the evidence."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from core.analyzer import query_tokens
from core.answering.evidence import Candidate, Signals, judge, measure
from core.answering.fusion import Found, bm25_share, by_similarity, fuse, idf, keyword_shares, known_share, title_tokens
from core.errors import EmbedderUnavailable, StoreUnavailable, Unavailable
from core.ports import Embedder, Reranker, VectorStore
from core.sentences import sentences
from core.settings import RetrievalSettings
from core.texts import tell
from core.types import Filter, Generation, Passage, SearchMode, SearchResult, Vector

logger = logging.getLogger(__name__)

_STORE_SECONDS: Final = 5.0
_EMBED_SECONDS: Final = 10.0
_RERANK_SECONDS: Final = 10.0
_RERANKED: Final = 20
_JUDGED: Final = 5
"""Passages that the evidence is weighed by; the sentences of the first of them are embedded too."""
_CLOSE_PASSAGES: Final = 2
_CLOSE_SENTENCES: Final = 12
_WEIGHED: Final = 20
_COPY: Final = 0.7
"""Share of common tokens from which one passage counts as a copy of another."""
_MAX_TOKENS: Final = 128
"""Distinct tokens of a question that are searched for; a pasted log has thousands."""
_REMEMBERED: Final = 256
"""Questions whose vectors are kept: an answer asks more than once for the same."""
_MOST_MADE: Final = 10_000

_Spaces: TypeAlias = "Mapping[str, tuple[Embedder, Vector]]"
"""By fingerprint: an embedder, and the question's vector in its space."""
_Coming: TypeAlias = "asyncio.Task[Vector | None]"


@dataclass(frozen=True)
class LiveKb:
    """A knowledge base as it is searched now."""

    name: str
    generation: Generation


@dataclass(frozen=True)
class Retrieved:
    passages: tuple[Passage, ...]
    """Best first."""
    evidence: float
    """0..1: how well they bear out an answer; 0.5 is where refusing and answering balance."""
    terms: Mapping[str, float]
    """The question's search tokens in order, with their idf weight."""
    vectors_used: bool
    signals: Signals | None = None
    """What the evidence was made of; None where it was not asked for."""
    known: float = 0.0
    """Share of the question in scripts that the embedder knows; 0 without vectors."""
    dense_weight: float = 0.0
    """With which vectors were weighed; 0 where they were not looked at."""


class Retriever:
    """Finds passages in the live generations of knowledge bases."""

    def __init__(
        self,
        store: VectorStore,
        embedder: Callable[[], Embedder | None],
        live: Callable[[Sequence[str]], Awaitable[Sequence[LiveKb]]],
        settings: RetrievalSettings,
        rerankers: Callable[[str], Awaitable[Reranker]] | None = None,
        maker: Callable[[str], Awaitable[Embedder | None]] | None = None,
    ) -> None:
        """`embedder` gives the house's, `maker` whichever other one has made an index."""
        self._store = store
        self._embedder = embedder
        self._live = live
        self._settings = settings
        self._rerankers = rerankers
        self._maker = maker
        self._made: dict[str, str] = {}
        """By knowledge base: whose vectors its index last held, so that embedding need not wait to be told."""
        self._vectors: OrderedDict[tuple[str, str], Vector] = OrderedDict()

    async def retrieve(
        self,
        question: str,
        kbs: Sequence[str],
        *,
        limit: int,
        mode: SearchMode = "hybrid",
        filter: Filter | None = None,
        judged: bool = True,
        dense_weight: float | None = None,
        reranker: str | None = None,
        generation: Generation | None = None,
    ) -> Retrieved:
        """The best `limit` passages of all the knowledge bases together; without `judged` the evidence stays 0.

        `dense_weight` and `reranker` (a name, or empty) go before the settings. `generation` is searched in the place
        of the live one of the only knowledge base.

        Raises StoreUnavailable, and EmbedderUnavailable in mode `vector` alone: the others go on with keywords.
        ConfigError where there is no such reranker.
        """
        depth = max(self._settings.candidates, limit)
        vectors = _Vectors(partial(self._space, question))
        try:
            live, coming = await self._prepared(vectors, kbs, generation, by_words=mode == "keyword")
            asked = query_tokens(question)[:_MAX_TOKENS]
            searches = [
                self._search(one.generation, vector, asked, depth, filter)
                for one, vector in zip(live, coming, strict=True)
            ]
            results = [await searches[0]] if len(searches) == 1 else await asyncio.gather(*searches)
            spaces = vectors.spaces(coming)
        finally:
            vectors.close()
        if mode == "vector" and not spaces:
            raise EmbedderUnavailable(tell("no_vectors"))
        statistics = _merged(asked, results)
        found = _found(asked, live, results, statistics)
        known = max((known_share(one.info.scripts, question) for one, _ in spaces.values()), default=0.0)
        weight = 1.0 if mode == "vector" else self._dense_weight(spaces, known, dense_weight)
        ranked = by_similarity(found) if mode == "vector" else fuse(found, statistics.terms, weight, depth)
        sorting = await self._reranker(reranker) if mode == "hybrid" else None
        passages = [_passage(one) for one in ranked[: max(limit, _RERANKED) if sorting else limit]]
        if sorting is not None:
            passages = await self._reranked(sorting, question, passages)
        found_passages = tuple(passages[:limit])
        used = bool(spaces)
        if not judged or not ranked:
            return Retrieved(found_passages, 0.0, statistics.terms, used, dense_weight=weight)
        closest = await self._closest_sentence(spaces, ranked) if known else 0.0
        signals = _signals(question, ranked, statistics, closest)
        return Retrieved(
            found_passages, judge(signals, known), statistics.terms, used, signals, known, dense_weight=weight
        )

    async def _prepared(
        self, vectors: _Vectors, kbs: Sequence[str], generation: Generation | None, *, by_words: bool
    ) -> tuple[Sequence[LiveKb], Sequence[_Coming | None]]:
        """The knowledge bases, and the question's vector for each whose index has vectors.

        Embedding begins before they are looked up, with what made their indexes the last time.
        """
        if by_words:
            live = [LiveKb(kbs[0], generation)] if generation else await self._live(kbs)
            return live, [None] * len(live)
        house = self._embedder()
        otherwise = house.info.fingerprint if house else ""
        for kb in kbs:
            vectors.coming(generation.embedder if generation else self._made.get(kb, otherwise))
        await asyncio.sleep(0)  # let it begin
        live = [LiveKb(kbs[0], generation)] if generation else await self._live(kbs)
        if len(self._made) > _MOST_MADE:
            self._made.clear()
        for one in live:
            self._made[one.name] = one.generation.embedder if one.generation.dimension else ""
        return live, [vectors.coming(self._made[one.name]) for one in live]

    async def _space(self, question: str, fingerprint: str) -> tuple[Embedder, Vector] | None:
        """The embedder of that fingerprint with the question's vector; None where either cannot be had."""
        embedder = self._embedder()
        if embedder is None or embedder.info.fingerprint != fingerprint:
            embedder = await self._other(fingerprint)
        if embedder is None:
            return None
        vector = await self._embedded(embedder, question)
        return None if vector is None else (embedder, vector)

    async def _other(self, fingerprint: str) -> Embedder | None:
        if self._maker is None:
            return None
        try:
            async with asyncio.timeout(_EMBED_SECONDS):
                return await self._maker(fingerprint)
        except (Unavailable, TimeoutError) as error:
            logger.warning("searching by keywords alone, the embedder cannot be had: %s", error or "too slow")
            return None

    async def _embedded(self, embedder: Embedder, question: str) -> Vector | None:
        """The question's vector; None, with a warning, when the embedder fails: search goes on with keywords."""
        key = (embedder.info.fingerprint, question)
        if key in self._vectors:
            self._vectors.move_to_end(key)
            return self._vectors[key]
        try:
            async with asyncio.timeout(_EMBED_SECONDS):
                vector = await embedder.embed_query(question)
        except (EmbedderUnavailable, TimeoutError) as error:
            logger.warning("searching by keywords alone, the question could not be embedded: %s", error or "too slow")
            return None
        self._vectors[key] = vector
        if len(self._vectors) > _REMEMBERED:
            self._vectors.popitem(last=False)
        return vector

    async def _search(
        self, generation: Generation, vector: _Coming | None, asked: Sequence[str], depth: int, filter: Filter | None
    ) -> SearchResult:
        """The store's time begins when the vector is there."""

        def begin(_: object = None) -> None:
            with suppress(RuntimeError):  # the search has ended before this is called
                limit.reschedule(asyncio.get_running_loop().time() + _STORE_SECONDS)

        try:
            async with asyncio.timeout(None) as limit:
                if vector is None:
                    begin()
                else:
                    vector.add_done_callback(begin)
                return await self._store.search(generation, vector=vector, tokens=asked, limit=depth, filter=filter)
        except TimeoutError as error:
            raise StoreUnavailable(tell("search_slow")) from error

    def _dense_weight(self, spaces: _Spaces, known: float, chosen: float | None) -> float:
        if not known:
            return 0.0
        weight = self._settings.dense_weight if chosen is None else chosen
        return min(one.info.weight for one, _ in spaces.values()) * known if weight is None else weight

    async def _reranker(self, chosen: str | None) -> Reranker | None:
        name = self._settings.reranker if chosen is None else chosen
        return await self._rerankers(name) if name and self._rerankers else None

    async def _reranked(self, reranker: Reranker, question: str, passages: list[Passage]) -> list[Passage]:
        """The same with the first ones in the reranker's order; unchanged, with a warning, where it fails."""
        first, rest = passages[:_RERANKED], passages[_RERANKED:]
        try:
            async with asyncio.timeout(_RERANK_SECONDS):
                return [*await reranker.rerank(question, first), *rest]
        except (Unavailable, TimeoutError) as error:
            logger.warning("the passages were not reranked: %s", error or "too slow")
            return passages

    async def _closest_sentence(self, spaces: _Spaces, ranked: Sequence[Found]) -> float:
        """Highest similarity between the question and a sentence of the first passages; 0 where it cannot be had."""
        groups: dict[str, dict[str, None]] = {}
        for one in ranked[:_CLOSE_PASSAGES]:
            groups.setdefault(one.space, {}).update(dict.fromkeys(_sentences(one.hit.chunk.text)))
        closest = 0.0
        for fingerprint, texts in groups.items():
            if fingerprint not in spaces:
                continue
            embedder, vector = spaces[fingerprint]
            try:
                async with asyncio.timeout(_EMBED_SECONDS):
                    rows = await embedder.embed_documents(list(texts)[:_CLOSE_SENTENCES])
            except (EmbedderUnavailable, TimeoutError) as error:
                logger.warning("the evidence is weighed without sentences: %s", error or "too slow")
                continue
            background = embedder.info.background
            closest = max(closest, (float((rows @ vector).max(initial=0.0)) - background) / (1 - background))
        return closest


class _Vectors:
    """A question's vectors, by the fingerprint of their embedder: each made once, from when it is first spoken of."""

    def __init__(self, make: Callable[[str], Awaitable[tuple[Embedder, Vector] | None]]) -> None:
        self._make = make
        self._coming: dict[str, _Coming] = {}
        self._spaces: dict[str, tuple[Embedder, Vector]] = {}

    def coming(self, fingerprint: str) -> _Coming | None:
        if fingerprint and fingerprint not in self._coming:
            self._coming[fingerprint] = asyncio.create_task(self._made(fingerprint))
        return self._coming.get(fingerprint)

    def spaces(self, coming: Sequence[_Coming | None]) -> _Spaces:
        """Of these, those that there are by now."""
        return {name: space for name, space in self._spaces.items() if self._coming[name] in coming}

    async def _made(self, fingerprint: str) -> Vector | None:
        space = await self._make(fingerprint)
        if space is None:
            return None
        self._spaces[fingerprint] = space
        return space[1]

    def close(self) -> None:
        for task in self._coming.values():
            task.cancel()


@dataclass(frozen=True, slots=True)
class _Statistics:
    """Of all the knowledge bases searched, taken together."""

    chunks: int
    frequency: Mapping[str, int]
    terms: Mapping[str, float]


def _merged(asked: Sequence[str], results: Sequence[SearchResult]) -> _Statistics:
    chunks = sum(result.chunk_count for result in results)
    frequency = {token: sum(result.document_frequency.get(token, 0) for result in results) for token in asked}
    return _Statistics(chunks, frequency, {token: idf(count, chunks) for token, count in frequency.items()})


def _found(
    asked: Sequence[str], live: Sequence[LiveKb], results: Sequence[SearchResult], together: _Statistics
) -> list[Found]:
    found = []
    for one, result in zip(live, results, strict=True):
        terms = together.terms if len(results) == 1 else _merged(asked, [result]).terms
        shares = keyword_shares([hit.keyword_score for hit in result.hits], terms)
        found += [
            Found(one.name, hit, share, 0.0, one.generation.embedder)
            for hit, share in zip(result.hits, shares, strict=True)
        ]
    return found


def _sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


def _signals(question: str, ranked: Sequence[Found], statistics: _Statistics, closest: float) -> Signals:
    return measure(
        question,
        [
            Candidate(
                tokens=one.hit.chunk.tokens.split(),
                title=title_tokens(one.hit.title, one.hit.chunk.headings),
                names=(title_tokens(one.hit.title), title_tokens("", one.hit.chunk.headings[-1:])),
            )
            for one in ranked[:_JUDGED]
        ],
        frequency=statistics.frequency,
        chunks=statistics.chunks,
        keyword=_best_three(ranked, statistics.terms),
        closest=closest,
    )


def _best_three(ranked: Sequence[Found], terms: Mapping[str, float]) -> list[float]:
    """Keyword shares of the best three documents; copies of one another count as one.

    Weighed against the length of what was found and not of everything, so that a Chinese passage, which has two tokens
    a character, counts the same among English ones.
    """
    told = sorted((one for one in ranked if one.keyword > 0), key=lambda one: one.keyword, reverse=True)
    lengths = [one.hit.chunk.tokens.count(" ") + 1 for one in told]
    usual = sum(lengths) / max(1, len(lengths))
    shares: dict[tuple[str, str], float] = {}
    texts: dict[tuple[str, str], frozenset[str]] = {}
    for one in told[:_WEIGHED]:
        document = (one.kb, one.hit.document_id)
        found = one.hit.chunk.tokens.split()
        text = frozenset(found)
        share = bm25_share(found, terms, usual)
        if document in shares:
            shares[document] = max(shares[document], share)
        elif not any(len(text & other) >= _COPY * len(text | other) for other in texts.values()):
            shares[document], texts[document] = share, text
    return sorted(shares.values(), reverse=True)[:3]


def _passage(one: Found) -> Passage:
    hit = one.hit
    return Passage(
        kb=one.kb,
        document_id=hit.document_id,
        document=hit.document,
        title=hit.title,
        chunk=hit.chunk.number,
        text=hit.chunk.text,
        headings=hit.chunk.headings,
        locator=hit.chunk.locator,
        score=one.score,
        vector_score=hit.vector_score,
        keyword_score=hit.keyword_score,
    )
