"""`kvasir db …`, `kvasir backup`, `kvasir restore` and `kvasir doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import TaskID

from core import registry
from core.cli.common import AsJson, err, fail, opened, out, plain, print_json, print_table, progress_bar, run, told
from core.texts import tell

if TYPE_CHECKING:
    from core.db.migrate import Revision
    from core.db.sizes import TableSize
    from core.ports import Finding
    from core.settings import Settings

db = typer.Typer(no_args_is_help=True, help="Kvasir's own database.")


@db.command("upgrade")
def db_upgrade() -> None:
    """Bring the database to this version's tables; «kvasir up» does it by itself."""

    async def work(settings: Settings) -> None:
        from core.app import make_data_dir
        from core.db import migrate
        from core.db.session import Database

        make_data_dir(settings)
        database = Database(settings.database_url, settings.database)
        try:
            after = await migrate.upgrade(database)
        finally:
            await database.close()
        told("database_newest", revision=after.current)

    run(work)


@db.command("check")
def db_check(
    sizes: Annotated[bool, typer.Option("--sizes", help="Also say how large each table is.")] = False,
    as_json: AsJson = False,
) -> None:
    """Whether the database is there and up to date (status 1 when not); changes nothing."""

    async def work(settings: Settings) -> tuple[Revision, Sequence[TableSize]]:
        from core.db import migrate
        from core.db.session import Database
        from core.db.sizes import table_sizes

        database = Database(settings.database_url, settings.database)
        if database.is_sqlite and not Path(database.url.database or "").is_file():
            return migrate.Revision(None, migrate.newest_revision()), ()  # opening it would make it
        try:
            revision = await migrate.revision(database)
            return revision, await table_sizes(database) if sizes and revision.current else ()
        finally:
            await database.close()

    found, tables = run(work)
    if as_json:
        told_sizes = [{"name": one.name, "rows": one.rows, "bytes": one.bytes} for one in tables]
        more = {"tables": told_sizes} if sizes else {}
        print_json({"revision": found.current, "newest": found.newest, "ok": found.is_newest, **more})
        raise typer.Exit(0 if found.is_newest else 1)
    if found.current is None:
        fail(tell("database_absent"))
    if not found.is_newest:
        fail(tell("database_old", revision=found.current, newest=found.newest))
    told("database_newest", revision=found.current)
    if sizes:
        _show_sizes(tables)


def _show_sizes(tables: Sequence[TableSize]) -> None:
    if tables:
        print_table(("table", "rows", "MB"), [(one.name, one.rows, f"{one.bytes / 1e6:.1f}") for one in tables])
    else:
        told("sizes_unknown")


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file, e.g. kvasir.zip.")],
    with_index: Annotated[
        bool,
        typer.Option("--with-index", help="With the indexes of every store: a restore embeds nothing anew then."),
    ] = False,
) -> None:
    """Write everything (database, originals, the store «local») into one file; may run while Kvasir is up."""

    async def work(settings: Settings) -> None:
        from core.upkeep import archive

        async with opened(settings) as kvasir:
            count = await archive.backup(kvasir, file, with_index=with_index)
        told("backed_up", count=count, file=file)

    run(work)


def restore(file: Annotated[Path, typer.Argument(metavar="FILE", help="What «kvasir backup» wrote.")]) -> None:
    """Bring a backup into an empty data directory and database."""

    async def work(settings: Settings) -> None:
        from core.app import restore as bring_back

        with progress_bar() as bar:
            task = bar.add_task(tell("restore_indexes"), total=None)

            def follow(done: int, total: int, task: TaskID = task) -> None:
                bar.update(task, completed=done, total=total)

            restored = await bring_back(settings, file, follow)
        told("restored", count=restored.documents, folder=settings.data_dir)
        if restored.waiting:
            told("restore_waiting", count=restored.waiting)
        if restored.secrets_lost:
            err.print(plain(tell("restore_secrets", count=restored.secrets_lost)), style="yellow")

    run(work)


def doctor(
    platform: Annotated[
        str, typer.Argument(metavar="[PLATFORM]", help="Look at one part alone: a chat platform, or a store.")
    ] = "",
    role: Annotated[
        str, typer.Option("--role", help="Only whether this machine's process of a role lives: web, bots, or jobs.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Look whether everything is in order, and say what to do where it is not (status 1)."""
    known = registry.names("kvasir.services")
    if role and (platform or role not in known):
        raise typer.BadParameter(f"It goes alone, with one of: {', '.join(known)}.", param_hint="--role")

    async def work(settings: Settings) -> list[Finding]:
        if role:
            from core.work.presence import examine_role  # a health check, again and again: it imports nothing else

            return [finding async for finding in examine_role(settings, role)]
        from core.doctor import examine, examine_platform

        if not platform:
            return [finding async for finding in examine(settings)]
        async with opened(settings) as kvasir:
            found = await kvasir.connections.settings_of(platform)
        return [finding async for finding in examine_platform(found or settings, platform)]

    found = run(work)
    if as_json:
        print_json({"ok": all(f.ok for f in found), "findings": [f.as_json() for f in found]})
    else:
        for finding in found:
            mark = "[green]✓[/green]" if finding.ok else "[red]✗[/red]"
            out.print(f"{mark} {plain(finding.what)}: {plain(finding.says)}")
    if not all(finding.ok for finding in found):
        raise typer.Exit(1)
