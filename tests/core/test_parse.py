"""The parser processes, for real: what a hostile file does to its reader is that file's own affair."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

import core
from core.analyzer import terms
from core.errors import Unavailable
from core.parse import child as child_module
from core.parse import process, wire
from core.parse.pool import ParserPool
from core.parse.wire import Nonsense
from core.ports import ParseResult, ParseTask, SplitterSpec
from core.settings import IngestSettings
from core.texts import say
from core.types import Chunk, Locator
from tests.payloads.documents import make

pytestmark = pytest.mark.anyio

SPEC = SplitterSpec(chunk_size=220, chunk_overlap=40, title_enhance=True)
Write = Callable[..., list[ParseTask]]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop for all, since they share a pool."""
    return "asyncio"


@pytest.fixture(scope="module")
async def pool() -> AsyncIterator[ParserPool]:
    """One for all: a process takes longer to start than most of them take."""
    pool = ParserPool(IngestSettings(ocr="off"))
    yield pool
    await pool.close()


@pytest.fixture(scope="module")
async def cramped() -> AsyncIterator[ParserPool]:
    """One with little memory."""
    pool = ParserPool(IngestSettings(memory_mb=256, max_file_mb=256, ocr="off"))
    yield pool
    await pool.close()


@pytest.fixture
async def fresh() -> AsyncIterator[ParserPool]:
    """One whose process is still to be started."""
    pool = ParserPool(IngestSettings(ocr="off"))
    yield pool
    await pool.close()


@pytest.fixture(scope="module")
async def limited() -> AsyncIterator[ParserPool]:
    """One that may read little, and speaks Chinese."""
    pool = ParserPool(IngestSettings(max_file_mb=1, max_characters=10_000), language="zh")
    yield pool
    await pool.close()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Files with these bytes, as tasks; each is stored under a number, as a blob store does."""

    def write(*files: tuple[str, bytes | str]) -> list[ParseTask]:
        tasks = []
        for number, (name, data) in enumerate(files):
            path = tmp_path / f"blob{number}"
            path.write_bytes(data.encode() if isinstance(data, str) else data)
            tasks.append(ParseTask(str(path), name, SPEC))
        return tasks

    return write


async def results(pool: ParserPool, tasks: Sequence[ParseTask]) -> list[ParseResult]:
    found = {index: result async for index, result in pool.parse(tasks)}
    assert sorted(found) == list(range(len(tasks)))
    return [found[index] for index in range(len(tasks))]


def children(program: str = child_module.__name__) -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it has just ended
            if program in " ".join(child.cmdline()):
                found.append(child)
    return found


async def test_chunks_come_back_as_the_splitter_made_them(pool: ParserPool, write: Write) -> None:
    text = "---\ntitle: Lamps\nyear: 2026\n---\n# Lamps\n\nA lamp is bright.\n\n## 保修\n\n灯具保修两年。\n"
    (result,) = await results(pool, write(("docs/lamps.md", text)))
    assert (result.title, result.error, result.metadata) == ("Lamps", "", {"title": "Lamps", "year": 2026})
    assert result.terms == terms(" ".join(chunk.tokens for chunk in result.chunks))
    assert [(c.number, c.text, c.headings, c.locator) for c in result.chunks] == [
        (0, "A lamp is bright.", ("Lamps",), Locator("lines", "", 7, 7)),
        (1, "灯具保修两年。", ("Lamps", "保修"), Locator("lines", "", 11, 11)),
    ]
    assert result.chunks[1].embed_text.endswith("灯具保修两年。")
    assert result.chunks[1].embed_text != result.chunks[1].text
    assert "bright" in result.chunks[0].tokens.split()
    assert "保修" in result.chunks[1].tokens.split()
    assert len({chunk.content_hash for chunk in result.chunks}) == 2


async def test_every_kind_of_file_is_read_in_the_child(pool: ParserPool, write: Write) -> None:
    tasks = write(
        ("a.md", "# T\n\nmark"),
        ("a.docx", make.word()),
        ("a.pdf", make.pdf([["words on a page"]])),
        ("a.xlsx", make.sheets({"S": [["a", "b"], ["x", 2]]})),
        ("a.pptx", make.slides()),
        ("a.epub", make.epub(["<p>once</p>"])),
        ("a.html", "<p>web</p>"),
        ("a.rtf", rb"{\rtf1 rich\par}"),
        ("a.odt", make.open_document("<text:p>open</text:p>")),
        ("a.csv", "a,b\n1,2\n"),
        ("noise.exe", b"MZ\x00\x00"),
        ("empty.txt", b""),
    )
    found = await results(pool, tasks)
    assert [task.name for task, result in zip(tasks, found, strict=True) if result.error] == ["noise.exe", "empty.txt"]
    assert all(result.chunks for result in found[:10])
    assert found[11].error == "The file is empty."


async def test_sentences_come_in_the_language_of_the_installation(limited: ParserPool, write: Write) -> None:
    assert [result.error for result in await results(limited, write(("a.md", b"")))] == ["文件是空的。"]


async def test_small_files_share_a_request_and_one_process_reads_them_all(
    pool: ParserPool, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when each file costs a request or a process of its own."""
    await results(pool, write(("a.md", "x")))
    before = children()
    asked: list[int] = []
    ask = process.ParserProcess.ask

    async def counted(self: process.ParserProcess, tasks: Sequence[ParseTask], heavy: int) -> process.Answer:
        asked.append(len(tasks))
        return await ask(self, tasks, heavy)

    monkeypatch.setattr(process.ParserProcess, "ask", counted)
    found = await results(pool, write(*((f"{n}.md", f"# T{n}\n\ntext {n}") for n in range(150))))
    assert [result.chunks[0].text for result in found] == [f"text {n}" for n in range(150)]
    assert asked == [64, 64, 22]
    assert children() == before


