"""`kvasir schedule …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.access import OPERATOR
from core.cli.common import AsJson, Yes, confirm, opened, print_json, print_table, run, told
from core.errors import Conflict, NotFound, UserError
from core.texts import tell

if TYPE_CHECKING:
    from core.app import Kvasir
    from core.settings import Settings
    from core.work.schedules import Schedule

schedule = typer.Typer(no_args_is_help=True, help="What is done again and again.")

Which = Annotated[str, typer.Argument(metavar="NAME|ID", help="As «kvasir schedule list» shows it.")]


@schedule.command("list")
def schedule_list(as_json: AsJson = False) -> None:
    """All schedules, those that come next first; and which process leads."""

    async def work(settings: Settings) -> None:
        from core.cron import in_words

        async with opened(settings) as kvasir:
            found, _ = await kvasir.schedules.list(limit=1000)
            leader = await kvasir.schedules.leader()
        if as_json:
            shown = {"name": leader.name, "is_there": leader.is_there} if leader else None
            print_json({"schedules": [_json(item) for item in found], "leader": shown})
            return
        print_table(
            ("id", "name", "kind", "when", "next (UTC)", "last"),
            [
                (i.id, i.name, i.kind, f"{in_words(i.cron)} ({i.timezone})", _next(i), i.last.state if i.last else "")
                for i in found
            ],
        )

    run(work)


@schedule.command("add")
def schedule_add(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="backup, sync, retention, curated, evaluation, digest.")],
    when: Annotated[
        str, typer.Option("--when", help="Five fields as cron has them, or hourly, daily, weekly, monthly.")
    ] = "daily",
    timezone: Annotated[str, typer.Option("--timezone", help="E.g. Europe/Berlin.")] = "UTC",
    name: Annotated[str, typer.Option("--name", help="What people call it.")] = "",
    target: Annotated[
        str, typer.Option("--for", help="What it is for, by name or id: a source, or an evaluation set.")
    ] = "",
    given: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="E.g. keep=7.")] = None,
    as_json: AsJson = False,
) -> None:
    """Have something done again and again; «kvasir up» does it."""

    async def work(settings: Settings) -> None:
        from core import scheduled
        from core.work.schedules import NewSchedule

        async with opened(settings) as kvasir:
            if kind not in scheduled.KINDS:
                raise UserError(tell("schedule_bad_kind", kind=kind[:40], there=", ".join(scheduled.KINDS)))
            wanted = await _target(kvasir, kind, target)
            values = scheduled.checked(kind, dict(_pair(kind, one) for one in given or []))
            if wanted and wanted.kb:
                values["kb"] = wanted.kb
            made = await kvasir.schedules.create(
                NewSchedule(
                    kind, when, name or (wanted.name if wanted else ""), timezone, wanted.id if wanted else "", values
                ),
                by="terminal:operator",
            )
            changes = {"kind": kind, "cron": made.cron}
            await kvasir.audit.note(OPERATOR, "schedules.create", kind="schedules", object=made.name, changes=changes)
        print_json(_json(made)) if as_json else told("schedule_made", name=made.name, next=_next(made))

    run(work)


@schedule.command("run")
def schedule_run(which: Which) -> None:
    """Start a run now, beside the times it has; «kvasir up» does the work."""

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            found = await _found(kvasir, which)
            await kvasir.schedules.run_now(found.id)
        told("schedule_run_queued", name=found.name)

    run(work)


@schedule.command("delete")
def schedule_delete(which: Which, yes: Yes = False) -> None:
    """Delete one with its history."""

    async def look(settings: Settings) -> Schedule:
        async with opened(settings) as kvasir:
            return await _found(kvasir, which)

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            await kvasir.schedules.delete(found.id)
            await kvasir.audit.note(OPERATOR, "schedules.delete", kind="schedules", object=found.name)
        told("schedule_was_deleted", name=found.name)

    found = run(look)
    confirm(tell("schedule_delete_sure", name=found.name), yes)
    run(work)


async def _found(kvasir: Kvasir, which: str) -> Schedule:
    """Raises NotFound, and Conflict where several have the name."""
    every, _ = await kvasir.schedules.list(limit=1000)
    named = [item for item in every if which in (item.id, item.name)]
    if not named:
        raise NotFound(tell("no_such_schedule"))
    if len(named) > 1:
        raise Conflict(tell("schedule_ambiguous", name=which))
    return named[0]


async def _target(kvasir: Kvasir, kind: str, target: str) -> Any:
    from core import scheduled

    targets = scheduled.KINDS[kind].targets
    named = [item for item in await targets(kvasir) if target in (item.id, item.name)] if targets else []
    return await scheduled.target_of(kvasir, kind, named[0].id if len(named) == 1 else target)


def _pair(kind: str, text: str) -> tuple[str, int | bool | str]:
    """A setting as it was typed, in the type that its field has."""
    from core import scheduled

    key, _, value = text.partition("=")
    field = next((field for field in scheduled.KINDS[kind].fields if field.name == key), None)
    if field is not None and field.kind == "number" and value.isdigit():
        return key, int(value)
    if field is not None and field.kind == "checkbox" and value.lower() in ("true", "false"):
        return key, value.lower() == "true"
    return key, value


def _next(item: Schedule) -> str:
    return f"{item.next_at:%Y-%m-%d %H:%M}" if item.next_at else "-"


def _json(item: Schedule) -> dict[str, Any]:
    return {
        "id": item.id,
        "name": item.name,
        "kind": item.kind,
        "target": item.target,
        "cron": item.cron,
        "timezone": item.timezone,
        "enabled": item.enabled,
        "settings": dict(item.settings),
        "next_at": item.next_at.isoformat() if item.next_at else None,
        "last": {"state": item.last.state, "result": item.last.result} if item.last else None,
    }
