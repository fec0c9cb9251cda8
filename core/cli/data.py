"""`kvasir db …`, `kvasir backup`, `kvasir restore` and `kvasir doctor`."""

from __future__ import annotations

from pathlib import Path

import typer

from core import archive
from core.cli.common import AsJson, fail, opened, out, plain, print_json, run
from core.db import migrate
from core.db.session import Database
from core.doctor import Finding, examine
from core.settings import Settings

db = typer.Typer(no_args_is_help=True, help="Kvasir's own database.")


@db.command("upgrade")
def db_upgrade() -> None:
    """Bring the database to this version's tables; «kvasir up» does it by itself."""

    async def work(settings: Settings) -> None:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        database = Database(settings.database_url)
        try:
            after = await migrate.upgrade(database)
        finally:
            await database.close()
        out.print(f"The database is at revision {after.current}, the newest.")

    run(work)


@db.command("check")
def db_check(as_json: AsJson = False) -> None:
    """Whether the database is there and up to date (status 1 when not)."""

    async def work(settings: Settings) -> None:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        database = Database(settings.database_url)
        try:
            found = await migrate.revision(database)
        finally:
            await database.close()
        if as_json:
            print_json({"revision": found.current, "newest": found.newest, "ok": found.is_newest})
            raise typer.Exit(0 if found.is_newest else 1)
        if not found.is_newest:
            fail(f"The database is at revision {found.current}, not {found.newest}; run «kvasir db upgrade».")
        out.print(f"The database is at revision {found.current}, the newest.")

    run(work)


def backup(file: Path) -> None:
    """Write everything (database, originals, index) into one file; may run while Kvasir is up."""

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            count = await archive.backup(kvasir, file)
        out.print(f"{count} documents and everything else were written to {plain(str(file))}.")

    run(work)


def restore(file: Path) -> None:
    """Bring a backup into an empty data directory."""

    async def work(settings: Settings) -> None:
        count = await archive.restore(settings, file)
        async with opened(settings) as kvasir:
            await kvasir.ingest.recover()
        out.print(f"{count} documents are back in {plain(str(settings.data_dir))}.")

    run(work)


def doctor(as_json: AsJson = False) -> None:
    """Look whether everything is in order, and say what to do where it is not (status 1)."""

    async def work(settings: Settings) -> list[Finding]:
        return [finding async for finding in examine(settings)]

    found = run(work)
    if as_json:
        print_json({"ok": all(f.ok for f in found), "findings": [f.as_json() for f in found]})
    else:
        for finding in found:
            mark = "[green]✓[/green]" if finding.ok else "[red]✗[/red]"
            out.print(f"{mark} {plain(finding.what)}: {plain(finding.says)}")
    if not all(finding.ok for finding in found):
        raise typer.Exit(1)
