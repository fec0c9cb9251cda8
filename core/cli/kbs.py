"""`kvasir kb …`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli.common import AsJson, Yes, confirm, err, opened, plain, print_json, print_table, progress_bar, run, told
from core.texts import tell

if TYPE_CHECKING:
    from core.knowledge import KnowledgeBase
    from core.settings import Settings

kb = typer.Typer(no_args_is_help=True, help="Knowledge bases.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the knowledge base.")]
ChunkSize = Annotated[int | None, typer.Option("--chunk-size", help="Tokens of a chunk at most, 32 to 8192.")]
ChunkOverlap = Annotated[int | None, typer.Option("--chunk-overlap", help="Tokens that neighbours share.")]
TitleEnhance = Annotated[
    bool | None,
    typer.Option("--title-enhance/--no-title-enhance", help="Search each chunk with its title and headings, or not."),
]


@kb.command("list")
def kb_list(as_json: AsJson = False) -> None:
    """All knowledge bases."""

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            found = await kvasir.knowledge.list()
        if as_json:
            print_json({"kbs": [_kb_json(item) for item in found]})
        else:
            print_table(
                ("name", "documents", "chunks", "search", "description"),
                [(i.name, i.documents, i.chunks, _search_of(i), i.description) for i in found],
            )

    run(work)


@kb.command("create")
def kb_create(
    name: Name,
    description: Annotated[str, typer.Option("--description", help="What it is about, for people.")] = "",
    private: Annotated[bool, typer.Option("--private", help="Only for people who log in.")] = False,
    chunk_size: ChunkSize = None,
    chunk_overlap: ChunkOverlap = None,
    title_enhance: TitleEnhance = None,
    as_json: AsJson = False,
) -> None:
    """Make an empty knowledge base."""

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            made = await kvasir.knowledge.create(
                name,
                description=description,
                private=private,
                chunk_size=chunk_size,
                chunk_overlap=chunk_overlap,
                title_enhance=title_enhance,
            )
        print_json(_kb_json(made)) if as_json else told("kb_created", name=made.name)

    run(work)


@kb.command("show")
def kb_show(name: Name, as_json: AsJson = False) -> None:
    """One knowledge base with its settings."""

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            found = await kvasir.knowledge.get(name)
            allowed = await kvasir.grants.allowed(name)
        if as_json:
            print_json({**_kb_json(found), "allowed": list(allowed)})
        else:
            print_table(("setting", "value"), [*_kb_json(found).items(), ("allowed", ", ".join(allowed))])

    run(work)


People = Annotated[
    list[str], typer.Argument(metavar="PERSON...", help="Keys, e.g. slack:T1:U9, or slack:T1:* for a whole workspace.")
]


@kb.command("allow")
def kb_allow(name: Name, people: People) -> None:
    """Let people of chat platforms ask a private knowledge base."""

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            found = await kvasir.knowledge.get(name)
            for person in people:
                await kvasir.grants.allow(name, person)
        told("kb_now_allowed", kb=name, people=", ".join(people))
        if not found.private:
            err.print(plain(tell("kb_not_private", kb=name)), style="yellow")

    run(work)


@kb.command("disallow")
def kb_disallow(name: Name, people: People) -> None:
    """Take back what «kvasir kb allow» gave."""

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            for person in people:
                await kvasir.grants.disallow(name, person)
        told("kb_no_longer_allowed", kb=name, people=", ".join(people))

    run(work)


@kb.command("delete")
def kb_delete(name: Name, yes: Yes = False) -> None:
    """Delete a knowledge base with its documents."""

    async def look(settings: Settings) -> str:
        async with opened(settings) as kvasir:
            found = await kvasir.knowledge.get(name)
            return tell("kb_delete_sure", name=found.name, documents=found.documents)

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            await kvasir.knowledge.delete(name)
        told("kb_was_deleted", name=name)

    confirm(run(look), yes)
    run(work)


@kb.command("reindex")
def kb_reindex(
    name: Name,
    chunk_size: ChunkSize = None,
    chunk_overlap: ChunkOverlap = None,
    title_enhance: TitleEnhance = None,
) -> None:
    """Build the index anew beside the live one, and switch when it is complete; stopped, it goes on the next time."""
    given = {"chunk_size": chunk_size, "chunk_overlap": chunk_overlap, "title_enhance": title_enhance}
    changes = {key: value for key, value in given.items() if value is not None}

    async def work(settings: Settings) -> None:
        async with opened(settings, "wait", bar=True) as kvasir:
            if changes:
                await kvasir.knowledge.change(name, **changes)
            with progress_bar() as bar:
                task = bar.add_task(plain(name), total=None)
                await kvasir.indexes.reindex(name, lambda done, total: bar.update(task, completed=done, total=total))
            found = await kvasir.knowledge.get(name)
        told("reindexed", kb=name, documents=found.documents, chunks=found.chunks, search=_search_of(found))

    run(work)


@kb.command("export")
def kb_export(name: Name, file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.")]) -> None:
    """Write a knowledge base (settings and originals) into one file."""

    async def work(settings: Settings) -> None:
        from core import exports

        async with opened(settings) as kvasir:
            count = await exports.export_kb(kvasir, name, file)
        told("documents_written", count=count, file=file)

    run(work)


@kb.command("import")
def kb_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What «kvasir kb export» wrote.")],
    name: Annotated[str | None, typer.Option("--name", help="Another name for it here.")] = None,
) -> None:
    """Bring in a knowledge base that «kvasir kb export» wrote."""

    async def work(settings: Settings) -> None:
        from core import exports

        async with opened(settings, "wait", bar=True) as kvasir:
            made, outcomes = await exports.import_kb(kvasir, file, name)
        failed = [outcome for outcome in outcomes if outcome.status == "failed"]
        told("kb_imported", kb=made, count=len(outcomes) - len(failed), failed=len(failed))
        for outcome in failed:
            err.print(f"  {plain(outcome.name)}: {plain(outcome.reason or '')}", style="yellow")

    run(work)


def _search_of(found: KnowledgeBase) -> str:
    if not found.documents:
        return tell("search_empty")
    return tell("search_both", embedder=found.embedder) if found.vectors else tell("search_keywords")


def _kb_json(found: KnowledgeBase) -> dict[str, Any]:
    return {
        "name": found.name,
        "description": found.description,
        "private": found.private,
        "documents": found.documents,
        "chunks": found.chunks,
        "vectors": found.vectors,
        "embedder": found.embedder,
        "chunk_size": found.chunk_size,
        "chunk_overlap": found.chunk_overlap,
        "title_enhance": found.title_enhance,
        "created_at": found.created_at.isoformat(),
    }
