"""Models as data: kept with their keys encrypted, opened once, switched while answers run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from core.app import Kvasir
from core.db.session import Database
from core.db.tables import ModelRow
from core.errors import ConfigError, Conflict, NotFound, Unavailable, UserError
from core.inference import tending
from core.inference.models import Models
from core.inference.sections import BadField
from core.ports import Engine
from core.serving.memory import weight_bytes
from core.settings import load
from core.types import Finished, Locator, Passage, Prompt, Question, Queued, Sampling, Turn
from core.vault import Vault
from tests.fakes.builder import forked_builder
from tests.fakes.engine import text_of
from tests.fakes.llm_server import LlmServer, llm_server
from tests.fakes.model import tiny_model

__all__ = ["forked_builder"]  # a fixture, found by its name here

pytestmark = pytest.mark.anyio
KEY = "sk-very-secret-key-0001"
PASSAGE = Passage("", "", "a.md", "A", 0, "Annual leave is 28 days.", (), Locator(), 1.0)
PROMPT = Prompt((Turn("user", "How much leave?"),), "How much leave?", (PASSAGE,))

OpenHouse = Callable[..., AbstractAsyncContextManager[Kvasir]]


@pytest.fixture
def open_house(tmp_path: Path) -> OpenHouse:
    """`async with open_house(answer={…}) as kvasir`; a second one at the same time stands for another process."""

    @asynccontextmanager
    async def opened(**given: Any) -> AsyncIterator[Kvasir]:
        given.setdefault("embedder", {"kind": "none"})
        async with Kvasir.open(load(data_dir=tmp_path / "data", **given)) as kvasir:
            yield kvasir

    return opened


@pytest.fixture
async def kvasir(open_house: OpenHouse) -> AsyncIterator[Kvasir]:
    async with open_house() as opened:
        yield opened


@pytest.fixture
async def server() -> AsyncIterator[LlmServer]:
    async with llm_server() as running:
        yield running


async def said(engine: Engine) -> str:
    return await text_of(engine.stream(PROMPT, Sampling()))


def states(kvasir: Kvasir, name: str) -> tuple[str, int, int, int]:
    standing = kvasir.engines.pool.standing(kvasir.models.find("engine", name))
    return standing.state, standing.active, standing.waiting, standing.ending


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------- what is kept
async def test_a_key_is_encrypted_and_never_shown(kvasir: Kvasir, server: LlmServer) -> None:
    model = await kvasir.models.add(
        "engine", "ours", "openai", {"base_url": server.base_url, "model": "tiny"}, {"api_key": KEY}
    )
    async with kvasir.db.read() as session:
        row = await session.scalar(select(ModelRow))
    assert row is not None
    assert KEY not in str(row.settings) + row.secrets
    shown = await tending.look_at(kvasir, "engine", "ours")
    assert KEY not in repr(model) + repr(shown)
    assert model.secrets == ("api_key",)
    assert await said(await kvasir.engines.get("ours")) == server.text
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_key_stays_where_only_other_things_change(kvasir: Kvasir, server: LlmServer) -> None:
    await kvasir.models.add(
        "engine", "ours", "openai", {"base_url": server.base_url, "model": "tiny"}, {"api_key": KEY}
    )
    await kvasir.models.change("ours", {"model": "large"})
    await said(await kvasir.engines.get("ours"))
    assert server.requests[-1].body["model"] == "large"
    assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    changed = await kvasir.models.change("ours", secrets={"api_key": ""})
    assert changed.secrets == ()
    await said(await kvasir.engines.get("ours"))
    assert "authorization" not in server.requests[-1].headers


async def test_a_key_never_goes_to_another_server(kvasir: Kvasir, server: LlmServer) -> None:
    await kvasir.models.add(
        "engine", "ours", "openai", {"base_url": "https://api.example.org/v1", "model": "m"}, {"api_key": KEY}
    )
    with pytest.raises(BadField) as refused:
        await kvasir.models.change("ours", {"base_url": server.base_url})
    assert refused.value.field == "api_key"
    with pytest.raises(BadField):
        kvasir.models.trial("engine", "openai", {"base_url": server.base_url, "model": "m"}, {}, kept="ours")
    assert kvasir.models.find("engine", "ours").values["base_url"] == "https://api.example.org/v1"
    await kvasir.models.change("ours", {"base_url": server.base_url}, {"api_key": "another"})


async def test_the_key_of_the_settings_goes_into_no_other_model(open_house: OpenHouse, server: LlmServer) -> None:
    own = {"base_url": "https://api.example.org/v1", "model": "m", "api_key": KEY}
    async with open_house(openai=own) as kvasir:
        await kvasir.models.add("engine", "ours", "openai", {"base_url": server.base_url, "model": "tiny"})
        await said(await kvasir.engines.get("ours"))
    assert "authorization" not in server.requests[-1].headers


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"model": "m"}, "base_url"),
        ({"base_url": "ftp://example.org", "model": "m"}, "base_url"),
        ({"base_url": "http://169.254.169.254/v1", "model": "m"}, "base_url"),
        ({"base_url": "http://me:secret@example.org/v1", "model": "m"}, "base_url"),
        ({"base_url": "http://example.org/v1"}, "model"),
        ({"base_url": "http://example.org/v1", "model": "m", "context_size": 3}, "context_size"),
        ({"base_url": "http://example.org/v1", "model": "m", "nonsense": 3}, "nonsense"),
        ({"base_url": "http://example.org/v1", "model": "m", "api_key": KEY}, "api_key"),
        ({"base_url": "http://example.org/v1", "model": "a\nb"}, "model"),
    ],
)
async def test_what_cannot_be_is_said_of_its_field(kvasir: Kvasir, values: dict[str, Any], field: str) -> None:
    with pytest.raises(BadField) as refused:
        await kvasir.models.add("engine", "bad", "openai", values)
    assert refused.value.field == field
    assert KEY not in str(refused.value)
    with pytest.raises(NotFound):
        kvasir.models.find("engine", "bad")


async def test_names_are_unique_and_printable(kvasir: Kvasir) -> None:
    await kvasir.models.add("engine", "quiet", "extractive")
    with pytest.raises(Conflict):
        await kvasir.models.add("reranker", "quiet", "sentences")
    for name in ("", "kb:leave", "../x", "a" * 65, "a\u202eb", "-x"):
        with pytest.raises(BadField):
            await kvasir.models.add("engine", name, "extractive")


async def test_another_key_of_the_house_fails_one_model_alone(open_house: OpenHouse, server: LlmServer) -> None:
    async with open_house(secret_key="a" * 40) as kvasir:
        await kvasir.models.add(
            "engine", "ours", "openai", {"base_url": server.base_url, "model": "tiny"}, {"api_key": KEY}
        )
    async with open_house(secret_key="b" * 40) as kvasir:
        found = {item.model.name: item.standing.state for item in await tending.look(kvasir, "engine")}
        assert found == {"ours": "failed", "extractive": "idle"}
        with pytest.raises(ConfigError):
            await kvasir.engines.get("ours")


# ---------------------------------------------------------------- which one is meant
async def test_an_added_model_goes_before_an_adapter_of_its_name(kvasir: Kvasir) -> None:
    assert await said(await kvasir.engines.get("scripted")) != "Mine."
    await kvasir.models.add("engine", "scripted", "scripted", {"reply": "Mine."})
    assert await said(await kvasir.engines.get("scripted")) == "Mine."
    await kvasir.models.remove("scripted")
    assert await said(await kvasir.engines.get("scripted")) != "Mine."


async def test_the_chosen_one_answers_where_none_is_named(kvasir: Kvasir) -> None:
    assert kvasir.models.default("engine") == "extractive"
    await kvasir.models.add("engine", "poet", "scripted", {"reply": "Mead."})
    await tending.use(kvasir, "engine", "poet")
    engine = await kvasir.engines.get("")
    assert (engine.info.name, await said(engine)) == ("poet", "Mead.")
    assert kvasir.models.house().answer.engine == "poet"
    assert kvasir.models.names("engine")[0] == "poet"
    with pytest.raises(Conflict):
        await kvasir.models.remove("poet")
    with pytest.raises(Conflict):
        await kvasir.models.enable("poet", False)
    await tending.use(kvasir, "engine", "extractive")
    assert kvasir.models.default("engine") == "extractive"
    await kvasir.models.remove("poet")


async def test_an_adapter_of_the_settings_can_be_chosen(kvasir: Kvasir) -> None:
    await tending.use(kvasir, "engine", "scripted")
    assert kvasir.models.default("engine") == "scripted"
    with pytest.raises(ConfigError):
        await tending.use(kvasir, "engine", "openai")
    assert kvasir.models.default("engine") == "scripted"


async def test_what_cannot_be_opened_is_not_chosen(kvasir: Kvasir, tmp_path: Path) -> None:
    await kvasir.models.add("embedder", "broken", "builtin", {"model_dir": str(tmp_path / "nothing")})
    with pytest.raises(Unavailable):
        await tending.use(kvasir, "embedder", "broken")
    assert kvasir.models.default("embedder") == ""


async def test_answers_come_from_the_house_engine_and_say_so(kvasir: Kvasir) -> None:
    await kvasir.knowledge.create("handbook")
    await kvasir.models.add("engine", "poet", "scripted", {"reply": "Mead."})
    await tending.use(kvasir, "engine", "poet")
    async with aclosing(kvasir.answers.answer(Question("How much leave?", ("handbook",), "user:1"))) as events:
        finished = [event async for event in events if isinstance(event, Finished)]
    assert finished[0].engine == "poet"


async def test_what_is_used_cannot_be_removed(kvasir: Kvasir) -> None:
    await kvasir.models.add("engine", "poet", "scripted")
    await kvasir.knowledge.create("sagas")
    await kvasir.knowledge.change("sagas", engine="poet")
    assert (await tending.look_at(kvasir, "engine", "poet")).used_by == ["sagas"]
    with pytest.raises(Conflict, match="sagas"):
        await kvasir.models.remove("poet")
    await kvasir.knowledge.change("sagas", engine=None, fallbacks=["extractive", "poet"])
    assert (await tending.look_at(kvasir, "engine", "poet")).used_by == ["sagas"]
    with pytest.raises(Conflict, match="sagas"):
        await kvasir.models.remove("poet")
    await kvasir.knowledge.change("sagas", fallbacks=None)
    await kvasir.models.remove("poet")


async def test_a_reranker_that_lacks_its_server_cannot_be_named(kvasir: Kvasir) -> None:
    assert kvasir.models.names("reranker") == ["sentences"]
    await kvasir.knowledge.create("sagas")
    with pytest.raises(UserError, match="http"):
        await kvasir.knowledge.change("sagas", reranker="http")
    await kvasir.models.add("reranker", "judge", "http", {"base_url": "http://127.0.0.1:9/v1", "model": "m"})
    assert (await kvasir.knowledge.change("sagas", reranker="judge")).reranker == "judge"


# ---------------------------------------------------------------- in the database
ADAPTERS = {"engine": ["extractive", "openai", "scripted"], "embedder": ["builtin", "openai"], "reranker": []}


async def test_rows_are_the_same_on_every_database(db: Database, tmp_path: Path) -> None:
    """As two processes on one database see them."""
    settings = load(data_dir=tmp_path)
    vault = Vault(tmp_path)
    one, other = (Models(db, vault, settings, ADAPTERS.__getitem__) for _ in range(2))
    heard: list[str] = []

    async def hear() -> None:
        heard.append(other.default("engine"))

    other.on_change(hear)
    assert not await other.refresh()
    await one.add("engine", "poet", "scripted", {"reply": "Mead."})
    await one.add("engine", "far", "openai", {"base_url": "http://far/v1", "model": "m"}, {"api_key": KEY})
    await one.use("engine", "poet")
    assert await other.refresh()
    assert heard == ["poet"]
    assert [model.name for model in other.all("engine") if model.is_added] == ["far", "poet"]
    assert other.settings_for(other.find("engine", "far")).openai.api_key.get_secret_value() == KEY
    before = other.find("engine", "poet")
    await one.use("engine", "far")
    await other.refresh()
    assert [model.name for model in other.all("engine") if model.is_default] == ["far"]
    assert other.find("engine", "poet") is not before
    await one.use("engine", "extractive")
    await one.remove("far")
    await one.remove("poet")
    await other.refresh()
    assert [model.name for model in other.all("engine")] == ["extractive"]
    with pytest.raises(NotFound):
        await one.remove("poet")


@pytest.mark.usefixtures("forked_builder")
async def test_a_second_model_of_the_same_kind_from_another_folder(kvasir: Kvasir, tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "tiny")
    await kvasir.models.add("embedder", "tiny", "builtin", {"model_dir": str(folder), "threads": 1})
    await tending.load(kvasir, "embedder", "tiny")
    tried = await tending.test(kvasir, "embedder", "tiny")
    assert tried.ok, tried.error
    shown = await tending.look_at(kvasir, "embedder", "tiny")
    assert (shown.standing.state, shown.dimension) == ("ready", tried.details["dimension"])
    assert shown.memory > 0


# ---------------------------------------------------------------- while answers run
async def test_a_change_lets_running_answers_end(kvasir: Kvasir) -> None:
    await kvasir.models.add("engine", "poet", "scripted", {"reply": "one two three", "token_seconds": 0.05})
    engine = await kvasir.engines.get("poet")
    running = engine.stream(PROMPT, Sampling())
    text = str(await anext(running))
    await kvasir.models.change("poet", {"reply": "new"})
    assert await said(await kvasir.engines.get("poet")) == "new"
    assert states(kvasir, "poet")[3] == 1
    assert await said(engine) == "new"  # it was got before the change, and asked after it
    text += await text_of(running)
    assert text == "one two three"
    await until(lambda: states(kvasir, "poet")[3] == 0)


async def test_twenty_answers_and_three_changes_lose_nothing(kvasir: Kvasir) -> None:
    texts = [f"{word} one two three" for word in ("first", "second", "third", "fourth")]
    await kvasir.models.add("engine", "poet", "scripted", {"reply": texts[0], "token_seconds": 0.01, "parallel": 4})
    running = [asyncio.create_task(said(await kvasir.engines.get("poet"))) for _ in range(20)]
    for text in texts[1:]:
        await asyncio.sleep(0.03)
        await kvasir.models.change("poet", {"reply": text})
    answers = await asyncio.gather(*running)
    assert set(answers) <= set(texts)
    assert len(set(answers)) > 1
    await until(lambda: states(kvasir, "poet")[1:] == (0, 0, 0))


async def test_switching_off_ends_nothing_and_lets_nobody_in(kvasir: Kvasir) -> None:
    await kvasir.models.add("engine", "poet", "scripted", {"reply": "one two three", "token_seconds": 0.05})
    engine = await kvasir.engines.get("poet")
    running = engine.stream(PROMPT, Sampling())
    text = str(await anext(running))
    await tending.unload(kvasir, "engine", "poet")
    assert states(kvasir, "poet")[0] == "off"
    with pytest.raises(Unavailable):
        await kvasir.engines.get("poet")
    with pytest.raises(Unavailable):
        await said(engine)
    assert text + await text_of(running) == "one two three"
    await tending.load(kvasir, "engine", "poet")
    await until(lambda: states(kvasir, "poet")[0] == "ready")


async def test_so_many_at_a_time_and_the_others_in_their_order(kvasir: Kvasir) -> None:
    await kvasir.models.add("engine", "poet", "scripted", {"reply": "one two", "token_seconds": 0.05, "parallel": 1})
    engine = await kvasir.engines.get("poet")
    order: list[int] = []

    async def ask(number: int) -> None:
        await text_of(engine.stream(PROMPT, Sampling()))
        order.append(number)

    tasks = [asyncio.create_task(ask(number)) for number in range(4)]
    await until(lambda: states(kvasir, "poet")[1:3] == (1, 3))
    tasks[1].cancel()  # whoever goes away while waiting holds up nobody
    await asyncio.wait({tasks[1]})
    assert states(kvasir, "poet")[1:3] == (1, 2)
    await asyncio.gather(tasks[0], *tasks[2:])
    assert order == [0, 2, 3]
    assert states(kvasir, "poet")[1:3] == (0, 0)


async def test_whoever_hangs_up_gives_the_place_free(kvasir: Kvasir) -> None:
    await kvasir.models.add("engine", "poet", "scripted", {"hang_after": 1, "parallel": 1})
    engine = await kvasir.engines.get("poet")
    async with aclosing(engine.stream(PROMPT, Sampling())) as first:  # type: ignore[type-var]  # all of ours are generators
        await anext(first)
        second = engine.stream(PROMPT, Sampling())
        assert await anext(second) == Queued(1)
        waiting = asyncio.ensure_future(anext(second))
        await asyncio.sleep(0)
        assert not waiting.done()
    assert await asyncio.wait_for(waiting, 5) == Queued(0)
    assert isinstance(await anext(second), str)


async def test_other_processes_hear_of_changes(open_house: OpenHouse) -> None:
    async with open_house() as one, open_house() as other:
        await one.models.add("engine", "poet", "scripted", {"reply": "first"})
        with pytest.raises(ConfigError):
            await other.engines.get("poet")
        assert await other.models.refresh()
        assert await said(await other.engines.get("poet")) == "first"
        await one.models.change("poet", {"reply": "second"})
        await other.models.refresh()
        assert await said(await other.engines.get("poet")) == "second"
        await one.models.remove("poet")
        await other.models.refresh()
        with pytest.raises(ConfigError):
            await other.engines.get("poet")
        assert not await other.models.refresh()


# ---------------------------------------------------------------- trying, and what is logged
async def test_a_trial_says_how_long_it_took(kvasir: Kvasir, server: LlmServer) -> None:
    model = kvasir.models.trial("engine", "openai", {"base_url": server.base_url, "model": "tiny"}, {"api_key": KEY})
    tried = await tending.test_trial(kvasir, model)
    assert tried.ok, tried.error
    assert tried.text == server.text
    assert 0 < (tried.first_ms or 0) <= tried.total_ms
    with pytest.raises(NotFound):
        kvasir.models.find("engine", "tiny")


async def test_a_failure_is_one_clear_sentence_without_the_key(kvasir: Kvasir, server: LlmServer) -> None:
    server.mode = "wrong_key"
    await kvasir.models.add(
        "engine", "ours", "openai", {"base_url": server.base_url, "model": "tiny"}, {"api_key": KEY}
    )
    tried = await tending.test(kvasir, "engine", "ours")
    assert not tried.ok
    assert "key" in tried.error
    assert KEY not in tried.error
    lines = [line.text for line in tending.log_of(kvasir, "engine", "ours")]
    assert any("key" in line for line in lines)
    assert KEY not in "".join(lines)


async def test_lines_that_an_adapter_logs_are_its_models_without_secrets(kvasir: Kvasir, server: LlmServer) -> None:
    await kvasir.models.add(
        "engine", "ours", "openai", {"base_url": server.base_url, "model": "tiny"}, {"api_key": KEY}
    )
    await kvasir.models.add("engine", "poet", "scripted")
    running = await kvasir.engines.pool.get("ours")
    with running.log.heard():
        logging.getLogger("core.engines.somebody").warning("calling with %s\nfaked line", KEY)
    last = tending.log_of(kvasir, "engine", "ours")[-1]
    assert (last.level, last.text) == ("WARNING", "calling with … faked line")
    assert all("calling" not in line.text for line in tending.log_of(kvasir, "engine", "poet"))


async def test_memory_is_the_size_of_the_weights(kvasir: Kvasir, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"x" * 5000)
    (folder / "README.md").write_bytes(b"x" * 900)
    assert weight_bytes(folder) == 5000
    assert weight_bytes(folder / "README.md") == 900
    assert weight_bytes(tmp_path / "nothing") == 0
