"""The drivers for tests and drills: one that says what it was told to, one that counts words, both failing on demand.

What goes wrong is the value `drill`: rules with a comma between them.

| rule | what happens |
|---|---|
| `slow:S` | loading takes S seconds |
| `load:WHAT` | while loading: `segv`, `oom`, `refuse`, `hang` |
| `WHAT@N` | before an answer's N-th token: `segv`, `kill`, `hang`, `freeze`, `poison`, `oom`, `break`, `bug` |
| `prompt:N` | memory runs out with a prompt of more than N tokens |
| `only:TEXT` | what is meant for tokens strikes only where the prompt holds this text |
| `once:PATH` | nothing happens any more when there is this file; it is made when something does |
| `bytes` | each token is a byte, and not a word |

`hang` lets other threads go on, `freeze` does not, as a library does that waits with Python's lock held.
"""

from __future__ import annotations

import codecs
import ctypes
import os
import re
import signal
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.serving.driver import (
    Broke,
    CannotLoad,
    Card,
    Done,
    DriverError,
    Event,
    Job,
    OutOfMemory,
    Piece,
    Poisoned,
    Prefilled,
    Refused,
    Report,
)
from core.serving.drivers.letters import LetterTokenizer, control

if TYPE_CHECKING:
    from core.types import Matrix

_PREFILL: Final = 512
_STEPS: Final = 20
_FOREVER: Final = 10_000
_BREATH: Final = 0.001
_TOKEN: Final = re.compile(r"\s*[\u2e80-\uffef]|\s*[^\s\u2e80-\uffef]+|\s+")
_DIMENSION: Final = 64
_ERRORS: Final[Mapping[str, type[DriverError]]] = {
    "oom": OutOfMemory, "poison": Poisoned, "refuse": CannotLoad, "break": DriverError,
}  # fmt: skip


def make(values: Mapping[str, Any]) -> ScriptedDriver:
    return ScriptedDriver(values)


def make_vectors(values: Mapping[str, Any]) -> ScriptedVectors:
    return ScriptedVectors(values)


@dataclass(frozen=True)
class Drill:
    """What goes wrong, and when."""

    rules: Mapping[str, str]
    at: Mapping[int, str]
    """What happens before which token."""

    @classmethod
    def read(cls, text: str) -> Drill:
        rules, at = dict[str, str](), dict[int, str]()
        for rule in filter(None, (part.strip() for part in text.split(","))):
            what, is_at, number = rule.partition("@")
            if is_at:
                at[int(number)] = what
            else:
                name, _, value = rule.partition(":")
                rules[name] = value
        return cls(rules, at)

    def load(self, report: Report) -> None:
        seconds = float(self.rules.get("slow", 0))
        for step in range(_STEPS):
            report("load", step, _STEPS)
            time.sleep(seconds / _STEPS)
            if step == _STEPS // 2 and self.rules.get("load"):
                self.strike(self.rules["load"])
        report("load", _STEPS, _STEPS)

    def prompt(self, tokens: int) -> None:
        if "prompt" in self.rules and tokens > int(self.rules["prompt"]):
            self.strike("oom")

    def token(self, number: int, prompt: str) -> None:
        if number in self.at and self.rules.get("only", "") in prompt:
            self.strike(self.at[number])

    def strike(self, what: str) -> None:
        if once := self.rules.get("once"):
            mark = Path(once)
            if mark.exists():
                return
            mark.touch()
        if what in _ERRORS:
            raise _ERRORS[what](f"So the drill wants it: {what}.")
        match what:
            case "segv" | "kill":
                os.kill(os.getpid(), signal.SIGSEGV if what == "segv" else signal.SIGKILL)
            case "hang":
                time.sleep(_FOREVER)
            case "freeze":
                ctypes.PyDLL(None).sleep(_FOREVER)
            case _:
                raise RuntimeError(what)


@dataclass
class _Running:
    job: Job
    tokens: Iterator[bytes]
    decoder: codecs.IncrementalDecoder
    prompt: str
    due: float
    """When its first token may come."""
    read: int = 0
    said: int = 0
    text: str = ""
    held: int = 0
    """Tokens whose text is not whole yet."""
    stops: tuple[str, ...] = field(default=())


