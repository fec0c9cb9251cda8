"""ExLlamaV2 and ExLlamaV3: one driver over the generator that both have, with a thin adapter for each.

Their own asynchronous generators are not used: they step on the event loop, leave readers waiting after a cancel, and
spin or hang after an error. After any exception of a step the driver is used no more: a generator does not recover.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol

from core.serving.driver import (
    Broke,
    CannotLoad,
    Card,
    Done,
    Event,
    Job,
    OutOfMemory,
    Piece,
    Poisoned,
    Prefilled,
    Refused,
    Report,
    Scalar,
)
from core.serving.drivers.exllama_errors import first_line, is_cuda, told_apart, verdict
from core.serving.drivers.exllama_folder import Library as Name
from core.serving.drivers.exllama_folder import ModelFolder, check_architecture, read_folder, rounded
from core.serving.drivers.exllama_grammar import PACKAGE, Grammar, Grammars
from core.serving.drivers.exllama_options import Options
from core.serving.drivers.exllama_overlay import Overlay
from core.serving.drivers.hf_tokenizer import HfTokenizer
from core.serving.words import room

logger = logging.getLogger(__name__)

_REPLACEMENT: Final = "\ufffd"
_PAGE: Final = 256
_LEAST_NGRAM: Final = 3
"""Tokens that ExLlamaV2 looks back for n-gram drafts; with fewer it fails."""
_TURN_ENDS: Final = (
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|end_of_text|>",
    "<|return|>",
)  # fmt: skip
"""Control tokens that end an answer whatever the model's configuration forgot; none is ever part of one."""


# ---------------------------------------------------------------- what an adapter gives
@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be loaded."""

    options: Options
    folder: ModelFolder
    path: Path
    """The folder that the library reads (`Overlay`)."""
    context_size: int
    cache_tokens: int
    """Tokens of the cache, in whole pages."""
    draft: ModelFolder | None = None
    draft_path: Path | None = None


class Generator(Protocol):
    """What both libraries' generators have."""

    def enqueue(self, job: Any) -> Any: ...

    def cancel(self, job: Any) -> None: ...

    def iterate(self) -> list[dict[str, Any]]: ...


@dataclass(slots=True)
class Loaded:
    """A model that a library has loaded."""

    generator: Generator
    new_job: Callable[[Job, int, Sequence[int | str], Grammar | None], Any]
    """A job of the library, for so many tokens at most, with these stops."""
    close: Callable[[], None]
    parallel: int
    mode: str
    details: Mapping[str, Scalar] = field(default_factory=dict)


class Adapter(Protocol):
    """One of the two libraries."""

    name: Name

    def load(self, plan: Plan, report: Report) -> Loaded:
        """Raises CannotLoad; what the library raises is told apart by `verdict`."""


# ---------------------------------------------------------------- the driver
@dataclass(slots=True)
class _Running:
    job: Job
    own: Any
    grammar: Grammar | None
    total: int
    tokens: int = 0


