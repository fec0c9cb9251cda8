"""Looks at an installation from outside in: one sentence for each part, with what to do where it is not well."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import socket
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any

from core.app import Kvasir
from core.errors import KvasirError
from core.settings import Settings, unknown_variables

_ENOUGH_FREE = 500 << 20
_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    ok: bool
    says: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """The findings one by one; nothing is changed but that the database is brought up to date."""
    yield Finding("Python", sys.version_info >= (3, 11), sys.version.split()[0])
    yield _full_text_search()
    for name in unknown_variables():
        yield Finding("Settings", False, f"{name} is set, but there is no such setting; mind the spelling.")
    yield await asyncio.to_thread(_data_dir, settings)
    yield _port(settings)
    try:
        async with asyncio.timeout(_TIMEOUT), Kvasir.open(settings) as kvasir:
            async for finding in _inside(kvasir):
                yield finding
    except KvasirError as error:
        yield Finding("Start", False, str(error))
    except TimeoutError:
        yield Finding("Start", False, f"It was not ready after {_TIMEOUT:.0f} s; look at the log.")


async def _inside(kvasir: Kvasir) -> AsyncIterator[Finding]:
    yield Finding("Database", True, kvasir.db.url.render_as_string(hide_password=True))
    state = kvasir.embedder_state
    yield Finding("Embedder", state.ready, "It is loaded." if state.ready else f"Keyword search only. {state.reason}")
    for kb in await kvasir.knowledge.list():
        yield await _knowledge_base(kvasir, kb.name, kb.documents, kb.chunks)
    name = kvasir.settings.answer.engine
    try:
        trouble = await (await kvasir.engines.get(name)).health()
    except KvasirError as error:
        trouble = str(error)
    yield Finding(f"Engine {name}", not trouble, trouble or "It works.")
    has_ocr = importlib.util.find_spec("rapidocr") is not None
    yield Finding("OCR", True, "It is installed." if has_ocr else "It is not installed; the extra [ocr] brings it.")
    yield Finding(
        "Administrator",
        await kvasir.accounts.any_user(),
        "There is one." if await kvasir.accounts.any_user() else "There is none; «kvasir up» prints a set-up link.",
    )


async def _knowledge_base(kvasir: Kvasir, name: str, documents: int, chunks: int) -> Finding:
    live = await kvasir.knowledge.live([name])
    if not live:
        return Finding(f"Knowledge base {name}", True, "It is empty.")
    count = await kvasir.store.count(live[0].generation)
    if (count.documents, count.chunks) != (documents, chunks):
        says = (
            f"The index holds {count.documents} documents and {count.chunks} chunks, the database {documents} and "
            f"{chunks}; «kvasir kb reindex {name}» builds the index anew."
        )
        return Finding(f"Knowledge base {name}", False, says)
    if await kvasir.indexes.needs_reindex(name):
        says = f"It works, and «kvasir kb reindex {name}» would bring its index to the settings of today."
        return Finding(f"Knowledge base {name}", True, says)
    return Finding(f"Knowledge base {name}", True, f"{documents} documents, {chunks} chunks.")


def _full_text_search() -> Finding:
    try:
        with sqlite3.connect(":memory:") as connection:
            connection.execute("CREATE VIRTUAL TABLE t USING fts5(x)")
    except sqlite3.Error:
        return Finding("SQLite", False, "This Python's SQLite has no FTS5; use another Python 3.11 or newer.")
    return Finding("SQLite", True, f"{sqlite3.sqlite_version} with FTS5")


def _data_dir(settings: Settings) -> Finding:
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding("Data directory", False, f"{folder} cannot be written to ({error.strerror}); name another.")
    free = shutil.disk_usage(folder).free
    if free < _ENOUGH_FREE:
        return Finding("Data directory", False, f"{folder} has only {free >> 20} MB free; make room.")
    return Finding("Data directory", True, f"{folder}, {free >> 30} GB free")


def _port(settings: Settings) -> Finding:
    address = (settings.web.host, settings.web.port)
    with socket.socket(socket.AF_INET6 if ":" in settings.web.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            says = f"{address[0]}:{address[1]} cannot be taken ({error.strerror}); Kvasir may be up already."
            return Finding("Web address", True, says)
    return Finding("Web address", True, f"{address[0]}:{address[1]} is free")
