"""`kvasir kb …`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.progress import TaskID

from core.cli.common import (
    AsJson,
    Yes,
    confirm,
    err,
    opened,
    out,
    plain,
    print_json,
    print_table,
    progress_bar,
    run,
    told,
)
from core.errors import NotFound
from core.texts import tell

if TYPE_CHECKING:
    from core.indexing.generations import Index
    from core.kb.knowledge import KnowledgeBase
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
            indexes = await kvasir.generations.list(name)
        settings_of = {**_kb_json(found), **_settings_json(found)}
        if as_json:
            print_json({**settings_of, "allowed": list(allowed), "indexes": [_index_json(one) for one in indexes]})
            return
        stores = [("store", one.store) for one in indexes if one.state == "live"]
        print_table(("setting", "value"), [*settings_of.items(), ("allowed", ", ".join(allowed)), *stores])
        if len(indexes) > 1:
            print_table(
                ("index", "state", "embedder", "chunk size", "documents", "chunks", "behind"),
                [(i.id, i.state, i.embedder or "-", i.chunk_size, i.documents, i.chunks, i.behind) for i in indexes],
            )

    run(work)


@kb.command("set")
def kb_set(
    name: Name,
    values: Annotated[
        list[str],
        typer.Argument(
            metavar="SETTING=VALUE...",
            help="E.g. top_k=8 mode=keyword private=true; without a value it is as the settings say.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Change settings of a knowledge base; what shapes its index counts from the next re-index on."""
    from core.kb.kb_settings import FIELDS

    changes: dict[str, Any] = {}
    for value in values:
        field, equals, given = value.partition("=")
        if not equals or field not in FIELDS:
            raise typer.BadParameter(tell("kb_set_usage", names=", ".join(FIELDS)))
        changes[field] = _value(field, given)

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            found = await kvasir.knowledge.change(name, **changes)
            differs = await kvasir.indexes.needs_reindex(name)
        print_json({**_kb_json(found), **_settings_json(found)}) if as_json else told("kb_was_set", kb=name)
        if differs and not as_json:
            err.print(plain(tell("kb_needs_reindex", kb=name)), style="yellow")

    run(work)


def _value(field: str, given: str) -> object:
    """As the setting wants it; what cannot be read is left to be refused with its reason. Empty: None."""
    if field in ("embedder", "reranker") and given == "none":
        return ""
    if field == "sampling":
        return [rule.strip() for rule in given.split(",") if rule.strip()]
    if field == "fallbacks" and given:
        return [] if given == "none" else [name.strip() for name in given.split(",") if name.strip()]
    if given == "":
        return "" if field == "description" else None
    if field in ("description", "instructions", "mode", "engine", "embedder", "reranker"):
        return given
    if given.lower() in ("true", "yes", "false", "no"):
        return given.lower() in ("true", "yes")
    try:
        return float(given) if "." in given else int(given)
    except ValueError:
        return given


People = Annotated[
    list[str],
    typer.Argument(metavar="PERSON...", help="Login names, or keys like slack:T1:U9; slack:T1:* is a whole workspace."),
]


@kb.command("allow")
def kb_allow(
    name: Name,
    people: People,
    right: Annotated[Literal["ask", "edit"], typer.Option("--right", help="Accounts may also be let in to edit.")] = (
        "ask"
    ),
) -> None:
    """Let accounts, or people of chat platforms, into a knowledge base."""

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            found = await kvasir.knowledge.get(name)
            for person in people:
                await kvasir.grants.allow(name, person, right)
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
        from core.kb.contents import contents

        async with opened(settings) as kvasir:
            lost = await contents(kvasir.db, name)
        return tell(
            "kb_delete_sure",
            name=name,
            documents=lost.documents,
            chunks=lost.chunks,
            sources=lost.sources,
            curated=lost.curated,
        )

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
    beside: Annotated[
        bool, typer.Option("--beside", help="Let it wait to be compared; «kvasir kb switch» goes over to it.")
    ] = False,
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

                def follow(done: int, total: int) -> None:
                    bar.update(task, completed=done, total=total)

                if beside:
                    await kvasir.generations.build(name, follow)
                else:
                    await kvasir.indexes.reindex(name, follow)
            found = await kvasir.knowledge.get(name)
            waits = next((one for one in await kvasir.generations.list(name) if one.state == "ready"), None)
        if beside and waits is not None:
            told("index_waits_at", kb=name, documents=waits.documents, chunks=waits.chunks, before=found.chunks)
            for document, reason in waits.failed:
                err.print(f"  {plain(document)}: {plain(reason)}", style="yellow")
        else:
            told("reindexed", kb=name, documents=found.documents, chunks=found.chunks, search=_search_of(found))

    run(work)