async def test_nothing_is_started_before_it_is_needed(fresh: ParserPool, write: Write) -> None:
    before = len(children())
    await results(fresh, write(("a.md", "x")))
    assert len(children()) == before + 1
    await fresh.close()
    assert len(children()) == before
    with pytest.raises(Unavailable):
        await results(fresh, write(("a.md", "x")))


# ---------------------------------------------------------------- crashes, hangs, memory (rows 6, 11)
def _sparse_sheet() -> bytes:
    """Two cells as far apart as a sheet allows: calamine aborts its process over it."""
    members = make.unzipped(make.sheets({"S": [["a"]]}))
    name = "xl/worksheets/sheet1.xml"
    far = b'<row r="1048576"><c r="XFD1048576" t="n"><v>1</v></c></row></sheetData>'
    members[name] = members[name].replace(b"</sheetData>", far)
    return make.zipped(members)


async def test_a_file_that_aborts_its_reader_costs_only_itself(cramped: ParserPool, write: Write) -> None:
    """Rows 6 and 11. Fails when files are read in our own process, or a lost process ends the batch."""
    tasks = write(
        ("a.md", "before"), ("bad.xlsx", _sparse_sheet()), ("bomb.pdf", make.flate_bomb_pdf(200)), ("b.md", "after")
    )
    found = await results(cramped, tasks)
    assert [bool(result.error) for result in found] == [False, True, True, False]
    assert "\n" not in found[1].error


