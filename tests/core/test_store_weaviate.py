"""The `weaviate` store where things go wrong: keys, ports, restarts, kills; the server is a real one."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from joserfc import jwk, jwt
from pydantic import SecretStr
from pytest_httpserver import HTTPServer
from weaviate import WeaviateAsyncClient
from weaviate.collections.aggregations.over_all import _OverAllAsync
from weaviate.exceptions import WeaviateInsertManyAllFailedError
from werkzeug import Request, Response

from core.errors import ConfigError, StoreUnavailable
from core.settings import Settings, StoreSettings, WeaviateSettings
from core.stores import weaviate_changes, weaviate_index
from core.stores.local import open_store as open_local
from core.stores.weaviate import WeaviateStore, open_store
from core.stores.weaviate_check import check
from core.stores.weaviate_index import Index
from core.stores.weaviate_schema import chunks_config, chunks_name, document_key, documents_name, of_first
from core.stores.weaviate_server import Breaker, Server
from core.stores.weaviate_writing import _FINISHED, Coming, Writer, _digest, _document_object, chunk_objects
from core.types import Compare, IndexedDocument
from tests.contracts.test_vector_store import GENERATION, OTHER, document, keyword, spelt, texts, vector
from tests.weaviate_server import Node, empty, free_ports, one_node

pytestmark = pytest.mark.anyio

WORDS = [spelt(number) for number in range(40)]


@asynccontextmanager
async def opened(weaviate: WeaviateSettings, folder: Path) -> AsyncIterator[WeaviateStore]:
    store = await open_store(Settings(data_dir=folder, weaviate=weaviate))
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def own(weaviate_server: WeaviateSettings) -> AsyncIterator[WeaviateSettings]:
    yield weaviate_server
    await empty(weaviate_server)


@pytest.fixture
async def store(own: WeaviateSettings, tmp_path: Path) -> AsyncIterator[WeaviateStore]:
    async with opened(own, tmp_path) as store:
        await store.ensure_generation(GENERATION)
        yield store


def several(count: int, seed: int = 1, version: str = "1") -> list[IndexedDocument]:
    chance = random.Random(seed)
    return [
        document(
            f"d{number}",
            *(" ".join(chance.choices(WORDS, k=chance.randint(3, 30))) for _ in range(chance.randint(1, 6))),
            name=f"folder{number % 3}/d{number}.md",
            seed=number * 7,
            version=version,
        )
        for number in range(count)
    ]


# ---------------------------------------------------------------- it is not there
@contextmanager
def silent_port() -> Iterator[tuple[int, list[int]]]:
    """Takes connections and never answers; the list grows with each."""
    seen: list[int] = []
    kept: list[socket.socket] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def accept() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return
                seen.append(1)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield server.getsockname()[1], seen
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for one in kept:
                one.close()


def at(port: int, grpc: int, **other: object) -> WeaviateSettings:
    return WeaviateSettings.model_validate(
        {"url": f"http://127.0.0.1:{port}", "grpc_url": f"127.0.0.1:{grpc}", **other}
    )


async def trouble(weaviate: WeaviateSettings, folder: Path) -> str:
    """What somebody is told who searches; and what the doctor says is the same."""
    async with opened(weaviate, folder) as store:
        with pytest.raises(StoreUnavailable) as error:
            await store.search(GENERATION, vector=None, tokens=["tea"], limit=3)
    findings = [one async for one in check(Settings(data_dir=folder, weaviate=weaviate))]
    assert str(error.value) in [one.says for one in findings if not one.ok]
    return str(error.value)


async def test_a_dead_port_is_told_in_a_sentence(tmp_path: Path) -> None:
    port, grpc = free_ports(2)
    told = await trouble(at(port, grpc), tmp_path)
    assert told.startswith(f"There is no Weaviate server at http://127.0.0.1:{port}; start it")


async def test_a_port_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with silent_port() as (port, _):
        told = await trouble(at(port, free_ports(1)[0], search_seconds=0.3), tmp_path)
    assert "has not answered within 0.3 seconds" in told


async def test_a_server_in_trouble_is_left_alone(tmp_path: Path) -> None:
    with silent_port() as (port, seen):
        async with opened(at(port, free_ports(1)[0], search_seconds=0.2), tmp_path) as store:
            for _ in range(6):
                with pytest.raises(StoreUnavailable, match="has not answered"):
                    await store.search(GENERATION, vector=None, tokens=["tea"], limit=3)
        assert len(seen) == 3


def test_one_may_try_again_after_a_while() -> None:
    now = [0.0]
    breaker = Breaker(lambda: now[0])
    for _ in range(3):
        breaker.enter()
        breaker.failed("It is away.")
    with pytest.raises(StoreUnavailable, match="It is away"):
        breaker.enter()
    now[0] = 6.0
    assert breaker.state == "half-open"
    breaker.enter()
    with pytest.raises(StoreUnavailable):
        breaker.enter()  # only one
    breaker.left()
    breaker.enter()
    breaker.failed("It is still away.")
    with pytest.raises(StoreUnavailable, match="still"):
        breaker.enter()
    now[0] = 12.0
    breaker.enter()
    breaker.worked()
    assert breaker.state == "closed"
    breaker.enter()
    breaker.enter()


async def test_an_old_server_is_refused(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request("/v1/meta").respond_with_json({"version": "1.30.2", "hostname": "x", "modules": {}})
    with pytest.raises(ConfigError, match=r"version 1\.30\.2, and 1\.33 is needed"):
        await open_store(Settings(data_dir=tmp_path, weaviate=at(httpserver.port, free_ports(1)[0])))


@pytest.mark.parametrize("url", ["", "ftp://host", "http://", "http://host:99999999"])
async def test_addresses_that_are_none_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"weaviate\.url"):
        await open_store(Settings(data_dir=tmp_path, weaviate=WeaviateSettings(url=url)))


async def test_a_wrong_key_is_told_in_a_sentence(weaviate_server: WeaviateSettings, tmp_path: Path) -> None:
    if weaviate_server.api_key is None:
        pytest.skip("the server in KVASIR_TEST_WEAVIATE_URL asks for no key")
    told = await trouble(weaviate_server.model_copy(update={"api_key": SecretStr("another")}), tmp_path)
    assert "refuses Kvasir's key" in told
    assert "another" not in told


# ---------------------------------------------------------------- OpenID Connect
def issuer(httpserver: HTTPServer, secret: str) -> None:
    """An identity provider that knows the client `kvasir` with this secret, and signs what it gives out."""
    key = jwk.RSAKey.generate_key(2048, {"kid": "k1", "use": "sig", "alg": "RS256"})
    base = httpserver.url_for("").rstrip("/")

    def token(request: Request) -> Response:
        asked = request.form
        if (asked["client_id"], asked["client_secret"], asked["grant_type"]) != (
            "kvasir",
            secret,
            "client_credentials",
        ):
            return Response('{"error": "invalid_client"}', 401, content_type="application/json")
        claims = {"iss": base, "aud": "kvasir", "sub": "kvasir", "scope": asked["scope"], "exp": int(time.time()) + 600}
        signed = jwt.encode({"alg": "RS256", "kid": "k1"}, claims, key)
        told = {"access_token": signed, "expires_in": 600, "token_type": "Bearer"}
        return Response(json.dumps(told), content_type="application/json")

    httpserver.expect_request("/.well-known/openid-configuration").respond_with_json(
        {
            "issuer": base, "token_endpoint": f"{base}/token", "jwks_uri": f"{base}/keys",
            "authorization_endpoint": f"{base}/authorize", "grant_types_supported": ["client_credentials"],
            "id_token_signing_alg_values_supported": ["RS256"], "subject_types_supported": ["public"],
            "response_types_supported": ["code"],
        }
    )  # fmt: skip
    httpserver.expect_request("/keys").respond_with_json({"keys": [key.as_dict(private=False)]})
    httpserver.expect_request("/token", method="POST").respond_with_handler(token)


async def test_client_credentials_of_openid_connect_open_both_ports(
    httpserver: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real server that believes our own identity provider; HTTP and gRPC alike want its token."""
    issuer(httpserver, "well kept")
    believes = {
        "AUTHENTICATION_OIDC_ENABLED": "true",
        "AUTHENTICATION_OIDC_ISSUER": httpserver.url_for("").rstrip("/"),
        "AUTHENTICATION_OIDC_CLIENT_ID": "kvasir",
        "AUTHENTICATION_OIDC_USERNAME_CLAIM": "sub",
        "AUTHENTICATION_OIDC_SCOPES": "openid",
        "AUTHENTICATION_APIKEY_ENABLED": "false",
    }
    with one_node(tmp_path / "server", believes) as node:
        settings = node.settings
        mine = {"api_key": None, "oidc_client_secret": SecretStr("well kept"), "oidc_scopes": ["weaviate"]}
        async with opened(settings.model_copy(update=mine), tmp_path) as store:
            await store.ensure_generation(GENERATION)
            await store.put(GENERATION, [document("d1", "Tea at four.")])
            assert texts(await keyword(store, "tea")) == ["Tea at four."]
        asked = next(request for request, _ in httpserver.log if request.path == "/token")
        assert asked.form["scope"].split() == ["openid", "weaviate"]
        async with opened(settings.model_copy(update=mine), tmp_path) as store:
            logins = len([1 for request, _ in httpserver.log if request.path == "/token"])
            monkeypatch.setattr(store._server, "_renew_at", time.monotonic())  # its life is over
            assert texts(await keyword(store, "tea")) == ["Tea at four."]
            assert len([1 for request, _ in httpserver.log if request.path == "/token"]) == logins + 1
        for wrong in ({"oidc_client_secret": SecretStr("another")}, {"oidc_token": SecretStr("x.y.z")}):
            other = {"api_key": None, "oidc_client_secret": None} | wrong
            told = await trouble(settings.model_copy(update=other), tmp_path)
            assert "refuses" in told
            assert "another" not in told


