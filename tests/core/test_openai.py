"""The `openai` engine against a server that has every fault real ones have shown."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from pydantic import SecretStr

from core.engines.openai import OpenAIEngine
from core.engines.openai_quirks import PRESETS, PROVIDERS, adapted, provider_of, request_body
from core.engines.openai_stream import EventReader, NotOurDialect
from core.errors import ConfigError, EngineBroke, EngineUnavailable
from core.settings import OpenAISettings
from core.types import Ended, Language, Prompt, Sampling, Turn
from tests.fakes.engine import text_of
from tests.fakes.llm_server import LlmServer, llm_server

pytestmark = pytest.mark.anyio

KEY = "sk-very-secret-key-42"


def prompt(language: Language = "en") -> Prompt:
    return Prompt((Turn("system", "Be brief."), Turn("user", "How long is leave?")), "leave", (), language)


@asynccontextmanager
async def opened(mode: str, **changes: object) -> AsyncIterator[tuple[OpenAIEngine, LlmServer]]:
    async with llm_server(mode) as server:
        values: dict[str, object] = {
            "base_url": server.base_url,
            "api_key": SecretStr(KEY),
            "model": "tiny",
            "first_token_timeout_seconds": 5,
            "token_timeout_seconds": 5,
            **changes,
        }
        engine = OpenAIEngine(OpenAISettings.model_validate(values), backoff=0.01)
        try:
            yield engine, server
        finally:
            await engine.close()


async def answer(engine: OpenAIEngine, language: Language = "en") -> str:
    return await text_of(engine.stream(prompt(language), Sampling()))


@pytest.mark.parametrize(
    "mode",
    [
        *("ok", "slow", "split_utf8", "crlf", "no_blank_lines", "no_done", "not_streamed", "reasoning", "think_tags"),
        *("content_parts", "busy_then_ok", "failing_then_ok", "break_before_headers"),
        *("wants_completion_tokens", "wants_no_system", "said_once_more", "counted_with_every_piece"),
    ],
)
async def test_the_answer_arrives_whole(mode: str) -> None:
    async with opened(mode) as (engine, server):
        assert await answer(engine) == server.text


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("stall_before_headers", "did not begin to answer within 0.2 s"),
        ("stall_before_first_token", "did not begin to answer within 0.2 s"),
        ("stall_after_first_token", "stalled: nothing came for 0.1 s"),
        ("break_mid_stream", "broke"),
        ("error_as_200", "overloaded"),
        ("error_in_stream", "CUDA out of memory"),
        ("wrong_key", "does not accept the key"),
        ("wrong_key_as_200", "does not accept the key"),
        ("wrong_key_in_base_resp", "does not accept the key"),
        ("error_as_list", "Unknown name"),
        ("no_model", "no model «tiny»"),
        ("too_long", "too long for the model"),
        ("busy", "busy"),
        ("busy_for_long", "busy"),
        ("failing", "engine died"),
        ("moved", "points to elsewhere.example"),
        ("garbage", "does not answer like an OpenAI-compatible one"),
        ("garbage_event", "does not answer like an OpenAI-compatible one"),
        ("huge_line", "does not answer like an OpenAI-compatible one"),
        ("empty", "broke"),
        ("only_reasoning", "empty answer"),
    ],
)
async def test_a_fault_ends_as_one_clear_sentence(mode: str, words: str) -> None:
    limits = {"first_token_timeout_seconds": 0.2, "token_timeout_seconds": 0.1} if "stall" in mode else {}
    async with opened(mode, **limits) as (engine, _):
        with pytest.raises(EngineUnavailable) as caught:
            await answer(engine)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["worker_ended", "worker_ended_in_stream"])
async def test_a_worker_of_ours_that_ended_is_known_from_one_that_refuses(mode: str) -> None:
    """The question is asked again of the next process."""
    async with opened(mode) as (engine, _):
        with pytest.raises(EngineBroke, match=r"^Memory ran out\.$"):
            await answer(engine)


async def test_sentences_come_in_chinese_too() -> None:
    async with opened("wrong_key") as (engine, _):
        with pytest.raises(EngineUnavailable, match="不接受该密钥"):
            await answer(engine, "zh")


async def test_nobody_listening_is_said_with_the_address() -> None:
    async with opened("ok") as (engine, server):
        pass
    engine = OpenAIEngine(OpenAISettings(base_url=server.base_url, model="tiny"), backoff=0.01)
    with pytest.raises(EngineUnavailable, match=r"Cannot connect to .* 127\.0\.0\.1"):
        await answer(engine)
    assert "Cannot connect" in await engine.health()
    await engine.close()


async def test_health_is_empty_when_all_is_well() -> None:
    async with opened("ok") as (engine, _):
        assert await engine.health() == ""
    async with opened("wrong_key") as (engine, _):
        assert "key" in await engine.health()


@pytest.mark.parametrize("mode", ["wrong_key", "no_model", "too_long", "break_mid_stream", "error_in_stream", "moved"])
async def test_what_cannot_get_better_is_asked_once(mode: str) -> None:
    async with opened(mode) as (engine, server):
        with pytest.raises(EngineUnavailable):
            await answer(engine)
        assert len(server.requests) == 1


async def test_retries_are_few_and_wait_as_told() -> None:
    async with opened("busy") as (engine, server):
        with pytest.raises(EngineUnavailable):
            await answer(engine)
        assert len(server.requests) == 3
    async with opened("busy_then_ok") as (engine, server):
        begun = time.monotonic()
        await answer(engine)
        assert time.monotonic() - begun >= 0.2


async def test_what_a_server_refuses_is_learned_once() -> None:
    async with opened("wants_completion_tokens") as (engine, server):
        await answer(engine)
        await answer(engine)
        assert len(server.requests) == 3


@pytest.mark.parametrize("mode", ["wrong_key", "busy", "failing", "garbage", "error_as_200", "break_mid_stream"])
async def test_the_key_is_in_no_error_and_no_log(mode: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with opened(mode) as (engine, server):
        with pytest.raises(EngineUnavailable) as caught:
            await answer(engine)
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in str(caught.value)
    assert KEY not in repr(caught.value.__cause__)
    assert KEY not in caplog.text


async def test_closing_the_stream_closes_the_connection_at_once() -> None:
    async with opened("endless") as (engine, server):
        stream = engine.stream(prompt(), Sampling())
        assert await anext(stream)
        await stream.aclose()
        async with asyncio.timeout(1):
            await server.gone.wait()


async def test_cancelling_the_reader_closes_the_connection_at_once() -> None:
    async with opened("stall_before_first_token") as (engine, server):
        task = asyncio.create_task(answer(engine))
        async with asyncio.timeout(2):
            await server.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(1):
            await server.gone.wait()


async def test_the_request_is_what_the_provider_takes() -> None:
    async with opened("ok", headers={"X-Team": "handbook"}) as (engine, server):
        sampling = Sampling(max_tokens=9, temperature=0.3, stop=("a", "b"))
        _ = [text async for text in engine.stream(prompt(), sampling)]
        request = server.requests[0]
    assert request.path == "/v1/chat/completions"
    assert request.headers["x-team"] == "handbook"
    assert request.body == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How long is leave?"}],
        "stream": True,
        "max_tokens": 9,
        "temperature": 0.3,
        "stop": ["a", "b"],
    }


@pytest.mark.parametrize(
    ("base_url", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://my.openai.azure.com/openai/v1", "azure"),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "dashscope"),
        ("https://open.bigmodel.cn/api/paas/v4", "zhipu"),
        ("https://api.z.ai/api/paas/v4", "zhipu"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://api.moonshot.cn/v1", "moonshot"),
        ("https://ark.cn-beijing.volces.com/api/v3", "volcano"),
        ("https://qianfan.baidubce.com/v2", "qianfan"),
        ("https://api.minimaxi.com/v1", "minimax"),
        ("https://api.minimax.io/v1", "minimax"),
        ("https://api.baichuan-ai.com/v1", "baichuan"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini"),
        ("http://localhost:11434/v1", "ollama"),
        ("http://10.0.0.7:8000/v1", "generic"),
        ("https://api.openai.com.evil.example/v1", "generic"),
    ],
)
async def test_providers_are_known_by_their_address(base_url: str, provider: str) -> None:
    assert provider_of(base_url) == provider


async def test_quirks_shape_the_request() -> None:
    sampling = Sampling(max_tokens=5, temperature=0.0, top_p=1.0, stop=("a", "b"), seed=1)
    zhipu = request_body("glm", prompt().turns, sampling, PROVIDERS["zhipu"])
    assert (zhipu["temperature"], zhipu["top_p"], zhipu["stop"], zhipu.get("seed")) == (0.01, 0.99, ["a"], None)
    assert request_body("gpt", prompt().turns, sampling, PROVIDERS["openai"])["max_completion_tokens"] == 5
    assert all(adapted(quirks, "Your credit card was declined") is None for quirks in PROVIDERS.values())


@pytest.mark.parametrize(
    "values",
    [
        {"base_url": "", "model": "tiny"},
        {"base_url": "ftp://x/v1", "model": "tiny"},
        {"base_url": "http://x/v1", "model": ""},
        {"base_url": "http://x/v1", "model": "tiny", "provider": "nobody"},
    ],
)
async def test_unusable_settings_are_refused_with_the_variable_s_name(values: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="KVASIR_OPENAI__"):
        OpenAIEngine(OpenAISettings.model_validate(values))


PLAIN = {"temperature": 0.0, "top_p": 1.0, "stop": ["a", "b"], "seed": 7}
COUNTED = {"stream_options": {"include_usage": True}}
SENT: dict[str, dict[str, object]] = {
    "generic": {"max_tokens": 5, **PLAIN},
    "openai": {"max_completion_tokens": 5, **PLAIN, **COUNTED},
    "azure": {"max_completion_tokens": 5, **PLAIN, **COUNTED},
    "dashscope": {"max_tokens": 5, **PLAIN, **COUNTED},
    "zhipu": {"max_tokens": 5, "temperature": 0.01, "top_p": 0.99, "stop": ["a"]},
    "deepseek": {"max_tokens": 5, **PLAIN, **COUNTED},
    "moonshot": {"max_tokens": 5, **PLAIN},
    "volcano": {"max_tokens": 5, "temperature": 0.0, "top_p": 1.0, "stop": ["a", "b"], **COUNTED},
    "qianfan": {"max_tokens": 5, "temperature": 0.01, "top_p": 1.0, "stop": ["a", "b"], **COUNTED},
    "minimax": {"max_tokens": 5, "temperature": 0.01, "top_p": 1.0, **COUNTED},
    "baichuan": {"max_tokens": 5, "temperature": 0.0, "top_p": 1.0},
    "gemini": {"max_tokens": 5, "temperature": 0.0, "top_p": 1.0, "stop": ["a", "b"], **COUNTED},
    "ollama": {"max_tokens": 5, **PLAIN, **COUNTED},
    "vllm": {"max_tokens": 5, **PLAIN, **COUNTED},
    "tabbyapi": {"max_tokens": 5, **PLAIN, **COUNTED},
    "llama-server": {"max_tokens": 5, **PLAIN, **COUNTED},
}


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_each_provider_is_sent_what_it_takes(provider: str) -> None:
    sampling = Sampling(max_tokens=5, temperature=0.0, top_p=1.0, stop=("a", "b"), seed=7)
    async with opened("ok", provider=provider) as (engine, server):
        said = await text_of(engine.stream(prompt(), sampling))
    request = server.requests[0]
    assert said == server.text
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How long is leave?"}]
    assert request.body == {"model": "tiny", "messages": messages, "stream": True, **SENT[provider]}
    key = {"api-key": KEY} if provider == "azure" else {"authorization": f"Bearer {KEY}"}
    assert {name: request.headers.get(name) for name in ("authorization", "api-key") if name in request.headers} == key


async def test_every_provider_has_a_preset() -> None:
    assert {preset.values["provider"] for preset in PRESETS} == set(PROVIDERS)
    for preset in PRESETS:
        url = str(preset.values["base_url"])
        if url and "127.0.0.1" not in url:
            assert provider_of(url) == preset.name


@pytest.mark.parametrize(
    ("mode", "provider", "told"),
    [
        ("counted", "vllm", Ended("length", 17, 9)),
        ("counted", "generic", Ended("length")),
        ("counted_in_the_choice", "moonshot", Ended("stop", 17, 9)),
        ("counted_with_every_piece", "gemini", Ended("stop", 17, 11)),
        ("said_once_more", "minimax", Ended("stop", 17, 9)),
        ("counts_for_nobody", "vllm", Ended("stop")),
        ("not_streamed", "generic", Ended("stop")),
    ],
)
async def test_what_the_server_says_of_the_end_is_told_once(mode: str, provider: str, told: Ended) -> None:
    heard: list[Ended] = []
    async with opened(mode, provider=provider) as (engine, server):
        asked = replace(prompt(), on_end=heard.append)
        said = await text_of(engine.stream(asked, Sampling()))
    assert (said, heard) == (server.text, [told])


async def test_nothing_is_told_of_an_answer_that_broke() -> None:
    heard: list[Ended] = []
    async with opened("break_mid_stream") as (engine, _):
        with pytest.raises(EngineUnavailable):
            _ = [text async for text in engine.stream(replace(prompt(), on_end=heard.append), Sampling())]
    assert not heard


async def test_tokens_are_estimated_on_the_high_side() -> None:
    async with opened("ok") as (engine, _):
        assert engine.count_tokens("") == 0
        assert engine.count_tokens("年假为二十八天") == 7
        assert engine.count_tokens("annual leave " * 100) >= 300


async def test_hostile_events_take_linear_time() -> None:
    hostile = [b"data: " + b"[" * 400_000 + b"\n\n", b"data:\n" * 100_000, b"\r" * 500_000, b'data: {"a":' * 50_000]
    for data in hostile:
        reader, begun = EventReader(), time.monotonic()
        try:
            for start in range(0, len(data), 997):
                reader.feed(data[start : start + 997])
            reader.close()
        except NotOurDialect:
            pass
        assert time.monotonic() - begun < 2