async def test_innocent_files_of_a_lost_group_are_read_again(
    pool: ParserPool, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when a group that lost its process fails as a whole."""
    tasks = write(*((f"{n}.md", f"text {n}") for n in range(5)))
    send = process.ParserProcess._send

    async def killed_in_groups(self: process.ParserProcess, message: bytes) -> None:
        if message.count(b".md") > 1 or b'"3.md"' in message:
            os.kill(self._process.pid, signal.SIGKILL)
        await send(self, message)

    monkeypatch.setattr(process.ParserProcess, "_send", killed_in_groups)
    found = await results(pool, tasks)
    assert [bool(result.error) for result in found] == [False, False, False, True, False]
    assert "made its reader fail" in found[3].error


async def test_a_file_that_takes_too_long_is_given_up(write: Write, tmp_path: Path) -> None:
    """Row 11. Fails without the limit on the clock: reading from a pipe that nobody fills takes for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    pool = ParserPool(IngestSettings(timeout_seconds=1))
    tasks = [ParseTask(str(pipe), "slow.pdf", SPEC), *write(("a.md", "fast"))]
    started = time.monotonic()
    found = await results(pool, tasks)
    await pool.close()
    assert "longer than 1 seconds" in found[0].error
    assert "KVASIR_INGEST__TIMEOUT_SECONDS" in found[0].error
    assert found[1].chunks
    assert time.monotonic() - started < 20


async def test_processor_time_is_limited_for_each_file() -> None:
    """Row 11. Fails without RLIMIT_CPU, or when it counts all files of a process together."""
    code = "from core.parse.confine import allow_cpu\nimport resource, time\n"
    for seconds, end in ((0.1, 0.4), (0.7, 0.4), (0.1, 9)):  # the system counts whole seconds
        code += f"allow_cpu({seconds})\nprint(resource.getrlimit(resource.RLIMIT_CPU)[0], flush=True)\n"
        code += f"while time.process_time() < {end}: pass\n"
    ended = _python(code)
    assert (ended.returncode, ended.stdout.split()) == (-signal.SIGXCPU, ["1", "2", "1"]), "the third is too slow"


async def test_memory_is_limited(cramped: ParserPool, write: Write) -> None:
    """Rows 6 and 11. Fails without RLIMIT_AS."""
    tasks = write(("big.txt", b""), ("a.md", "small"))
    os.truncate(tasks[0].source, 250 << 20)  # it holds no bytes
    found = await results(cramped, tasks)
    assert "needs more than 256 MB" in found[0].error
    assert found[1].chunks


async def test_files_that_are_too_large_or_gone_say_so(limited: ParserPool, write: Write, tmp_path: Path) -> None:
    """Fails when the child reads more than the limit of the settings."""
    tasks = [*write(("a.txt", b"x" * ((1 << 20) + 1))), ParseTask(str(tmp_path / "nothing"), "b.txt", SPEC)]
    found = await results(limited, tasks)
    assert [one.error for one in found] == [say("document_too_large", "zh", megabytes=1), say("document_gone", "zh")]


async def test_text_beyond_the_limit_is_left_out_with_a_note(limited: ParserPool, write: Write) -> None:
    (result,) = await results(limited, write(("a.txt", "some words here. " * 10_000)))
    assert result.notes == ("只读取了前 10,000 个字符。",)
    assert sum(len(chunk.text) for chunk in result.chunks) < 20_000


async def test_long_documents_come_in_several_frames(pool: ParserPool, write: Write) -> None:
    """Fails when a frame is so long that decoding it holds the loop."""
    lines = [f"Line {n} speaks of lamps and nothing else." for n in range(20_000)]
    worst = 0.0

    async def watch() -> None:
        nonlocal worst
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.005)
            worst = max(worst, time.thread_time() - before)

    watching = asyncio.create_task(watch())
    (result,) = await results(pool, write(("a.txt", "\n".join(lines))))
    watching.cancel()
    assert [chunk.number for chunk in result.chunks] == list(range(len(result.chunks)))
    assert "Line 19999 " in result.chunks[-1].text
    assert worst < 0.2  # of processor time, since the clock runs for neighbours too


# ---------------------------------------------------------------- what a child may not do
CONFINED = "import os\nfrom core.parse.confine import confine\nconfine(2048, os.getppid())\n"


def _python(code: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(core.__file__).parent.parent)
    setup = f"import sys\nsys.path.insert(0, {root!r})\n"
    return subprocess.run(
        [sys.executable, "-I", "-B", "-c", setup + code], check=False, capture_output=True, text=True, timeout=60
    )


REFUSED = {
    "socket.create_connection(('127.0.0.1', {port}), 2)": "may not|Network is unreachable",
    "socket.getaddrinfo('localhost', 80)": "may not",
    "subprocess.run(['true'])": "may not",
    "os.system('true')": "may not",
    "os.fork()": "may not",
    "pickle.loads(b'cos\\nsystem\\n.')": "may not",
    "open('/tmp/kvasir-written', 'w').write('x' * 9999)": "File too large",
    "bytearray(3 << 30)": "MemoryError",
    "[open('/dev/null') for _ in range(500)]": "Too many open files",
}


