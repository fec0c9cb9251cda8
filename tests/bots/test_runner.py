"""The service that runs the chat platforms: what it opens, and what becomes of one that fails."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from bots import runner
from bots.errors import Refused
from bots.handler import ChatHandler
from bots.platform import Intake
from core import registry
from tests.bots.conftest import Front
from tests.fakes.messenger import FakeMessenger

pytestmark = pytest.mark.anyio

LIBRARIES = ("slack_bolt", "slack_sdk", "discord", "aiogram", "aiohttp")


def test_client_libraries_are_imported_only_where_their_platform_is_on(tmp_path: Path) -> None:
    program = f"""
import asyncio, sys, types
from bots.runner import serve
from core.settings import load
kvasir = types.SimpleNamespace(settings=load(data_dir=sys.argv[1]))
asyncio.run(serve(kvasir, None))
print([name for name in {LIBRARIES} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


class Failing(FakeMessenger):
    """Fails at the first tries."""

    def __init__(self, name: str, *faults: Exception) -> None:
        super().__init__(name=name)
        self.todo, self.runs, self.stands = list(faults), 0, asyncio.Event()

    async def run(self, intake: Intake) -> None:
        self.runs += 1
        if self.todo:
            raise self.todo.pop(0)
        self.stands.set()
        await asyncio.Event().wait()


async def test_one_that_fails_is_started_again_alone_and_one_that_is_refused_is_not(
    front: Front, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 88."""
    caplog.set_level(logging.INFO)
    shaky = Failing("shaky", ConnectionError("reset"), OSError("no route"))
    revoked, well = Failing("revoked", Refused("token_revoked")), Failing("well")
    opened = {"shaky": shaky, "revoked": revoked, "well": well, "off": None}
    monkeypatch.setattr(runner, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(registry, "names", lambda _: list(opened))
    monkeypatch.setattr(registry, "load", lambda _, name: lambda _: opened[name])
    service = asyncio.create_task(runner.serve(front.kvasir, ChatHandler(front.kvasir)))
    async with asyncio.timeout(10):
        await shaky.stands.wait()
        await well.stands.wait()
    service.cancel()
    with pytest.raises(asyncio.CancelledError):
        await service
    assert (shaky.runs, revoked.runs, well.runs) == (3, 1, 1)
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len([line for line in errors if "revoked will not have us" in line]) == 1
    assert len([line for line in errors if "shaky stopped" in line]) == 2


async def test_two_processes_on_one_folder_leave_each_others_questions_alone(tmp_path: Path) -> None:
    """Only who is alone takes over what leases hold; the system frees the lock of a dead process."""
    file = tmp_path / "bots.lock"
    with runner._lock(file) as first:
        assert first.alone
        first.share()
        with runner._lock(file) as second:
            assert not second.alone
            second.share()
    with runner._lock(file) as third:
        assert third.alone