class ExLlamaDriver:
    """Generates text with one of the libraries."""

    def __init__(self, values: Mapping[str, Any], adapter: Adapter) -> None:
        """Raises CannotLoad where a value cannot be."""
        self._options = Options.read(values, adapter.name)
        self._adapter = adapter
        self._overlays: list[Overlay] = []
        self._loaded: Loaded | None = None
        self._tokenizer: HfTokenizer | None = None
        self._grammars: Grammars | None = None
        self._stops: tuple[int, ...] = ()
        self._context_size = 0
        self._running: dict[str, _Running] = {}
        self._broken = ""

    @property
    def tokenizer(self) -> HfTokenizer:
        if self._tokenizer is None:
            raise RuntimeError("the model is not loaded")
        return self._tokenizer

    # ------------------------------------------------------------ loading
    def load(self, report: Report) -> Card:
        try:
            return self._load(report)
        except BaseException:
            self.close()
            raise

    def _load(self, report: Report) -> Card:
        options, name = self._options, self._adapter.name
        report("read", 0, 1)
        folder = self._checked(options.model_path)
        draft = self._checked(options.draft_model_dir) if options.draft_model_dir else None
        self._tokenizer = HfTokenizer(folder.path)
        if draft is not None:
            _check_draft(self._tokenizer, folder, draft)
        plan = self._planned(folder, draft)
        self._context_size = plan.context_size
        self._stops = _stops(folder, self._tokenizer)
        self._grammars = Grammars(self._tokenizer, int(folder.text("vocab_size") or 0), self._stops)
        report("read", 1, 1)
        with told_apart(name, f"{folder.path.name} cannot be loaded"):
            self._loaded = self._adapter.load(plan, report)
        return self._card(plan, self._loaded)

    def _checked(self, path: Path) -> ModelFolder:
        folder = read_folder(path, self._adapter.name)
        check_architecture(folder, self._adapter.name)
        return folder

    def _planned(self, folder: ModelFolder, draft: ModelFolder | None) -> Plan:
        options = self._options
        wanted = options.context_size or min(folder.context_size, options.usual_context)
        context = min(wanted, options.cache_size) if options.cache_size else wanted
        # what is guessed at the end of a full context needs room, and ExLlamaV3 leaves a place free in any case
        beside = options.drafted + 2 if options.drafted or self._adapter.name == "exllamav3" else 0
        if options.cache != "fp16" and folder.head_dim() % 32:
            raise CannotLoad(
                f"{folder.path.name} has heads of {folder.head_dim()} numbers; a quantized cache needs a multiple of "
                "32. Set cache to fp16."
            )
        overlay = self._overlaid(folder)
        return Plan(
            options=options,
            folder=folder,
            path=overlay,
            context_size=context,
            cache_tokens=rounded(max(options.cache_size, context + beside)),
            draft=draft,
            draft_path=self._overlaid(draft) if draft is not None else None,
        )

    def _overlaid(self, folder: ModelFolder) -> Path:
        made = Overlay(folder)
        self._overlays.append(made)
        return made.path

    def _card(self, plan: Plan, loaded: Loaded) -> Card:
        options, folder = self._options, plan.folder
        features = {"completion"}
        features |= {"chat"} if self.tokenizer.template else set()
        features |= {"json_schema", "regex"} if find_spec(PACKAGE) else set()
        features |= {"lora"} if options.lora_dir else set()
        features |= {"draft"} if options.drafted else set()
        details: dict[str, Scalar] = {
            "architecture": folder.architecture,
            "quantization": folder.quantization,
            "cache": f"{options.cache}, {plan.cache_tokens} tokens",
            "mode": loaded.mode,
            **loaded.details,
        }
        logger.info("%s: %s", folder.path.name, "; ".join(f"{key} {value}" for key, value in details.items()))
        return Card(
            model=folder.path.name,
            context_size=plan.context_size,
            parallel=loaded.parallel,
            features=frozenset(features),
            details=details,
        )

    # ------------------------------------------------------------ jobs
    def begin(self, job: Job) -> None:
        loaded, grammars = self._ready()
        most = room(job, self._context_size)
        if self._options.ngram_draft and len(job.prompt) < _LEAST_NGRAM:
            raise Refused(f"With ngram_draft a prompt has at least {_LEAST_NGRAM} tokens.", code="bad_request")
        grammar = grammars.for_job(job)
        stops: list[int | str] = [*self._stops, *(stop for stop in job.stop if stop)]
        try:
            own = loaded.new_job(job, most, stops, grammar)
            loaded.generator.enqueue(own)
        except AssertionError as error:
            code = "context_length" if "pages" in str(error) else "bad_request"
            raise Refused(str(error) or "The library does not take it.", code=code) from error  # type: ignore[arg-type]
        except (ValueError, TypeError, UnicodeError, OverflowError) as error:
            raise Refused(f"The library does not take it: {error}", code="bad_request") from error
        self._running[job.id] = _Running(job, own, grammar, len(job.prompt))

    def cancel(self, job_id: str) -> None:
        running = self._running.pop(job_id, None)
        if running is None or self._loaded is None or self._broken:
            return
        try:
            self._loaded.generator.cancel(running.own)
        except Exception as error:  # it may move the cache about, on the cards
            logger.exception("a job could not be cancelled")
            self._broken = first_line(error)

    def step(self) -> Sequence[Event]:
        loaded, _ = self._ready()
        if self._broken:
            raise Poisoned(f"{self._adapter.name} failed: {self._broken}")
        if not self._running:
            return ()
        try:
            results = loaded.generator.iterate()
        except Exception as error:
            self._broken = first_line(error)
            raise verdict(error, self._adapter.name) from error
        events: list[Event] = []
        for result in results:
            events += self._events(result)
        return [*events, *self._astray()]

    def close(self) -> None:
        """Frees what was loaded; the links to the model's files go, never the files."""
        self._running.clear()
        loaded, self._loaded = self._loaded, None
        try:
            if loaded is not None and not self._broken:
                loaded.close()
        except Exception:  # the process ends anyway
            logger.exception("the model could not be unloaded")
        finally:
            for overlay in self._overlays:
                overlay.close()
            self._overlays.clear()

    # ------------------------------------------------------------ what a step brings
    def _events(self, result: Mapping[str, Any]) -> list[Event]:
        running = self._running.get(str(result.get("identifier") or getattr(result["job"], "identifier", "")))
        if running is None:
            return []
        job_id, stage = running.job.id, result["stage"]
        if stage == "prefill":
            return [Prefilled(job_id, int(result["curr_progress"]), int(result["max_progress"]), _cached(running.own))]
        if stage == "error":
            return self._failed(running, result.get("error"))
        if stage != "streaming":
            return []
        over = bool(result["eos"])
        text, tokens = _text(result), _count(result)
        running.tokens += tokens
        events: list[Event] = [Piece(job_id, text, max(tokens, 1))] if text else []
        if over:
            del self._running[job_id]
            if running.grammar is not None and running.grammar.error:
                return [*events, _off_grammar(running)]
            events.append(_done(running, result))
        return events

    def _failed(self, running: _Running, error: object) -> list[Event]:
        """One job's own failure, which ExLlamaV3 contains; a CUDA error is everybody's."""
        del self._running[running.job.id]
        found = verdict(error if isinstance(error, Exception) else RuntimeError(str(error)), self._adapter.name)
        if isinstance(found, OutOfMemory):
            return [Broke(running.job.id, str(found), "out_of_memory")]
        if is_cuda(error):
            self._broken = first_line(error)
            raise found
        return [Broke(running.job.id, f"The model's library failed with this answer: {first_line(error)}", "failed")]

    def _astray(self) -> Iterator[Event]:
        """Answers whose grammar failed under way: they could only go wrong from there."""
        for running in [one for one in self._running.values() if one.grammar is not None and one.grammar.error]:
            self.cancel(running.job.id)
            yield _off_grammar(running)

    def _ready(self) -> tuple[Loaded, Grammars]:
        if self._loaded is None or self._grammars is None:
            raise RuntimeError("the model is not loaded")
        return self._loaded, self._grammars


