"""How the parts of a running Kvasir are: database, index, engine, embedding model, platforms, jobs, schedules."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from sqlalchemy import func, select

from core.app import Kvasir
from core.chats.connections import Connection
from core.db.tables import GenerationRow, JobRow, KnowledgeBaseRow, now
from core.errors import KvasirError
from core.kb.knowledge import generation_of
from core.texts import tell

Kind = Literal["database", "store", "engine", "embedder", "platform", "queue", "schedules"]
State = Literal["good", "busy", "warn", "bad", "off"]

SECONDS: Final = 5.0
"""How long a part may take to answer."""
_STUCK_AFTER: Final = timedelta(minutes=2)
_FAILED_WITHIN: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Part:
    kind: Kind
    name: str
    state: State
    text: str
    """One sentence: what is wrong and what to do, or that it works."""
    last_at: datetime | None = None
    """When something was last heard of it, where that is known."""


async def parts(kvasir: Kvasir) -> Sequence[Part]:
    """All of them, looked at side by side; none is waited for longer than five seconds."""
    looks: Sequence[tuple[Kind, str, Callable[[Kvasir], Awaitable[Sequence[Part]]]]] = (
        ("database", tell("part_database"), _database),
        ("store", tell("part_store"), _store),
        ("engine", tell("part_engine"), _engine),
        ("embedder", tell("part_embedder"), _embedder),
        ("platform", "", _platforms),
        ("queue", tell("part_queue"), _queue),
        ("schedules", tell("part_schedules"), _schedules),
    )
    found = await asyncio.gather(*(_looked(kvasir, kind, name, look) for kind, name, look in looks))
    return [part for some in found for part in some]


async def _looked(
    kvasir: Kvasir, kind: Kind, name: str, look: Callable[[Kvasir], Awaitable[Sequence[Part]]]
) -> Sequence[Part]:
    try:
        async with asyncio.timeout(SECONDS):
            return await look(kvasir)
    except TimeoutError:
        return [Part(kind, name, "bad", tell("part_slow", seconds=int(SECONDS)))]
    except KvasirError as error:
        return [Part(kind, name, "bad", str(error))]


async def _database(kvasir: Kvasir) -> Sequence[Part]:
    async with kvasir.db.read() as session:
        await session.execute(select(1))
    name = "SQLite" if kvasir.db.is_sqlite else "PostgreSQL"
    return [Part("database", tell("part_database"), "good", tell("part_works", name=name))]


async def _store(kvasir: Kvasir) -> Sequence[Part]:
    """Asks it for a word; what it finds does not matter."""
    name = kvasir.settings.store.kind
    query = (
        select(GenerationRow)
        .join(KnowledgeBaseRow, KnowledgeBaseRow.live_generation_id == GenerationRow.id)
        .order_by(GenerationRow.id)
        .limit(1)
    )
    async with kvasir.db.read() as session:
        row = await session.scalar(query)
    if row is None:
        return [Part("store", tell("part_store"), "good", tell("part_store_empty", name=name))]
    await kvasir.store.search(generation_of(row), vector=None, tokens=["kvasir"], limit=1)
    return [Part("store", tell("part_store"), "good", tell("part_works", name=name))]


async def _engine(kvasir: Kvasir) -> Sequence[Part]:
    name = kvasir.models.default("engine")
    engine = await kvasir.engines.get(name)
    trouble = await engine.health()
    says = trouble or tell("part_works", name=engine.info.model or name)
    return [Part("engine", tell("part_engine"), "bad" if trouble else "good", says)]


async def _embedder(kvasir: Kvasir) -> Sequence[Part]:
    state, name = kvasir.embedder_state, kvasir.models.default("embedder")
    title = tell("part_embedder")
    if not name:
        return [Part("embedder", title, "off", tell("part_embedder_off"))]
    if state.ready:
        return [Part("embedder", title, "good", tell("part_works", name=name))]
    if state.reason:
        return [Part("embedder", title, "warn", tell("keyword_only", reason=state.reason))]
    return [Part("embedder", title, "busy", tell("part_embedder_loading"))]


async def _queue(kvasir: Kvasir) -> Sequence[Part]:
    waiting = select(JobRow.state, func.count(), func.min(JobRow.created_at)).where(
        JobRow.state.in_(("queued", "running"))
    )
    failed = select(func.count()).where(JobRow.state == "failed", JobRow.created_at >= now() - _FAILED_WITHIN)
    async with kvasir.db.read() as session:
        rows = {
            state: (count, oldest) for state, count, oldest in await session.execute(waiting.group_by(JobRow.state))
        }
        broken = await session.scalar(failed) or 0
    running, (queued, oldest) = rows.get("running", (0, None))[0], rows.get("queued", (0, None))
    state: State = "busy" if running or queued else "good"
    says = [tell("part_queue_busy", running=running, queued=queued) if running or queued else tell("part_queue_idle")]
    if broken:
        state, says = "warn", [*says, tell("part_queue_failed", failed=broken)]
    if oldest is not None and not running and now() - oldest > _STUCK_AFTER:
        state, says = "bad", [tell("part_queue_stuck", queued=queued)]
    return [Part("queue", tell("part_queue"), state, " ".join(says))]


async def _schedules(kvasir: Kvasir) -> Sequence[Part]:
    leader = await kvasir.schedules.leader()
    title = tell("part_schedules")
    if leader is None or not leader.is_there:
        return [Part("schedules", title, "warn", tell("part_schedules_nobody"), leader.until if leader else None)]
    return [Part("schedules", title, "good", tell("part_schedules_led", holder=leader.name))]


_PLATFORM: Final[dict[str, State]] = {
    "connected": "good",
    "connecting": "busy",
    "waiting": "warn",
    "refused": "bad",
    "silent": "bad",
    "off": "off",
}


async def _platforms(kvasir: Kvasir) -> Sequence[Part]:
    """Those that have tokens."""
    return [_platform(one) for one in await kvasir.connections.list() if one.state != "unset"]


def _platform(one: Connection) -> Part:
    last = max((report.last_event_at for report in one.reports if report.last_event_at), default=None)
    trouble = one.trouble or next((report.error for report in one.reports if report.state == "refused"), "")
    says = trouble if one.state == "refused" and trouble else tell(f"part_platform_{one.state}")
    return Part("platform", one.platform, _PLATFORM.get(one.state, "warn"), says, last)
