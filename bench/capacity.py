"""What so many people, questions and chunks need: the arithmetic of docker/README.md with one's own numbers.

    python -m bench.capacity --people 2000 --questions 3 --chunks 500000
    python -m bench.capacity --json

Nothing is measured here: each figure is computed from what is given, so that it can be checked by hand.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

_DAY = 24 * 3600
_GB = 1e9
_LINKS = 256
"""Bytes of an HNSW graph for each vector: 32 neighbours of 8 bytes."""
_ROOM = 1.2
"""What a server takes beside what it keeps."""
_STREAM_EDITS = 12
"""Calls that show one answer on a platform at most: first sign, edits, end."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of the house. The defaults are a large one: a million people, ten thousand channels."""

    people: float = 1_000_000
    questions: float = 2.0
    """Of each person a day."""
    messages: float = 20.0
    """Messages that reach Kvasir, of each person a day; as many as questions where it hears mentions alone."""
    peak: float = 5.0
    """The busiest moment, as a multiple of the mean."""
    prompt_tokens: float = 2000.0
    answer_tokens: float = 250.0
    chunks: float = 100e6
    dimension: float = 384.0
    copies: float = 3.0
    """Of each vector, on as many nodes."""
    kbs: float = 10_000.0
    kept_days: float = 60.0
    """Days that conversations are kept."""


@dataclass(frozen=True, slots=True)
class Means:
    """What one of each can do. The defaults are published or measured figures; put in those of your own machines."""

    event_ms: float = 0.2
    """CPU time for a message that is looked at, stored or passed over."""
    question_ms: float = 25.0
    """CPU time of a question without the language model: its embedding, search, prompt, stream, record (11 ms of it
    were measured in a process of bots)."""
    decode_tokens: float = 12_000.0
    """Tokens a second that one GPU writes for many at once."""
    model_billions: float = 8.0
    prefill_tflops: float = 400.0
    """Of one GPU, as reached, not as printed on the box."""
    answer_seconds: float = 5.5
    """From the end of the queue to the whole answer: the prompt is read, then the tokens come, about 50 a second."""
    embed_chunks: float = 70.0
    """Chunks a second that one process embeds."""
    node_gb: float = 48.0
    """Memory of a node of the vector store that is for vectors (of 64 GB)."""
    question_kb: float = 4.0
    """Rows of one question with its answer."""
    number_bytes: float = 1.0
    """Bytes a number of a vector takes: 4 as floats, 1 by RQ-8."""
    pool: float = 20.0
    """Connections to the database that one process opens at most."""
    web_questions: float = 40.0
    """Questions a second of one process, by its event loop; measure yours with `make bench ARGS=question`."""


@dataclass(frozen=True, slots=True)
class Need:
    name: str
    value: float
    unit: str
    how: str
    """The arithmetic, in words and numbers."""


def needs(load: Load, means: Means) -> Sequence[Need]:
    """All that is needed, in the order of a question's way."""
    return [*_traffic(load, means), *_model(load, means), *_vectors(load, means), *_database(load, means)]


def _traffic(load: Load, means: Means) -> list[Need]:
    mean = load.people * load.questions / _DAY
    peak = mean * load.peak
    events = load.people * load.messages / _DAY * load.peak
    cores = peak * means.question_ms / 1000 + events * means.event_ms / 1000
    processes = max(2, math.ceil(peak / means.web_questions))
    at_a_time = peak * means.answer_seconds
    return [
        Need("questions, mean", mean, "/s", f"{load.people:,.0f} people x {load.questions:g} a day / {_DAY:,} s"),
        Need("questions, peak", peak, "/s", f"{mean:.3g} x {load.peak:g}"),
        Need(
            "messages heard, peak", events, "/s", f"{load.people:,.0f} x {load.messages:g} / {_DAY:,} s x {load.peak:g}"
        ),
        Need(
            "CPU without the model",
            cores,
            "cores",
            f"{peak:.3g} x {means.question_ms:g} ms + {events:.3g} x {means.event_ms:g} ms",
        ),
        Need("processes that answer", processes, "", f"{peak:.3g} / {means.web_questions:g} a second, two at least"),
        Need("answers written at a time", at_a_time, "", f"{peak:.3g} x {means.answer_seconds:g} s"),
        Need(
            "channels.parallel",
            math.ceil(at_a_time / processes),
            "",
            f"{at_a_time:,.0f} / {processes}; with less, questions wait for their turn",
        ),
        Need(
            "calls to platforms, peak",
            peak * _STREAM_EDITS,
            "/s",
            f"{peak:.3g} x {_STREAM_EDITS} at most for an answer that is shown as it grows",
        ),
    ]


