"""A platform's library is imported when the platform goes on, and not before: in processes that are started anew."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_LIBRARIES = ("slack_sdk", "slack_bolt", "discord", "aiogram", "aiohttp", "cryptography.fernet")
_SERVE = """
import asyncio, sys
from bots.handler import ChatHandler
from bots.runner import serve
from core.app import Kvasir
from core.settings import load

def imported():
    return {name for name in sys.argv[1].split(",") if name in sys.modules}

async def serves(kvasir):
    serving = asyncio.create_task(serve(kvasir, ChatHandler(kvasir)))
    await asyncio.wait({serving}, timeout=0.2)
    while not serving.done() and not imported() >= set(sys.argv[2:]):
        await asyncio.wait({serving}, timeout=0.05)
    print("it serves" if not serving.done() else "it has ended")
    serving.cancel()
    await asyncio.wait({serving})

async def main():
    async with Kvasir.open(load(embedder={"kind": "none"})) as kvasir:
        async with asyncio.timeout(50):
            await serves(kvasir)

asyncio.run(main())
print(*sorted(imported()))
import bots.discord.check, bots.telegram.check
print(*sorted(imported() & {"aiogram", "discord"}))
"""


@pytest.mark.parametrize(
    ("settings", "imported"),
    [
        ({}, ""),
        (
            {"KVASIR_SLACK__BOT_TOKEN": "xoxb-1", "KVASIR_SLACK__APP_TOKEN": "xapp-1"},
            "aiohttp slack_bolt slack_sdk",
        ),
    ],
    ids=["none", "slack"],
)
def test_only_what_is_on_is_imported(tmp_path: Path, settings: dict[str, str], imported: str) -> None:
    nowhere = {"KVASIR_SLACK__BASE_URL": "http://127.0.0.1:9/api/"}
    environment = {**os.environ, "KVASIR_DATA_DIR": str(tmp_path), "KVASIR_LOG__LEVEL": "ERROR", **settings, **nowhere}
    done = subprocess.run(
        [sys.executable, "-P", "-c", _SERVE, ",".join(_LIBRARIES), *imported.split()],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["it serves", imported, ""]
