"""Looks at an installation from outside in: one sentence for each part, with what to do where it is not well."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import shutil
import socket
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator

from sqlalchemy import select

from core import registry
from core.app import Kvasir
from core.blobs_s3 import S3Blobs
from core.chats.connections import Check
from core.db.sizes import connections
from core.db.tables import DocumentRow, ProcessRow, now
from core.errors import KvasirError
from core.kb.knowledge import KnowledgeBase
from core.ports import Finding
from core.serving.look import look
from core.settings import Settings, unknown_variables
from core.texts import tell
from core.work import queue
from core.work.jobs import LANES
from core.work.presence import ALIVE

_ENOUGH_FREE = 500 << 20
_TIMEOUT = 30.0
_LOOKED_FOR = 20
"""Originals."""


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """The findings one by one; nothing is changed but that the database is made or brought up to date."""
    yield Finding("Python", sys.version_info >= (3, 11), sys.version.split()[0])
    yield _sqlite()
    for name in unknown_variables():
        yield Finding(tell("doctor_settings"), False, tell("no_such_setting", name=name))
    folder = await asyncio.to_thread(_data_dir, settings)
    yield folder
    yield _port(settings)
    if not folder.ok:
        return
    try:
        async with asyncio.timeout(_TIMEOUT), Kvasir.open(settings) as kvasir:
            async for finding in _inside(kvasir):
                yield finding
    except KvasirError as error:
        yield Finding(tell("doctor_start"), False, str(error))
    except TimeoutError:
        yield Finding(tell("doctor_start"), False, tell("doctor_slow", seconds=int(_TIMEOUT)))


async def examine_platform(settings: Settings, name: str) -> AsyncIterator[Finding]:
    """The findings of a chat platform's own check, found under `kvasir.checks`: tokens, rights, events, the clock.

    Raises ConfigError where there is no such platform.
    """
    check: Check = registry.load("kvasir.checks", name)
    try:
        async with asyncio.timeout(_TIMEOUT):
            async for finding in check(settings):
                yield finding
    except KvasirError as error:
        yield Finding(name, False, str(error))
    except TimeoutError:
        yield Finding(name, False, tell("doctor_slow", seconds=int(_TIMEOUT)))


async def _inside(kvasir: Kvasir) -> AsyncIterator[Finding]:
    yield Finding(tell("doctor_database"), True, kvasir.db.url.render_as_string(hide_password=True))
    if not kvasir.db.is_sqlite:
        yield await _connections(kvasir)
    yield await _originals(kvasir)
    state = kvasir.embedder_state
    says = tell("doctor_loaded") if state.ready else tell("keyword_only", reason=state.reason)
    wanted = kvasir.settings.embedder.kind != "none"
    yield Finding(tell("doctor_embedder"), state.ready or not wanted, says)
    for kb in await kvasir.knowledge.list():
        yield await _knowledge_base(kvasir, kb)
    name = kvasir.models.default("engine")
    try:
        trouble = await (await kvasir.engines.get(name)).health()
    except KvasirError as error:
        trouble = str(error)
    yield Finding(tell("doctor_engine", name=name), not trouble, trouble or tell("doctor_works"))
    for model in kvasir.models.all("engine"):
        if model.enabled and model.is_set_up and model.name != name:
            is_open = kvasir.engines.pool.peek(model.name) is not None
            found = await look(kvasir.models.settings_for(model), model.adapter, model.name, is_open=is_open)
            if found is not None:
                yield found
    has_ocr = importlib.util.find_spec("rapidocr") is not None
    yield Finding("OCR", True, tell("doctor_ocr") if has_ocr else tell("doctor_no_ocr"))
    has_user = await kvasir.accounts.any_user()
    yield Finding(tell("doctor_owner"), True, tell("doctor_has_owner") if has_user else tell("doctor_no_owner"))


async def _connections(kvasir: Kvasir) -> Finding:
    """Whether PostgreSQL takes as many as all processes together may open."""
    settings, server = kvasir.settings, await connections(kvasir.db)
    each = settings.database.pool_size + settings.database.pool_overflow
    if settings.store.kind == "pgvector" and settings.pgvector.url is None:
        each += settings.pgvector.connections
    async with kvasir.db.read() as session:
        roles = list(await session.scalars(select(ProcessRow.roles).where(ProcessRow.seen_at >= now() - ALIVE)))
    count, jobs = max(1, len(roles)), sum("jobs" in one for one in roles) or 1
    need = count * each + jobs * (queue.POOL_SIZE + len(LANES) + 1)
    numbers = {"taken": server.taken, "most": server.most, "processes": count, "need": need}
    key = "doctor_connections_enough" if need <= server.most else "doctor_connections_few"
    return Finding(tell("doctor_connections"), need <= server.most, tell(key, **numbers))


async def _originals(kvasir: Kvasir) -> Finding:
    """Whether they can be had; of the newest ones each is looked for."""
    found = await asyncio.to_thread(_folder_or_bucket, kvasir)
    if not found.ok:
        return found
    async with kvasir.db.read() as session:
        query = select(DocumentRow.content_hash).order_by(DocumentRow.created_at.desc()).limit(_LOOKED_FOR)
        wanted = set(await session.scalars(query))
    missing = len(wanted) - len(await asyncio.to_thread(kvasir.blobs.there, wanted))
    if missing:
        says = tell("doctor_originals_missing", place=kvasir.blobs.place, missing=missing, count=len(wanted))
        return Finding(found.what, False, says)
    return found


def _folder_or_bucket(kvasir: Kvasir) -> Finding:
    what, blobs = tell("doctor_originals"), kvasir.blobs
    if not isinstance(blobs, S3Blobs):
        return Finding(what, True, blobs.place)
    try:
        blobs.bucket.check()
        left = len(blobs.hashes())
    except KvasirError as error:
        return Finding(what, False, str(error))
    key = "doctor_originals_left" if left else "doctor_originals_s3"
    return Finding(what, True, tell(key, place=blobs.place, count=left, folder=blobs.folder))


async def _knowledge_base(kvasir: Kvasir, kb: KnowledgeBase) -> Finding:
    name, documents, chunks = kb.name, kb.documents, kb.chunks
    what = tell("doctor_kb", name=name)
    live = await kvasir.knowledge.live([name])
    if not live:
        return Finding(what, True, tell("doctor_kb_empty"))
    count = await kvasir.store.count(live[0].generation)
    on_their_way = kb.waiting > 0 and count.documents >= documents  # in the index a moment before they are live
    if (count.documents, count.chunks) != (documents, chunks) and not on_their_way:
        numbers = {"documents": count.documents, "chunks": count.chunks, "rows": documents, "counted": chunks}
        return Finding(what, False, tell("doctor_kb_differs", name=name, **numbers))
    if await kvasir.indexes.needs_reindex(name):
        return Finding(what, True, tell("doctor_kb_outdated", name=name))
    return Finding(what, True, tell("doctor_kb_good", documents=documents, chunks=chunks))


def _sqlite() -> Finding:
    return Finding("SQLite", sqlite3.sqlite_version_info >= (3, 35), sqlite3.sqlite_version)


def _data_dir(settings: Settings) -> Finding:
    folder = settings.data_dir
    what = tell("doctor_folder")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding(what, False, tell("data_dir_refused", folder=folder, reason=error.strerror or error))
    free = shutil.disk_usage(folder).free
    if free < _ENOUGH_FREE:
        return Finding(what, False, tell("doctor_little_room", folder=folder, megabytes=free >> 20))
    return Finding(what, True, tell("doctor_room", folder=folder, gigabytes=free >> 30))


def _port(settings: Settings) -> Finding:
    what = tell("doctor_address")
    host, port = settings.web.host, settings.web.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE  # most often Kvasir itself
        key = "doctor_address_taken" if in_use else "cannot_listen"
        return Finding(what, in_use, tell(key, host=host, port=port, reason=error.strerror or error))
    return Finding(what, True, tell("doctor_address_free", host=host, port=port))
