"""How often a question is taken for that of a curated answer: rightly in other words, wrongly for a near miss.

    python -m bench.curated [--show]

Two sets of questions in English and Chinese: one that the rule was made with (`curated.txt`), and one written
afterwards that it was never changed for (`curated_unseen.txt`). All answers of a set and a language stand in one
knowledge base. The three other ways to ask are asked while none of them is kept, and each while the two others are.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.answering.curated_match import CuratedMatch, Version
from core.db import migrate
from core.db.session import Database
from core.db.tables import CuratedRow, KnowledgeBaseRow, now

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Block:
    """A question of a curated answer, others that ask the same, and others that do not."""

    question: str
    same: tuple[str, ...]
    other: tuple[str, ...]


@dataclass
class Tally:
    name: str
    asked: int = 0
    right: int = 0
    wrong: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.curated", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--show", action="store_true", help="every question that was missed or taken for another")
    asyncio.run(_measure(show=parser.parse_args().show if __name__ == "__main__" else False))


def blocks(file: Path) -> list[Block]:
    parts = (part.strip().splitlines() for part in file.read_text("utf-8").split("\n\n")[1:])
    return [
        Block(
            lines[0],
            tuple(line[2:] for line in lines if line.startswith("=")),
            tuple(line[2:] for line in lines if line.startswith("!")),
        )
        for lines in parts
    ]


async def _measure(*, show: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        db = Database(f"sqlite+aiosqlite:///{folder}/bench.db")
        await migrate.upgrade(db)
        print("| set | language | answers | other ways to ask | with two others kept | near misses taken |")
        print("|---|---|---|---|---|---|")
        for name in ("curated", "curated_unseen"):
            for language, is_english in (("English", True), ("Chinese", False)):
                found = [block for block in blocks(HERE / f"{name}.txt") if block.question.isascii() is is_english]
                tallies = await _tallies(db, f"{name} {language}", found, show=show)
                shares = " | ".join(_shown(tally) for tally in tallies)
                print(f"| {name} | {language} | {len(found)} | {shares} |")
        await db.close()


def _shown(tally: Tally) -> str:
    if tally.name == "near":
        return f"{tally.wrong} of {tally.asked}"
    return f"{tally.right} of {tally.asked} ({tally.right / tally.asked:.0%}), {tally.wrong} wrong"


async def _tallies(db: Database, name: str, found: Sequence[Block], *, show: bool) -> Sequence[Tally]:
    alone, kept, near = Tally("alone"), Tally("kept"), Tally("near")
    whole = [(block.question, ()) for block in found]
    await _ask(db, f"{name} 0", whole, [(b.question, text) for b in found for text in b.same], alone, show)
    for out in range(3):
        stored = [(b.question, tuple(text for at, text in enumerate(b.same) if at != out)) for b in found]
        await _ask(db, f"{name} {out + 1}", stored, [(b.question, b.same[out]) for b in found], kept, False)
    stored = [(b.question, b.same) for b in found]
    await _ask(db, f"{name} 4", stored, [("", text) for b in found for text in b.other], near, show)
    return alone, kept, near


async def _ask(
    db: Database,
    kb: str,
    stored: Iterable[tuple[str, tuple[str, ...]]],
    questions: Sequence[tuple[str, str]],
    tally: Tally,
    show: bool,
) -> None:
    """Ask each question of a base with these answers; the first of a pair is the question whose answer is right."""
    base = KnowledgeBaseRow(name=kb, chunk_size=200, chunk_overlap=40)
    async with db.session() as session:
        session.add(base)
        await session.flush()
        for question, paraphrases in stored:
            session.add(CuratedRow(kb_id=base.id, question=question, paraphrases=list(paraphrases), text=question))
    match, version = CuratedMatch(db), Version(1, now())
    await match.find("warm", {kb: version})
    for right, text in questions:
        begun = time.perf_counter()
        given = await match.find(text, {kb: version})
        took = (time.perf_counter() - begun) * 1000
        tally.asked += 1
        tally.right += given is not None and given.text == right
        tally.wrong += given is not None and given.text != right
        if show and (given.text if given else "") != right:
            print(f"{'TAKEN' if given else 'missed'}: {text}  ->  {given.text if given else right}  ({took:.1f} ms)")


if __name__ == "__main__":
    main()
