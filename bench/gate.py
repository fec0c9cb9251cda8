"""How well the evidence gate parts questions that the documents answer from others, in knowledge bases of any size.

    python -m bench.gate FOLDER… [--sizes 5 20 100 0] [--fit] [--model-dir DIR] [--cache FILE] [--more DIR]

Each folder holds `docs/`, `questions.jsonl` and `out_of_scope.jsonl`, or the questions alone with `--docs DIR`. For
every size (0: all documents) random knowledge bases are drawn; their own questions ought to be answered, those of other
folders of documents and those out of scope refused. `--more` adds documents that nobody asks about. `--fit` fits the
coefficients of `core/answering/evidence.py` on half of the questions, tries them on the other half, and prints them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.answering.evidence import Signals, judge
from core.answering.retrieve import LiveKb, Retriever
from core.embedders.builtin import open_embedder
from core.embedders.cache import CachedEmbedder
from core.loaders import load
from core.ports import Embedder, SplitterSpec, VectorStore
from core.settings import EmbedderSettings, RetrievalSettings, Settings
from core.splitters.counting import token_counter
from core.splitters.structural import StructuralSplitter
from core.stores.local import open_store
from core.types import Generation, IndexedDocument

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
DRAWN = {5: 60, 20: 30, 100: 8, 1000: 2}
"""How many knowledge bases of a size are drawn."""
WITH_VECTORS = ("keyword", "ahead", "gap", "coverage", "together", "missing", "title", "names", "closest", "crowd")
SPACED = ("keyword", "ahead", "gap", "coverage", "together", "missing", "title", "names", "crowd")
UNSPACED = ("ahead", "gap", "together", "title", "names", "crowd")


@dataclass(frozen=True)
class Case:
    group: str
    size: int
    question: str
    answerable: bool
    signals: Signals
    known: float


@dataclass(frozen=True)
class Data:
    name: str
    documents: list[IndexedDocument]
    questions: list[tuple[str, str]]
    """(question, its document)."""
    out_of_scope: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--docs", type=Path, help="the documents, where they are not in FOLDER/docs")
    parser.add_argument("--questions", default="questions.jsonl")
    parser.add_argument("--out-of-scope", default="out_of_scope.jsonl")
    parser.add_argument("--more", type=Path, help="further documents that nobody asks about")
    parser.add_argument("--sizes", nargs="+", type=int, default=[5, 20, 100, 0])
    parser.add_argument("--keyword", action="store_true", help="without vectors")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--model-dir", type=Path)
    parser.add_argument("--cache", type=Path, help="file that keeps embeddings between runs")
    arguments = parser.parse_args()
    cases = asyncio.run(measure(arguments))
    report(cases)
    if arguments.fit:
        fit(cases)


async def measure(arguments: argparse.Namespace) -> list[Case]:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), embedder=EmbedderSettings(model_dir=arguments.model_dir))
        embedder: Embedder = CachedEmbedder(await open_embedder(settings), arguments.cache or Path(folder) / "cache.db")
        store = await open_store(settings)
        try:
            cases: list[Case] = []
            for path in arguments.folders:
                data = await read(path, arguments, embedder)
                print(f"{data.name}: {len(data.documents)} documents, {len(data.questions)} questions", flush=True)
                modes: list[Any] = ["keyword"] if arguments.keyword else ["hybrid"]
                if arguments.fit:
                    modes.append("keyword")
                for size in arguments.sizes:
                    cases += [case async for case in ask(data, size, modes, store, embedder)]
            return cases
        finally:
            await store.close()
            await embedder.close()


async def read(folder: Path, arguments: argparse.Namespace, embedder: Embedder) -> Data:
    info = embedder.info
    spec = SplitterSpec(220, 40, title_enhance=True, vocabulary=info.vocabulary)
    splitter = StructuralSplitter(spec, token_counter(info.vocabulary))
    documents = []
    for root in filter(None, (arguments.docs or folder / "docs", arguments.more)):
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            name = path.relative_to(root).as_posix()
            parsed = load(path.read_bytes(), name, ocr=False, limit=1_000_000)
            chunks = tuple(splitter.split(parsed, name))
            title = parsed.title or path.stem
            if chunks:
                vectors = await embedder.embed_documents([chunk.embed_text or chunk.text for chunk in chunks])
                documents.append(IndexedDocument(f"{root.name}/{name}", name, title, name, chunks, vectors))
    asked = [(str(line["question"]), str(line["document"])) for line in lines(folder / arguments.questions)]
    refused = [str(line["question"]) for line in lines(folder / arguments.out_of_scope)]
    return Data(folder.name, documents, [(question, document) for question, document in asked if document], refused)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, path.read_text(encoding="utf-8").splitlines())


async def ask(data: Data, size: int, modes: Sequence[Any], store: VectorStore, embedder: Embedder) -> Any:
    chance = random.Random(size)
    for drawn in range(DRAWN.get(size, 1) if size else 1):
        documents = draw(data, size, chance)
        generation = Generation(f"{drawn:032x}", data.name, "bench", embedder.info.dimension, embedder.info.fingerprint)
        await store.ensure_generation(generation)
        await store.put(generation, documents)
        retriever = Retriever(store, lambda: embedder, live(generation), RetrievalSettings())
        for question, answerable in questions(data, documents, size, chance):
            for mode in modes:
                found = await retriever.retrieve(question, ["kb"], limit=5, mode=mode)
                if found.signals is not None:
                    group = data.name if mode == "hybrid" else f"{data.name}, keywords"
                    yield Case(group, size, question, answerable, found.signals, found.known)
        await store.drop_generation(generation)


def live(generation: Generation) -> Any:
    async def found(_names: Sequence[str]) -> list[LiveKb]:
        return [LiveKb("kb", generation)]

    return found


def draw(data: Data, size: int, chance: random.Random) -> list[IndexedDocument]:
    """That many documents, half of them asked about where there are as many."""
    if not size or size >= len(data.documents):
        return data.documents
    asked_names = {document for _, document in data.questions}
    asked = [document for document in data.documents if document.name in asked_names]
    chosen = chance.sample(asked, min(len(asked), max(2, size // 2)))
    others = [document for document in data.documents if document not in chosen]
    return chosen + chance.sample(others, size - len(chosen))


def questions(
    data: Data, documents: Sequence[IndexedDocument], size: int, chance: random.Random
) -> list[tuple[str, bool]]:
    """At most 40 of the knowledge base's own questions and as many that it cannot answer; all of them for size 0."""
    names = {document.name for document in documents}
    folders = {name.split("/")[0] for name in names}
    own = [(question, True) for question, document in data.questions if document in names]
    foreign = [question for question, document in data.questions if document.split("/")[0] not in folders]
    if not size:
        return own + [(question, False) for question in data.out_of_scope]
    few = {5: 8, 20: 16}.get(size, 40)
    own = chance.sample(own, min(len(own), few))
    strange = chance.sample(data.out_of_scope, min(len(data.out_of_scope), few // 2))
    strange += chance.sample(foreign, min(len(foreign), few // 2))
    return own + [(question, False) for question in strange]


def report(cases: Sequence[Case]) -> None:
    print("\nrefused of those that cannot be answered / of those that can, by the evidence asked for")
    print(f"{'':24}{'n':>12}" + "".join(f"{threshold:>14}" for threshold in THRESHOLDS) + f"{'at 5 % wrong':>14}")
    for group, size in sorted({(case.group, case.size) for case in cases}):
        chosen = [case for case in cases if (case.group, case.size) == (group, size)]
        good = np.array([judge(case.signals, case.known) for case in chosen if case.answerable])
        bad = np.array([judge(case.signals, case.known) for case in chosen if not case.answerable])
        if not len(good) or not len(bad):
            continue
        shares = [f"{(bad < threshold).mean():.2f} / {(good < threshold).mean():.3f}" for threshold in THRESHOLDS]
        best = (bad < np.quantile(good, 0.05)).mean()
        label = f"{group}, {size or 'all'}"
        print(f"{label:24}{f'{len(good)}+{len(bad)}':>12}" + "".join(f"{one:>14}" for one in shares) + f"{best:>14.2f}")


def fit(cases: Sequence[Case]) -> None:
    for title, names, chosen in (
        ("_WITH_VECTORS", WITH_VECTORS, [case for case in cases if case.signals.spaced and case.known > 0.5]),
        ("_SPACED", SPACED, [case for case in cases if case.signals.spaced and not case.known]),
        ("_UNSPACED", UNSPACED, [case for case in cases if not case.signals.spaced]),
    ):
        if chosen:
            fit_rule(title, names, chosen)


def fit_rule(title: str, names: Sequence[str], cases: Sequence[Case]) -> None:
    order = {question: number for number, question in enumerate(sorted({case.question for case in cases}))}
    half = np.array([order[case.question] * 7919 % 1009 % 2 for case in cases], bool)
    print(f"\n{title}, fitted on one half of the questions and tried on the other:")
    for train in (half, ~half):
        scores = rows(cases, names) @ fitted(cases, names, train)
        kinds = {(case.group, case.size) for case, there in zip(cases, train, strict=True) if not there}
        for group, size in sorted(kinds):
            good, bad = (
                np.array(
                    [
                        score
                        for case, score, there in zip(cases, scores, train, strict=True)
                        if not there and (case.group, case.size, case.answerable) == (group, size, answerable)
                    ]
                )
                for answerable in (True, False)
            )
            if len(good) and len(bad):
                at_5 = (bad < np.quantile(good, 0.05)).mean()
                shares = f"{(bad < 0).mean():.2f} / {(good < 0).mean():.3f}, at 5 % wrong {at_5:.2f}"
                print(f"  {group}, {size or 'all'}: {shares}")
    found = fitted(cases, names, np.ones(len(cases), bool))
    print(title, "=", {name: round(float(weight), 1) for name, weight in zip((*names, ""), found, strict=True)})


def fitted(cases: Sequence[Case], names: Sequence[str], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Coefficients whose sum is 0 where 3.5 % of the answerable questions on all documents are refused."""
    found = logistic(cases, names, chosen)
    scores = rows(cases, names) @ found
    asked = [
        score
        for case, score, there in zip(cases, scores, chosen, strict=True)
        if there and case.answerable and not case.size
    ]
    found[-1] -= float(np.quantile(asked, 0.035)) if asked else 0.0
    return found


def rows(cases: Sequence[Case], names: Sequence[str]) -> NDArray[np.float64]:
    return np.array([[*(float(getattr(case.signals, name)) for name in names), 1.0] for case in cases])


def logistic(cases: Sequence[Case], names: Sequence[str], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Coefficients, the constant last; every kind of case counts alike, whatever its number."""
    kinds = [(case.group, case.size, case.answerable) for case in cases]
    counts = {kind: sum(one == kind and there for one, there in zip(kinds, chosen, strict=True)) for kind in set(kinds)}
    weight = np.array([1 / max(1, counts[kind]) for kind in kinds])[chosen]
    weight /= weight.sum()
    table, wanted = rows(cases, names)[chosen], np.array([case.answerable for case in cases], float)[chosen]
    found = np.zeros(table.shape[1])
    ridge = np.full(len(found), 3e-4)
    ridge[-1] = 1e-9
    for _ in range(50):
        likely = 1 / (1 + np.exp(-table @ found))
        gradient = table.T @ (weight * (likely - wanted)) + ridge * found
        curve = (table * (weight * likely * (1 - likely))[:, None]).T @ table + np.diag(ridge)
        found -= np.linalg.solve(curve, gradient)
    return found


if __name__ == "__main__":
    assert {field.name for field in fields(Signals)} >= {*WITH_VECTORS, *SPACED, *UNSPACED}
    main()
