"""The driver of CTranslate2: small and middling language models on the CPU, from wheels alone, or on a CUDA card.

The library has threads of its own, one a job at a time; each calls back with every token, and a callback that says so
ends the job. A prompt is read at once, and nothing ends that. One stream of random numbers serves all jobs, so that a
seed cannot be heeded.
"""

from __future__ import annotations

import atexit
import contextlib
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from core.serving.driver import (
    Broke,
    CannotLoad,
    Card,
    Event,
    Job,
    OutOfMemory,
    Poisoned,
    Prefilled,
    Refused,
    Report,
    Tokenizer,
)
from core.serving.drivers.cores import threads
from core.serving.drivers.ctranslate2_folder import WEIGHTS, Folder, context_size, read_folder
from core.serving.drivers.ctranslate2_prefix import Beginnings
from core.serving.words import DecodedSpelling, Words, room

_STEP_SECONDS: Final = 0.02
_CLOSE_SECONDS: Final = 10.0
_SILENCE_SECONDS: Final = 1800.0
"""A prompt may take minutes on a slow CPU; a thread of the library that says nothing for so long hangs."""


def make(values: Mapping[str, Any]) -> Ctranslate2Driver:
    return Ctranslate2Driver(values)


@dataclass(slots=True)
class _Running:
    job: Job
    words: Words
    future: Any = None
    cached: int = 0
    begun: bool = False
    """Its first token has come."""
    unwanted: bool = False
    heard: float = field(default_factory=time.monotonic)