async def test_a_server_without_openid_connect_is_told(own: WeaviateSettings, tmp_path: Path) -> None:
    mine = {"api_key": None, "oidc_client_secret": SecretStr("well kept")}
    with pytest.raises(ConfigError, match="knows no OpenID Connect"):
        await open_store(Settings(data_dir=tmp_path, weaviate=own.model_copy(update=mine)))


def test_the_cloud_is_reached_by_tls_and_its_own_grpc_host() -> None:
    server = Server(WeaviateSettings(url="https://kb-x1.c0.europe-west3.gcp.weaviate.cloud", api_key=SecretStr("k")))
    assert server.address == "https://kb-x1.c0.europe-west3.gcp.weaviate.cloud:443"
    assert server.grpc_address == "grpc-kb-x1.c0.europe-west3.gcp.weaviate.cloud:443"


async def test_a_dead_grpc_port_is_told_with_its_address(own: WeaviateSettings, tmp_path: Path) -> None:
    (dead,) = free_ports(1)
    wrong = own.model_copy(update={"grpc_url": f"127.0.0.1:{dead}", "search_seconds": 2.0})
    findings = {one.what: one async for one in check(Settings(data_dir=tmp_path, weaviate=wrong))}
    assert findings["Server"].ok
    assert not findings["gRPC"].ok