class ScriptedDriver:
    """Says its `reply`, or else what the user said, a word a token; `tokens` makes it so long."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._drill = Drill.read(_rules(values))
        self._first = float(values.get("first_token_seconds") or 0)
        self._running: dict[str, _Running] = {}
        self._pace = float(values.get("token_seconds") or 0)
        self._context = int(values.get("context_size") or 8192)
        self.tokenizer = LetterTokenizer()

    def load(self, report: Report) -> Card:
        self._drill.load(report)
        return Card(
            model="scripted",
            context_size=self._context,
            parallel=int(self._values.get("parallel") or 4),
            features=frozenset({"chat", "completion"}),
            details={"architecture": "script", "device": "none"},
        )

    def begin(self, job: Job) -> None:
        if job.json_schema is not None or job.regex:
            raise Refused("The scripted engine follows no grammar.", code="unsupported")
        prompt = self.tokenizer.decode(job.prompt)
        self._running[job.id] = _Running(
            job,
            self._tokens(job),
            codecs.getincrementaldecoder("utf-8")("replace"),
            prompt,
            due=time.monotonic() + self._first,
            stops=job.stop,
        )

    def cancel(self, job_id: str) -> None:
        self._running.pop(job_id, None)

    def step(self) -> Sequence[Event]:
        if self._pace:
            time.sleep(self._pace)
        events: list[Event] = []
        for running in list(self._running.values()):
            try:
                found = self._read(running) if running.read < len(running.job.prompt) else self._say(running)
            except (OutOfMemory, Poisoned):
                raise
            except DriverError as error:
                found = [Broke(running.job.id, str(error))]
            events += found
            if found and isinstance(found[-1], (Done, Broke)):
                del self._running[running.job.id]
        if not events and self._first:
            time.sleep(_BREATH)
        return events

    def close(self) -> None:
        self._running.clear()

    def _read(self, running: _Running) -> list[Event]:
        total = len(running.job.prompt)
        self._drill.prompt(total)
        running.read = min(total, running.read + _PREFILL)
        return [Prefilled(running.job.id, running.read, total)]

    def _say(self, running: _Running) -> list[Event]:
        job = running.job
        if time.monotonic() < running.due:
            return []
        self._drill.token(running.said + 1, running.prompt)
        token = next(running.tokens, None)
        if token is None:
            return [*self._rest(running), self._done(running, "stop")]
        running.said += 1
        running.held += 1
        running.text += running.decoder.decode(token)
        for stop in running.stops:
            if stop in running.text:
                running.text = running.text.partition(stop)[0]
                return [*self._rest(running), self._done(running, "stop")]
        if running.said >= job.max_tokens:
            return [*self._rest(running), self._done(running, "length")]
        safe = len(running.text) - _held_back(running.text, running.stops)
        if not safe:
            return []
        piece = Piece(job.id, running.text[:safe], running.held)
        running.text, running.held = running.text[safe:], 0
        return [piece]

    def _rest(self, running: _Running) -> list[Event]:
        return [Piece(running.job.id, running.text, running.held)] if running.text else []

    def _done(self, running: _Running, reason: Any) -> Done:
        return Done(running.job.id, reason, len(running.job.prompt), running.said)

    def _tokens(self, job: Job) -> Iterator[bytes]:
        text = str(self._values.get("reply") or "") or self._asked(job.prompt)
        words = [text[at : at + 1] for at in range(len(text))] if not text.strip() else _TOKEN.findall(text)
        wanted = int(self._values.get("tokens") or 0)
        if wanted:
            words = (words * (1 + wanted // max(1, len(words))))[:wanted]
        if "bytes" in self._drill.rules:
            return (bytes((byte,)) for byte in "".join(words).encode())
        return (word.encode() for word in words)

    def _asked(self, prompt: Sequence[int]) -> str:
        """What stands behind the last sign of a user, or everything."""
        ids = list(prompt)
        if (sign := control("user")) in ids:
            ids = ids[len(ids) - ids[::-1].index(sign) :]
            end = control("end")
            ids = ids[: ids.index(end)] if end in ids else ids
        return self.tokenizer.decode(ids)


class ScriptedVectors:
    """Counts words: texts with the same words are near each other."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._drill = Drill.read(str(values.get("drill") or ""))
        self._calls = 0

    def load(self, report: Report) -> Card:
        self._drill.load(report)
        return Card(
            model="scripted-vectors",
            features=frozenset({"embed", "rerank"}),
            dimension=_DIMENSION,
            max_tokens=512,
            fingerprint="scripted-vectors-1",
        )

    def embed(self, texts: Sequence[str], *, query: bool) -> Matrix:  # noqa: ARG002  the same for both
        import numpy as np

        self._strike(" ".join(texts))
        rows = np.zeros((len(texts), _DIMENSION), np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[0] = 1e-3
            for word in text.lower().split():
                row[zlib.crc32(word.encode()) % _DIMENSION] += 1
        normal: Matrix = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return normal

    def rerank(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        rows = self.embed([query, *texts], query=True)
        return [min(1.0, max(0.0, float(row @ rows[0]))) for row in rows[1:]]

    def close(self) -> None:
        return None

    def _strike(self, text: str) -> None:
        self._calls += 1
        self._drill.token(self._calls, text)


def _rules(values: Mapping[str, Any]) -> str:
    """The drill, with what the other settings want to go wrong."""
    rules = [str(values.get("drill") or "")]
    rules += [f"break@{int(values['fail_after']) + 1}"] if values.get("fail_after") else []
    rules += [f"hang@{int(values['hang_after']) + 1}"] if values.get("hang_after") else []
    return ",".join(rules)


def _held_back(text: str, stops: Sequence[str]) -> int:
    """Characters at the end that may be the beginning of a stop string."""
    longest = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), 0, -1):
            if text.endswith(stop[:size]):
                longest = max(longest, size)
                break
    return longest
