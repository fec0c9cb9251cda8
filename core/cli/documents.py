"""`kvasir ingest`, `kvasir kb …` and `kvasir doc …`."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import typer

from core.cli.common import (
    AsJson,
    KbName,
    Yes,
    confirm,
    err,
    language,
    opened,
    out,
    plain,
    print_json,
    print_table,
    progress_bar,
    run,
    told,
)
from core.errors import Conflict, KvasirError, NotFound
from core.texts import place_of, tell

if TYPE_CHECKING:
    from core.app import Kvasir
    from core.indexing.ingest import Incoming, Outcome, Ticket
    from core.settings import Settings

doc = typer.Typer(no_args_is_help=True, help="Documents of a knowledge base.")

logger = logging.getLogger(__name__)

_LEFT_OUT = ("~$", ".")


# ---------------------------------------------------------------- ingest
def ingest(
    sources: Annotated[list[str], typer.Argument(metavar="PATH|URL...", help="Files, folders or web addresses.")],
    kb: KbName,
    as_json: AsJson = False,
) -> None:
    """Bring files, folders or web pages into a knowledge base (made when absent), and wait for the end."""

    async def work(settings: Settings) -> None:
        from core.kb.knowledge import checked_kb_name

        name = checked_kb_name(kb)
        started = time.monotonic()
        list(_files(sources))  # an absent path is told before anything is opened or made
        async with opened(settings, "wait", bar=not as_json) as kvasir:
            if not kvasir.embedder_state.ready and settings.embedder.kind != "none":
                err.print(plain(tell("keyword_only", reason=kvasir.embedder_state.reason)), style="yellow")
            outcomes = await bring_in(kvasir, name, sources, show=not as_json)
        _report(name, outcomes, time.monotonic() - started, as_json)

    run(work)


async def bring_in(kvasir: Kvasir, kb: str, sources: list[str], *, show: bool) -> list[Outcome]:
    """Ingest in this process and give the outcome of every file, by name; failures come with their reason."""
    from core.work.jobs import run_job

    files = list(_files(sources))
    _refuse_twins(files)
    await kvasir.knowledge.get_or_create(kb)
    outcomes: list[Outcome] = []
    incoming = _incoming(kvasir.settings, files, [s for s in sources if _is_url(s)], outcomes)
    ticket = await kvasir.ingest.submit(kb, incoming, claimed=True)
    outcomes += [*ticket.refused, *ticket.unchanged]
    async with ingestion_bar(kvasir, show=show)(kb, ticket):
        await run_job(kvasir.jobs, ticket.job, kvasir.run_job)
    job = await kvasir.jobs.get(ticket.job.id)
    if job.error:
        raise KvasirError(job.error)
    outcomes += await kvasir.ingest.outcomes(ticket.job.id)
    if kvasir.embedder_state.ready and await kvasir.indexes.needs_vectors(kb):
        await kvasir.indexes.reindex(kb)
    return sorted(outcomes, key=lambda outcome: outcome.name)


_File = tuple[str, str, bool]
"""Name in the knowledge base, path, and whether it is a link out of the folder, to what nobody meant to bring in.

Plain strings: with ten thousand small files, making Paths would take as long as storing what is in them.
"""


def ingestion_bar(kvasir: Kvasir, *, show: bool) -> Callable[[str, Ticket], AbstractAsyncContextManager[None]]:
    """For the job of a ticket: a bar on a terminal's stderr while it runs in the block."""
    return partial(_progress, kvasir, show=show)


@asynccontextmanager
async def _progress(kvasir: Kvasir, kb: str, ticket: Ticket, *, show: bool) -> AsyncIterator[None]:
    if not (show and err.is_terminal):
        yield
        return
    with progress_bar() as bar:
        task = bar.add_task(plain(kb), total=len(ticket.documents) or 1)

        async def follow() -> None:
            async for event in kvasir.ingest.watch(ticket.job.id):
                bar.update(task, completed=event.done, total=event.total, description=plain(event.name[-40:]))

        watcher = asyncio.create_task(follow(), name="ingest-progress")
        try:
            yield
        finally:
            watcher.cancel()
            await asyncio.wait({watcher})


async def _incoming(
    settings: Settings, files: list[_File], urls: list[str], outcomes: list[Outcome]
) -> AsyncIterator[Incoming]:
    from core import egress
    from core.indexing.ingest import Incoming, Outcome

    for name, path, leads_out in files:
        if leads_out:
            outcomes.append(Outcome(name, "failed", 0, tell("link_leads_out", name=name)))
        else:
            yield Incoming(name, partial(_read, path), "folder", _size(path))
    for url in urls:
        try:
            page = await egress.fetch(url, max_bytes=settings.ingest.max_file_mb << 20, timeout=60.0)
        except KvasirError as error:
            outcomes.append(Outcome(url, "failed", 0, str(error)))
        else:
            yield Incoming(page.name, lambda data=page.data: data, url)  # type: ignore[misc]


