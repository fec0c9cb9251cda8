"""What people do with models: look how they are, load and unload, choose, and try them out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import select

from core.db.tables import GenerationRow, KnowledgeBaseRow
from core.errors import ConfigError, Conflict, KvasirError, NotFound
from core.inference import sections
from core.inference.modellog import Line
from core.inference.models import Model
from core.inference.pool import Pool, Standing, State
from core.inference.sections import Kind
from core.ports import Embedder, EmbedderInfo, Engine, Reranker
from core.settings import Settings
from core.texts import spoken, tell
from core.types import Locator, Passage, Prompt, Queued, Sampling, Turn

if TYPE_CHECKING:
    from core.app import Kvasir

_TEST_SECONDS: Final = 60.0
_TEST_TOKENS: Final = 200
_LONGEST_REPLY: Final = 400


@dataclass(frozen=True, slots=True)
class Tended:
    """A model with how it is doing in this process."""

    model: Model
    standing: Standing
    shown: Mapping[str, Any]
    """What is set, without secrets."""
    runs: str
    """What it runs, as it is called there; empty: nothing that has a name."""
    where: str
    """The server it is on; empty: here."""
    memory: int
    """Bytes of its weights; 0 for what runs elsewhere or needs none."""
    parallel: int
    """Answers written at a time; 0: as many as come."""
    dimension: int
    """Of an embedder that is open."""
    used_by: Sequence[str]
    """Knowledge bases and channels that name it."""
    indexes: Sequence[str]
    """Knowledge bases that are searched by what this embedder has made; known of one that is open."""


@dataclass(frozen=True, slots=True)
class Tried:
    """How a trial went."""

    ok: bool
    error: str = ""
    """What is wrong, in one sentence."""
    first_ms: float | None = None
    """Until the first piece of an engine's answer."""
    total_ms: float = 0.0
    text: str = ""
    """The beginning of what an engine said."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Of an embedder: `dimension`, `near` and `far` (cosines of a like and of an unlike text)."""


async def look(kvasir: Kvasir, kind: Kind | None = None) -> list[Tended]:
    """All models there are, the house's first of each kind."""
    uses = await _uses(kvasir)
    found = kvasir.models.all(kind)
    order = {name: place for place, name in enumerate(sections.KINDS)}
    found.sort(key=lambda model: (order[model.kind], not model.is_default, not model.is_added, model.name))
    return await _tended(kvasir, found, uses)


async def look_at(kvasir: Kvasir, kind: Kind, name: str) -> Tended:
    """One of them. Raises NotFound."""
    model = kvasir.models.find(kind, name)
    return (await _tended(kvasir, [model], await _uses(kvasir)))[0]


def log_of(kvasir: Kvasir, kind: Kind, name: str) -> Sequence[Line]:
    """Its last lines, the oldest first. Raises NotFound."""
    if kind == "embedder" and not kvasir.models.find(kind, name).is_added:
        return kvasir.embedder.slot.log.lines
    kvasir.models.find(kind, name)
    return _pool(kvasir, kind).log(name)


async def load(kvasir: Kvasir, kind: Kind, name: str) -> None:
    """Switch it on, and begin to open it here; how far it is, `look_at` tells. Raises NotFound."""
    if kvasir.models.find(kind, name).is_added:
        await kvasir.models.enable(name, True)
    _begin(kvasir, kind, name)


async def unload(kvasir: Kvasir, kind: Kind, name: str) -> None:
    """Close it when its last answer has ended; one that was added is switched off. Raises NotFound, Conflict."""
    if kvasir.models.find(kind, name).is_added:
        await kvasir.models.enable(name, False)
    _pool(kvasir, kind).drop(name)


async def use(kvasir: Kvasir, kind: Kind, name: str, *, unload_former: bool = False) -> None:
    """Make it the house's as soon as it is open here; what answers already ends on the former one.

    Raises what opening it raises, and nothing is changed then. Of two that are set to be alone, the former is unloaded
    first, and comes back where the other cannot be opened.
    """
    former = kvasir.models.default(kind)
    if former != name and _is_alone(kvasir, kind, former) and _is_alone(kvasir, kind, name):
        await _take_turns(kvasir, kind, former, name)
        return
    await opened(kvasir, kind, name)
    await kvasir.models.use(kind, name)
    if unload_former and former and former != name:
        try:
            await unload(kvasir, kind, former)
        except NotFound:
            return


async def _take_turns(kvasir: Kvasir, kind: Kind, former: str, name: str) -> None:
    await kvasir.models.use(kind, name)
    await unload(kvasir, kind, former)
    try:
        await opened(kvasir, kind, name)
    except KvasirError:
        await kvasir.models.use(kind, former)
        _pool(kvasir, kind).drop(name)
        raise