def _model(load: Load, means: Means) -> list[Need]:
    peak = load.people * load.questions / _DAY * load.peak
    decode, prefill = peak * load.answer_tokens, peak * load.prompt_tokens
    flops = prefill * 2 * means.model_billions * 1e9
    writing, reading = decode / means.decode_tokens, flops / (means.prefill_tflops * 1e12)
    return [
        Need("tokens written, peak", decode, "/s", f"{peak:.3g} x {load.answer_tokens:g}"),
        Need("GPUs that write", writing, "", f"{decode:,.0f} / {means.decode_tokens:,.0f}"),
        Need("tokens read, peak", prefill, "/s", f"{peak:.3g} x {load.prompt_tokens:g}"),
        Need(
            "GPUs that read",
            reading,
            "",
            f"{prefill:,.0f} x 2 x {means.model_billions:g}e9 / {means.prefill_tflops:g}e12",
        ),
        Need(
            "GPUs",
            math.ceil(writing + reading),
            "",
            "both, rounded up; a prefix cache and shorter prompts cut what is read",
        ),
    ]


def _vectors(load: Load, means: Means) -> list[Need]:
    vector = load.dimension * means.number_bytes
    once = load.chunks * (vector + _LINKS) * _ROOM / _GB
    every = once * load.copies
    nodes = max(load.copies, math.ceil(every / means.node_gb))
    hours = load.chunks / means.embed_chunks / 3600
    return [
        Need("vectors in memory", once, "GB", f"{load.chunks:,.0f} x ({vector:g} + {_LINKS} B) x {_ROOM:g}"),
        Need("with all copies", every, "GB", f"{once:,.1f} x {load.copies:g}"),
        Need("nodes of the store", nodes, "", f"{every:,.1f} GB / {means.node_gb:g} GB, one for each copy at least"),
        Need("chunks of a knowledge base", load.chunks / load.kbs, "", f"{load.chunks:,.0f} / {load.kbs:,.0f}"),
        Need(
            "embedding all once", hours, "process hours", f"{load.chunks:,.0f} / {means.embed_chunks:g} a second / 3600"
        ),
    ]


def _database(load: Load, means: Means) -> list[Need]:
    questions = load.people * load.questions
    daily = questions * means.question_kb * 1000 / _GB
    peak = questions / _DAY * load.peak
    processes = max(2, math.ceil(peak / means.web_questions)) + 5
    return [
        Need("database growth", daily, "GB/day", f"{questions:,.0f} x {means.question_kb:g} kB"),
        Need("database", daily * load.kept_days, "GB", f"{daily:.3g} x {load.kept_days:g} days"),
        Need(
            "max_connections",
            processes * means.pool + 20,
            "",
            f"({processes - 5} that answer + 2 bots + 3 jobs) x {means.pool:g} + 20",
        ),
    ]


# ---------------------------------------------------------------- the command
def main(arguments: Sequence[str] = ()) -> None:
    load, means, as_json = _given(arguments)
    found = needs(load, means)
    if as_json:
        print(json.dumps({"load": asdict(load), "means": asdict(means), "needs": [asdict(need) for need in found]}))
        return
    print("| what | needed | how |\n|---|---|---|")
    for need in found:
        print(f"| {need.name} | {_shown(need.value)} {need.unit}".rstrip() + f" | {need.how} |")


def _given(arguments: Sequence[str]) -> tuple[Load, Means, bool]:
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description="What a load needs, computed.")
    for part in (Load, Means):
        group = parser.add_argument_group(part.__name__.lower())
        for field in fields(part):
            group.add_argument(f"--{field.name.replace('_', '-')}", type=_number, default=field.default)
    parser.add_argument("--json", action="store_true")
    given: dict[str, Any] = vars(parser.parse_args(list(arguments)))
    load = Load(**{field.name: given[field.name] for field in fields(Load)})
    means = Means(**{field.name: given[field.name] for field in fields(Means)})
    return load, means, given["json"]


def _number(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError("a number above 0 is wanted")
    return value


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