def _files(sources: list[str]) -> Iterator[_File]:
    """Every file; hidden and temporary ones are left out."""
    for source in sources:
        if _is_url(source):
            continue
        path = Path(source).expanduser()
        if path.is_file():
            yield path.name, str(path), False
        elif path.is_dir():
            inside = f"{path.resolve()}{os.sep}"
            for name, file, is_link in _walk(path):
                yield name, file, is_link and not os.path.realpath(file).startswith(inside)
        else:
            raise NotFound(tell("no_such_path", path=source))


def _walk(top: str | Path, prefix: str = "") -> Iterator[tuple[str, str, bool]]:
    """The files of a folder (name, path, whether it is a link), then those of the folders in it.

    A folder that cannot be listed is left out.
    """
    try:
        with os.scandir(top) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        logger.warning("%s cannot be listed: %s", top, error.strerror)
        return
    entries = [entry for entry in entries if not entry.name.startswith(_LEFT_OUT)]
    folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    for entry in entries:
        if _is_file(entry):
            yield prefix + entry.name, entry.path, entry.is_symlink()
    for entry in folders:
        yield from _walk(entry.path, f"{prefix}{entry.name}/")


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself, or where we may not look
        return False


def _refuse_twins(files: list[_File]) -> None:
    """Two files of one name would be two versions of one document."""
    seen: dict[str, str] = {}
    for name, path, _ in files:
        other = seen.setdefault(name, path)
        if other is not path and os.path.realpath(other) != os.path.realpath(path):
            raise Conflict(tell("same_name_twice", name=name, one=other, other=path))


def _is_url(source: str) -> bool:
    return urlsplit(source).scheme in ("http", "https")


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size  # noqa: PTH116  # as in `_File`
    except OSError:
        return None


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # as in `_File`
        return file.readall()


def _report(kb: str, outcomes: list[Outcome], seconds: float, as_json: bool) -> None:
    if as_json:
        documents = [{"name": o.name, "status": o.status, "chunks": o.chunks, "reason": o.reason} for o in outcomes]
        print_json({"kb": kb, "documents": documents, "seconds": round(seconds, 3)})
    else:
        counts = {status: sum(o.status == status for o in outcomes) for status in ("indexed", "unchanged", "failed")}
        chunks = sum(outcome.chunks for outcome in outcomes)
        told("ingested", kb=kb, chunks=chunks, seconds=f"{seconds:.1f}", **counts)
        for outcome in outcomes:
            if outcome.reason:
                err.print(f"  {plain(outcome.name)}: {plain(outcome.reason)}", style="yellow")
        if not outcomes:
            err.print(tell("nothing_to_ingest"), style="yellow")
    if outcomes and all(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


# ---------------------------------------------------------------- doc
@doc.command("list")
def doc_list(
    kb: KbName,
    status: Annotated[
        Literal["queued", "working", "indexed", "failed"] | None, typer.Option("--status", help="Only these.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """The documents of a knowledge base."""

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            found, total = await kvasir.knowledge.documents(kb, status=status, limit=limit)
        if as_json:
            print_json({"documents": [_document_json(item) for item in found], "total": total})
        else:
            print_table(
                ("name", "status", "chunks", "size", "reason"),
                [(i.name, i.status, i.chunks, f"{i.size / 1024:.0f} kB", i.reason or "") for i in found],
            )

    run(work)


@doc.command("show")
def doc_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As «kvasir doc list» shows it.")],
    kb: KbName,
    as_json: AsJson = False,
) -> None:
    """One document as it is indexed: its chunks in order."""

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            found = await kvasir.knowledge.find_document(kb, name)
            chunks = await kvasir.knowledge.chunks(found.id)
        words = "en" if as_json else language(settings)
        places = [place_of(chunk.locator, chunk.headings, words) for chunk in chunks]
        if as_json:
            shown = [{"chunk": c.number, "locator": p, "text": c.text} for c, p in zip(chunks, places, strict=True)]
            print_json({**_document_json(found), "chunks": shown})
            return
        out.print(
            f"[bold]{plain(found.name)}[/bold]  {found.status}, {found.chunks} chunks  {plain(found.reason or '')}"
        )
        for chunk, place in zip(chunks, places, strict=True):
            out.print(f"\n[dim]#{chunk.number} {plain(place)}[/dim]")
            out.print(plain(chunk.text))

    run(work)


@doc.command("delete")
def doc_delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="As «kvasir doc list» shows them.")],
    kb: KbName,
    yes: Yes = False,
) -> None:
    """Delete documents by name."""

    async def look(settings: Settings) -> list[str]:
        async with opened(settings) as kvasir:
            return [(await kvasir.knowledge.find_document(kb, name)).id for name in dict.fromkeys(names)]

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            for document_id in found:
                await kvasir.knowledge.delete_document(document_id)
        told("documents_deleted", count=len(found), kb=kb)

    found = run(look)
    confirm(tell("documents_delete_sure", count=len(found), kb=kb), yes)
    run(work)


def _document_json(item: Any) -> dict[str, Any]:
    return {
        "id": item.id,
        "name": item.name,
        "title": item.title,
        "status": item.status,
        "stage": item.stage,
        "reason": item.reason,
        "chunk_count": item.chunks,
        "size": item.size,
        "media_type": item.media_type,
        "updated_at": item.updated_at.isoformat(),
    }
