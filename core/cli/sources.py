"""`kvasir source …`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from core.access import OPERATOR
from core.cli.common import AsJson, KbName, Yes, confirm, opened, print_json, print_table, run, told
from core.errors import KvasirError
from core.texts import tell

if TYPE_CHECKING:
    from core.app import Kvasir
    from core.settings import Settings
    from core.sources.register import SourceInfo

source = typer.Typer(no_args_is_help=True, help="Places that documents come from, again and again.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="As «kvasir source list» shows it.")]
Patterns = list[str] | None


@source.command("list")
def source_list(
    kb: Annotated[str | None, typer.Option("--kb", help="Only those of this knowledge base.")] = None,
    as_json: AsJson = False,
) -> None:
    """All sources with how they stand."""

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            kbs = [(await kvasir.knowledge.get(kb)).name] if kb else None
            found, _ = await kvasir.sources.list(kbs=kbs, limit=1000)
        if as_json:
            print_json({"sources": [_json(item) for item in found]})
            return
        print_table(
            ("name", "knowledge base", "kind", "state", "documents", "synchronised (UTC)", "reason"),
            [
                (i.name, i.kb, i.kind, i.state, i.documents, f"{i.synced_at:%Y-%m-%d %H:%M}" if i.synced_at else "",
                 i.reason or "")
                for i in found
            ],
        )  # fmt: skip

    run(work)


@source.command("add")
def source_add(
    kind: Annotated[Literal["url", "sitemap", "rss", "git", "folder"], typer.Argument(metavar="KIND")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its documents are found below this name.")],
    places: Annotated[list[str], typer.Argument(metavar="ADDRESS...", help="Web addresses, or the folder's path.")],
    kb: KbName,
    include: Annotated[Patterns, typer.Option("--include", help="Only these paths, e.g. /docs/*.")] = None,
    exclude: Annotated[Patterns, typer.Option("--exclude", help="Not these paths.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="sitemap, rss: at most so many.")] = None,
    branch: Annotated[str | None, typer.Option("--branch", help="git: another one than its own.")] = None,
    folder: Annotated[str | None, typer.Option("--folder", help="git: only what is below it.")] = None,
    username: Annotated[str | None, typer.Option("--username", help="git: where the token needs one.")] = None,
    token_stdin: Annotated[bool, typer.Option("--token-stdin", help="git: read the token from stdin.")] = False,
    full_text: Annotated[bool | None, typer.Option("--full-text", help="rss: fetch the pages.")] = None,
    forget: Annotated[bool | None, typer.Option("--forget", help="rss: delete what left the feed.")] = None,
    when: Annotated[str, typer.Option("--when", help="Synchronise by itself: hourly, daily, …, or as cron.")] = "",
    timezone: Annotated[str, typer.Option("--timezone", help="Of --when, e.g. Europe/Berlin.")] = "UTC",
    as_json: AsJson = False,
) -> None:
    """Add a source; «kvasir source sync» or its schedule brings the documents in."""
    given = {
        "include": include, "exclude": exclude, "limit": limit, "branch": branch, "folder": folder,
        "username": username, "full_text": full_text, "forget": forget,
    }  # fmt: skip
    spec: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if kind == "url":
        spec["urls"] = places
    elif len(places) > 1:
        raise typer.BadParameter("One address, please.")
    else:
        spec["path" if kind == "folder" else "url"] = str(Path(places[0]).absolute()) if kind == "folder" else places[0]
    token = sys.stdin.readline().strip() if token_stdin else ""

    async def work(settings: Settings) -> None:
        from core import cron
        from core.sources.register import KIND, NewSource
        from core.work.schedules import NewSchedule

        if when:
            cron.parse(when, timezone)
        async with opened(settings) as kvasir:
            made = await kvasir.sources.create(NewSource(kb, name, kind, spec, token))
            if when:
                new = NewSchedule(KIND, when, made.name, timezone, made.id, {"kb": made.kb})
                await kvasir.schedules.create(new, by="terminal:operator")
            await kvasir.audit.note(
                OPERATOR, "sources.create", kind="sources", object=made.name, changes={"kb": kb, "kind": kind}
            )
        print_json(_json(made)) if as_json else told("source_added", name=made.name, kb=made.kb)

    run(work)


@source.command("sync")
def source_sync(name: Name, kb: KbName, as_json: AsJson = False) -> None:
    """Bring in what is new or changed there, and wait; what is gone there is removed."""

    async def work(settings: Settings) -> None:
        from core.work.jobs import LANES, OTHER_LANE, run_job

        async with opened(settings, "wait", bar=not as_json) as kvasir:
            found = await kvasir.sources.find(kb, name)
            job = await kvasir.sources.start(found.id, claimed=True)
            await run_job(kvasir.jobs, job, kvasir.run_job)
            ended = await kvasir.jobs.get(job.id)
            if ended.error:
                raise KvasirError(ended.error)
            others = [lane for lane in (*LANES, OTHER_LANE) if lane != "documents"]
            while (waiting := await kvasir.jobs.claim(others)) is not None:
                await run_job(kvasir.jobs, waiting, kvasir.run_job)
            found = await kvasir.sources.get(found.id)
        if as_json:
            print_json({**_json(found), "result": ended.progress.get("result", "")})
            return
        told("source_synced", name=found.name, result=ended.progress.get("result", ""))
        if found.reason:
            told("source_left_out", reason=found.reason)

    run(work)


@source.command("delete")
def source_delete(
    name: Name,
    kb: KbName,
    documents: Annotated[bool, typer.Option("--documents", help="Delete what it brought, too.")] = False,
    yes: Yes = False,
) -> None:
    """Delete a source; its documents stay, unless --documents is given."""

    async def look(settings: Settings) -> SourceInfo:
        async with opened(settings) as kvasir:
            return await kvasir.sources.find(kb, name)

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            count = await _delete(kvasir, found, documents)
        told("source_was_deleted", name=found.name, count=count)

    found = run(look)
    going = found.documents if documents else 0
    confirm(tell("source_delete_sure", name=found.name, count=going), yes)
    run(work)


async def _delete(kvasir: Kvasir, found: SourceInfo, documents: bool) -> int:
    count = await kvasir.sources.delete(found.id, documents=documents)
    changes = {"kb": found.kb, "documents": documents}
    await kvasir.audit.note(OPERATOR, "sources.delete", kind="sources", object=found.name, changes=changes)
    return count


def _json(item: SourceInfo) -> dict[str, Any]:
    return {
        "id": item.id,
        "kb": item.kb,
        "name": item.name,
        "kind": item.kind,
        "settings": dict(item.settings),
        "has_token": item.has_secret,
        "state": item.state,
        "reason": item.reason,
        "documents": item.documents,
        "synced_at": item.synced_at.isoformat() if item.synced_at else None,
    }
