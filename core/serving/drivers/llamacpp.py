"""The driver of llama.cpp: GGUF models on the CPU, and on a card where the library was compiled for it.

It is used by its low-level functions: several answers go through the model in one batch, each in a sequence of its own
(`llamacpp_cells.py`), and prompts are read in parts, so that others are waited for no longer than a fraction of a
second. Tokens are counted here: the library's own class forgets its cap while a character is not whole.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

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
from core.serving.drivers.exllama_grammar import Grammar
from core.serving.drivers.llamacpp_cells import Cells, Seat
from core.serving.drivers.llamacpp_file import CACHES, Header, find_file, memory_bytes, read_header, sizes
from core.serving.drivers.llamacpp_library import listened_to, made_sampler
from core.serving.drivers.llamacpp_tokenizer import LlamaGrammars, LlamaTokenizer, has_grammars
from core.serving.words import ByteSpelling, Words, room

BATCH: Final = 512
_LEAST_PART: Final = 32
_STEP_SECONDS: Final = 0.25


def make(values: Mapping[str, Any]) -> LlamacppDriver:
    return LlamacppDriver(values)


@dataclass(slots=True)
class _Running:
    job: Job
    seat: Seat
    words: Words
    sampler: Any
    grammar: Grammar | None
    at: int
    """Tokens of the prompt that the cache has."""
    last: int = -1
    """The token that was drawn last, and is to be read next."""

    @property
    def reads(self) -> bool:
        """Its prompt is not read yet."""
        return self.at < len(self.job.prompt)


class LlamacppDriver:
    def __init__(self, values: Mapping[str, Any]) -> None:
        self._path = Path(str(values.get("model_path") or ""))
        self._asked_context = int(values.get("context_size") or 0)
        self._parallel = max(1, int(values.get("parallel") or 1))
        self._asked_cells = int(values.get("cache_tokens") or 0)
        self._cache = str(values.get("cache") or "f16")
        self._threads = threads(int(values.get("threads") or 0))
        self._gpu_layers = int(values.get("gpu_layers", -1))
        self._context = 0
        self._can_keep = True
        self._library: Any = None
        self._model: Any = None
        self._llama: Any = None
        self._batch: Any = None
        self._tokenizer: LlamaTokenizer | None = None
        self._grammars: LlamaGrammars | None = None
        self._cells = Cells(1, 1)
        self._running: dict[str, _Running] = {}
        self._waiting: deque[tuple[Job, Grammar | None]] = deque()
        self._part = 128
        self._said: deque[str] = deque()
        self._callbacks: list[Any] = []

    # ------------------------------------------------------------ loading
    def load(self, report: Report) -> Card:
        file = find_file(self._path)
        header = read_header(file)
        self._context, cells = sizes(header, self._asked_context, self._asked_cells)
        try:
            import llama_cpp
        except ModuleNotFoundError as error:
            raise CannotLoad(
                f"«llamacpp» needs the package {error.name}; install it with: pip install 'kvasir[llamacpp]'"
            ) from error
        self._library = llama_cpp
        self._said = listened_to(llama_cpp)
        self._said.clear()
        llama_cpp.llama_backend_init()
        self._load_model(file, report)
        self._open(cells, header)
        self._tokenizer = LlamaTokenizer(
            llama_cpp, self._model, str(header.values.get("tokenizer.chat_template") or "")
        )
        self._grammars = LlamaGrammars(self._tokenizer)
        self._cells = Cells(self._parallel, cells)
        return self._card(file, header, cells)

    def _load_model(self, file: Path, report: Report) -> None:
        library = self._library

        def progress(share: float, _: Any) -> bool:
            report("weights", int(share * 1000), 1000)
            return True

        params = library.llama_model_default_params()
        params.n_gpu_layers = self._gpu_layers if library.llama_supports_gpu_offload() else 0
        params.progress_callback = library.llama_progress_callback(progress)
        self._callbacks.append(params.progress_callback)
        self._model = library.llama_model_load_from_file(os.fsencode(file), params)
        if not self._model:
            raise self._not_loaded(file)
        for is_it, what in (
            (library.llama_model_is_diffusion, "it writes a whole text at once, which is not supported"),
            (library.llama_model_has_encoder, "it translates texts, and does not go on with them"),
        ):
            if is_it(self._model):
                raise CannotLoad(f"{file.name} cannot be used: {what}.")
        self._can_keep = not (
            library.llama_model_is_recurrent(self._model) or library.llama_model_is_hybrid(self._model)
        )

    def _not_loaded(self, file: Path) -> Exception:
        said = " · ".join(self._said)
        if any(word in said.lower() for word in ("failed to allocate", "out of memory", "unable to allocate")):
            return OutOfMemory(f"There is not enough memory for {file.name}; take one with a smaller quantization.")
        return CannotLoad(f"llama.cpp cannot load {file.name}: {said[-600:] or 'it does not say why'}")

    def _open(self, cells: int, header: Header) -> None:
        library = self._library
        params = library.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = cells, BATCH, BATCH
        params.n_seq_max, params.kv_unified, params.swa_full = self._parallel, True, True
        params.n_threads = params.n_threads_batch = self._threads
        params.type_k = params.type_v = CACHES[self._cache][0]
        if self._cache != "f16":
            params.flash_attn_type = 1  # without it keys and values of few bits cannot be read
        self._llama = library.llama_init_from_model(self._model, params)
        if not self._llama:
            size = f" ({cells * header.cell >> 20} MB)" if header.cell else ""
            raise OutOfMemory(
                f"There is not enough memory for a cache of {cells} tokens{size}; set context_size or cache_tokens to "
                "less, or cache to q8_0."
            )
        self._batch = library.llama_batch_init(BATCH, 0, 1)

    def _card(self, file: Path, header: Header, cells: int) -> Card:
        library = self._library
        kinds = {"chat", "completion"}
        return Card(
            model=file.stem,
            context_size=self._context,
            parallel=self._parallel,
            features=frozenset(kinds | ({"json_schema", "regex"} if has_grammars() else set())),
            details={
                "architecture": header.architecture,
                "quantization": header.quantization,
                "parameters": int(library.llama_model_n_params(self._model)),
                "device": "gpu" if self._gpu_layers and library.llama_supports_gpu_offload() else "cpu",
                "threads": self._threads,
                "cache": self._cache,
                "cache_tokens": cells,
                "template": "its own" if self.tokenizer.template else "none, a plain one is used",
                "mode": "batch" if self._parallel > 1 else "serial",
                "memory_bytes": memory_bytes(header, self._asked_context, self._asked_cells, self._cache),
            },
        )

    @property
    def tokenizer(self) -> Tokenizer:
        assert self._tokenizer is not None  # noqa: S101  nobody asks before load()
        return self._tokenizer

    # ------------------------------------------------------------ jobs
    def begin(self, job: Job) -> None:
        assert self._grammars is not None  # noqa: S101  nobody begins before load()
        room(job, self._context)
        size = self._grammars.size
        if any(not 0 <= token < size for token in job.prompt):
            raise Refused("The prompt has tokens that the model does not know.", code="bad_request")
        if job.repetition_penalty <= 0:
            raise Refused("repetition_penalty must be more than 0.", code="bad_request")
        self._waiting.append((job, self._grammars.for_job(job)))
        self._let_in()

    def cancel(self, job_id: str) -> None:
        self._waiting = deque(one for one in self._waiting if one[0].id != job_id)
        running = self._running.pop(job_id, None)
        if running is not None:
            self._leave(running)
            self._let_in()

    def _let_in(self) -> None:
        """Those who came first, as long as there is room for all that they may come to write."""
        while self._waiting:
            job, grammar = self._waiting[0]
            most = room(job, self._context)
            place = self._cells.place(job.prompt, len(job.prompt) + most, can_keep=self._can_keep)
            if place is None:
                return
            self._waiting.popleft()
            keep = place.keep
            for seat in place.clear:
                self._forget(seat, 0)
            if place.copy_from is not None:
                self._forget(place.seat, 0)
                memory = self._library.llama_get_memory(self._llama)
                self._library.llama_memory_seq_cp(memory, place.copy_from.number, place.seat.number, 0, keep)
            self._cells.take(place, len(job.prompt) + most)
            if not self._forget(place.seat, keep):
                keep = 0
            sampler = made_sampler(self._library, job, words=self._tokenizer.size if self._tokenizer else 0)
            words = Words(job, self._spelling(), self._ends, most=most, cached=keep)
            self._running[job.id] = _Running(job, place.seat, words, sampler, grammar, at=keep)

    @property
    def _ends(self) -> tuple[int, ...]:
        return self._tokenizer.ends if self._tokenizer else ()

    def _spelling(self) -> ByteSpelling:
        assert self._tokenizer is not None  # noqa: S101  as in begin()
        return ByteSpelling(self._tokenizer.bytes_of)

    def _forget(self, seat: Seat, keep: int) -> bool:
        """Everything behind `keep`; False where a model can only forget all, and has."""
        memory = self._library.llama_get_memory(self._llama)
        del seat.tokens[keep:]
        if self._library.llama_memory_seq_rm(memory, seat.number, keep, -1):
            return True
        self._library.llama_memory_seq_rm(memory, seat.number, -1, -1)
        seat.tokens.clear()
        return False

    def _leave(self, running: _Running) -> None:
        self._library.llama_sampler_free(running.sampler)
        self._cells.leave(running.seat)

    # ------------------------------------------------------------ a step
    def step(self) -> Sequence[Event]:
        if not self._running:
            return []
        drawing, parts = self._fill()
        began = time.monotonic()
        self._decode()
        events: list[Event] = []
        read = 0
        for running, count in parts:
            running.seat.tokens += running.job.prompt[running.at : running.at + count]
            running.at += count
            read += count
            events.append(Prefilled(running.job.id, running.at, len(running.job.prompt), running.words.cached))
        self._pace(read, time.monotonic() - began)
        for running, place in drawing:
            events += self._drawn(running, place)
        self._let_in()
        return events

    def _fill(self) -> tuple[list[tuple[_Running, int]], list[tuple[_Running, int]]]:
        """The batch; with (answer, where its next word is drawn from) and (answer, tokens of its prompt)."""
        self._batch.n_tokens = 0
        drawing: list[tuple[_Running, int]] = []
        parts: list[tuple[_Running, int]] = []
        for running in self._running.values():
            if not running.reads:
                drawing.append((running, self._put(running, running.last, len(running.seat.tokens), is_wanted=True)))
                running.seat.tokens.append(running.last)
        left = min(self._part, BATCH - self._batch.n_tokens)
        for running in self._running.values():
            if running.reads and left > 0:
                part = running.job.prompt[running.at : running.at + left]
                is_all = running.at + len(part) == len(running.job.prompt)
                for number, token in enumerate(part):
                    is_last = is_all and number == len(part) - 1
                    place = self._put(running, token, running.at + number, is_wanted=is_last)
                    if is_last:
                        drawing.append((running, place))
                parts.append((running, len(part)))
                left -= len(part)
        return drawing, parts

    def _put(self, running: _Running, token: int, position: int, *, is_wanted: bool) -> int:
        batch, place = self._batch, self._batch.n_tokens
        batch.token[place] = token
        batch.pos[place] = position
        batch.n_seq_id[place] = 1
        batch.seq_id[place][0] = running.seat.number
        batch.logits[place] = is_wanted
        batch.n_tokens = place + 1
        return int(place)

    def _decode(self) -> None:
        code = self._library.llama_decode(self._llama, self._batch)
        if code == 0:
            return
        said = " · ".join(list(self._said)[-3:])
        if code == 1:
            raise OutOfMemory("The cache has no room for what was reserved; set cache_tokens to more.")
        if "alloc" in said.lower() or "out of memory" in said.lower():
            raise OutOfMemory("Memory ran out while llama.cpp read a text.")
        raise Poisoned(f"llama.cpp cannot go on (code {code}): {said[-300:] or 'it does not say why'}")

    def _pace(self, read: int, seconds: float) -> None:
        """So much of a prompt at a time that a step takes a fraction of a second, whatever the machine."""
        if read >= _LEAST_PART:
            fit = int(read * _STEP_SECONDS / max(seconds, 1e-6))
            self._part = min(BATCH, max(_LEAST_PART, (self._part + fit) // 2))

    def _drawn(self, running: _Running, place: int) -> list[Event]:
        if running.grammar is not None:
            pointer = self._library.llama_get_logits_ith(self._llama, place)
            logits = np.ctypeslib.as_array(pointer, shape=(self._grammars.size if self._grammars else 0,))
            bits = np.unpackbits(running.grammar.mask().view(np.uint8), bitorder="little")[: logits.size]
            logits[bits == 0] = -np.inf
        token = int(self._library.llama_sampler_sample(running.sampler, self._llama, place))
        events = running.words.add(token)
        running.last = token
        if running.grammar is not None and not running.words.over:
            running.grammar.accept(token)
            if running.grammar.error:
                events.append(Broke(running.job.id, f"The grammar led to no end: {running.grammar.error[:300]}"))
                running.words.over = True
            elif running.grammar.is_over:
                events += running.words.end("stop")
        if running.words.over:
            del self._running[running.job.id]
            self._leave(running)
        return events

    def close(self) -> None:
        for running in self._running.values():
            self._library.llama_sampler_free(running.sampler)
        self._running.clear()
        self._waiting.clear()
        if self._batch is not None:
            self._library.llama_batch_free(self._batch)
        if self._llama:
            self._library.llama_free(self._llama)
        if self._model:
            self._library.llama_model_free(self._model)
        self._batch = self._llama = self._model = None
