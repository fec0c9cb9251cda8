"""Originals in a bucket: put once, read back as they were, told in a sentence where they cannot be had."""

from __future__ import annotations

import hashlib
import math
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from core import blobs_s3
from core.app import Kvasir, restore
from core.blobs import SMALL, Blobs, open_blobs
from core.blobs_s3 import S3Blobs
from core.doctor import examine
from core.errors import ConfigError, KvasirError, TooLarge, Unavailable
from core.indexing.ingest import Incoming
from core.settings import OriginalsSettings, load
from core.upkeep import archive
from core.work.jobs import run_job
from tests.fakes.commands import Commands
from tests.fakes.embedder import HashEmbedder
from tests.s3_server import S3, any_s3

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("parser_here")]

LARGE = os.urandom(SMALL * 3)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with any_s3(tmp_path_factory.mktemp("s3")) as found:
        yield found


@pytest.fixture
def settings(s3: S3) -> OriginalsSettings:
    return s3.settings()


@pytest.fixture
def blobs(settings: OriginalsSettings, tmp_path: Path) -> Iterator[S3Blobs]:
    made = S3Blobs(tmp_path / "blobs", settings)
    yield made
    made.close()


@pytest.fixture
def elsewhere(settings: OriginalsSettings, tmp_path: Path) -> Iterator[S3Blobs]:
    """The same bucket on another machine."""
    made = S3Blobs(tmp_path / "elsewhere", settings)
    yield made
    made.close()


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for piece in given:
        yield piece


def names(blobs: S3Blobs) -> list[str]:
    return sorted(name for name, _ in blobs.bucket.names())


async def test_what_one_machine_puts_another_reads(blobs: S3Blobs, elsewhere: S3Blobs) -> None:
    small, large = blobs.put_all([b"small", LARGE])
    streamed = await blobs.put_stream(pieces(b"a", LARGE), limit=10**7, name="x")
    assert [elsewhere.has(one.content_hash) for one in (small, large, streamed)] == [True] * 3
    for blob, data in ((small, b"small"), (large, LARGE), (streamed, b"a" + LARGE)):
        found = elsewhere.get(blob.content_hash)
        assert found is not None
        assert (found.read_bytes(), found.head(3), found.size) == (data, data[:3], len(data))
    first, second, third = elsewhere.sources([large.content_hash, small.content_hash, "0" * 64])
    assert isinstance(first, str)
    assert Path(first).read_bytes() == LARGE
    assert second == b"small"
    assert not Path(str(third)).exists()
    assert elsewhere.get("0" * 64) is None
    assert not elsewhere.has("0" * 64)
    assert not list((blobs.folder / "partial").iterdir())


