"""What no machine without a card can show: ExLlamaV2 and ExLlamaV3 for real. `make gpu-drill` runs it.

It builds the extensions, makes EXL2 and EXL3 of a tiny model, loads each in every way there is, and compares what a
person gets through Kvasir with the bare generator. `--model DIR` takes a model of yours in place of the tiny one,
`--rehearse` goes through the same steps without a card, on the engine `scripted`, to try this script itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import httpx2
import psutil

from core.serving.driver import Broke, Done, Job, Piece
from core.serving.drivers.exllama import ExLlamaDriver
from core.serving.kinds import make_driver
from core.serving.plan import Plan, plan_of
from core.serving.workers import RunningWorker, worker_of
from core.settings import Settings, load

NO_CARD = (
    "There is no NVIDIA card that torch can use here, so nothing was measured; on a machine with one: make gpu-drill."
)
TOKENS = 256
ROUNDS = 3
STREAMS = 8
LEAST_RATIO = 0.97
MOST_OVERHEAD = 0.020
MOST_RECOVERY = 5.0
_LONGEST = 900.0
_SLACK = 0.005


@dataclass(frozen=True)
class Case:
    """A way to run a model."""

    engine: str
    title: str
    values: dict[str, Any]


@dataclass
class Row:
    """What was seen of it."""

    case: Case
    load_seconds: float = 0.0
    mode: str = ""
    speed: float = 0.0
    bare_speed: float = 0.0
    first: float = 0.0
    bare_first: float = 0.0
    together: float = 0.0
    recovery: float = 0.0
    text: str = ""
    failures: list[str] = field(default_factory=list)

    def judge(self, *, strict: bool) -> None:
        if strict and self.bare_speed and self.speed / self.bare_speed < LEAST_RATIO:
            self.failures.append(f"speed is {self.speed / self.bare_speed:.3f} of the bare generator's")
        if strict and self.first - self.bare_first > MOST_OVERHEAD:
            self.failures.append(f"the first token takes {(self.first - self.bare_first) * 1000:.0f} ms longer")


# ---------------------------------------------------------------- through Kvasir
async def through_kvasir(case: Case, data: Path, prompt: Sequence[int], row: Row) -> None:
    running = worker_of(_plan(case, data), lambda *_: None)
    began = time.monotonic()
    trouble = await running.open()
    try:
        if trouble is not None:
            row.failures.append(trouble.say("en"))
            return
        row.load_seconds = time.monotonic() - began
        card = running.card
        row.mode = str(card.details.get("mode", "")).partition(":")[0] if card is not None else ""
        await _stream(running, prompt, 16)
        rounds = [await _stream(running, prompt, TOKENS) for _ in range(ROUNDS)]
        row.first, row.speed = min(one.first for one in rounds), max(one.speed for one in rounds)
        row.text = rounds[0].text
        began = time.monotonic()
        several = await asyncio.gather(*(_stream(running, [*prompt, 65 + n], TOKENS) for n in range(STREAMS)))
        row.together = sum(one.tokens for one in several) / (time.monotonic() - began)
        await _cancels(running, prompt, row)
        await _is_killed(running, prompt, row)
    finally:
        await running.close()


@dataclass(frozen=True)
class Streamed:
    text: str
    tokens: int
    first: float
    speed: float
    """Tokens a second, after the first."""


async def _stream(running: RunningWorker, prompt: Sequence[int], tokens: int, *, stop_after: int = 0) -> Streamed:
    """One answer; with `stop_after` the connection is closed after so many pieces."""
    body = {
        "prompt": list(prompt), "max_tokens": tokens, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    text, count, times, pieces = "", 0, list[float](), 0
    began = time.monotonic()
    async with (
        running.address.client() as client,
        client.stream("POST", "/v1/completions", json=body, timeout=httpx2.Timeout(_LONGEST)) as response,
    ):
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data:") or line.endswith("[DONE]"):
                continue
            told = json.loads(line[5:])
            if "error" in told:
                raise RuntimeError(told["error"])
            if said := "".join(choice.get("text") or "" for choice in told.get("choices") or []):
                times.append(time.monotonic())
                text, pieces = text + said, pieces + 1
            count = (told.get("usage") or {}).get("completion_tokens", count)
            if stop_after and pieces >= stop_after:
                break
    first = times[0] - began if times else 0.0
    spent = times[-1] - times[0] if len(times) > 1 else 0.0
    return Streamed(text, count, first, (count - 1) / spent if spent and count > 1 else 0.0)


async def _cancels(running: RunningWorker, prompt: Sequence[int], row: Row) -> None:
    """Answers that nobody reads to the end leave no trace in those after them."""
    for _ in range(20):
        await _stream(running, prompt, 4 * TOKENS, stop_after=2)
    after = await _stream(running, prompt, TOKENS)
    if after.text != row.text:
        row.failures.append("after cancelled answers it says something else")


async def _is_killed(running: RunningWorker, prompt: Sequence[int], row: Row) -> None:
    """The process is killed at work; a fresh one answers."""
    life = running.life
    at_work = asyncio.create_task(_stream(running, prompt, 16 * TOKENS))
    await asyncio.sleep(0.2)
    for child in psutil.Process().children(recursive=True):
        if "core.serving" in child.cmdline():
            os.kill(child.pid, signal.SIGKILL)
    if not isinstance((await asyncio.gather(at_work, return_exceptions=True))[0], Exception):
        row.failures.append("an answer ended well although its process was killed")
    began = time.monotonic()
    await running.ended(life, _LONGEST)
    trouble = await running.ready(_LONGEST)
    if trouble is not None:
        row.failures.append(f"after a kill: {trouble.say('en')}")
        return
    again = await _stream(running, prompt, TOKENS)
    row.recovery = time.monotonic() - began
    if again.text != row.text:
        row.failures.append("after a kill it says something else")
    if row.recovery > row.load_seconds + MOST_RECOVERY:
        row.failures.append(f"after a kill it took {row.recovery:.1f} s to answer again")


def _plan(case: Case, data: Path) -> Plan:
    given: dict[str, Any] = {"data_dir": data, case.engine: case.values}
    settings: Settings = load(**given)
    return plan_of(settings, "engine", case.engine, on_gpu=case.engine != "scripted")


# ---------------------------------------------------------------- the bare generator
def bare(told: str) -> None:
    """In a process of its own: the library's generator and nothing of Kvasir's around it; figures as JSON."""
    wanted = json.loads(told)
    driver = make_driver(wanted["engine"], wanted["values"])
    driver.load(lambda *_: None)
    once = _exllama_once(driver) if isinstance(driver, ExLlamaDriver) else _driver_once(driver)
    once(wanted["prompt"], 16)
    rounds = [once(wanted["prompt"], TOKENS) for _ in range(ROUNDS)]
    print(json.dumps({"first": min(first for first, _ in rounds), "speed": max(speed for _, speed in rounds)}))
    driver.close()


def _exllama_once(driver: ExLlamaDriver) -> Callable[[Sequence[int], int], tuple[float, float]]:
    loaded = driver._loaded
    assert loaded is not None

    def once(prompt: Sequence[int], tokens: int) -> tuple[float, float]:
        began = time.monotonic()
        loaded.generator.enqueue(loaded.new_job(Job("bare", tuple(prompt), tokens), tokens, [], None))
        times: list[float] = []
        while True:
            for result in loaded.generator.iterate():
                times += [time.monotonic()] if result.get("text") else []
                if result["eos"]:
                    return _figures(began, times, int(result["new_tokens"]))

    return once


def _driver_once(driver: Any) -> Callable[[Sequence[int], int], tuple[float, float]]:
    def once(prompt: Sequence[int], tokens: int) -> tuple[float, float]:
        began = time.monotonic()
        driver.begin(Job("bare", tuple(prompt), tokens))
        times: list[float] = []
        while True:
            for event in driver.step():
                times += [time.monotonic()] if isinstance(event, Piece) else []
                if isinstance(event, (Done, Broke)):
                    return _figures(began, times, event.new_tokens if isinstance(event, Done) else 0)

    return once


def _figures(began: float, times: Sequence[float], tokens: int) -> tuple[float, float]:
    spent = times[-1] - times[0] if len(times) > 1 else 0.0
    return (times[0] - began if times else 0.0), ((tokens - 1) / spent if spent else 0.0)


def measure_bare(case: Case, data: Path, prompt: Sequence[int], row: Row) -> None:
    told = json.dumps({"engine": case.engine, "values": dict(_plan(case, data).values), "prompt": list(prompt)})
    found = subprocess.run(
        [sys.executable, "-P", "-m", "bench.gpu_drill", "--bare", told], capture_output=True, text=True, check=False
    )
    if found.returncode:
        row.failures.append(f"bare: {(found.stderr.strip().splitlines() or ['it failed'])[-1][:200]}")
        return
    read = json.loads(found.stdout.strip().splitlines()[-1])
    row.bare_first, row.bare_speed = read["first"], read["speed"]


# ---------------------------------------------------------------- models and cases
def converted(folder: Path, work: Path, library: str) -> Path:
    """The model with 4 bits a weight, in the library's own form."""
    target = work / f"{folder.name}-{library}"
    inner, options = {
        "exllamav2": (
            "exllamav2.conversion.convert_exl2",
            ["-o", str(work / "v2"), "-cf", str(target), "-nr", "-r", "1", "-mr", "1", "-l", "256", "-ml", "256"],
        ),
        "exllamav3": (
            "exllamav3.conversion.convert_model",
            ["-w", str(work / "v3"), "-o", str(target), "-cr", "4", "-cc", "256"],
        ),
    }[library]
    (work / "v2").mkdir(exist_ok=True)
    build = work / "build"
    start = (
        "import sys, runpy; from pathlib import Path; from core.serving.drivers.exllama_build import provide; "
        f"provide({library!r}, Path({str(build)!r}), (), lambda *_: None); "
        f"sys.argv = [{inner!r}, '-i', {str(folder)!r}, '-b', '4.0', *{options!r}]; "
        f"runpy.run_module({inner!r}, run_name='__main__')"
    )
    subprocess.run([sys.executable, "-P", "-c", start], check=True, timeout=3600)
    return target


