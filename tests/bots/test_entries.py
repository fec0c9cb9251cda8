"""A platform's library is imported when the platform goes on, and not before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_LIBRARIES = ("slack_sdk", "slack_bolt", "discord", "aiogram", "aiohttp")
_SERVE = """
import asyncio, sys
from bots.handler import ChatHandler
from bots.runner import serve
from core.app import Kvasir
from core.settings import load

async def main():
    async with Kvasir.open(load(embedder={"kind": "none"})) as kvasir:
        try:
            async with asyncio.timeout(0.2):
                await serve(kvasir, ChatHandler(kvasir))
        except TimeoutError:
            pass

asyncio.run(main())
print(*sorted(set(sys.argv[1].split(",")) & {name.partition(".")[0] for name in sys.modules}))
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
        [sys.executable, "-c", _SERVE, ",".join(_LIBRARIES)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == imported.split()