# ---------------------------------------------------------------- it is there
async def test_the_doctor_finds_a_good_server_good(store: WeaviateStore, own: WeaviateSettings, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, weaviate=own, store=StoreSettings(kind="weaviate"))
    findings = [one async for one in check(settings)]
    assert [one.says for one in findings if not one.ok] == []
    assert any("1 in 2 collections" in one.says for one in findings)
    many = settings.model_copy(update={"weaviate": own.model_copy(update={"replication_factor": 9})})
    assert ["9 copies" in one.says async for one in check(many) if not one.ok] == [True]


async def test_both_stores_give_the_same(store: WeaviateStore, tmp_path: Path) -> None:
    local = await open_local(Settings(data_dir=tmp_path))
    await local.ensure_generation(GENERATION)
    for one in (local, store):
        await one.put(GENERATION, several(40))
        await one.put(GENERATION, several(20, seed=2, version="2"))
    assert await local.count(GENERATION) == await store.count(GENERATION)
    chance = random.Random(5)
    for number in range(10):
        asked, near = chance.sample(WORDS, 3), vector(number)
        only = Compare("folder", "eq", "folder1") if number % 2 else None
        found = [
            await one.search(GENERATION, vector=near, tokens=asked, limit=200, filter=only) for one in (local, store)
        ]
        assert found[0].chunk_count == found[1].chunk_count
        assert dict(found[0].document_frequency) == dict(found[1].document_frequency)
        scores = [{(hit.document_id, hit.chunk.number): hit for hit in one.hits} for one in found]
        assert scores[0].keys() == scores[1].keys()
        for key, hit in scores[0].items():
            assert scores[1][key].keyword_score == pytest.approx(hit.keyword_score, abs=1e-3)
            assert scores[1][key].vector_score == pytest.approx(hit.vector_score, abs=2e-3)
    await local.close()


