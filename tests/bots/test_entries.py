"""A platform's library is imported when the platform goes on, and not before: in a process that is started anew."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_LIBRARIES = ("slack_sdk", "slack_bolt", "discord", "aiogram", "aiohttp", "cryptography.fernet")
_SERVE = """
import asyncio, sys
from bots.handler import ChatHandler
from bots.runner import serve
from core.app import Kvasir
from core.settings import load

def imported():
    return {name for name in sys.argv[1].split(",") if name in sys.modules}

async def serves(kvasir, awaited):
    serving = asyncio.create_task(serve(kvasir, ChatHandler(kvasir)))
    await asyncio.wait({serving}, timeout=0.2)
    while not serving.done() and not imported() >= set(awaited):
        await asyncio.wait({serving}, timeout=0.05)
    print("it serves" if not serving.done() else "it has ended")
    serving.cancel()
    await asyncio.wait({serving})
    print(*sorted(imported()))

async def main(*awaited, **settings):
    async with Kvasir.open(load(embedder={"kind": "none"}, **settings)) as kvasir:
        async with asyncio.timeout(50):
            await serves(kvasir, awaited)

asyncio.run(main())
asyncio.run(main(*sys.argv[2:], slack={"bot_token": "xoxb-1", "app_token": "xapp-1"}))
import bots.discord.check, bots.telegram.check
print(*sorted(imported() & {"aiogram", "discord"}))
"""


def test_only_what_is_on_is_imported(tmp_path: Path) -> None:
    slack = ("aiohttp", "slack_bolt", "slack_sdk")
    nowhere = {"KVASIR_SLACK__BASE_URL": "http://127.0.0.1:9/api/"}
    environment = {**os.environ, "KVASIR_DATA_DIR": str(tmp_path), "KVASIR_LOG__LEVEL": "ERROR", **nowhere}
    done = subprocess.run(
        [sys.executable, "-P", "-c", _SERVE, ",".join(_LIBRARIES), *slack],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["it serves", "", "it serves", " ".join(slack), ""]
