"""`kvasir doc versions`, `kvasir doc restore` and `kvasir doc retry`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from core.access import OPERATOR
from core.cli.common import AsJson, KbName, err, opened, plain, print_json, print_table, run, told
from core.errors import KvasirError
from core.texts import tell

if TYPE_CHECKING:
    from core.app import Kvasir
    from core.settings import Settings
    from core.work.jobs import Job

Name = Annotated[str, typer.Argument(metavar="NAME", help="As «kvasir doc list» shows it.")]


def doc_versions(name: Name, kb: KbName, as_json: AsJson = False) -> None:
    """The former versions of a document that are kept."""

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            found = await kvasir.knowledge.find_document(kb, name)
            versions = await kvasir.versions.list(found.id)
        rows = [
            {"version": one.number, "size": one.size, "by": one.by, "replaced_at": one.replaced_at.isoformat()}
            for one in versions
        ]
        if as_json:
            print_json({"document": found.name, "versions": rows})
        else:
            print_table(("version", "size", "by", "replaced"), [tuple(row.values()) for row in rows])

    run(work)


def doc_restore(
    name: Name,
    kb: KbName,
    version: Annotated[int, typer.Option("--version", min=1, help="As «kvasir doc versions» shows it.")],
) -> None:
    """Put a former version in the place of the newest, which becomes a version itself; waits for the end."""

    async def work(settings: Settings) -> None:
        async with opened(settings, "wait") as kvasir:
            found = await kvasir.knowledge.find_document(kb, name)
            job = await kvasir.versions.restore(found.id, version, by=OPERATOR.name, claimed=True)
            await _do(kvasir, job)
            now = await kvasir.knowledge.document(found.id)
        if now.status == "failed":
            raise KvasirError(now.reason or tell("was_not_finished"))
        told("version_restored", name=name, number=version)

    run(work)


def doc_retry(
    kb: KbName,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="Of all that failed, only these.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read documents that failed once more, and wait for the end."""

    async def work(settings: Settings) -> None:
        from core.kb.documents import Wanted

        async with opened(settings, "wait", bar=not as_json) as kvasir:
            ids = [(await kvasir.knowledge.find_document(kb, name)).id for name in dict.fromkeys(names or [])]
            changed = await kvasir.bulk.change(kb, "retry", ids or Wanted(status="failed"), claimed=True)
            if changed.job:
                await _do(kvasir, changed.job)
            outcomes = await kvasir.ingest.outcomes(changed.job.id) if changed.job else []
        rows = [
            {"name": one.name, "status": one.status, "chunks": one.chunks, "reason": one.reason} for one in outcomes
        ]
        if as_json:
            print_json({"kb": kb, "documents": rows})
        else:
            told("documents_retried", kb=kb, count=changed.done) if changed.done else told("nothing_to_retry", kb=kb)
            for one in outcomes:
                if one.reason:
                    err.print(f"  {plain(one.name)}: {plain(one.reason)}", style="yellow")
            for left in changed.left_out:
                err.print(f"  {plain(left.name)}: {plain(left.reason)}", style="yellow")
        if outcomes and all(one.status == "failed" for one in outcomes):
            raise typer.Exit(1)

    run(work)


async def _do(kvasir: Kvasir, job: Job) -> None:
    from core.work.jobs import run_job

    await run_job(kvasir.jobs, job, kvasir.run_job)
    ended = await kvasir.jobs.get(job.id)
    if ended.error:
        raise KvasirError(ended.error)
