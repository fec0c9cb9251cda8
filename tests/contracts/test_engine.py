"""What every engine promises; a new one is a subclass with its fixture."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from core.engines.extractive import ExtractiveEngine
from core.engines.openai import OpenAIEngine
from core.engines.scripted import ScriptedEngine
from core.engines.tiangong import TiangongEngine
from core.errors import EngineUnavailable
from core.ports import Engine
from core.settings import OpenAISettings, ScriptedSettings, TiangongSettings
from core.types import Locator, Passage, Prompt, Sampling, Turn
from tests.fakes.engine import FakeEngine, text_of
from tests.fakes.llm_server import MODES, Exchange, llm_server, pieces
from tests.serving.worker_process import engine as worker_engine
from tests.serving.worker_process import plan as worker_plan

pytestmark = pytest.mark.anyio

TEXT = "Annual leave is 28 days a year. It must be asked for two weeks before. 年假为二十八天。请提前两周申请。"


def passage(text: str = TEXT) -> Passage:
    return Passage("handbook", "d1", "leave.md", "Leave", 0, text, ("Leave",), Locator("page", "", 2, 2), 0.9, 0.8, 3.0)


def prompt(question: str = "How long is annual leave?") -> Prompt:
    turns = (Turn("system", "Answer from the passages."), Turn("user", f"[1] {TEXT}\n\n{question}"))
    return Prompt(turns, question, (passage(),), "en", {"annual": 2.0, "leave": 2.0, "long": 1.0})


class EngineContract:
    async def test_it_says_what_it_is(self, engine: Engine) -> None:
        assert engine.info.name
        assert engine.info.context_size > 0

    async def test_the_pieces_make_a_text(self, engine: Engine) -> None:
        assert "28 days" in await text_of(engine.stream(prompt(), Sampling()))

    async def test_two_streams_at_once_do_not_mix(self, engine: Engine) -> None:
        async def whole() -> str:
            return await text_of(engine.stream(prompt(), Sampling()))

        first, second = await asyncio.gather(whole(), whole())
        assert first == second

    async def test_a_stream_may_be_closed_at_any_point(self, engine: Engine) -> None:
        for count in (0, 1):
            stream = engine.stream(prompt(), Sampling())
            for _ in range(count):
                await anext(stream)
            await stream.aclose()  # type: ignore[attr-defined]  # all are generators, which the port leaves open

    async def test_more_text_has_no_fewer_tokens(self, engine: Engine) -> None:
        assert engine.count_tokens("") <= engine.count_tokens("leave") <= engine.count_tokens("leave " * 50)
        assert engine.count_tokens("年假" * 50) > engine.count_tokens("年假")

    async def test_it_is_well(self, engine: Engine) -> None:
        assert await engine.health() == ""


class TestOpenAI(EngineContract):
    @pytest.fixture
    async def engine(self) -> AsyncIterator[Engine]:
        async with llm_server("ok", TEXT) as server:
            engine = OpenAIEngine(OpenAISettings(base_url=server.base_url, api_key=SecretStr("k"), model="tiny"))
            yield engine
            await engine.close()

    async def test_a_failure_is_ours(self) -> None:
        async with llm_server("failing") as server:
            engine = OpenAIEngine(OpenAISettings(base_url=server.base_url, model="tiny"), backoff=0.01)
            with pytest.raises(EngineUnavailable):
                _ = [piece async for piece in engine.stream(prompt(), Sampling())]
            await engine.close()


class TestTiangong(EngineContract):
    @pytest.fixture
    async def engine(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
        async def lines(exchange: Exchange) -> None:
            await exchange.head(200, "application/json")
            for word in pieces(exchange.server.text):
                await exchange.send(json.dumps({"code": 200, "resp_data": {"reply": word}}).encode() + b"\n")
            await exchange.end()

        monkeypatch.setitem(MODES, "lines", lines)
        async with llm_server("lines", TEXT) as server:
            settings = TiangongSettings(base_url=server.base_url, app_key=SecretStr("k"), app_secret=SecretStr("s"))
            engine = TiangongEngine(settings)
            yield engine
            await engine.close()


class TestFake(EngineContract):
    @pytest.fixture
    async def engine(self) -> Engine:
        return FakeEngine(TEXT)


class TestScripted(EngineContract):
    @pytest.fixture
    async def engine(self) -> Engine:
        return ScriptedEngine(ScriptedSettings(reply=TEXT))


class TestLocal(EngineContract):
    """In a worker process, which all tests share."""

    @pytest.fixture(scope="class")
    @classmethod
    def anyio_backend(cls) -> str:
        return "asyncio"

    @pytest.fixture(scope="class")
    @classmethod
    async def engine(cls, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
        async with worker_engine(worker_plan(tmp_path_factory.mktemp("worker"), reply=TEXT)) as engine:
            yield engine


class TestExtractive(EngineContract):
    @pytest.fixture
    async def engine(self) -> Engine:
        return ExtractiveEngine(2)

    async def test_what_it_says_is_in_the_passages(self, engine: Engine) -> None:
        text = await text_of(engine.stream(prompt(), Sampling()))
        assert "[1]" in text
        assert "Annual leave is 28 days a year." in text