async def notes(own: WeaviateSettings) -> weaviate_changes.State:
    server = Server(own)
    try:
        return await server.call(lambda client: Index(client, own, GENERATION).state(), 30)
    finally:
        await server.close()


@pytest.mark.parametrize("few", [1, 64])
async def test_what_is_put_again_unchanged_is_not_written(
    store: WeaviateStore, own: WeaviateSettings, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """Also where more than a few documents have an object of their own."""
    monkeypatch.setattr(weaviate_index, "_FEW", few)
    documents = [*several(3), document("empty")]
    await store.put(GENERATION, documents)
    before = await notes(own)
    await store.put(GENERATION, documents)
    assert await notes(own) == before
    assert len(before.changes) == 2


async def test_every_document_is_listed_of_an_index_of_many_pages(
    store: WeaviateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [*several(40), document("empty")]
    await store.put(GENERATION, documents)
    monkeypatch.setattr(weaviate_index, "_PAGE", 4)
    assert await store.documents(GENERATION) == sorted((one.id, one.content_hash, len(one.chunks)) for one in documents)


async def write_as_before(client: WeaviateAsyncClient, own: WeaviateSettings, given: Sequence[IndexedDocument]) -> None:
    """As versions did that gave each document an object of its own, besides its chunks."""
    index = Index(client, own, GENERATION)
    config = chunks_config(own, GENERATION)
    lately = [one.name for one in of_first()]
    config["properties"] = [one for one in config["properties"] if one.name not in lately]
    await client.collections.create(**config)
    await index.ensure()
    await index.note(weaviate_changes.Change(str(uuid.uuid4()), "swept", ("x",), ("y",), time.time()))
    rows, chunks = [], []
    for one in given:
        new = Coming(one, document_key(one.id), _digest(one), uuid.uuid4().hex)
        chunks += chunk_objects(GENERATION, new)
        row = _document_object(GENERATION, new)
        row.properties["tokens"] = sum(len(chunk.tokens.split()) for chunk in one.chunks)
        rows.append(row)
    for chunk in chunks:
        for name in lately:
            chunk.properties.pop(name, None)
    assert not (await index.insert_chunks(chunks)).errors
    assert not (await index.insert_documents(rows)).errors


async def test_an_index_of_an_earlier_version_goes_on(own: WeaviateSettings, tmp_path: Path) -> None:
    """Protection: nothing comes in anew, nothing is there twice, and nothing is lost."""
    server = Server(own)
    given = [*several(12), document("empty", version="1")]
    await server.call(lambda client: client.collections.delete(chunks_name(own, GENERATION)), 30)
    await server.call(lambda client: write_as_before(client, own, given), 30)
    local = await open_local(Settings(data_dir=tmp_path))
    await local.ensure_generation(GENERATION)
    await local.put(GENERATION, given)

    async def same(store: WeaviateStore) -> None:
        assert await store.documents(GENERATION) == await local.documents(GENERATION)
        assert await store.count(GENERATION) == await local.count(GENERATION)
        found, expected = [await one.search(GENERATION, vector=None, tokens=WORDS, limit=99) for one in (store, local)]
        assert (found.chunk_count, dict(found.document_frequency)) == (
            expected.chunk_count,
            dict(expected.document_frequency),
        )
        scores = [
            {(hit.document_id, hit.chunk.number): hit.keyword_score for hit in one.hits} for one in (found, expected)
        ]
        assert scores[0] == pytest.approx(scores[1], abs=1e-3)

    async with opened(own, tmp_path / "first") as store:  # one that only asks
        await same(store)
        whole = await store.read(GENERATION, [one.id for one in given])
        assert [(one.id, one.content_hash, one.chunks) for one in whole] == [
            (one.id, one.content_hash, one.chunks) for one in given
        ]
    async with opened(own, tmp_path / "second") as store:
        before = await server.call(lambda client: Index(client, own, GENERATION).state(), 30)
        await store.put(GENERATION, given)
        assert await notes(own) == before
        for one in (local, store):
            await one.put(GENERATION, [*several(4, seed=3, version="2"), document("d99", "Tea at four.")])
            await one.delete(GENERATION, ["d5", "empty"])
        await same(store)
    await local.close()
    await server.close()


async def test_what_a_killed_writer_left_is_hidden_and_then_taken_out(
    store: WeaviateStore, own: WeaviateSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put(GENERATION, [document("d1", "Tea at four.")])
    writing = asyncio.create_task(store.put(GENERATION, several(300)))
    while weaviate_changes.COMING not in {change.state for change in (await notes(own)).changes}:
        await asyncio.sleep(0.02)
    lost = weaviate_changes.Change("6f6f0f5e-5f0c-5b1e-9d0a-6b7661736972", "coming", ("nobody",), (), time.time())

    async def leave(client: WeaviateAsyncClient) -> None:
        await Index(client, own, GENERATION).note(lost)

    server = Server(own)
    await server.call(leave, 30)
    await server.close()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert texts(await keyword(store, "tea")) == ["Tea at four."]
    assert (await store.count(GENERATION)).documents == 1
    monkeypatch.setattr(weaviate_changes, "ABANDONED", 0.0)
    await store.put(GENERATION, [document("d2", "Cake.")])
    assert {change.state for change in (await notes(own)).changes} == {"swept", "torn"}
    assert (await store.count(GENERATION)).documents == 2


async def test_a_server_that_has_not_come_up_yet_is_no_empty_one(
    store: WeaviateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protection: it answers before it knows its collections again; what is in them would come in anew, or be lost."""
    await store.put(GENERATION, [document("d1", "Tea at four.")])
    ready, walk_documents = False, Index.walk_documents

    def forgetful(index: Index) -> AsyncIterator[Any]:
        if not ready:
            raise RuntimeError("could not find class X in schema")
        return walk_documents(index)

    async def is_ready(_client: WeaviateAsyncClient) -> bool:
        return ready

    monkeypatch.setattr(Index, "walk_documents", forgetful)
    monkeypatch.setattr(WeaviateAsyncClient, "is_ready", is_ready)
    with pytest.raises(StoreUnavailable, match="no Weaviate server"):
        await store.documents(GENERATION)
    ready = True
    assert [one for one, _, _ in await store.documents(GENERATION)] == ["d1"]


async def test_a_server_that_has_not_come_up_yet_refuses_no_document(
    store: WeaviateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protection: as above, where it says so of each object; no document is to blame for that."""
    tries, insert_chunks = 0, Index.insert_chunks

    async def forgetful(index: Index, objects: Sequence[Any]) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise WeaviateInsertManyAllFailedError("class 'X' not present in schema")
        return await insert_chunks(index, objects)

    async def is_ready(_client: WeaviateAsyncClient) -> bool:
        return tries > 1

    monkeypatch.setattr(Index, "insert_chunks", forgetful)
    monkeypatch.setattr(WeaviateAsyncClient, "is_ready", is_ready)
    await store.put(GENERATION, [document("d1", "Tea at four.")])
    assert texts(await keyword(store, "tea")) == ["Tea at four."]


def fail_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call that writes chunks; from then on the writer looks at what is there."""
    calls, insert_chunks = 0, Index.insert_chunks

    async def first_fails(index: Index, objects: Sequence[Any]) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ConnectionResetError
        return await insert_chunks(index, objects)

    monkeypatch.setattr(Index, "insert_chunks", first_fails)


@pytest.mark.parametrize("which", ["chunks", "documents"])
async def test_what_the_server_has_in_part_is_written_anew(
    store: WeaviateStore, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """Protection: a Weaviate killed inside an insert keeps objects without their entries in the index of words and
    filters, and makes none where the same object comes again: no search and no clean-up finds them.
    """
    looked, anew = 0, 0
    counted, forget_chunks = Index.counted, Index.forget_chunks

    async def misses(index: Index, *given: Sequence[str], alone: bool) -> tuple[int, int]:
        nonlocal looked
        looked += 1
        chunks, documents = await counted(index, *given, alone=alone)
        if looked > 2:
            return chunks, documents
        return (chunks - 1, documents) if which == "chunks" else (chunks, documents - 1)  # of all, and of the first

    async def forgets(index: Index, ids: Sequence[str]) -> None:
        nonlocal anew
        anew += len(ids) if looked else 0
        await forget_chunks(index, ids)

    fail_once(monkeypatch)
    monkeypatch.setattr(Index, "counted", misses)
    monkeypatch.setattr(Index, "forget_chunks", forgets)
    documents = several(4)
    await store.put(GENERATION, documents)
    assert anew == len(documents[0].chunks)
    count = await store.count(GENERATION)
    assert (count.documents, count.chunks) == (4, sum(len(one.chunks) for one in documents))


async def test_what_the_server_never_has_whole_is_given_up(
    own: WeaviateSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def misses(*_given: object, **_how: object) -> tuple[int, int]:
        return 0, 0

    async with opened(own.model_copy(update={"write_seconds": 1.0}), tmp_path) as store:
        await store.ensure_generation(GENERATION)
        fail_once(monkeypatch)
        monkeypatch.setattr(Index, "counted", misses)
        with pytest.raises(StoreUnavailable):
            async with asyncio.timeout(60):
                await store.put(GENERATION, [document("d1", "Tea at four.")])


async def test_words_count_in_chunks_though_there_are_entries_of_others(
    store: WeaviateStore, own: WeaviateSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protection: a Weaviate killed on the way keeps entries of chunks that it does not have, and counts these."""
    local = await open_local(Settings(data_dir=tmp_path))
    await local.ensure_generation(GENERATION)
    fail_once(monkeypatch)
    for number in range(2 * _FINISHED):  # what is noted of it stays
        for one in (local, store):
            await one.put(GENERATION, several(1 + number // 4))
    assert (await notes(own)).is_torn
    aggregated = _OverAllAsync.over_all

    async def too_many(of: Any, **how: Any) -> Any:
        found = await aggregated(of, **how)
        if found.total_count is not None:
            found.total_count += 1
        return found

    monkeypatch.setattr(_OverAllAsync, "over_all", too_many)
    for words in (WORDS[:3], WORDS):
        found, expected = [
            (await one.search(GENERATION, vector=None, tokens=words, limit=9)).document_frequency
            for one in (store, local)
        ]
        assert dict(found) == dict(expected)
    await local.close()


async def test_finished_notes_do_not_pile_up(store: WeaviateStore, own: WeaviateSettings) -> None:
    for number in range(2 * _FINISHED):
        await store.put(GENERATION, [document(f"d{number}", "Tea at four.")])
        assert len((await notes(own)).changes) <= _FINISHED + 2


async def test_what_was_cut_off_is_taken_out_before_it_comes_again(
    store: WeaviateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protection: as above, where filters find an object that words or vectors do not."""
    steps: list[str] = []
    insert_chunks, forget_chunks = Index.insert_chunks, Index.forget_chunks

    async def cut_off(index: Index, objects: Sequence[Any]) -> Any:
        steps.append("insert")
        done = await insert_chunks(index, objects)
        if len(steps) == 1:
            raise ConnectionResetError
        return done

    async def forget(index: Index, ids: Sequence[str]) -> None:
        steps.append("forget")
        await forget_chunks(index, ids)

    monkeypatch.setattr(Index, "insert_chunks", cut_off)
    monkeypatch.setattr(Index, "forget_chunks", forget)
    await store.put(GENERATION, [document("d1", "Tea at four.")])
    assert steps == ["insert", "forget", "insert"]
    assert texts(await keyword(store, "tea")) == ["Tea at four."]


async def test_what_the_client_has_sent_twice_is_written_anew(
    store: WeaviateStore, own: WeaviateSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protection: as above, where the client tried again by itself and says nothing of it."""
    steps: list[str] = []
    forget_chunks = Index.forget_chunks
    call = store._server._client._connection.grpc_stub.BatchObjects  # type: ignore[union-attr]  # opened by the fixture

    async def cut_off(*, request: Any, **named: Any) -> Any:
        done = await call(request=request, **named)
        if request.objects[0].collection != documents_name(own):
            steps.append("send")
            if len(steps) == 1:
                raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
        return done

    async def forget(index: Index, ids: Sequence[str]) -> None:
        steps.append("forget")
        await forget_chunks(index, ids)

    monkeypatch.setattr(store._server._client._connection.grpc_stub, "BatchObjects", cut_off)  # type: ignore[union-attr]
    monkeypatch.setattr(Index, "forget_chunks", forget)
    await store.put(GENERATION, [document("d1", "Tea at four.")])
    assert steps == ["send", "send", "forget", "send"]
    assert texts(await keyword(store, "tea")) == ["Tea at four."]


@pytest.mark.parametrize("state", ["coming", "done"])
async def test_what_no_filter_finds_is_taken_out_too(
    store: WeaviateStore, own: WeaviateSettings, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Protection: as above, for what a killed writer was to take out."""
    await store.put(GENERATION, several(3))
    writing, remove = [document("d1", "Tea at four.")], Index.remove

    async def killed(*_: object) -> None:
        raise asyncio.CancelledError

    async def finds_nothing(*_: object) -> None:
        return

    with monkeypatch.context() as patch:
        owner, step = (Writer, "_finish") if state == "coming" else (Index, "remove")
        patch.setattr(owner, step, killed)
        with pytest.raises(asyncio.CancelledError):
            await store.put(GENERATION, writing)
    assert state in {change.state for change in (await notes(own)).changes}
    monkeypatch.setattr(weaviate_changes, "ABANDONED", 0.0)
    monkeypatch.setattr(weaviate_changes, "HELPED", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(Index, "remove", finds_nothing)
        await store.put(GENERATION, [document("d9", "Cake.")])
    assert remove is Index.remove
    assert {change.state for change in (await notes(own)).changes} == {"swept", "torn"}
    expected = {one.id: one for one in several(3)} | ({"d1": writing[0]} if state == "done" else {})
    count = await store.count(GENERATION)
    assert count.chunks == sum(len(one.chunks) for one in expected.values()) + 1
    assert count.documents == 4


async def test_hits_that_do_not_count_are_left_out_though_the_server_gives_them(
    store: WeaviateStore, own: WeaviateSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protection: as above, while they still wait to be taken out."""
    await store.put(GENERATION, [document("d1", "Tea at four.")])
    hidden: list[str] = []
    read = weaviate_changes.read

    def with_hidden(objects: Iterable[Any]) -> weaviate_changes.State:
        state = read(objects)
        lost = weaviate_changes.Change("x", "coming", tuple(hidden), (), 0.0)
        return weaviate_changes.State(state.changes | {lost})

    async def lately(client: WeaviateAsyncClient) -> list[str]:
        return [one["edition"] async for one in Index(client, own, GENERATION).walk_chunks()]

    server = Server(own)
    hidden += await server.call(lately, 30)
    await server.close()
    monkeypatch.setattr(weaviate_index, "read", with_hidden)
    monkeypatch.setattr(weaviate_changes.State, "visible", lambda _state, wanted: wanted)  # as where filters miss them
    found = await store.search(GENERATION, vector=vector(1), tokens=["tea"], limit=5)
    assert found.hits == ()


async def test_a_collection_goes_with_its_last_index_unless_an_alias_names_it(
    store: WeaviateStore, own: WeaviateSettings
) -> None:
    await store.ensure_generation(OTHER)
    name = chunks_name(own, GENERATION)
    server = Server(own)

    async def there(client: WeaviateAsyncClient) -> bool:
        return await client.collections.exists(name)

    async def point(client: WeaviateAsyncClient) -> None:
        await client.alias.create(alias_name=f"{own.prefix}Alias", target_collection=name)

    async def leave(client: WeaviateAsyncClient) -> None:
        await client.alias.delete(alias_name=f"{own.prefix}Alias")

    try:
        await store.drop_generation(GENERATION)
        assert await server.call(there, 30)
        await server.call(point, 30)
        await store.drop_generation(OTHER)
        assert await server.call(there, 30)
        await server.call(leave, 30)
        await store.ensure_generation(OTHER)
        await store.drop_generation(OTHER)
        assert not await server.call(there, 30)
    finally:
        await server.close()


async def test_an_alias_tells_which_index_is_live_and_goes_with_it(
    store: WeaviateStore, own: WeaviateSettings, tmp_path: Path
) -> None:
    server = Server(own)

    async def aliases(client: WeaviateAsyncClient) -> dict[str, str]:
        found = {name: one.collection for name, one in (await client.alias.list_all()).items()}
        return {name: collection for name, collection in found.items() if name.startswith(own.prefix)}

    anew = replace(GENERATION, id="e" * 32, fingerprint="another")
    name = f"{own.prefix}_Live_{GENERATION.kb_id}"
    await store.ensure_generation(anew)
    try:
        await store.mirror([GENERATION])
        assert await server.call(aliases, 30) == {name: chunks_name(own, GENERATION)}
        async with opened(own, tmp_path / "second") as other:
            await other.mirror([anew])
        assert await server.call(aliases, 30) == {name: chunks_name(own, anew)}
        await store.mirror([])
        assert await server.call(aliases, 30) == {}
        await store.mirror([anew])
        await store.drop_generation(anew)
        assert await server.call(aliases, 30) == {}
    finally:
        await server.close()


async def test_an_idle_index_rests_and_wakes_when_it_is_asked(store: WeaviateStore, own: WeaviateSettings) -> None:
    await store.put(GENERATION, [document("d1", "Tea.")])
    server = Server(own)

    async def states(client: WeaviateAsyncClient) -> set[str]:
        return {
            str(tenant.activity_status.value)
            for name in (documents_name(own), chunks_name(own, GENERATION))
            for tenant in (await client.collections.use(name).tenants.get()).values()
        }

    try:
        await store.rest_unused(3600)
        assert await server.call(states, 30) == {"ACTIVE"}
        await store.rest_unused(0)
        assert await server.call(states, 30) == {"INACTIVE"}
        assert len(await keyword(store, "tea")) == 1
        assert await server.call(states, 30) == {"ACTIVE"}
    finally:
        await server.close()


# ---------------------------------------------------------------- it is killed
@pytest.mark.slow
async def test_a_server_that_is_killed_and_comes_back_has_everything(tmp_path: Path) -> None:
    with one_node(tmp_path / "server") as node:
        weaviate = node.settings.model_copy(update={"search_seconds": 2.0})
        async with opened(weaviate, tmp_path) as store:
            await store.ensure_generation(GENERATION)
            await store.put(GENERATION, several(10))
            writing = asyncio.create_task(put_all(store, several(60, seed=3, version="2")))
            await asyncio.sleep(0.3)
            node.kill(signal.SIGKILL)
            with pytest.raises(StoreUnavailable):
                await keyword(store, "tea")
            await asyncio.to_thread(restart, node)
            async with asyncio.timeout(100):
                await writing
            local = await open_local(Settings(data_dir=tmp_path))
            await local.ensure_generation(GENERATION)
            await local.put(GENERATION, several(60, seed=3, version="2"))
            assert await store.count(GENERATION) == await local.count(GENERATION)
            await local.close()
            assert {change.state for change in (await notes(weaviate)).changes} <= {"swept", "torn", "coming"}


async def put_all(store: WeaviateStore, documents: list[IndexedDocument]) -> None:
    """As a job does: what failed is tried again."""
    for first in range(0, len(documents), 6):
        while True:
            try:
                await store.put(GENERATION, documents[first : first + 6])
                break
            except StoreUnavailable:
                await asyncio.sleep(0.5)


def restart(node: Node) -> None:
    node.start()
    node.wait()
