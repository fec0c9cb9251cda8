"""A chat platform that keeps a transcript of all it was shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from core.types import Capabilities, Finished, Mention, Source


@dataclass
class FakeAnswer:
    """An answer as the people on the platform saw it; `transcript` has a line for every change."""

    mention: Mention
    transcript: list[str] = field(default_factory=list)
    text: str = ""
    finished: Finished | None = None
    failure: str = ""

    async def status(self, text: str) -> None:
        self.transcript.append(f"status: {text}")

    async def sources(self, sources: Sequence[Source], standalone_question: str) -> None:
        documents = ", ".join(source.passage.document for source in sources)
        self.transcript.append(f"sources for {standalone_question}: {documents}")

    async def append(self, text: str) -> None:
        self.text += text

    async def finish(self, finished: Finished) -> None:
        self.finished = finished
        self.transcript.append(f"finish: {finished.text}")

    async def fail(self, sentence: str) -> None:
        self.failure = sentence
        self.transcript.append(f"fail: {sentence}")


CAPABILITIES = Capabilities(max_length=10_000, streaming="native", edit_interval=0)


@dataclass
class FakePlatform:
    answers: list[FakeAnswer] = field(default_factory=list)
    name: str = "fake"
    capabilities: Capabilities = CAPABILITIES

    async def open_answer(self, mention: Mention) -> FakeAnswer:
        answer = FakeAnswer(mention)
        self.answers.append(answer)
        return answer