class Ctranslate2Driver:
    """One job a replica; the replicas share the weights, and the threads."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._path = Path(str(values.get("model_path") or ""))
        self._asked_context = int(values.get("context_size") or 0)
        self._threads = threads(int(values.get("threads") or 0))
        self._parallel = max(1, int(values.get("parallel") or 1))
        self._device = str(values.get("device") or "auto")
        self._compute = str(values.get("compute_type") or "default")
        self._keeps = bool(values.get("prompt_cache", True))
        self._folder: Folder | None = None
        self._generator: Any = None
        self._context = 0
        self._beginnings = Beginnings()
        self._running: dict[str, _Running] = {}
        self._ending: list[_Running] = []
        self._tokens: queue.SimpleQueue[tuple[_Running, int]] = queue.SimpleQueue()

    # ------------------------------------------------------------ loading
    def load(self, report: Report) -> Card:
        try:
            import ctranslate2
        except ModuleNotFoundError as error:
            raise CannotLoad(
                f"«ctranslate2» needs the package {error.name}; install it with: pip install 'kvasir[ctranslate2]'"
            ) from error
        report("tokenizer", 0, 1)
        self._folder = read_folder(self._path)
        self._context = context_size(self._asked_context, self._folder.context_size)
        size = (self._path / WEIGHTS).stat().st_size
        report("weights", 0, size)
        device = self._device_of(ctranslate2)
        replicas = self._parallel if device == "cuda" else min(self._parallel, self._threads)
        try:
            self._generator = ctranslate2.Generator(
                str(self._path),
                device=device,
                compute_type=self._compute,
                inter_threads=replicas,
                intra_threads=max(1, self._threads // replicas),
                max_queued_batches=-1,
            )
        except (RuntimeError, ValueError, MemoryError) as error:
            raise _at_load(error) from error
        atexit.register(self.close)  # threads of the library that outlive the interpreter abort the process
        report("weights", size, size)
        return self._card(size, device, replicas)

    def _device_of(self, library: Any) -> str:
        cards = library.get_cuda_device_count() if self._device != "cpu" else 0
        if self._device == "cuda" and not cards:
            raise CannotLoad("device is set to cuda, and no CUDA card is to be seen; set it to cpu or auto.")
        return "cuda" if cards else "cpu"

    def _card(self, size: int, device: str, replicas: int) -> Card:
        assert self._folder is not None  # noqa: S101  load() has just read it
        return Card(
            model=self._path.name,
            context_size=self._context,
            parallel=replicas,
            features=frozenset({"chat", "completion"}),
            details={
                **self._folder.details,
                "device": device,
                "compute_type": str(self._generator.compute_type),
                "threads": self._threads,
                "memory_bytes": size,
                "template": "its own" if self._folder.tokenizer.template else "none, a plain one is used",
                "mode": "one prompt a replica",
                "not_heeded": "seed",
            },
        )

    @property
    def tokenizer(self) -> Tokenizer:
        assert self._folder is not None  # noqa: S101  nobody asks before load()
        return self._folder.tokenizer

    # ------------------------------------------------------------ jobs
    def begin(self, job: Job) -> None:
        folder = self._folder
        assert folder is not None  # noqa: S101  nobody begins before load()
        _check(job)
        left = room(job, self._context)
        if any(not 0 <= token < len(folder.words) for token in job.prompt):
            raise Refused("The prompt has tokens that the model does not know.", code="bad_request")
        kept, known = self._beginnings.split(job.prompt) if self._keeps else ((), 0)
        spelling = DecodedSpelling(lambda ids: folder.tokenizer.decode(ids, controls=False))
        running = _Running(job, Words(job, spelling, folder.ends, most=left, cached=known), cached=known)
        try:
            running.future = self._generator.generate_batch(
                [[folder.words[token] for token in job.prompt[len(kept) :]]],
                asynchronous=True,
                callback=self._caller(running),
                include_prompt_in_result=False,
                static_prompt=[folder.words[token] for token in kept] or None,
                max_length=left,
                end_token=list(folder.ends) or None,
                **self._samplers(job),
            )[0]
        except (RuntimeError, ValueError) as error:
            raise Refused(f"CTranslate2 does not take the job: {error}", code="bad_request") from error
        self._running[job.id] = running

    def _samplers(self, job: Job) -> dict[str, Any]:
        if job.temperature <= 0:
            return {"sampling_topk": 1, "repetition_penalty": job.repetition_penalty}
        most = len(self._folder.words) if self._folder else 0
        return {
            "sampling_topk": 0 if job.top_k >= most else job.top_k,
            "sampling_topp": min(1.0, max(job.top_p, 1e-6)),
            "sampling_temperature": job.temperature,
            "repetition_penalty": job.repetition_penalty,
        }

    def _caller(self, running: _Running) -> Callable[[Any], bool]:
        tokens = self._tokens

        def called(step: Any) -> bool:  # on the library's thread
            tokens.put((running, int(step.token_id)))
            return running.unwanted

        return called

    def cancel(self, job_id: str) -> None:
        running = self._running.pop(job_id, None)
        if running is not None:
            self._let_go(running)

    def _let_go(self, running: _Running) -> None:
        """Its thread ends it with the next token."""
        running.unwanted = True
        self._ending.append(running)

    def step(self) -> Sequence[Event]:
        events: list[Event] = []
        try:
            running, token = self._tokens.get(timeout=_STEP_SECONDS)
            while True:
                events += self._heard(running, token)
                running, token = self._tokens.get_nowait()
        except queue.Empty:
            pass
        for running in list(self._running.values()):
            events += self._looked_at(running)
        self._ending = [one for one in self._ending if not one.future.done()]
        return events

    def _heard(self, running: _Running, token: int) -> list[Event]:
        job = running.job
        if self._running.get(job.id) is not running:
            return []
        running.heard = time.monotonic()
        events: list[Event] = []
        if not running.begun:
            running.begun = True
            events.append(Prefilled(job.id, len(job.prompt), len(job.prompt), running.cached))
        events += running.words.add(token)
        if running.words.over:
            del self._running[job.id]
            self._let_go(running)
        return events

    def _looked_at(self, running: _Running) -> list[Event]:
        """What a job's own thread has to say when it is over, or says nothing any more."""
        if not running.future.done():
            if time.monotonic() - running.heard > _SILENCE_SECONDS:
                raise Poisoned("CTranslate2 has said nothing for half an hour.")
            return []
        if not self._tokens.empty():  # its last tokens are on their way
            return []
        del self._running[running.job.id]
        try:
            running.future.result()
        except MemoryError as error:
            raise OutOfMemory("Memory ran out while CTranslate2 wrote an answer.") from error
        except (RuntimeError, ValueError) as error:
            return [_broke(running.job.id, error)]
        return running.words.end("length")

    def close(self) -> None:
        for job_id in list(self._running):
            self.cancel(job_id)
        deadline = time.monotonic() + _CLOSE_SECONDS
        for running in self._ending:
            while not running.future.done() and time.monotonic() < deadline:
                time.sleep(0.01)
        with contextlib.suppress(RuntimeError):
            if self._generator is not None:
                self._generator.unload_model()
        self._generator = None
        atexit.unregister(self.close)


def _check(job: Job) -> None:
    """Raises Refused for what the library cannot do."""
    asked = {
        "a JSON schema": job.json_schema is not None,
        "a regular expression": bool(job.regex),
        "min_p": job.min_p > 0,
        "frequency_penalty": job.frequency_penalty != 0,
        "presence_penalty": job.presence_penalty != 0,
    }
    for what, is_asked in asked.items():
        if is_asked:
            raise Refused(f"The engine «ctranslate2» cannot follow {what}; «llamacpp» can.", code="unsupported")
    if job.repetition_penalty <= 0:
        raise Refused("repetition_penalty must be more than 0.", code="bad_request")


def _is_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in ("out of memory", "bad_alloc"))


def _at_load(error: Exception) -> Exception:
    if _is_memory(error):
        return OutOfMemory("There is not enough memory for the model; convert it with --quantization int8.")
    return CannotLoad(f"CTranslate2 cannot load it: {error}")


def _broke(job_id: str, error: Exception) -> Broke:
    if _is_memory(error):
        raise OutOfMemory("Memory ran out while CTranslate2 wrote an answer.") from error
    if "cuda" in str(error).lower():
        raise Poisoned(f"CTranslate2 cannot go on: {error}") from error
    return Broke(job_id, f"CTranslate2 could not go on with it: {error}")
