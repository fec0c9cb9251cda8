"""`kvasir worker`, and an engine elsewhere that uses it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from core.engines.local import LocalEngine
from core.errors import EngineUnavailable
from core.serving.client import unload
from core.serving.plan import Plan
from core.serving.workers import worker_of
from tests.fakes.commands import Commands
from tests.processes import KVASIR, start
from tests.serving.worker_process import TEXT, answer

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
KEY = "a-key-of-the-network"


@asynccontextmanager
async def kvasir_worker(folder: Path, **settings: str) -> AsyncIterator[tuple[subprocess.Popen[str], str]]:
    """The command, serving, and its address."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KVASIR_")}
    process = await asyncio.to_thread(
        start, [KVASIR, "worker", "--kind", "scripted", "--port", "0"],
        env={**kept, "KVASIR_DATA_DIR": str(folder), "KVASIR_WORKER__API_KEY": KEY, "LANG": "en_US.UTF-8", **settings},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            line = await asyncio.to_thread(process.stdout.readline)
        found = re.search(r"http://127\.0\.0\.1:[0-9]+", line)
        assert found, line
        yield process, found[0]
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.communicate, timeout=30)


@asynccontextmanager
async def remote(url: str, key: str, folder: Path) -> AsyncIterator[LocalEngine]:
    plan = Plan("scripted", {}, folder, base_url=url, api_key=key)
    engine = LocalEngine(plan, worker_of(plan, lambda _stage, _done: None))
    try:
        await engine.open()
        yield engine
    finally:
        await engine.close()


async def test_a_worker_serves_other_machines_until_it_is_unloaded(tmp_path: Path) -> None:
    async with kvasir_worker(tmp_path, KVASIR_SCRIPTED__TOKEN_SECONDS="0.01") as (process, url):
        async with remote(url, KEY, tmp_path) as engine:
            assert await answer(engine, TEXT) == TEXT
            assert await engine.health() == ""
            assert engine.info.context_size == 8192
        with pytest.raises(EngineUnavailable, match="key is missing or wrong"):
            async with remote(url, "another-key-of-theirs", tmp_path):
                pass
        async with remote(url, KEY, tmp_path) as engine:
            (child,) = psutil.Process(process.pid).children()
            child.kill()
            assert await answer(engine, TEXT) == TEXT  # a fresh process answers at the same address
        async with remote(url, KEY, tmp_path) as engine, engine._worker.address.client() as http:
            running = asyncio.create_task(answer(engine, TEXT))
            await asyncio.sleep(0.03)
            assert await unload(http, 10)
            assert await running == TEXT
            assert await asyncio.to_thread(process.wait, 30) == 0
            with pytest.raises(EngineUnavailable):
                await answer(engine, TEXT)


@pytest.mark.parametrize("key", ["", "short"])
def test_beyond_loopback_it_wants_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("KVASIR_WORKER__API_KEY", key)
    sentence = Commands(tmp_path).fails("worker", "--kind", "scripted", "--host", "0.0.0.0")
    assert "KVASIR_WORKER__API_KEY" in sentence


def test_what_runs_in_no_worker_is_said(tmp_path: Path) -> None:
    assert "scripted" in Commands(tmp_path).fails("worker", "--kind", "openai")


def test_the_doctor_tells_of_each_model_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVASIR_EMBEDDER__KIND", "none")
    monkeypatch.setenv("KVASIR_WEB__PORT", "0")
    monkeypatch.setenv("KVASIR_LLAMACPP__MODEL_PATH", str(tmp_path / "nothing.gguf"))
    monkeypatch.setenv("KVASIR_CTRANSLATE2__BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("KVASIR_LANGUAGE", "en")
    said = Commands(tmp_path)("doctor", status=1)
    assert "Engine llamacpp: Its model is not at" in said
    assert "Engine ctranslate2: Cannot connect" in said
