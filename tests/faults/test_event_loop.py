"""Nothing holds the event loop while documents come in and questions are answered (fault 69)."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from bots.handler import ChatHandler
from core.app import Kvasir
from core.cli.documents import bring_in
from core.settings import load
from core.types import Matrix, Mention, Person, Place, Role, Vector
from tests.fakes.embedder import StubEmbedder
from tests.fakes.platform import FakePlatform
from tests.faults.loop import watched_loop

pytestmark = pytest.mark.anyio

MOST = 0.25
"""Seconds a callback may take: far above the bar of the benchmark, far below what blocking would cost here."""


class SlowEmbedder(StubEmbedder):
    """Works in a thread, as ours do, and takes its time."""

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        return await asyncio.to_thread(self._worked, texts)

    async def embed_query(self, text: str) -> Vector:
        vector: Vector = (await self.embed_documents([text]))[0]
        return vector

    def _worked(self, texts: Sequence[str]) -> Matrix:
        until = time.thread_time() + 0.0002 * len(texts)
        while time.thread_time() < until:
            hashlib.sha256(b"x" * 65536).digest()
        rows: Matrix = self._pool[: len(texts)]
        return rows


def written(folder: Path) -> Path:
    """A book, which is long to read, to split, to write and to index, and some pages beside it."""
    folder.mkdir()
    chapter = "# Chapter {n}\n\n" + "The valve {n} of the engine is checked by the crew each morning. " * 60 + "\n\n"
    (folder / "book.md").write_text("".join(chapter.format(n=n) for n in range(450)))
    for n in range(30):
        (folder / f"{n}.md").write_text(f"# Page {n}\n\nThe warranty of part {n} ends after {n + 2} years.")
    return folder


@pytest.mark.slow
async def test_nothing_holds_the_loop_while_ingesting_and_answering(tmp_path: Path) -> None:
    """Protection: files are read in child processes; storing, searching and hashing passwords go to threads."""
    settings = load(data_dir=tmp_path / "data")
    platform, asked = FakePlatform(), 0
    ann = Person("user:ann", "Ann", Role.OWNER)
    async with Kvasir.open(settings, embedder=SlowEmbedder()) as kvasir:
        with watched_loop() as watch:
            await bring_in(kvasir, "kb", [str(written(tmp_path / "first") / "1.md")], show=False)
            handler = ChatHandler(kvasir)
            coming = asyncio.create_task(bring_in(kvasir, "kb", [str(written(tmp_path / "more"))], show=False))
            logging_in = asyncio.create_task(kvasir.accounts.create("ann", "correct horse battery", Role.OWNER))
            while not coming.done() or asked < 5:
                asked += 1
                mention = Mention(Place("fake", channel=str(asked)), str(asked), ann, "When does the warranty end?")
                await handler.on_mention(platform, mention)
                await asyncio.sleep(0.01)
            await coming
            await logging_in
            base = await kvasir.knowledge.get("kb")
    assert base.chunks > 1000
    assert [answer.failure for answer in platform.answers] == [""] * asked
    assert watch.calls == []
    assert watch.slowest < MOST, watch.slowest_name


async def test_the_watch_sees_what_blocks() -> None:
    with watched_loop() as watch:
        await asyncio.sleep(0)
        time.sleep(0.05)  # noqa: ASYNC251  as nobody should
        socket.getaddrinfo("127.0.0.1", 80)
        await asyncio.sleep(0)
    assert watch.calls == ["socket.getaddrinfo"]
    assert watch.slowest > 0.04