def _is_alone(kvasir: Kvasir, kind: Kind, name: str) -> bool:
    """Whether it is to be the only model that is loaded."""
    try:
        model = kvasir.models.find(kind, name)
        settings = kvasir.models.settings_for(model)
    except KvasirError:  # whoever opens it is told
        return False
    return bool(sections.value_of(settings, kind, model.adapter, "alone"))


async def use_none(kvasir: Kvasir, kind: Kind, name: str) -> None:
    """Where it is the house's, let the settings say again which that is. Raises NotFound."""
    if kvasir.models.find(kind, name).is_default:
        await kvasir.models.use_none(kind)


async def remove(kvasir: Kvasir, kind: Kind, name: str) -> None:
    """Forget one that was added, with its key.

    Raises NotFound, and Conflict where it is the house's, something names it, or an index is searched with it.
    """
    found = await look_at(kvasir, kind, name)
    if found.indexes:
        raise Conflict(tell("model_made_indexes", name=name, kbs=", ".join(found.indexes[:5])))
    await kvasir.models.remove(name)


async def opened(kvasir: Kvasir, kind: Kind, name: str) -> Engine | Embedder | Reranker:
    """It, open. Raises NotFound where there is none, Unavailable or ConfigError where it cannot be opened."""
    model = kvasir.models.find(kind, name)
    if not model.enabled:
        await kvasir.models.enable(name, True)
    match kind:
        case "engine":
            return await kvasir.engines.get(name)
        case "reranker":
            return await kvasir.rerankers.get(name)
    embedder = await kvasir.embedder.ready(name)
    if embedder is None:
        raise ConfigError(tell("no_such_embedder", name=name, names=", ".join(kvasir.models.names("embedder"))))
    return embedder


async def test(kvasir: Kvasir, kind: Kind, name: str) -> Tried:
    """A real question, or real texts, put to it. Raises NotFound alone: all else is told."""
    model = kvasir.models.find(kind, name)
    if not model.enabled:
        return await test_trial(kvasir, model)
    begun = time.perf_counter()
    try:
        part = await opened(kvasir, kind, name)
    except KvasirError as error:
        return Tried(False, str(error), total_ms=_since(begun))
    return await _try(kind, part)


async def test_trial(kvasir: Kvasir, model: Model) -> Tried:
    """The same with a model that is not kept (`Models.trial`); it is closed afterwards."""
    begun = time.perf_counter()
    try:
        settings = kvasir.models.settings_for(model)
        part = await _pool(kvasir, model.kind).open_part(model, settings, lambda _stage, _done: None)
    except KvasirError as error:
        return Tried(False, str(error), total_ms=_since(begun))
    try:
        return await _try(model.kind, part)
    finally:
        await part.close()


# ---------------------------------------------------------------- parts
@dataclass(frozen=True, slots=True)
class _Uses:
    """What names models, and what they have made."""

    named: Mapping[tuple[Kind, str], Sequence[str]]
    made: Mapping[str, Sequence[str]]
    """Knowledge bases by the fingerprint of the embedder of their live index."""


async def _uses(kvasir: Kvasir) -> _Uses:
    base, generation = KnowledgeBaseRow, GenerationRow
    made: dict[str, list[str]] = {}
    async with kvasir.db.read() as session:
        rows = await session.execute(
            select(base.name, generation.profile)
            .join(generation, generation.id == base.live_generation_id)
            .where(base.expires_at.is_(None), generation.dimension > 0)
            .order_by(base.name)
        )
        for kb, profile in rows:
            made.setdefault(str(profile.get("embedder", "")), []).append(kb)
    return _Uses(await kvasir.models.used_by(), made)


async def _tended(kvasir: Kvasir, models: Sequence[Model], uses: _Uses) -> list[Tended]:
    settings: list[Settings | KvasirError] = []
    for model in models:
        try:
            settings.append(kvasir.models.settings_for(model))
        except KvasirError as error:  # its key cannot be read; that is what it shows
            settings.append(error)
    pairs = list(zip(models, settings, strict=True))
    sizes = await asyncio.to_thread(_sizes, kvasir, pairs)
    return [_one(kvasir, model, found, size, uses) for (model, found), size in zip(pairs, sizes, strict=True)]


def _sizes(kvasir: Kvasir, pairs: Sequence[tuple[Model, Settings | KvasirError]]) -> list[int]:
    """Bytes of each one's weights; it looks at files."""
    return [
        0 if isinstance(settings, KvasirError) else kvasir.adapters.memory(model, settings) for model, settings in pairs
    ]