def cases(folder: Path, work: Path) -> list[Case]:
    common = {"context_size": 2048, "cache_size": 32768, "parallel": STREAMS, "build_dir": str(work / "build")}
    found: list[Case] = []
    for library in ("exllamav2", "exllamav3"):
        kinds = ("fp16", "q8", "q6", "q4") if library == "exllamav2" else ("fp16", "q8", "q4", "8,4")
        for path, kind in ((folder, "FP16"), (None, "EXL2" if library == "exllamav2" else "EXL3")):
            try:
                model = path or converted(folder, work, library)
            except (subprocess.SubprocessError, OSError) as error:
                print(f"{library}: {kind} could not be made: {error}")
                continue
            for cache in kinds if path is None else kinds[:1]:
                title = f"{library} {kind} cache {cache}"
                found.append(Case(library, title, {**common, "model_path": str(model), "cache": cache}))
            if library == "exllamav2":
                off = {**common, "model_path": str(model), "paged": "off"}
                found.append(Case(library, f"{library} {kind} serial", off))
            ngrams = {**common, "model_path": str(model), "ngram_draft": True}
            found.append(Case(library, f"{library} {kind} n-gram drafts", ngrams))
    return found


# ---------------------------------------------------------------- the whole
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="folder of an FP16 model in place of the tiny one")
    parser.add_argument("--rehearse", action="store_true", help="without a card, on the engine scripted")
    parser.add_argument("--only", default="", help="only cases whose title has this in it")
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        bare(given.bare)
        return 0
    told = "" if given.rehearse else _card()
    if told is None:
        print(NO_CARD)
        return 1
    with tempfile.TemporaryDirectory(prefix="kvasir-drill-") as place:
        return _drill(given, Path(place), told)


