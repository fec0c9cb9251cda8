"""`kvasir feedback …` and `kvasir job …`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from core.cli.common import AsJson, opened, print_json, print_table, run, told

if TYPE_CHECKING:
    from core.settings import Settings

feedback = typer.Typer(no_args_is_help=True, help="What people thought of the answers.")
job = typer.Typer(no_args_is_help=True, help="Work in the background.")

JobId = Annotated[str, typer.Argument(metavar="ID", help="As «kvasir job list» shows it.")]


@feedback.command("list")
def feedback_list(
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    only_bad: Annotated[bool, typer.Option("--bad", help="Only 👎.")] = False,
    as_json: AsJson = False,
) -> None:
    """The newest ratings, with question and answer."""

    async def work(settings: Settings) -> None:
        async with opened(settings, "never") as kvasir:
            found = await kvasir.feedback.list(limit=limit, value=-1 if only_bad else None)
        if as_json:
            print_json({"feedback": [item.as_json() for item in found]})
        else:
            rows: list[tuple[Any, ...]] = [
                (f"{i.at:%Y-%m-%d %H:%M}", "👍" if i.value > 0 else "👎", i.question, i.answer[:120], i.reason)
                for i in found
            ]
            print_table(("when (UTC)", "", "question", "answer", "reason"), rows)

    run(work)


@feedback.command("export")
def feedback_export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Ends in .csv or .jsonl.")],
) -> None:
    """Write all ratings into a CSV or JSONL file."""

    async def work(settings: Settings) -> None:
        async with opened(settings, "never") as kvasir:
            count = await kvasir.feedback.export(file)
        told("ratings_written", count=count, file=file)

    run(work)


@job.command("list")
def job_list(
    state: Annotated[
        Literal["queued", "running", "done", "failed", "cancelled"] | None, typer.Option("--state", help="Only these.")
    ] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Only these, e.g. ingest or sync.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """The newest jobs."""

    async def work(settings: Settings) -> None:
        from core.scheduled import about

        async with opened(settings, "never") as kvasir:
            found, _ = await kvasir.jobs.page(state=state, kind=kind, limit=limit)
            documents = await kvasir.jobs.documents([item.id for item in found if item.kind == "ingest"])
        counted: dict[str, tuple[Any, Any]] = {
            item.id: documents.get(item.id) or (item.progress.get("done"), item.progress.get("total")) for item in found
        }
        if as_json:
            print_json(
                {
                    "jobs": [
                        {
                            "id": item.id,
                            "kind": item.kind,
                            "state": item.state,
                            "kb": item.payload.get("kb"),
                            "about": about(item),
                            "done": counted[item.id][0],
                            "total": counted[item.id][1],
                            "result": item.progress.get("result"),
                            "error": item.error,
                            "attempts": item.attempts,
                            "created_at": item.created_at.isoformat(),
                        }
                        for item in found
                    ]
                }
            )
        else:
            print_table(
                ("id", "kind", "about", "state", "created (UTC)", "outcome"),
                [
                    (
                        i.id,
                        i.kind,
                        about(i),
                        i.state,
                        f"{i.created_at:%Y-%m-%d %H:%M}",
                        i.error or i.progress.get("result") or _how_far(i.state, *counted[i.id]),
                    )
                    for i in found
                ],
            )

    run(work)


def _how_far(state: str, done: Any, total: Any) -> str:
    """Documents or whatever it goes through; those of a cancelled one have all ended, and say nothing."""
    return f"{done or 0} / {total}" if total and state != "cancelled" else ""


@job.command("retry")
def job_retry(job_id: JobId) -> None:
    """Queue a failed or cancelled job again; «kvasir up» works it off."""

    async def work(settings: Settings) -> None:
        async with opened(settings, "never") as kvasir:
            await kvasir.retry_job(job_id)
        told("job_queued_again")

    run(work)


@job.command("cancel")
def job_cancel(job_id: JobId) -> None:
    """Stop a job; what was live before stays live."""

    async def work(settings: Settings) -> None:
        async with opened(settings, "never") as kvasir:
            await kvasir.cancel_job(job_id)
        told("job_being_cancelled")

    run(work)