def test_a_child_cannot_reach_out() -> None:
    """Rows 11, 24 and 30. Each line fails without its limit in `confine`."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        lines = [line.format(port=server.getsockname()[1]) for line in REFUSED]
        ended = _python(
            f"import pickle, socket, subprocess\n{CONFINED}"
            f"for line in {lines!r}:\n"
            "    try:\n        eval(line)\n        print('done')\n"
            "    except (OSError, MemoryError) as error:\n        print(repr(error))\n"
        )
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()
    Path("/tmp/kvasir-written").unlink(missing_ok=True)
    for said, (line, wanted) in zip(ended.stdout.splitlines(), REFUSED.items(), strict=True):
        assert re.search(wanted, said), line


def test_native_code_cannot_reach_the_network_either() -> None:
    """Fails without the empty network namespace, where there is one: Python's hook does not see native calls."""
    code = (
        "import ctypes, os, struct\nfrom core.parse.confine import confine\nprint(confine(2048, os.getppid()))\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "address = struct.pack('=HHI8x', 2, int.from_bytes(struct.pack('>H', {port}), 'little'), 0x0100007f)\n"
        "print(libc.connect(libc.socket(2, 1, 0), address, 16))\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        isolation, connected = _python(code.format(port=server.getsockname()[1])).stdout.split()
        if isolation != "namespace":
            given = "import ctypes\nlibc = ctypes.CDLL(None)\nprint(max(map(libc.unshare, (0x40000000, 0x50000000))))"
            assert _python(given).stdout.strip() != "0"
            pytest.skip("this machine gives no network namespaces")
        assert connected == "-1"
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


def test_without_namespaces_the_hook_shuts_the_network() -> None:
    """Fails when the audit hook leaves a way to connect."""
    hook = "import sys\nfrom core.parse.confine import _refuse\nsys.addaudithook(_refuse)\nimport socket\n"
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = _python(f"{hook}socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))")
    assert "may not" in ended.stderr


async def test_children_inherit_no_secret_and_import_nothing_that_lies_around(
    fresh: ParserPool, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when the environment is handed down, or the child starts with the current folder on its path."""
    evil = tmp_path / "core"
    evil.mkdir()
    (evil / "__init__.py").write_text("raise SystemExit('hijacked')")
    monkeypatch.chdir(tmp_path)
    before = children()
    monkeypatch.setenv("KVASIR_OPENAI__API_KEY", "sk-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    assert (await results(fresh, write(("a.md", "x"))))[0].chunks
    (child,) = set(children()).difference(before)
    assert set(child.environ()) <= {
        "PATH",
        "LD_LIBRARY_PATH",
        "TZ",
        "LANG",
        "MALLOC_ARENA_MAX",
        "MALLOC_MMAP_THRESHOLD_",
        "MALLOC_TRIM_THRESHOLD_",
        "OPENBLAS_NUM_THREADS",
        "HOME",
    }
    assert child.cwd() == "/"


def test_children_die_with_their_parent(tmp_path: Path) -> None:
    """Fails without PR_SET_PDEATHSIG: a child in the middle of a file does not see that its pipe is closed."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code = (
        "import asyncio, os\nfrom core.parse.pool import ParserPool\nfrom core.settings import IngestSettings\n"
        "from core.ports import ParseTask, SplitterSpec\n"
        "async def main():\n"
        "    pool = ParserPool(IngestSettings())\n"
        "    spec = SplitterSpec(220, 40, True)\n"
        "    async for _ in pool.parse([ParseTask('/dev/null', 'a.md', spec)]):\n"
        "        pass\n"
        "    print(next(iter(pool._children))._process.pid, flush=True)\n"
        f"    stuck = pool.parse([ParseTask({str(pipe)!r}, 'a.md', spec)])\n"
        "    waiting = asyncio.ensure_future(anext(stuck))\n"
        "    await asyncio.sleep(0.5)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    pid = int(_python(code).stdout)
    for _ in range(50):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("the parser process outlived its parent")


# ---------------------------------------------------------------- several at once, cancelling, resting
async def test_several_pools_and_callers_work_at_once(pool: ParserPool, write: Write) -> None:
    both = ParserPool(IngestSettings(workers=2))
    await results(pool, write(("a.md", "x")))
    before = children()
    tasks = write(*((f"{n}.md", f"text {n}") for n in range(70)))
    found = await asyncio.gather(*(results(one, tasks) for one in (pool, both) for _ in range(3)))
    assert all([one.chunks[0].text for one in run] == [f"text {n}" for n in range(70)] for run in found)
    assert len(children()) <= len(before) + 2
    await both.close()
    assert children() == before


async def test_leaving_early_leaves_nothing_behind(pool: ParserPool, write: Write) -> None:
    """Fails when closing the iterator lets its tasks, or a process in the middle of a request, live on."""
    tasks = write(*((f"{n}.txt", "words and words. " * 8_000) for n in range(2)), ("a.md", "small"))
    reading = pool.parse(tasks)
    async for _ in reading:
        break
    await reading.aclose()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("parse ")]
    assert len(await results(pool, tasks[2:])) == 1
    gc.collect()


async def test_a_cancelled_caller_does_not_confuse_the_next(pool: ParserPool, write: Write) -> None:
    tasks = write(("slow.txt", "words and words. " * 100_000), ("a.md", "small"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await results(pool, tasks[:1])
    assert (await results(pool, tasks[1:]))[0].chunks[0].text == "small"


async def test_a_process_that_has_died_while_resting_is_replaced(pool: ParserPool, write: Write) -> None:
    tasks = write(("a.md", "x"))
    await results(pool, tasks)
    for child in children():
        child.kill()
    await asyncio.sleep(0.2)
    assert (await results(pool, tasks))[0].chunks


async def test_a_process_that_has_nothing_to_do_ends(
    pool: ParserPool, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    await results(pool, write(("a.md", "x")))
    before = len(children())
    monkeypatch.setattr(process, "_IDLE_SECONDS", 0.05)
    await results(pool, write(("a.md", "x")))
    for _ in range(100):
        if len(children()) < before:
            break
        await asyncio.sleep(0.05)
    assert len(children()) == before - 1
    assert (await results(pool, write(("a.md", "x"))))[0].chunks


async def test_a_process_is_replaced_after_many_files(
    pool: ParserPool, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when a process lives for ever, with whatever a file has done to it."""
    tasks = write(*((f"{n}.pdf", make.pdf([[f"words of page {n}"]])) for n in range(3)))
    await results(pool, tasks)
    before = children()
    monkeypatch.setattr(process, "_HEAVY_LIFE", 1)
    await results(pool, tasks)
    assert set(before) - set(children())


async def test_where_no_process_starts_the_caller_is_told(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_PROGRAM", "raise SystemExit(3)")
    pool = ParserPool(IngestSettings())
    with pytest.raises(Unavailable, match="does not start"):
        await results(pool, write(("a.md", "x")))
    await pool.close()


# ---------------------------------------------------------------- what comes back is checked
HASH = "ab" * 20
TERM = b"\xff" * 8
PIECE = ("text «灯»", "tokens", TERM, HASH, 1, None)
GOOD: list[Any] = [["h"], "T\n", "page", "", [8, 6, 1, -1]]


def frame(events: object, texts: Sequence[str] = (), terms: Sequence[bytes] = ()) -> wire.Frame:
    message = wire.pack(events, texts, terms)
    long, text_long, _ = wire.HEAD.unpack(message[: wire.HEAD.size])
    start = wire.HEAD.size + long
    return wire.Frame(message[wire.HEAD.size : start], message[start:][:text_long], message[start + text_long :])


def test_chunks_survive_the_way() -> None:
    texts: list[str] = []
    numbers: list[int] = []
    terms: list[bytes] = []
    for piece in (PIECE, ("", "", b"", HASH, 3, 4), ("more", "", 2 * TERM, HASH, 3, 4)):
        wire.chunk_parts(piece, numbers, texts, terms)
    got = frame([[0, "chunks", 24, ["h", "灯"], "T\n", "sheet", "S", numbers]], texts, terms)
    assert got.terms(got.events[0][2]) == 3 * TERM
    with pytest.raises(Nonsense):
        got.terms(1)
    at = Locator("sheet", "S", 3, 4)
    assert got.chunks(got.events[0][3:], 5) == [
        Chunk(5, "text «灯»", "tokens", HASH, ("h", "灯"), Locator("sheet", "S", 1, None), "T\ntext «灯»"),
        Chunk(6, "", "", HASH, ("h", "灯"), at, "T\n"),
        Chunk(7, "more", "", HASH, ("h", "灯"), at, "T\nmore"),
    ]


def _spoiled(at: int, value: object) -> list[Any]:
    return [value if place == at else part for place, part in enumerate(GOOD)]


def _wrong(at: int, value: object) -> list[Any]:
    """With another number."""
    numbers: list[object] = GOOD[4]
    return _spoiled(4, [value if place == at else number for place, number in enumerate(numbers)])


@pytest.mark.parametrize(
    "values",
    [
        *(_spoiled(0, value) for value in (None, "h", [1])),
        *(_spoiled(1, value) for value in (None, 5, "x" * 5000)),
        *(_spoiled(2, value) for value in (None, "place", 5)),
        _spoiled(3, None),
        *(_spoiled(4, value) for value in (None, "no", [8, 6, 1], [[8, 6, 1, -1]])),
        *(_wrong(at, value) for at in range(2) for value in (-1, 10, 10**9, "1", None, 1.5, True)),
        *(_wrong(at, value) for at in (2, 3) for value in ("1", -2, 10**30, 1.5, None)),
    ],
)
def test_a_chunk_that_is_none_is_nonsense(values: list[Any]) -> None:
    """Fails when what a child sends is believed."""
    texts = (PIECE[0], PIECE[1], HASH)
    assert frame([[0, "ocr"]], texts).chunks(GOOD, 0)
    with pytest.raises(Nonsense):
        frame([[0, "chunks", 0, *values]], texts).chunks(values, 0)


@pytest.mark.parametrize("events", [{}, [1], [[]], [[0]], "x", None])
def test_a_frame_that_is_none_is_nonsense(events: object) -> None:
    with pytest.raises(Nonsense):
        frame(events)


def test_bad_characters_are_nonsense() -> None:
    """Rows 15 and 16. Fails when NUL or half a character can come from a child."""
    for body, text in (
        (b'[["a","\\ud800"]]', b""),
        (b'[["a","\\u0000"]]', b""),
        (b"[[0,1]]", b"\x00"),
        (b"[[0,1]]", b"\xff"),
    ):
        with pytest.raises(Nonsense):
            wire.Frame(body, text)
    assert wire.Frame(b'[["a","C:\\\\ud800"]]', b"").events


LIES = {
    "no frame": b"\xff" * 100,
    "another task": wire.pack([[7, "done", "", {}, [], ""]]),
    "a task before all": wire.pack([[-1, "done", "", {}, [], ""]]),
    "metadata that is none": wire.pack([[0, "done", "", {"a": []}, [], ""]]),
    "no title": wire.pack([[0, "done", None, {}, [], ""]]),
    "notes that are none": wire.pack([[0, "done", "", {}, "no", ""]]),
    "done twice": wire.pack([[0, "done", "", {}, [], ""]] * 2),
    "OCR that is off": wire.pack([[0, "ocr"]]),
    "an event that is none": wire.pack([[0, "shell", "x"]]),
    "no events": wire.pack({}),
    "chunks that are none": wire.pack([[0, "chunks", [[9**9] * 10]]]),
    "terms that are missing": wire.pack([[0, "chunks", 8, [], "", "", "", [0, 0, -1, -1]]], ["x" * 40], [b"x"]),
    "much text": wire.pack([[0, "chunks", 0, [], "", "", "", [9**6, 0, -1, -1]]], ["x" * (9**6 + 40)]),
    "many chunks": wire.pack([[0, "chunks", 0, [], "", "", "", [0, 0, -1, -1] * 999]], ["x" * 40 * 999]),
    "the end": b"",
}
LIAR = """
import os, sys
os.read(0, 9999)
os.write(1, {ready!r})
os.read(0, 9999)
lie = open({file!r}, "rb").read()
for _ in range(100 if len(lie) > 999 else 1):
    os.write(1, lie)
if lie:
    os.read(0, 9999)
"""


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_child_that_lies_is_ended(
    lie: bytes, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when nonsense from a child breaks the pool, fills its memory, or passes for a result."""
    file = tmp_path / "lie"
    file.write_bytes(lie)
    program = LIAR.format(ready=wire.pack([["ready", "hook"]]), file=str(file))
    monkeypatch.setattr(process, "_PROGRAM", program)
    monkeypatch.setattr(process, "_SLACK", 1 << 20)
    pool = ParserPool(IngestSettings(max_characters=10_000, ocr="off", timeout_seconds=20))
    (result,) = await results(pool, write(("a.md", "x")))
    assert "made its reader fail" in result.error
    assert not result.chunks
    assert not children(program)
    await pool.close()
