"""A generator with the contract of ExLlamaV2's and ExLlamaV3's, for machines without a card.

What it does is what their sources say: it takes jobs that fit its pages, or asserts; starts them first come, first
served; reads prompts in chunks; streams text, holding back broken characters and what may become a stop string; and at
the end tells why. Replies are made by a function, a token being a byte, as in `tests/models/llama_dir.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from core.serving.driver import Job, Report
from core.serving.drivers.exllama import ExLlamaDriver, Loaded, Plan
from core.serving.drivers.exllama_folder import Library
from core.serving.drivers.exllama_grammar import Grammar
from tests.models.llama_dir import SPECIALS

PAGE = 256
BROKEN = "\ufffd"
Reply = Callable[[Sequence[int]], Iterator[int]]


def saying(text: str, *then: int) -> Reply:
    """Always this text, then these tokens, then the text again."""

    def reply(_prompt: Sequence[int]) -> Iterator[int]:
        while True:
            yield from text.encode()
            yield from then

    return reply


@dataclass(eq=False)
class TheirJob:
    """As `ExLlamaV2DynamicJob` and `Job` are."""

    prompt: list[int]
    max_new_tokens: int
    stops: list[int | str]
    identifier: str
    grammar: Grammar | None = None
    serial: int = -1
    new_tokens: int = 0
    read: int = 0
    cached_pages: int = 0
    cached_tokens: int = 0
    tokens: Iterator[int] = field(default_factory=lambda: iter(()))
    held: bytes = b""
    """Tokens whose text is not given out yet."""

    @property
    def pages(self) -> int:
        return math.ceil((len(self.prompt) + self.max_new_tokens) / PAGE)

    @property
    def is_read(self) -> bool:
        return self.read >= len(self.prompt) - 1


class TheirGenerator:
    def __init__(self, reply: Reply, *, pages: int = 8, batch: int = 4, chunk: int = 512, drafted: int = 0) -> None:
        self.reply, self.max_pages, self.batch, self.chunk, self.drafted = reply, pages, batch, chunk, drafted
        self.pending: list[TheirJob] = []
        self.active: list[TheirJob] = []
        self.serial = 0
        self.fails: Exception | None = None
        """What the next step raises."""
        self.job_fails: dict[str, Exception] = {}
        """What a job's prompt fails with; ExLlamaV3 keeps that to the job."""
        self.cancel_fails: Exception | None = None

    def enqueue(self, job: TheirJob) -> int:
        assert job.prompt, "Input IDs cannot be empty."
        for stop in job.stops:
            if isinstance(stop, str):
                stop.encode("utf-32-le")
        assert job.pages <= self.max_pages, (
            f"Job requires {job.pages} pages (only {self.max_pages} available) and cannot be enqueued. "
            f"Total cache allocated is {self.max_pages} * {PAGE} = {self.max_pages * PAGE} tokens"
        )
        job.serial, self.serial = self.serial, self.serial + 1
        job.tokens = self.reply(job.prompt)
        self.pending.append(job)
        return job.serial

    def cancel(self, job: TheirJob) -> None:
        if self.cancel_fails is not None:
            raise self.cancel_fails
        for jobs in (self.pending, self.active):
            if job in jobs:
                jobs.remove(job)

    def iterate(self) -> list[dict[str, Any]]:
        if self.fails is not None:
            raise self.fails
        results: list[dict[str, Any]] = []
        self._start(results)
        for job in list(self.active):
            if not job.is_read:
                self._read(job, results)
        for job in [one for one in self.active if one.is_read]:
            for _ in range(1 + self.drafted):
                if self._next(job, results):
                    self.active.remove(job)
                    break
        return results

    # ------------------------------------------------------------ a step
    def _start(self, results: list[dict[str, Any]]) -> None:
        for job in list(self.pending):
            free = self.max_pages - sum(one.pages for one in self.active)
            if len(self.active) >= self.batch or job.pages > free:
                return
            self.pending.remove(job)
            self.active.append(job)
            results.append(self._result(job, "started"))

    def _read(self, job: TheirJob, results: list[dict[str, Any]]) -> None:
        if (error := self.job_fails.get(job.identifier)) is not None:
            self.active.remove(job)
            results.append({**self._result(job, "error"), "eos": True, "error": error})
            return
        job.read = min(job.read + self.chunk, len(job.prompt) - 1)
        told = {"curr_progress": job.read, "max_progress": len(job.prompt) - 1}
        results.append({**self._result(job, "prefill"), **told})

    def _next(self, job: TheirJob, results: list[dict[str, Any]]) -> bool:
        token = self._sampled(job)
        job.new_tokens += 1
        is_special = token >= PAGE
        job.held += b"" if is_special else bytes([token])
        text = job.held.decode("utf-8", "replace")
        if token in job.stops:
            name = SPECIALS[token - PAGE] if is_special else bytes([token]).decode("utf-8", "replace")
            self._end(job, results, "stop_token", "", {"eos_triggering_token_str": name, "held": {"text": text}})
            return True
        if job.new_tokens >= job.max_new_tokens - self.drafted:
            self._end(job, results, "max_new_tokens", text)
            return True
        if job.grammar is not None and job.grammar.is_over:
            self._end(job, results, "end_filter", text)
            return True
        return self._stream(job, results, text)

    def _stream(self, job: TheirJob, results: list[dict[str, Any]], text: str) -> bool:
        if text.endswith(BROKEN):
            results.append(self._result(job, "streaming"))
            return False
        strings = [stop for stop in job.stops if isinstance(stop, str)]
        for stop in strings:
            if stop in text:
                self._end(job, results, "stop_string", text[: text.index(stop)])
                return True
        if any(text.endswith(stop[:size]) for stop in strings for size in range(1, len(stop))):
            results.append(self._result(job, "streaming"))
            return False
        results.append({**self._result(job, "streaming"), **self._given(job, text)})
        return False

    def _sampled(self, job: TheirJob) -> int:
        token = next(job.tokens)
        if job.grammar is not None:
            allowed = np.flatnonzero(np.unpackbits(job.grammar.mask().view(np.uint8), bitorder="little"))
            token = token if token in allowed else int(allowed[0])
            job.grammar.accept(token)
        return token

    def _given(self, job: TheirJob, text: str) -> dict[str, Any]:
        told: dict[str, Any] = {"token_ids": np.zeros((1, max(len(job.held), 1)), np.int64)}
        job.held = b""
        return {**told, "text": text} if text else told

    def _end(
        self, job: TheirJob, results: list[dict[str, Any]], why: str, text: str, more: Mapping[str, Any] | None = None
    ) -> None:
        told = {
            "eos": True, "eos_reason": why, "new_tokens": job.new_tokens, "prompt_tokens": len(job.prompt),
            "cached_tokens": job.cached_pages * PAGE + job.cached_tokens,
        }  # fmt: skip
        given = {} if why == "stop_token" else self._given(job, text)
        results.append({**self._result(job, "streaming"), **told, **given, **(more or {})})

    def _result(self, job: TheirJob, stage: str) -> dict[str, Any]:
        return {"job": job, "stage": stage, "eos": False, "serial": job.serial, "identifier": job.identifier}


