"""The port of a worker process: what a model's own library must do in it.

A driver is made, loaded, stepped and closed on one thread, ever the same: CUDA libraries keep state by thread. Only its
`tokenizer` is used on others. A driver knows no HTTP, no queue and no other process; `core/serving/loop.py` calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from core.types import Matrix

Scalar: TypeAlias = str | int | float | bool


# ---------------------------------------------------------------- what goes wrong
class DriverError(Exception):
    """One clear sentence, in English, that says what to do."""


class Refused(DriverError):
    """This job cannot be done as it was asked for; the others go on."""

    def __init__(self, sentence: str, *, code: Literal["context_length", "bad_request", "unsupported"]) -> None:
        super().__init__(sentence)
        self.code = code


class CannotLoad(DriverError):
    """The model cannot be loaded as it is set up; trying again does not help."""


class OutOfMemory(DriverError):
    """Memory ran out, at load or in a step. After it the driver is used no more."""


class Poisoned(DriverError):
    """The library is in no state to go on (a CUDA error, say): the process ends, and a fresh one takes its place."""


# ---------------------------------------------------------------- what was loaded
@dataclass(frozen=True, slots=True)
class Card:
    """A loaded model, as people and the supervisor see it."""

    model: str
    """Its name, as a rule its folder's."""
    context_size: int = 0
    """Tokens of prompt and answer together; 0 for what does not generate."""
    parallel: int = 1
    """Jobs that make headway at the same time."""
    features: frozenset[str] = frozenset()
    """Of `chat`, `completion`, `json_schema`, `regex`, `lora`, `draft`, `embed`, `rerank`."""
    details: Mapping[str, Scalar] = field(default_factory=dict)
    """What a person wants to know: `architecture`, `quantization`, `cache`, `mode`, `device`, `memory_bytes`, …"""
    dimension: int = 0
    """Numbers of a vector, for what embeds."""
    max_tokens: int = 0
    """Tokens of one text, for what embeds or reranks; longer texts are cut."""
    fingerprint: str = ""
    """For what embeds: changes whenever the same text could get another vector."""


Report: TypeAlias = Callable[[str, int, int], None]
"""(stage, done, total) while loading; called often, must be cheap."""


# ---------------------------------------------------------------- generating
@dataclass(frozen=True, slots=True)
class Job:
    """One text to generate. Every sampler is set: a library's own defaults are not neutral."""

    id: str
    prompt: tuple[int, ...]
    """Token ids; control tokens are already where they belong, and nowhere else."""
    max_tokens: int
    temperature: float = 0.0
    """0: always the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """0: all."""
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    """Strings that end the text and are left out of it."""
    json_schema: Mapping[str, Any] | None = None
    regex: str = ""
    """At most one of `json_schema` and `regex`."""


@dataclass(frozen=True, slots=True)
class Prefilled:
    """So many of its prompt's tokens were read."""

    job_id: str
    done: int
    total: int
    cached: int = 0
    """Of them known from earlier jobs."""


@dataclass(frozen=True, slots=True)
class Piece:
    """More of its text: whole characters, never a part of a stop string."""

    job_id: str
    text: str
    tokens: int = 1


@dataclass(frozen=True, slots=True)
class Done:
    """It has come to its end; nothing comes after."""

    job_id: str
    reason: Literal["stop", "length"]
    prompt_tokens: int
    new_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Broke:
    """It alone failed; the others go on, and nothing comes after."""

    job_id: str
    sentence: str
    code: Literal["context_length", "bad_request", "out_of_memory", "failed"] = "failed"


Event: TypeAlias = Prefilled | Piece | Done | Broke


class Tokenizer(Protocol):
    """Text to token ids and back; safe to use from several threads."""

    @property
    def template(self) -> str:
        """The model's own chat template (Jinja); empty where it has none."""

    @property
    def specials(self) -> Mapping[str, str]:
        """`bos_token`, `eos_token`, … as templates name them."""

    @property
    def controls(self) -> Sequence[str]:
        """All control tokens as text, for those who must not let them in."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        """`special`: control tokens in the text count as such, else they are plain characters; nothing is added."""

    def decode(self, ids: Sequence[int]) -> str: ...


class TextDriver(Protocol):
    """Generates text."""

    def load(self, report: Report) -> Card:
        """Raises CannotLoad or OutOfMemory."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    def begin(self, job: Job) -> None:
        """Take it in beside the others; called for no more than `Card.parallel` at a time. Raises Refused."""

    def cancel(self, job_id: str) -> None:
        """Forget it, whatever its state; nothing of it comes after. An unknown id is none of its business."""

    def step(self) -> Sequence[Event]:
        """One step for every job: as short as can be, since new jobs and cancels wait for it.

        Raises OutOfMemory or Poisoned.
        """

    def close(self) -> None: ...


# ---------------------------------------------------------------- vectors
class VectorDriver(Protocol):
    """Embeds, or reranks, or both, as its card's `features` say."""

    def load(self, report: Report) -> Card:
        """Raises CannotLoad or OutOfMemory."""

    def embed(self, texts: Sequence[str], *, query: bool) -> Matrix:
        """A row per text, L2-normalised. Raises OutOfMemory or Poisoned; Refused where its card says nothing of it."""

    def rerank(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """A score per text, 0..1. Raises as `embed`."""

    def close(self) -> None: ...


Driver: TypeAlias = TextDriver | VectorDriver

MakeDriver: TypeAlias = Callable[[Mapping[str, Any]], Driver]
"""An entry point of the group `kvasir.drivers`: the values of the adapter's section of the settings (plain JSON,
paths as text) make a driver. Nothing heavy is imported before `load`."""