def _one(kvasir: Kvasir, model: Model, settings: Settings | KvasirError, size: int, uses: _Uses) -> Tended:
    standing, info = _standing(kvasir, model)
    shown: Mapping[str, Any] = model.values
    parallel = 0
    if isinstance(settings, KvasirError):
        standing = Standing("failed", reason=str(settings))
    else:
        shown = kvasir.models.shown(model)
        parallel = int(sections.value_of(settings, model.kind, model.adapter, "parallel") or 0)
    return Tended(
        model=model,
        standing=standing,
        shown=shown,
        runs=str(
            shown.get("model")
            or PurePath(shown.get("model_path") or "").name
            or (info.name if info else "")
            or PurePath(shown.get("model_dir") or "").name
        ),
        where=sections.origin_of(shown).partition("://")[2],
        memory=size,
        parallel=parallel,
        dimension=info.dimension if info else 0,
        used_by=uses.named.get((model.kind, model.name), ()),
        indexes=uses.made.get(info.fingerprint, ()) if info else (),
    )


def _standing(kvasir: Kvasir, model: Model) -> tuple[Standing, EmbedderInfo | None]:
    """How it is doing, and what an open embedder is; the settings' embedder has a place of its own."""
    standing = _pool(kvasir, model.kind).standing(model)
    if model.kind != "embedder":
        return standing, None
    embedder = kvasir.embedder.named(model.name)
    if not model.is_added:
        state = kvasir.embedder.slot.state
        how: State = "ready" if embedder else "failed" if state.reason else "loading"
        standing = Standing(how, state.stage, state.progress, "" if embedder else state.reason)
    return standing, embedder.info if embedder else None


def _pool(kvasir: Kvasir, kind: Kind) -> Pool[Any]:
    match kind:
        case "engine":
            return kvasir.engines.pool
        case "reranker":
            return kvasir.rerankers.pool
    return kvasir.embedder.pool


def _begin(kvasir: Kvasir, kind: Kind, name: str) -> None:
    if kind == "embedder" and not kvasir.models.find(kind, name).is_added:
        return  # it opens at the start, and stays
    _pool(kvasir, kind).begin(name)


async def _try(kind: Kind, part: Any) -> Tried:
    begun = time.perf_counter()
    try:
        async with asyncio.timeout(_TEST_SECONDS):
            if kind == "embedder":
                return await _try_embedder(part)
            return await (_try_reranker(part) if kind == "reranker" else _try_engine(part))
    except TimeoutError:
        return Tried(False, tell("model_slow_test", seconds=f"{_TEST_SECONDS:g}"), total_ms=_since(begun))
    except KvasirError as error:
        return Tried(False, str(error), total_ms=_since(begun))


async def _try_engine(engine: Engine) -> Tried:
    question, passage = tell("model_test_question"), _passage(tell("model_test_passage"))
    turns = (Turn("user", f"{passage.text}\n\n{question}"),)
    prompt = Prompt(turns, question, (passage,), spoken())
    begun, first, text = time.perf_counter(), None, ""
    stream: Any = engine.stream(prompt, Sampling(max_tokens=_TEST_TOKENS))
    async with aclosing(stream) as pieces:
        async for piece in pieces:
            if isinstance(piece, Queued):
                continue
            first = _since(begun) if first is None else first
            text += piece
            if len(text) > _LONGEST_REPLY:
                break
    if not text.strip():
        return Tried(False, tell("model_empty_test"), first, _since(begun))
    return Tried(True, "", first, _since(begun), text.strip()[:_LONGEST_REPLY])


async def _try_embedder(embedder: Embedder) -> Tried:
    begun = time.perf_counter()
    query = await embedder.embed_query(tell("model_test_question"))
    rows = await embedder.embed_documents([tell("model_test_passage"), "A B C 1 2 3"])
    near, far = (round(float(value), 3) for value in np.asarray(rows) @ np.asarray(query))
    details = {"dimension": embedder.info.dimension, "near": near, "far": far}
    return Tried(True, total_ms=_since(begun), details=details)


async def _try_reranker(reranker: Reranker) -> Tried:
    begun = time.perf_counter()
    passages = [_passage("A B C 1 2 3"), _passage(tell("model_test_passage"))]
    ranked = await reranker.rerank(tell("model_test_question"), passages)
    return Tried(True, total_ms=_since(begun), text=ranked[0].text)


def _passage(text: str) -> Passage:
    return Passage("", "", "kvasir.md", "Kvasir", 0, text, (), Locator(), 1.0)


def _since(begun: float) -> float:
    return round((time.perf_counter() - begun) * 1000, 1)
