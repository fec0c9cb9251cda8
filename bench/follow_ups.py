"""How often the second question of a dialogue finds its document, with the model-free engine and the whole pipeline.

    python -m bench.follow_ups [FILE.jsonl] [--docs DIR] [--show]

Lines: {"first", "second", "answers", "document"}. The documents are ingested into a fresh data directory; each dialogue
is asked in a conversation of its own. `KVASIR_TEST_MODEL_DIR` names the folder of the embedder's model.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from core import settings as settings_module
from core.app import Kvasir
from core.cli.documents import bring_in
from core.settings import EmbedderSettings, Settings
from core.texts import text_language
from core.types import Finished, Question

SAMPLE = Path(__file__).parent.parent / "configs" / "sample"
KB = "follow-ups"
TOP = 5


@dataclass(frozen=True)
class Result:
    language: str
    typed: str
    searched: str
    found: bool
    found_as_typed: bool
    right: bool
    refused: bool


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.follow_ups", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=SAMPLE / "follow_ups.jsonl")
    parser.add_argument("--docs", type=Path, default=SAMPLE / "documents")
    parser.add_argument("--show", action="store_true", help="every dialogue that failed, with what was searched for")
    arguments = parser.parse_args()
    dialogues = [json.loads(line) for line in arguments.file.read_text(encoding="utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        model = os.environ.get("KVASIR_TEST_MODEL_DIR")
        embedder = EmbedderSettings(model_dir=Path(model) if model else None)
        settings = settings_module.load(data_dir=Path(folder), embedder=embedder)
        asyncio.run(measure(settings, arguments.docs, dialogues, show=arguments.show))


async def measure(settings: Settings, docs: Path, dialogues: list[dict[str, str]], *, show: bool) -> None:
    async with Kvasir.open(settings, embedder="wait") as kvasir:
        outcomes = await bring_in(kvasir, KB, [str(docs)], show=False)
        vectors = "with" if kvasir.embedder_state.ready else "without"
        print(f"{len(outcomes)} documents, {vectors} vectors; {len(dialogues)} dialogues\n")
        results = [await second(kvasir, dialogue) for dialogue in dialogues]
    print(f"| language | dialogues | document in the top {TOP} | as typed | quoted answer holds the gold | refused |")
    print("|---|---|---|---|---|---|")
    for name in ("en", "zh", "all"):
        chosen = [item for item in results if name in ("all", item.language)]
        count = max(1, len(chosen))
        found = sum(item.found for item in chosen) / count
        plain = sum(item.found_as_typed for item in chosen) / count
        right = sum(item.right for item in chosen) / count
        refused = sum(item.refused for item in chosen) / count
        print(f"| {name} | {len(chosen)} | {found:.3f} | {plain:.3f} | {right:.3f} | {refused:.3f} |")
    for item in results if show else ():
        if not item.found or not item.right:
            state = "refused" if item.refused else "found" if item.found else "MISSED"
            print(f"{state}: {item.typed} -> {item.searched}")


async def second(kvasir: Kvasir, dialogue: dict[str, str]) -> Result:
    """What becomes of the second question after the first."""
    conversation = await kvasir.conversations.start("terminal", "bench")
    await asked(kvasir, dialogue["first"], conversation.id)
    answer = await asked(kvasir, dialogue["second"], conversation.id)
    return Result(
        language=text_language(dialogue["second"]),
        typed=f"{dialogue['first']} / {dialogue['second']}",
        searched=answer.standalone_question,
        found=await holds(kvasir, answer.standalone_question, dialogue["document"]),
        found_as_typed=await holds(kvasir, dialogue["second"], dialogue["document"]),
        right=answer.answered and any(gold.lower() in answer.text.lower() for gold in dialogue["answers"]),
        refused=not answer.answered,
    )


async def asked(kvasir: Kvasir, text: str, conversation: str) -> Finished:
    question = Question(text, (KB,), "bench", conversation_id=conversation, engine="extractive")
    events = [event async for event in kvasir.answers.answer(question)]
    assert isinstance(events[-1], Finished)
    return events[-1]


async def holds(kvasir: Kvasir, question: str, document: str) -> bool:
    found = await kvasir.retriever.retrieve(question, (KB,), limit=TOP)
    return document in {passage.document for passage in found.passages}


if __name__ == "__main__":
    main()