def _drill(given: argparse.Namespace, work: Path, told: str) -> int:
    print(told)
    print(", ".join(_versions()))
    prompt = list(range(65, 91)) * 20
    wanted, reference = _wanted(given, work, prompt)
    rows: list[Row] = []
    for case in (one for one in wanted if given.only in one.title):
        row = Row(case)
        rows.append(row)
        print(f"… {case.title}", flush=True)
        try:
            asyncio.run(through_kvasir(case, work / "data", prompt, row))
        except (httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
            row.failures.append(f"{type(error).__name__}: {error}")
        measure_bare(case, work / "data", prompt, row)
        if reference and "FP16 cache fp16" in case.title and not row.text.startswith(reference):
            row.failures.append("it does not say what the model says, computed apart from any library")
        row.judge(strict=not given.rehearse)
    _print(rows)
    return 1 if not rows or any(row.failures for row in rows) else 0


def _wanted(given: argparse.Namespace, work: Path, prompt: list[int]) -> tuple[list[Case], str]:
    """The cases, and how an answer to the prompt begins where that is known."""
    if given.rehearse:
        values = {"tokens": 100 * TOKENS, "token_seconds": _SLACK, "parallel": STREAMS, "process": True}
        return [Case("scripted", "scripted", values)], ""
    if given.model is not None:
        return cases(given.model.absolute(), work), ""
    from tests.models.llama_dir import write_llama
    from tests.models.llama_reference import Reference

    folder = write_llama(work / "tiny")
    return cases(folder, work), bytes(Reference(folder).greedy(prompt, 8)).decode()


def _card() -> str | None:
    try:
        import torch  # type: ignore[import-not-found, unused-ignore]
    except ModuleNotFoundError:
        return None
    if not torch.cuda.is_available():
        return None
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return f"{', '.join(names)}; CUDA {torch.version.cuda}"


def _versions() -> list[str]:
    found = []
    for name in ("torch", "exllamav2", "exllamav3", "flash-attn", "llguidance"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return found


def _print(rows: Sequence[Row]) -> None:
    columns = (
        "case",
        "mode",
        "load s",
        "tokens/s",
        "bare",
        "ratio",
        "first ms",
        "bare ms",
        f"{STREAMS} at once",
        "kill s",
    )
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        ratio = row.speed / row.bare_speed if row.bare_speed else 0.0
        print(
            f"| {row.case.title} | {row.mode} | {row.load_seconds:.1f} | {row.speed:.0f} | {row.bare_speed:.0f} "
            f"| {ratio:.3f} | {row.first * 1000:.1f} | {row.bare_first * 1000:.1f} | {row.together:.0f} "
            f"| {row.recovery:.1f} |"
        )
    for row in rows:
        for failure in row.failures:
            print(f"FAILED {row.case.title}: {failure}")
    ratios = [row.speed / row.bare_speed for row in rows if row.bare_speed]
    if ratios:
        print(
            f"\nThe median of the ratios is {statistics.median(ratios):.3f}; at least {LEAST_RATIO} is wanted of each."
        )


if __name__ == "__main__":
    sys.exit(main())