GiveUp = Annotated[
    bool, typer.Option("--give-up", help="Also where documents cannot be read any more, which are lost then.")
]


@kb.command("switch")
def kb_switch(name: Name, give_up: GiveUp = False) -> None:
    """Go over to the index that «kvasir kb reindex --beside» built; the one before is kept for seven days."""

    async def work(settings: Settings) -> None:
        async with opened(settings, "wait", bar=True) as kvasir:
            waiting = await kvasir.generations.waiting(name)
            await kvasir.generations.switch(name, waiting, give_up=give_up)
        told("index_switched", kb=name)

    run(work)


@kb.command("rollback")
def kb_rollback(name: Name) -> None:
    """Go back to the index from before the last switch; nothing that came in since is lost."""

    async def work(settings: Settings) -> None:
        async with opened(settings, "wait", bar=True) as kvasir:
            await kvasir.generations.switch(name, await kvasir.generations.former(name))
        told("index_back", kb=name)

    run(work)


@kb.command("discard")
def kb_discard(name: Name) -> None:
    """Give up the index that waits, or is not complete."""

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            found = [one for one in await kvasir.generations.list(name) if one.state in ("ready", "building")]
            if not found:
                raise NotFound(tell("no_ready_index", kb=name))
            for one in found:
                await kvasir.generations.discard(name, one.id)
        told("index_discarded", kb=name)

    run(work)


@kb.command("move")
def kb_move(
    store: Annotated[
        str,
        typer.Option("--store", metavar="KIND", help="Where to, e.g. local, weaviate, pgvector, lancedb or milvus."),
    ],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Name of the knowledge base.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All knowledge bases, one after the other.")] = False,
    as_json: AsJson = False,
) -> None:
    """Move the index into another store as it is, with nothing embedded anew; stopped, it goes on the next time."""
    if every == (name is not None):
        raise typer.BadParameter(tell("move_usage"))

    async def work(settings: Settings) -> None:
        from core.indexing import reindex

        moved = []
        async with opened(settings) as kvasir:
            await kvasir.store.usable(store)
            names = [item.name for item in await kvasir.knowledge.list(temporary=True)] if every else [str(name)]
            with progress_bar() as bar:
                for each in names:
                    task = bar.add_task(plain(each), total=None)

                    def follow(done: int, total: int, task: TaskID = task) -> None:
                        bar.update(task, completed=done, total=total)

                    moved.append(await reindex.move(kvasir, each, store, follow))
        if as_json:
            print_json({"kbs": [asdict(one) for one in moved]})
            return
        for one in moved:
            out.print(plain(reindex.sentence_of(one)))

    run(work)


@kb.command("export")
def kb_export(name: Name, file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.")]) -> None:
    """Write a knowledge base (settings and originals) into one file."""

    async def work(settings: Settings) -> None:
        from core.upkeep import exports

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
        from core.upkeep import exports

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


def _settings_json(found: KnowledgeBase) -> dict[str, Any]:
    from core.kb.kb_settings import FIELDS

    values = {field: getattr(found, "wanted_embedder" if field == "embedder" else field) for field in FIELDS}
    return {("wanted_embedder" if field == "embedder" else field): value for field, value in values.items()}


def _index_json(index: Index) -> dict[str, Any]:
    return {
        "id": index.id,
        "state": index.state,
        "embedder": index.embedder,
        "store": index.store,
        "chunk_size": index.chunk_size,
        "chunk_overlap": index.chunk_overlap,
        "title_enhance": index.title_enhance,
        "documents": index.documents,
        "chunks": index.chunks,
        "failed": [{"name": name, "reason": reason} for name, reason in index.failed],
        "behind": index.behind,
        "created_at": index.created_at.isoformat(),
    }


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
