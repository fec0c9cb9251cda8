"""The API that speaks as OpenAI's does, through OpenAI's own client and by hand, on a real socket."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import httpx2
import numpy as np
import pytest

from core.access import Scope
from core.answer import Answers
from core.answering.completion import Completions
from core.answering.curated_match import CuratedMatch
from core.answering.retrieve import Retriever
from core.ports import Engine
from core.types import Ended, Role, Turn
from tests.admin.conftest import PASSWORD, OpenSite, Site, serving
from tests.fakes.embedder import HashEmbedder
from tests.fakes.engine import FakeEngine
from tests.fakes.house import FakeSearch
from tests.fakes.llm_server import TEXT, llm_server

if TYPE_CHECKING:
    from openai import AsyncOpenAI

pytestmark = pytest.mark.anyio

USER: Any = {"role": "user", "content": "How many days of leave?"}


@dataclass
class Api:
    """What is served, and somebody with a key who asks it."""

    site: Site
    url: str
    key: str
    client: AsyncOpenAI
    engine: FakeEngine
    search: FakeSearch

    async def post(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        async with httpx2.AsyncClient() as raw:
            given = {"authorization": f"Bearer {self.key}"} | headers
            return await raw.post(f"{self.url}/v1/{path}", json=body, headers=given)


OpenApi: TypeAlias = "Callable[..., AbstractAsyncContextManager[Api]]"


@pytest.fixture
def open_api(open_site: OpenSite) -> OpenApi:
    """`async with open_api(FakeEngine(…)) as api`; settings as for `open_site`."""

    @asynccontextmanager
    async def opened(engine: FakeEngine | None = None, scope: Scope = Scope.ASK, **given: Any) -> AsyncIterator[Api]:
        import openai  # slow

        given["web"] = {"port": 0} | given.get("web", {})
        async with open_site(**given) as site:
            search, kvasir = FakeSearch(), site.kvasir
            if engine is not None:

                async def engines(name: str) -> Engine:
                    return cast("Engine", engine)

                retriever = cast("Retriever", search)
                kvasir = replace(
                    kvasir,
                    answers=Answers(kvasir.db, retriever, engines, kvasir.settings, CuratedMatch(kvasir.db)),
                    completions=Completions(engines, lambda: ["fake"], kvasir.settings.answer),
                )
            for name in ("handbook", "canteen"):
                await kvasir.knowledge.create(name)
            await kvasir.accounts.create("anna", PASSWORD, Role.VIEWER)
            _, key = await kvasir.accounts.create_key("anna", "test", [scope])
            async with (
                serving(Site(kvasir, site.app, site.handler)) as url,
                openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client,
            ):
                yield Api(site, url, key, client, engine or FakeEngine(), search)
            await kvasir.answers.close()

    return opened


async def test_a_chat_is_answered_whole_and_in_chunks(open_api: OpenApi) -> None:
    async with open_api(FakeEngine("Hello there.")) as api:
        messages: Any = [{"role": "developer", "content": "Be brief."}, USER]
        said = await api.client.chat.completions.create(model="fake-1", messages=messages, max_completion_tokens=9)
        assert said.choices[0].message.content == "Hello there."
        assert said.choices[0].finish_reason == "stop"
        assert said.model == "fake-1"
        assert said.usage is not None
        assert said.usage.total_tokens == said.usage.prompt_tokens + said.usage.completion_tokens > 0
        prompt, sampling = api.engine.asked[0]
        assert prompt.turns == (Turn("system", "Be brief."), Turn("user", USER["content"]))
        assert sampling.max_tokens == 9

        stream = await api.client.chat.completions.create(
            model="fake", messages=[USER], stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Hello there."
        assert [chunk.choices[0].delta.role for chunk in chunks[:2]] == ["assistant", None]
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == said.usage.completion_tokens
        assert len({chunk.id for chunk in chunks}) == 1


async def test_what_the_model_s_own_server_counted_is_passed_on(open_api: OpenApi) -> None:
    async with open_api(FakeEngine("Hello", ended=Ended("length", 17, 9))) as api:
        said = await api.client.chat.completions.create(model="fake", messages=[USER])
        assert said.choices[0].finish_reason == "length"
        assert said.usage is not None
        assert (said.usage.prompt_tokens, said.usage.completion_tokens, said.usage.total_tokens) == (17, 9, 26)


async def test_the_wire_is_events_that_end_with_done(open_api: OpenApi) -> None:
    async with open_api(FakeEngine("Hello")) as api:
        response = await api.post("chat/completions", {"model": "fake", "messages": [USER], "stream": True})
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        lines = [line for line in response.text.split("\n\n") if line]
        assert all(line.startswith("data: ") for line in lines)
        assert lines[-1] == "data: [DONE]"
        assert "usage" not in response.text


@pytest.mark.parametrize("model", ["fake", "kb:handbook"])
async def test_who_waits_hears_at_which_place(open_api: OpenApi, model: str) -> None:
    engine = FakeEngine("Hello", places=asyncio.Queue())
    for place in (2, 1, 0) * 2:
        engine.places.put_nowait(place)  # type: ignore[union-attr]  # it is above
    async with open_api(engine) as api:
        response = await api.post("chat/completions", {"model": model, "messages": [USER], "stream": True})
        lines = [line for line in response.text.split("\n\n") if line]
        assert lines[:3] == [": queue 2", ": queue 1", ": queue 0"]
        assert all(line.startswith("data: ") for line in lines[3:])
        said = await api.client.chat.completions.create(model=model, messages=[USER])
        assert said.choices[0].message.content == "Hello"


async def test_a_knowledge_base_answers_with_its_sources_and_the_history(open_api: OpenApi) -> None:
    async with open_api(FakeEngine()) as api:
        before: Any = [
            {"role": "system", "content": "You are a pirate."},
            {"role": "user", "content": "May I park here?"},
            {"role": "assistant", "content": "Yes, in the yard."},
        ]
        said = await api.client.chat.completions.create(
            model="kb:handbook,canteen", messages=[*before, USER], temperature=0.3, max_tokens=70
        )
        assert (api.engine.asked[-1][1].temperature, api.engine.asked[-1][1].max_tokens) == (0.3, 70)
        told = cast("Any", said).kvasir
        assert said.choices[0].message.content == "Annual leave is 28 days a year [1]."
        assert told["answered"] is True
        assert told["sources"] == [
            {
                "n": 1,
                "document": "leave.md",
                "title": "Leave",
                "locator": "page 2",
                "score": 0.9,
                "text": "Annual leave is 28 days.",
            }
        ]
        assert api.search.asked[-1][1] == ("handbook", "canteen")
        sent = " ".join(turn.text for prompt, _ in api.engine.asked for turn in prompt.turns)
        assert "in the yard" in sent
        assert "pirate" not in sent
        kept = await api.site.kvasir.answers.recorded(told["answer_id"])
        assert kept is not None

        stream = await api.client.chat.completions.create(model="kb:handbook", messages=[USER], stream=True)
        chunks: list[Any] = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == kept.text
        assert [hasattr(chunk, "kvasir") for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        assert chunks[-1].kvasir["sources"] == told["sources"]

        plain: Any = await api.client.completions.create(model="kb:handbook", prompt="How much leave?")
        assert plain.kvasir["sources"][0]["document"] == "leave.md"


async def test_a_plain_completion_is_text(open_api: OpenApi) -> None:
    async with open_api(FakeEngine("and so on")) as api:
        said = await api.client.completions.create(model="fake", prompt=["Once upon a time"])
        assert (said.object, said.choices[0].text) == ("text_completion", "and so on")
        stream = await api.client.completions.create(model="fake", prompt="Once", stream=True)
        assert "".join([chunk.choices[0].text async for chunk in stream]) == "and so on"


async def test_texts_become_vectors(open_api: OpenApi) -> None:
    async with open_api() as api:
        embedder = HashEmbedder()
        with pytest.raises(Exception, match="embedding model now"):
            await api.client.embeddings.create(model="words", input="annual leave")
        api.site.kvasir.embedder.use(embedder)
        wanted = await embedder.embed_documents(["annual leave", "年假"] * 20)
        in_base64 = await api.client.embeddings.create(model="words", input=["annual leave", "年假"] * 20)
        in_floats = await api.client.embeddings.create(model="words", input="年假", encoding_format="float")
        assert [item.index for item in in_base64.data] == list(range(40))
        assert np.array_equal(np.array([item.embedding for item in in_base64.data], np.float32), wanted)
        assert np.array_equal(np.array(in_floats.data[0].embedding, np.float32), wanted[1])
        raw = (await api.post("embeddings", {"model": "words", "input": "年假", "encoding_format": "base64"})).json()
        assert base64.b64decode(raw["data"][0]["embedding"]) == wanted[1].tobytes()
        assert raw["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
        for given, param in (
            ({"input": [1, 2]}, "input"),
            ({"input": [[1, 2]]}, "input"),
            ({"input": []}, "input"),
            ({"input": ["a", ""]}, "input"),
            ({"input": "x" * 32_769}, "input"),
            ({"input": ["x"] * 2049}, "input"),
            ({"input": "x", "encoding_format": "hex"}, "encoding_format"),
            ({"input": "x", "dimensions": 7}, None),
        ):
            response = await api.post("embeddings", {"model": "words", **given})
            assert (response.status_code, response.json()["error"]["param"]) == (400, param), response.text
        assert (await api.post("embeddings", {"model": "other", "input": "x"})).status_code == 404


async def test_the_models_are_those_that_can_be_asked(open_api: OpenApi) -> None:
    import openai

    async with open_api(FakeEngine()) as api:
        api.site.kvasir.embedder.use(HashEmbedder())
        assert [model.id async for model in api.client.models.list()] == [
            "fake-1",
            "words",
            "kb:canteen",
            "kb:handbook",
        ]
        assert (await api.client.models.retrieve("fake")).id == "fake-1"
        assert (await api.client.models.retrieve("kb:handbook,canteen")).id == "kb:handbook,canteen"
        for name in ("nothing", "kb:nothing", "kb:", "kb:handbook,nothing"):
            with pytest.raises(openai.NotFoundError) as refused:
                await api.client.models.retrieve(name)
            assert refused.value.code == "model_not_found"


async def test_what_only_quotes_or_is_not_set_up_cannot_chat(open_api: OpenApi) -> None:
    async with open_api(answer={"engine": "extractive"}) as api:
        names = [model.id async for model in api.client.models.list()]
        assert names[0] == "scripted"
        for name in ("extractive", "openai", ""):
            response = await api.post("chat/completions", {"model": name, "messages": [USER]})
            assert response.status_code in (400, 404)
        said = await api.client.chat.completions.create(model="scripted", messages=[USER])
        assert said.choices[0].message.content == USER["content"]


_IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}


async def test_what_cannot_be_done_is_refused_by_name(open_site: OpenSite) -> None:
    async with open_site(answer={"engine": "scripted"}) as site:
        anna = await site.person("anna", Role.VIEWER)
        body = {"model": "scripted", "messages": [USER]}
        ignored = {"user": "x", "n": 1, "tools": [], "response_format": {"type": "text"}, "presence_penalty": 1}
        assert (await anna.post("/v1/chat/completions", json=body | ignored)).status_code == 200
        changes: tuple[tuple[dict[str, Any], str], ...] = (
            ({"messages": []}, "messages"),
            ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
            ({"messages": [{"role": "user", "content": " "}]}, "messages"),
            ({"messages": [{"role": "user", "content": [_IMAGE]}]}, "messages.0.content"),
            ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages.0.role"),
            ({"n": 2}, "n"),
            ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
            ({"response_format": {"type": "json_object"}}, "response_format"),
            ({"logprobs": True}, "logprobs"),
            ({"temperature": 3}, "temperature"),
            ({"max_tokens": 0}, "max_tokens"),
            ({"stop": ["a"] * 5}, "stop"),
        )
        for change, param in changes:
            response = await anna.post("/v1/chat/completions", json=body | change)
            assert response.status_code == 400, change
            error = response.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert (error["type"], error["param"]) == ("invalid_request_error", param)


async def test_the_engine_gets_what_was_set(open_api: OpenApi) -> None:
    async with llm_server() as model:
        settings = {"base_url": model.base_url, "model": "org/tiny"}
        async with open_api(answer={"engine": "openai"}, openai=settings) as api:
            said = await api.client.chat.completions.create(
                model="org/tiny", messages=[USER], temperature=0.3, top_p=0.5, max_tokens=70, stop="END", seed=11
            )
            assert said.choices[0].message.content == TEXT
            body = model.requests[-1].body
            given = {key: body[key] for key in ("temperature", "top_p", "max_tokens", "stop", "seed")}
            assert given == {"temperature": 0.3, "top_p": 0.5, "max_tokens": 70, "stop": ["END"], "seed": 11}
            assert (await api.client.models.retrieve("org/tiny")).owned_by == "openai"


@pytest.mark.parametrize("stream", [True, False])
async def test_who_hangs_up_stops_the_engine(open_api: OpenApi, stream: bool) -> None:
    async with open_api(FakeEngine("word " * 10_000, pause=0.01)) as api:
        body = {"model": "fake", "messages": [USER], "stream": stream}
        asking = asyncio.create_task(api.post("chat/completions", body))
        await asyncio.wait_for(api.engine.begun.wait(), timeout=5)
        asking.cancel()
        async with asyncio.timeout(5):
            while api.engine.running:
                await asyncio.sleep(0.01)
        assert api.engine.ended_early == 1


async def test_an_engine_that_fails_says_so(open_api: OpenApi) -> None:
    import openai

    async with open_api(FakeEngine(fail_after=0)) as api:
        for model in ("fake", "kb:handbook"):
            with pytest.raises(openai.InternalServerError, match="broke down") as failed:
                await api.client.chat.completions.create(model=model, messages=[USER], stream=True)
            assert failed.value.status_code == 503
        api.engine.fail_after = 3
        stream = await api.client.chat.completions.create(model="fake", messages=[USER], stream=True)
        with pytest.raises(openai.APIError, match="broke down"):
            [chunk async for chunk in stream]


async def test_a_model_that_does_not_end_is_cut_and_too_much_is_refused(open_api: OpenApi) -> None:
    import openai

    async with open_api(FakeEngine("word " * 1000, context_size=100)) as api:
        said = await api.client.chat.completions.create(model="fake", messages=[USER], max_tokens=5)
        assert said.choices[0].finish_reason == "length"
        with pytest.raises(openai.BadRequestError) as refused:
            await api.client.chat.completions.create(model="fake", messages=[{"role": "user", "content": "x" * 400}])
        assert refused.value.code == "context_length_exceeded"


async def test_who_asks_too_often_hears_when_to_come_back(open_api: OpenApi) -> None:
    import openai

    async with open_api(FakeEngine(), web={"questions_per_minute": 1}) as api:
        await api.client.chat.completions.create(model="fake", messages=[USER])
        with pytest.raises(openai.RateLimitError) as refused:
            await api.client.chat.completions.create(model="fake", messages=[USER])
        assert int(refused.value.response.headers["retry-after"]) > 0
        assert refused.value.code == "rate_limit_exceeded"


async def test_only_those_who_may_ask_get_in(open_site: OpenSite) -> None:
    async with open_site(answer={"engine": "scripted"}, web={"anonymous": True}) as site:
        await site.kvasir.knowledge.create("open")
        anna = await site.person("anna", Role.VIEWER)
        _, key = await site.kvasir.accounts.create_key("anna", "reader", [Scope.READ])
        body = {"model": "scripted", "messages": [USER]}
        for headers, status, code in (
            ({}, 401, "invalid_api_key"),
            ({"authorization": "Bearer sk-wrong"}, 401, "invalid_api_key"),
            ({"authorization": f"Bearer {key}"}, 403, None),
        ):
            response = await site.client().post("/v1/chat/completions", json=body, headers=headers)
            assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert (await anna.post("/v1/chat/completions", json=body)).status_code == 200
        foreign = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
        assert (await anna.post("/v1/chat/completions", json=body, headers=foreign)).status_code == 403
        assert (await anna.get("/v1/models", headers=foreign | {"sec-fetch-mode": "cors"})).status_code == 403
        assert (await anna.post("/v1/nothing", json={})).json()["error"]["code"] == "unknown_url"
        assert (await anna.post("/v1/models", json={})).status_code == 405
        broken = await anna.post("/v1/embeddings", content=b"{", headers={"content-type": "application/json"})
        assert (broken.status_code, broken.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_a_private_knowledge_base_is_not_there_for_those_who_may_not_ask_it(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_site() as site:
        await site.kvasir.knowledge.create("open")
        await site.kvasir.knowledge.create("hidden", private=True)
        anna, accounts = await site.person("anna", Role.VIEWER), site.kvasir.accounts
        names = [model["id"] for model in (await anna.get("/v1/models")).json()["data"]]
        assert {"kb:open", "kb:hidden"} <= set(names)
        whole = accounts.may
        monkeypatch.setattr(
            accounts,
            "may",
            lambda who, action, *, private=False, **how: not private and whole(who, action, private=private, **how),
        )
        names = [model["id"] for model in (await anna.get("/v1/models")).json()["data"]]
        assert "kb:hidden" not in names
        texts = set()
        for name in ("hidden", "nowhere", "open,hidden"):
            body = {"model": f"kb:{name}", "messages": [USER]}
            response = await anna.post("/v1/chat/completions", json=body)
            assert response.status_code == 404
            texts.add(response.text.replace("nowhere", "hidden"))
        assert len(texts) == 1