async def test_the_same_bytes_are_put_once(blobs: S3Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    first = blobs.put(b"abc")
    written = dict(blobs.bucket.names())
    assert not blobs.bucket.put(f"{first.content_hash[0]}/{first.content_hash}", b"abc", 3)
    assert blobs.put_all([b"abc", b"abc"]) == [first, first]
    assert await blobs.put_stream(pieces(b"a", b"bc"), limit=9, name="x") == first
    assert dict(blobs.bucket.names()) == written
    monkeypatch.setattr(blobs_s3, "_YOUNG", -10)  # as if it were old: whoever puts it again makes it young
    assert blobs.bucket.put(f"{first.content_hash[0]}/{first.content_hash}", b"abc", 3)


async def test_large_ones_go_in_parts(blobs: S3Blobs, elsewhere: S3Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs_s3, "_WHOLE", 1 << 20)
    monkeypatch.setattr(blobs_s3, "_PART", 5 << 20)
    data = os.urandom(6 << 20)
    blob = await blobs.put_stream(pieces(data), limit=1 << 30, name="x")
    assert await blobs.put_stream(pieces(data), limit=1 << 30, name="x") == blob
    found = elsewhere.get(blob.content_hash)
    assert found is not None
    assert hashlib.sha256(found.read_bytes()).hexdigest() == blob.content_hash


async def test_what_is_too_large_leaves_nothing(blobs: S3Blobs) -> None:
    with pytest.raises(TooLarge):
        await blobs.put_stream(pieces(b"a" * 6, b"b" * 6), limit=10, name="big.pdf")
    assert names(blobs) == []
    assert not list((blobs.folder / "partial").iterdir())


async def test_only_what_nobody_names_is_removed_and_nothing_beside_it(
    blobs: S3Blobs, settings: OriginalsSettings
) -> None:
    kept, dropped = blobs.put_all([b"kept", b"dropped"])
    other = S3Blobs(blobs.folder / "other", settings.model_copy(update={"url": settings.url + "-other"}))
    foreign = other.put(b"foreign")
    blobs.bucket.put("readme.txt", b"somebody's own", 14)
    assert blobs.remove_all_but([kept.content_hash], older_than=0) == 0
    assert blobs.remove_all_but([kept.content_hash], older_than=math.inf) == 1
    assert (blobs.has(kept.content_hash), blobs.has(dropped.content_hash)) == (True, False)
    assert other.has(foreign.content_hash)
    assert "readme.txt" in names(blobs)


async def test_what_lay_in_the_folder_is_found_copied_and_comes_back(
    settings: OriginalsSettings, tmp_path: Path
) -> None:
    before = Blobs(tmp_path / "blobs")
    small, large = before.put_all([b"small", LARGE])
    before.close()
    blobs = S3Blobs(tmp_path / "blobs", settings)
    assert blobs.there([small.content_hash, large.content_hash, "0" * 64]) == {small.content_hash, large.content_hash}
    found = blobs.get(small.content_hash)
    assert found is not None
    assert found.read_bytes() == b"small"
    told: list[tuple[int, int]] = []
    assert blobs.push(delete=False, on_originals=lambda *numbers: told.append(numbers)) == 2
    assert told[-1] == (2, 2)
    assert blobs.hashes() == {small.content_hash, large.content_hash}
    assert blobs.push(delete=True, on_originals=lambda *_: None) == 2
    assert blobs.hashes() == set()
    assert blobs.there([small.content_hash, large.content_hash]) == {small.content_hash, large.content_hash}
    assert blobs.pull(on_originals=lambda *_: None) == 2
    blobs.close()
    after = Blobs(tmp_path / "blobs")
    for blob, data in ((small, b"small"), (large, LARGE)):
        held = after.get(blob.content_hash)
        assert held is not None
        assert held.read_bytes() == data
    after.close()


async def test_many_are_looked_for_in_a_list(blobs: S3Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs_s3, "_MANY", 3)
    put = {blob.content_hash for blob in blobs.put_all([b"a", b"b", b"c"])}
    assert blobs.there([*put, "0" * 64]) == put


async def test_the_cache_keeps_to_its_room_but_not_under_a_reader(
    settings: OriginalsSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = S3Blobs(tmp_path / "blobs", settings.model_copy(update={"cache_mb": 0}))
    first, second = [await blobs.put_stream(pieces(data), limit=10**7, name="x") for data in (LARGE, LARGE + b"b")]
    cache = tmp_path / "blobs" / "cache"
    assert {path.name for path in cache.iterdir()} == {first.content_hash, second.content_hash}
    os.utime(cache / first.content_hash, (1, 1))
    monkeypatch.setattr(blobs_s3, "_USED", 100)
    await blobs.put_stream(pieces(LARGE, b"c"), limit=10**7, name="x")
    assert first.content_hash not in {path.name for path in cache.iterdir()}
    assert blobs.has(first.content_hash)


async def test_other_bytes_are_never_given(blobs: S3Blobs, elsewhere: S3Blobs) -> None:
    wrong = hashlib.sha256(b"right").hexdigest()
    blobs.bucket.put(f"{wrong[0]}/{wrong}", b"wrong", 5)
    with pytest.raises(Unavailable, match="other bytes"):
        elsewhere.get(wrong)
    assert not list((elsewhere.folder / "partial").iterdir())


# ---------------------------------------------------------------- in a sentence
@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"url": "s3://"}, "s3://BUCKET/PREFIX"),
        ({"url": "s3://key:secret@bucket/x"}, "s3://BUCKET/PREFIX"),
        ({"endpoint": "ftp://x"}, "originals.endpoint"),
        ({"secret_key": None}, "originals.secret_key"),
    ],
)
def test_settings_that_cannot_be_are_said(
    settings: OriginalsSettings, tmp_path: Path, changed: dict[str, object], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        S3Blobs(tmp_path, settings.model_copy(update=changed))


def test_a_bucket_that_is_not_there_and_a_server_that_is_away(settings: OriginalsSettings, tmp_path: Path) -> None:
    nowhere = S3Blobs(tmp_path, settings.model_copy(update={"url": "s3://kvasir-nonesuch/x"}))
    with pytest.raises(ConfigError, match="There is no bucket at s3://kvasir-nonesuch/x"):
        nowhere.put(b"abc")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    away = S3Blobs(tmp_path, settings.model_copy(update={"endpoint": f"http://127.0.0.1:{port}", "seconds": 1.0}))
    with pytest.raises(Unavailable, match="cannot be reached now") as caught:
        away.put(b"abc")
    assert "a-secret" not in str(caught.value)


def test_a_server_that_falls_silent_is_given_up(settings: OriginalsSettings, tmp_path: Path) -> None:
    """Protection: without a limit an upload would hang for as long as the server likes."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        blobs = S3Blobs(tmp_path, settings.model_copy(update={"endpoint": endpoint, "seconds": 0.2}))
        failed: list[BaseException] = []

        def ask() -> None:
            try:
                blobs.has("0" * 64)
            except Unavailable as error:
                failed.append(error)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(20)
        assert failed


def test_a_wrong_key_is_refused(s3: S3, tmp_path: Path) -> None:
    if not s3.is_real:
        pytest.skip("moto believes every key; needs `versitygw` on PATH")
    for changed in ({"secret_key": "another"}, {"access_key": "nobody"}):
        blobs = S3Blobs(tmp_path, s3.settings(**changed))
        with pytest.raises(ConfigError, match=r"refused to us; check originals\.access_key"):
            blobs.put(b"abc")
        with pytest.raises(KvasirError):
            blobs.get(hashlib.sha256(b"abc").hexdigest())


# ---------------------------------------------------------------- a whole Kvasir
async def test_documents_come_in_and_are_given_back_also_from_a_backup(s3: S3, tmp_path: Path) -> None:
    originals = s3.settings().model_dump() | {"access_key": "kvasirtest", "secret_key": "a-secret-of-the-tests"}
    moved = originals | {"url": f"{originals['url']}-restored"}
    settings = load(data_dir=tmp_path / "data", originals=originals)
    async with Kvasir.open(settings, embedder=HashEmbedder()) as kvasir:
        await kvasir.knowledge.create("kb")

        async def incoming() -> AsyncIterator[Incoming]:
            yield Incoming("tea.md", b"Tea is at four.".__bytes__)
            yield Incoming("large.txt", pieces(b"Coffee is at nine. " * 9000))

        ticket = await kvasir.ingest.submit("kb", incoming(), claimed=True)
        await run_job(kvasir.jobs, ticket.job, kvasir.run_job)
        assert {one.status for one in await kvasir.ingest.outcomes(ticket.job.id)} == {"indexed"}
        assert isinstance(kvasir.blobs, S3Blobs)
        assert kvasir.blobs.hashes() == set()
        assert len(names(kvasir.blobs)) == 2
        rows, _ = await kvasir.knowledge.documents("kb")
        (tea,) = [row.id for row in rows if row.name == "tea.md"]
        assert (await kvasir.knowledge.original(tea)).read_bytes() == b"Tea is at four."
        await archive.backup(kvasir, tmp_path / "kvasir.zip")
    for place in (load(data_dir=tmp_path / "folder"), load(data_dir=tmp_path / "s3", originals=moved)):
        await restore(place, tmp_path / "kvasir.zip")
        async with Kvasir.open(place, embedder=HashEmbedder()) as kvasir:
            assert (await kvasir.knowledge.original(tea)).read_bytes() == b"Tea is at four."
            assert isinstance(kvasir.blobs, S3Blobs) == bool(place.originals.url)
    findings = {one.what: one async for one in examine(settings)}
    assert findings["Originals"].ok
    assert "can be written and read" in findings["Originals"].says


def test_the_commands_copy_them_there_and_back(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVASIR_EMBEDDER__KIND", "none")
    monkeypatch.setenv("LANG", "en_GB.UTF-8")
    (tmp_path / "tea.md").write_text("Tea is at four.")
    kvasir = Commands(tmp_path / "data")
    kvasir("ingest", tmp_path / "tea.md", "--kb", "kb")
    assert "set originals.url" in kvasir.fails("originals", "push")
    settings = s3.settings()
    for name, value in (
        ("URL", settings.url), ("ENDPOINT", settings.endpoint), ("ACCESS_KEY", "kvasirtest"),
        ("SECRET_KEY", "a-secret-of-the-tests"),
    ):  # fmt: skip
        monkeypatch.setenv(f"KVASIR_ORIGINALS__{name}", value)
    assert "1 originals are in s3://" in kvasir("originals", "push", "--delete")
    kvasir("kb", "reindex", "kb")  # reads the original
    assert "1 originals are in" in kvasir("originals", "pull")
    monkeypatch.delenv("KVASIR_ORIGINALS__URL")
    kvasir("kb", "reindex", "kb")
    assert kvasir.json("kb", "show", "kb")["documents"] == 1


def test_a_folder_that_machines_share(tmp_path: Path) -> None:
    shared = tmp_path / "shared folder"
    for url in (str(shared), f"file://{tmp_path}/shared%20folder"):
        blobs = open_blobs(load(data_dir=tmp_path, originals={"url": url}))
        assert blobs.place == str(shared)
        blobs.put(b"small")
        assert not (shared / "small.db").exists()
    with pytest.raises(ConfigError, match=r"originals\.url"):
        open_blobs(load(data_dir=tmp_path, originals={"url": "blobs"}))
