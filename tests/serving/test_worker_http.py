"""What a worker says over HTTP: a real process, asked by OpenAI's own client and by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest

from core.serving.house import SharedWorker
from tests.serving.worker_process import TEXT, client, forked_workers, plan, worker

if TYPE_CHECKING:  # each test process would take half a second to import it
    from openai import AsyncOpenAI

__all__ = ["forked_workers"]  # a fixture, found by its name here

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("forked_workers")]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def text_worker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SharedWorker]:
    async with worker(plan(tmp_path_factory.mktemp("w"), parallel=2, context_size=400)) as found:
        yield found


@pytest.fixture(scope="module")
async def vector_worker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SharedWorker]:
    async with worker(plan(tmp_path_factory.mktemp("v"), kind="scripted-vectors")) as found:
        yield found


@pytest.fixture
async def http(text_worker: SharedWorker) -> AsyncIterator[httpx2.AsyncClient]:
    async with client(text_worker) as found:
        yield found


@pytest.fixture
async def openai(text_worker: SharedWorker) -> AsyncIterator[AsyncOpenAI]:
    from openai import AsyncOpenAI

    address = text_worker.address
    async with AsyncOpenAI(
        base_url=f"{address.base}/v1",
        api_key=address.key,
        max_retries=0,
        http_client=httpx2.AsyncClient(transport=address.transport()),
    ) as found:
        yield found


def chat(text: str = TEXT, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


async def test_openais_client_chats(openai: AsyncOpenAI) -> None:
    whole = await openai.chat.completions.create(
        model="scripted", messages=[{"role": "system", "content": "Be kind."}, {"role": "user", "content": TEXT}]
    )
    assert whole.choices[0].message.content == TEXT
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert (whole.usage.completion_tokens, whole.usage.prompt_tokens) == (7, len(f"Be kind.{TEXT}") + 6)


async def test_openais_client_streams(openai: AsyncOpenAI) -> None:
    stream = await openai.chat.completions.create(
        model="scripted",
        messages=[{"role": "user", "content": TEXT}],
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=3,
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two three"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


async def test_openais_client_completes(openai: AsyncOpenAI) -> None:
    done = await openai.completions.create(model="scripted", prompt="a b c d", stop=" c")
    assert done.choices[0].text == "a b"
    stream = await openai.completions.create(model="scripted", prompt="a b c", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == "a b c"


async def test_openais_client_lists_models(openai: AsyncOpenAI) -> None:
    assert [model.id async for model in openai.models.list()] == ["scripted"]


async def test_a_prompt_that_is_too_long_is_refused_before_anything(openai: AsyncOpenAI) -> None:
    from openai import APIStatusError

    with pytest.raises(APIStatusError) as error:
        await openai.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "x" * 500}])
    assert error.value.status_code == 400
    assert error.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid_request"),
        ({"messages": []}, 400, "invalid_request"),
        ({"messages": [{"role": "tool", "content": "a"}]}, 400, "invalid_request"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "invalid_request"),
        (chat(temperature="warm"), 400, "invalid_request"),
        (chat(max_tokens=0), 400, "invalid_request"),
        (chat(max_tokens=100_000), 400, "context_length_exceeded"),
        (chat(top_p=float("nan")), 400, "invalid_request"),
        (chat(stop=[""]), 400, "invalid_request"),
        (chat(n=2), 400, "unsupported"),
        (chat(tools=[{"type": "function"}]), 400, "unsupported"),
        (chat(logprobs=True), 400, "unsupported"),
        (chat(model="gpt-9"), 404, "model_not_found"),
        (chat(response_format={"type": "json_schema"}), 400, "invalid_request"),
        (chat(response_format={"type": "json_object"}), 400, "unsupported"),
        (chat(guided_regex="[0-9]+"), 400, "unsupported"),
    ],
)
async def test_what_cannot_be_is_said(http: httpx2.AsyncClient, body: Any, status: int, code: str) -> None:
    answer = await http.post(
        "/v1/chat/completions", content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000, b'{"messages": 1}', b"\xff"])
async def test_what_is_no_request_is_said(http: httpx2.AsyncClient, body: bytes) -> None:
    answer = await http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    answer = await http.post("/v1/chat/completions", content=body, headers={"content-type": "text/plain"})
    assert answer.status_code == 415


async def test_half_characters_are_no_error(http: httpx2.AsyncClient) -> None:
    body = json.dumps(chat("a \ud800"))
    answer = await http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.json()["choices"][0]["message"]["content"] == "a ?"


@pytest.mark.parametrize("path", ["/v1/models", "/health", "/v1/model"])
async def test_without_the_key_nobody_gets_in(text_worker: SharedWorker, path: str) -> None:
    async with client(text_worker) as asking:
        for key in ("", "Bearer", "Bearer wrong", f"bearer {text_worker.address.key}"):
            answer = await asking.get(path, headers={"authorization": key})
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert (await asking.post("/admin/unload", headers={"authorization": ""}, json={})).status_code == 401


async def test_characters_are_whole_however_they_are_split(tmp_path: Path) -> None:
    async with worker(plan(tmp_path, "bytes")) as found, client(found) as asking:
        body = chat("你好, wörld 👍🏽", stream=True)
        answer = await asking.post("/v1/chat/completions", json=body)
    texts = [json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    pieces = [text["choices"][0]["delta"].get("content", "") for text in texts if text["choices"]]
    assert "".join(pieces) == "你好, wörld 👍🏽"
    assert "\ufffd" not in "".join(pieces)


async def test_tokens_are_counted_and_read(http: httpx2.AsyncClient) -> None:
    plain = (await http.post("/tokenize", json={"content": "hé<|end|>"})).json()
    assert plain["count"] == 10
    special = (await http.post("/tokenize", json={"content": "hé<|end|>", "parse_special": True})).json()
    assert special["count"] == 4
    assert (await http.post("/detokenize", json={"tokens": plain["tokens"]})).json() == {"content": "hé<|end|>"}
    messages = (await http.post("/tokenize", json={"messages": [{"role": "user", "content": "a"}]})).json()
    assert messages["count"] == 5


async def test_the_card_and_the_health(http: httpx2.AsyncClient) -> None:
    card = (await http.get("/v1/model")).json()
    assert (card["id"], card["context_size"], card["features"]) == ("scripted", 400, ["chat", "completion"])
    health = (await http.get("/health")).json()
    assert (health["state"], health["active"], health["queued"], health["last_step_age"]) == ("ready", 0, 0, 0)


async def test_who_waits_hears_of_the_queue_and_leaves_it(tmp_path: Path) -> None:
    wanted = plan(tmp_path, parallel=1, token_seconds=0.05, tokens=2000, context_size=9000)
    wanted = type(wanted)(wanted.kind, wanted.values, wanted.data_dir, queue=2)
    async with worker(wanted) as found, client(found) as asking:
        body = chat("word", stream=True, max_tokens=2000)
        async with asking.stream("POST", "/v1/chat/completions", json=body) as first:
            assert await _line(first, "data:", has="word")
            async with (
                asking.stream("POST", "/v1/chat/completions", json=body) as second,
                asking.stream("POST", "/v1/chat/completions", json=body) as third,
            ):
                assert await _line(third, ": queue") == ": queue 2"
                assert await _line(second, ": queue") == ": queue 1"
                full = await asking.post("/v1/chat/completions", json=chat())
                assert (full.status_code, full.json()["error"]["code"]) == (429, "queue_full")
                assert "2 others" in full.json()["error"]["message"]
                await first.aclose()  # whoever leaves makes room
                assert await _line(third, ": queue") == ": queue 1"
                assert await _line(second, "data:", has="word")
        await _until(asking, active=0, queued=0)


async def test_the_queue_is_fair_to_each_user(tmp_path: Path) -> None:
    """One who asks much does not keep the others from their turn."""
    wanted = plan(tmp_path, parallel=1, token_seconds=0.01, tokens=2000, context_size=9000)
    async with worker(wanted) as found, client(found) as asking:
        order: list[str] = []

        async def ask(user: str) -> None:
            await asking.post("/v1/chat/completions", json=chat("a", user=user, max_tokens=1))
            order.append(user)

        async with asyncio.TaskGroup() as group:
            body = chat("a", user="much", stream=True, max_tokens=2000)
            async with asking.stream("POST", "/v1/chat/completions", json=body):
                for place, user in enumerate(["much", "much", "much", "little"]):
                    group.create_task(ask(user))
                    await _until(asking, queued=place + 1)
        assert order.index("little") <= 1


async def test_embeddings_come_as_numbers_and_packed(vector_worker: SharedWorker) -> None:
    async with client(vector_worker) as asking:
        texts = ["annual leave", "annual leave", "the moon"]
        body = {"input": texts, "model": "scripted-vectors"}
        rows = np.array([one["embedding"] for one in (await asking.post("/v1/embeddings", json=body)).json()["data"]])
        assert rows.shape == (3, 64)
        assert np.allclose(rows[0], rows[1])
        packed = (await asking.post("/v1/embeddings", json={**body, "encoding_format": "base64"})).json()["data"]
        assert all(isinstance(one["embedding"], str) for one in packed)
        many = await asking.post("/v1/embeddings", json={"input": [f"text {n}" for n in range(100)]})
        assert [one["index"] for one in many.json()["data"]] == list(range(100))
        assert (await asking.post("/v1/chat/completions", json=chat())).status_code == 404
        assert (await asking.post("/v1/embeddings", json={"input": []})).status_code == 400


async def test_reranking_orders_and_cuts(vector_worker: SharedWorker) -> None:
    async with client(vector_worker) as asking:
        body = {
            "query": "annual leave",
            "documents": ["the moon", "annual leave", {"text": "leave"}],
            "top_n": 2,
        }
        found = (await asking.post("/v1/rerank", json=body)).json()["results"]
        assert [one["index"] for one in found] == [1, 2]
        assert 1 >= found[0]["relevance_score"] >= found[1]["relevance_score"] >= 0


async def _line(response: httpx2.Response, begins: str, *, has: str = "") -> str:
    lines = response.__dict__.setdefault("_lines_of_test", response.aiter_lines())
    async with asyncio.timeout(20):
        async for line in lines:
            if line.startswith(begins) and has in line:
                return str(line)
    raise AssertionError(begins)


async def _until(asking: httpx2.AsyncClient, **wanted: int) -> None:
    async with asyncio.timeout(20):
        while True:
            health = (await asking.get("/health")).json()
            if all(health[name] == value for name, value in wanted.items()):
                return
            await asyncio.sleep(0.01)
