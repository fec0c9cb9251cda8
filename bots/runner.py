"""The service `bots`: keeps every chat platform as its connection says, and says how each of them is."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from bots.inbox import BEAT_SECONDS, Inbox
from bots.running import Running
from core.chats import digests
from core.chats.reports import Report
from core.db.tables import now
from core.errors import KvasirError

if TYPE_CHECKING:
    from bots.handler import ChatHandler
    from bots.intake import Intake
    from core.app import Kvasir

logger = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 2.0
"""How often it is looked whether a connection has changed, and whether there is something to post."""
_REPORT_SECONDS: Final = 3.0
_REPORT_AGAIN: Final = timedelta(seconds=15)
"""What has not changed is said again, so that a dead process is known by its silence."""
_LAST_WORDS: Final = 3.0
_CLEAN_EVERY: Final = 3600.0
_NAME_LETTERS: Final = 16
_SHARE_SECONDS: Final = 0.05


async def serve(kvasir: Kvasir, handler: ChatHandler) -> None:
    """Run every platform that is connected, and those that come to be, until cancelled."""
    inbox = Inbox(kvasir.db)
    runnings = [Running(kvasir, handler, inbox, name) for name in kvasir.connections.platforms()]
    reports = _Reports(kvasir, runnings)
    await digests.ensure_wanted(kvasir)
    with _lock(kvasir.settings.data_dir / "bots.lock") as lock:
        # Alone on a file of our own: all leases are those of processes that ended.
        everything = lock.alone and kvasir.db.is_sqlite
        await kvasir.presence.belongs_to(lock.house)
        if lock.alone:
            await kvasir.leases.free(lock.house)
        try:
            async with asyncio.TaskGroup() as group:
                for one in runnings:
                    group.create_task(one.follow(everything=everything), name=f"connection-{one.name}")
                group.create_task(_beat(inbox, kvasir, runnings), name="inbox")
                group.create_task(kvasir.limits.run(), name="limits")
                group.create_task(reports.keep(), name="reports")
                for one in runnings:
                    await one.taken_over.wait()
                await lock.share()
                await _reconcile(kvasir, runnings)
        finally:
            await reports.close()


async def _reconcile(kvasir: Kvasir, runnings: Sequence[Running]) -> None:
    """See what was changed meanwhile, by whatever process."""
    gone = False
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            stamps = await kvasir.connections.stamps()
            for one in runnings:
                one.become(stamps.get(one.name, ""))
            mail = await kvasir.outbox.waiting()
        except KvasirError as error:
            if not gone:
                logger.warning("it is not known whether connections have changed: %s", error)
            gone = True
            continue
        gone = False
        for one in runnings:
            if one.intake is not None:
                await _hear(one.intake)
            if one.name in mail:
                one.mail.set()


async def _hear(intake: Intake) -> None:
    try:
        await intake.hear_wants()
    except KvasirError as error:
        logger.info("what is to be stopped is not known: %s", error)


class _Reports:
    """Writes down how the platforms are: soon when that has changed, else now and then."""

    def __init__(self, kvasir: Kvasir, runnings: Sequence[Running]) -> None:
        self._kvasir = kvasir
        self._runnings = runnings
        self._process = f"{socket.gethostname()}:{os.getpid()}"
        self._said: dict[str, Report] = {}

    async def keep(self) -> None:
        while True:
            try:
                await self._write()
            except KvasirError as error:
                logger.info("how the platforms are could not be written down: %s", error)
            await asyncio.sleep(_REPORT_SECONDS)

    async def close(self) -> None:
        """Say last that they have stopped."""
        try:
            async with asyncio.timeout(_LAST_WORDS):
                await self._write()
        except (KvasirError, TimeoutError) as error:
            logger.info("that the platforms have stopped could not be written down: %s", error)

    async def _write(self) -> None:
        parts = {}
        for one in self._runnings:
            report = one.report(self._process)
            if report is not None:
                parts[one.name] = "off" if report.state == "stopped" else report.state
        self._kvasir.presence.say("bots", parts)
        for one in self._runnings:
            report = one.report(self._process)
            before = self._said.get(one.name)
            if report is None:
                continue
            same = before is not None and replace(report, at=before.at) == before
            if same and before is not None and (report.state == "stopped" or now() - before.at < _REPORT_AGAIN):
                continue
            await self._kvasir.connections.report(one.name, report)
            self._said[one.name] = report


async def _beat(inbox: Inbox, kvasir: Kvasir, runnings: Sequence[Running]) -> None:
    """Renew leases, and go on with questions that other processes left."""
    cleaned = asyncio.get_running_loop().time()
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        try:
            for intake in [one.intake for one in runnings if one.intake is not None]:
                await intake.keep_leases()
                await intake.take_over()
            if asyncio.get_running_loop().time() - cleaned > _CLEAN_EVERY:
                await inbox.forget_old()
                await kvasir.outbox.forget_old()
                cleaned = asyncio.get_running_loop().time()
        except Exception:
            logger.exception("the inbox could not be looked after; it is tried again in %.0f s", BEAT_SECONDS)


class _Lock:
    """Shared by all processes that run bots on one folder; the system takes it from a dead one."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.alone = True
            """No other process runs bots here; until `share`, none begins to."""
        except OSError:
            self.alone = False
        file.seek(0)
        self.house = file.read(_NAME_LETTERS)
        """The folder's own name, with which those who run bots here begin theirs."""
        if len(self.house) < _NAME_LETTERS:
            self.house = secrets.token_hex(_NAME_LETTERS // 2)
            if self.alone:
                file.write(self.house)
                file.flush()

    async def share(self) -> None:
        """Let others begin; whoever is alone has done so, once this returns."""
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(_SHARE_SECONDS)
            else:
                return


@contextmanager
def _lock(file: Path) -> Iterator[_Lock]:
    with file.open("a+") as opened:
        yield _Lock(opened)