# ---------------------------------------------------------------- reading results
def _off_grammar(running: _Running) -> Broke:
    reason = running.grammar.error if running.grammar is not None else ""
    return Broke(running.job.id, f"The answer left its grammar: {reason}", "failed")


def _text(result: Mapping[str, Any]) -> str:
    """The text of a result; at the end also what was held back and became no stop string."""
    text = str(result.get("text") or "")
    if not result["eos"]:
        return text
    reason = result.get("eos_reason")
    if reason == "stop_token":
        held = str((result.get("held") or {}).get("text") or "")
        text += held.removesuffix(str(result.get("eos_triggering_token_str") or ""))
    return text.rstrip(_REPLACEMENT)


def _count(result: Mapping[str, Any]) -> int:
    tokens = result.get("token_ids")
    return 0 if tokens is None else int(tokens.shape[-1])


def _done(running: _Running, result: Mapping[str, Any]) -> Done:
    reason = "length" if result.get("eos_reason") == "max_new_tokens" else "stop"
    new = result.get("new_tokens")
    return Done(
        running.job.id,
        "length" if reason == "length" else "stop",
        prompt_tokens=len(running.job.prompt),
        new_tokens=running.tokens if new is None else int(new),
        cached_tokens=int(result.get("cached_tokens") or 0),
    )


def _cached(own: Any) -> int:
    return int(getattr(own, "cached_pages", 0)) * _PAGE + int(getattr(own, "cached_tokens", 0))


# ---------------------------------------------------------------- before loading
def _stops(folder: ModelFolder, tokenizer: HfTokenizer) -> tuple[int, ...]:
    named = [tokenizer.specials.get("eos_token", ""), *(name for name in _TURN_ENDS if name in tokenizer.controls)]
    found = [tokenizer.id_of(name) for name in named if name]
    return tuple(dict.fromkeys([*folder.stops, *(one for one in found if one is not None)]))


def _check_draft(tokenizer: HfTokenizer, folder: ModelFolder, draft: ModelFolder) -> None:
    """A draft in other tokens would be refused by every word of the model, and cost time for nothing."""
    try:
        own = HfTokenizer(draft.path)
    except CannotLoad:
        return
    text = "The quick brown fox, 世界 123."
    if own.encode(text, special=False) != tokenizer.encode(text, special=False):
        raise CannotLoad(f"{draft.path.name} has other tokens than {folder.path.name}; a draft model shares them.")
