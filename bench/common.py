"""What the benchmarks share: a corpus made on the spot, paired rounds, and CPU time of a process with its children."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

WORDS = [
    *("alpha", "beta", "gamma", "delta", "invoice", "contract", "engine", "valve", "retention", "policy", "vector"),
    *("channel", "message", "upload", "kernel", "warranty", "refund", "schedule"),
    *("the", "of", "and", "to", "in", "for", "with", "on", "is", "by"),
]


def write_corpus(folder: Path, documents: int, characters: int, seed: int = 7) -> list[Path]:
    """English-like text files of about that many characters each, always the same for a seed."""
    chance = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(documents):
        parts, size = [f"Document {number}."], 0
        while size < characters:
            words = " ".join(chance.choice(WORDS) for _ in range(chance.randint(6, 16)))
            sentence = f"{words.capitalize()} item{chance.randint(0, 10**6)}."
            parts.append(sentence + ("\n\n" if chance.random() < 0.15 else " "))
            size += len(sentence) + 1
        path = folder / f"{number:05d}.txt"
        path.write_text("".join(parts), encoding="utf-8")
        paths.append(path)
    return paths


def cpu_seconds() -> float:
    """CPU time of this process and of its children, the living and the dead."""
    own = psutil.Process()
    total = sum(own.cpu_times()[:4])
    for child in own.children(recursive=True):
        total += sum(child.cpu_times()[:2])
    return float(total)


def paired(rounds: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Each side's measure in every round; the order turns, so that drift hits all alike."""
    names = list(sides)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            found[name].append(sides[name]())
    return found


def ratio(ours: Sequence[float], base: Sequence[float]) -> str:
    """Median of the ratios within each round, with the least and the greatest."""
    ratios = sorted(mine / other for mine, other in zip(ours, base, strict=True))
    return f"{statistics.median(ratios):.3f} [{ratios[0]:.3f}..{ratios[-1]:.3f}]"


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]
