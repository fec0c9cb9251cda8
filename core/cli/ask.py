"""`kvasir ask` and `kvasir search`."""

from __future__ import annotations

import re
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from core.cli.common import AsJson, err, language, opened, out, plain, print_json, run
from core.errors import EngineUnavailable, NotFound, UserError
from core.texts import place_of, tell
from core.types import All, Compare, Filter, Finished, Language, Passage, Question, Some, Source

if TYPE_CHECKING:
    from core.app import Kvasir
    from core.settings import Settings

_Documents = Annotated[
    list[str] | None, typer.Option("--document", help="Only this document; may be given several times.")
]
_Folders = Annotated[
    list[str] | None, typer.Option("--folder", help="Only documents below this folder; may be given several times.")
]
_Meta = Annotated[
    list[str] | None, typer.Option("--meta", metavar="KEY=VALUE", help="Only documents that say so of themselves.")
]
_Kb = Annotated[str | None, typer.Option("--kb", help="Knowledge base; needed where there are several.")]


def ask(
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="Without it, a conversation begins.")
    ] = None,
    kb: _Kb = None,
    engine: Annotated[str | None, typer.Option("--engine", help="Engine, e.g. extractive or openai.")] = None,
    document: _Documents = None,
    folder: _Folders = None,
    meta: _Meta = None,
    as_json: AsJson = False,
) -> None:
    """Ask a question, and get an answer with its sources."""
    if as_json and question is None:
        raise typer.BadParameter("With --json, say the question as an argument.")
    chosen = chosen_documents(document, folder, meta)

    async def work(settings: Settings) -> None:
        from core import registry

        async with opened(settings) as kvasir:
            name = await chosen_kb(kvasir, kb)
            if not as_json:
                terminal = registry.load("kvasir.platforms", "terminal")
                await terminal.converse(
                    kvasir, kb=name, question=question, engine=engine, language=language(settings), filter=chosen
                )
                return
            finished = await answer_of(kvasir, question or "", name, engine, chosen)
        print_json(
            {
                "answer": finished.text,
                "answered": finished.answered,
                "sources": [source_json(source, "en") for source in finished.sources],
                "engine": finished.engine,
                "timings_ms": dict(finished.timings_ms),
            }
        )

    run(work)


def search(
    query: Annotated[str, typer.Argument(metavar="QUERY")],
    kb: _Kb = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000)] = 10,
    mode: Annotated[Literal["hybrid", "vector", "keyword"], typer.Option("--mode")] = "hybrid",
    document: _Documents = None,
    folder: _Folders = None,
    meta: _Meta = None,
    as_json: AsJson = False,
) -> None:
    """Show the passages that a question finds, with their scores."""
    chosen = chosen_documents(document, folder, meta)

    async def work(settings: Settings) -> None:
        if not query.strip():
            raise UserError(tell("question_empty"))
        async with opened(settings) as kvasir:
            name = await chosen_kb(kvasir, kb)
            started = time.perf_counter()
            found = await kvasir.retriever.retrieve(query, [name], limit=limit, mode=mode, filter=chosen, judged=False)
            took = (time.perf_counter() - started) * 1000
        if as_json:
            passages = [_passage_json(passage) for passage in found.passages]
            print_json({"passages": passages, "took_ms": round(took, 2)})
            return
        for number, passage in enumerate(found.passages, 1):
            place = place_of(passage.locator, passage.headings, language(settings))
            out.print(
                f"[bold]{number}. {plain(passage.document)}[/bold]"
                f"[dim]{plain(f' · {place}' if place else '')}  {passage.score:.3f}[/dim]"
            )
            out.print(plain(passage.text.strip()[:400]))
            out.print()
        if not found.passages:
            err.print(tell("nothing_found"))

    run(work)


def chosen_documents(documents: list[str] | None, folders: list[str] | None, meta: list[str] | None) -> Filter | None:
    """What `--document`, `--folder` and `--meta` let through; the kinds narrow each other. None: everything."""
    parts: list[Filter] = []
    if documents:
        parts.append(Compare("document", "in", tuple(documents)))
    if folders:
        parts.append(Compare("folder", "in", tuple(folders)))
    for pair in meta or ():
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise typer.BadParameter("Say --meta as KEY=VALUE.")
        same: list[Filter] = [Compare(f"meta.{key}", "eq", value)]
        if re.fullmatch(r"-?\d{1,15}(\.\d{1,15})?", value):  # what a document says of itself may be a number
            same.append(Compare(f"meta.{key}", "eq", float(value)))
        parts.append(Some(tuple(same)))
    return All(tuple(parts)) if parts else None


async def chosen_kb(kvasir: Kvasir, name: str | None) -> str:
    """The knowledge base that is meant: the named one, that of the settings, or the only one there is."""
    wanted = name or kvasir.settings.channels.default_kb
    if wanted:
        return (await kvasir.knowledge.get(wanted)).name
    there = await kvasir.knowledge.list()
    if len(there) == 1:
        return there[0].name
    if not there:
        raise NotFound(tell("no_kb_yet"))
    raise NotFound(tell("say_which_kb", names=", ".join(kb.name for kb in there)))


async def answer_of(
    kvasir: Kvasir, question: str, kb: str, engine: str | None = None, filter: Filter | None = None
) -> Finished:
    """The whole answer to a question that stands alone."""
    asked = Question(text=question, kbs=(kb,), person="terminal:local", engine=engine, filter=filter)
    async with aclosing(kvasir.answers.answer(asked)) as events:
        async for event in events:
            if isinstance(event, Finished):
                return event
    raise EngineUnavailable(tell("no_answer_came"))


def source_json(source: Source, words: Language) -> dict[str, Any]:
    """A source as scripts read it; the place is said in `words`."""
    passage = source.passage
    return {
        "n": source.n,
        "document": passage.document,
        "title": passage.title,
        "locator": place_of(passage.locator, passage.headings, words),
        "score": round(passage.score, 4),
        "text": passage.text,
    }


def _passage_json(passage: Passage) -> dict[str, Any]:
    return {
        "document": passage.document,
        "chunk": passage.chunk,
        "score": passage.score,
        "vector_score": passage.vector_score,
        "keyword_score": passage.keyword_score,
        "text": passage.text,
        "locator": place_of(passage.locator, passage.headings, "en"),
    }