class TheirLibrary:
    """An adapter over it."""

    def __init__(
        self, generator: TheirGenerator, *, name: Library = "exllamav2", fails: Exception | None = None
    ) -> None:
        self.name: Library = name
        self.generator = generator
        self.fails = fails
        self.plan: Plan | None = None
        self.jobs: list[TheirJob] = []
        self.closed = 0

    def load(self, plan: Plan, report: Report) -> Loaded:
        self.plan = plan
        for done in range(4):
            report("load", done, 3)
        if self.fails is not None:
            raise self.fails
        self.generator.max_pages = plan.cache_tokens // PAGE
        self.generator.drafted = plan.options.drafted
        return Loaded(self.generator, self.new_job, self.close, plan.options.parallel, "paged", {"device": "none"})

    def new_job(self, job: Job, most: int, stops: Sequence[int | str], grammar: Grammar | None) -> TheirJob:
        made = TheirJob(list(job.prompt), most + self.generator.drafted, list(stops), job.id, grammar)
        self.jobs.append(made)
        return made

    def close(self) -> None:
        self.closed += 1


def driver_of(folder: Path, library: TheirLibrary, **values: Any) -> ExLlamaDriver:
    """A driver that has loaded the model in the folder."""
    driver = ExLlamaDriver({"model_path": str(folder), **values}, library)
    driver.load(lambda *_: None)
    return driver
