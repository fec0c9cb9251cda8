"""`kvasir person …`."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.access import OPERATOR
from core.cli.common import AsJson, Yes, confirm, opened, print_json, print_table, run, told
from core.texts import tell

if TYPE_CHECKING:
    from core.settings import Settings
    from core.upkeep.persons import Kept

person = typer.Typer(no_args_is_help=True, help="What is kept about a person: found, given out, erased.")

Key = Annotated[str, typer.Argument(metavar="KEY", help="Who, e.g. slack:T1:U9; see «kvasir person find».")]


@person.command("find")
def person_find(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Part of a key or of a name; empty: everybody.")] = "",
    as_json: AsJson = False,
) -> None:
    """Who asked something."""

    async def work(settings: Settings) -> None:
        async with opened(settings, "never") as kvasir:
            found, total = await kvasir.persons.find(text, limit=200)
        if as_json:
            people = [
                {"key": one.key, "name": one.name, "answers": one.answers, "last_at": one.last_at} for one in found
            ]
            print_json({"persons": people, "total": total})
        else:
            rows = [(one.key, one.name, one.answers, f"{one.last_at:%Y-%m-%d %H:%M}") for one in found]
            print_table(("key", "name", "answers", "last"), rows)

    run(work)


@person.command("export")
def person_export(
    key: Key, file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file, e.g. ann.json.")]
) -> None:
    """Write all that is kept about a person into a JSON file."""

    async def work(settings: Settings) -> None:
        async with opened(settings, "never") as kvasir:
            found = await kvasir.persons.export(key)
            await kvasir.audit.note(OPERATOR, "person.export", kind="person", object=key)
        text = json.dumps(found, ensure_ascii=False, indent=1)
        await asyncio.to_thread(_write_new, file, text)
        told("person_exported", person=key, file=file)

    run(work)


@person.command("erase")
def person_erase(key: Key, yes: Yes = False, as_json: AsJson = False) -> None:
    """Erase all that is kept about a person, but their account."""

    async def look(settings: Settings) -> Kept:
        async with opened(settings, "never") as kvasir:
            return await kvasir.persons.kept(key)

    async def work(settings: Settings) -> None:
        async with opened(settings, "never") as kvasir:
            gone = await kvasir.persons.erase(key)
            await kvasir.audit.note(OPERATOR, "person.erase", kind="person", object=key)
        if as_json:
            print_json(asdict(gone))
        else:
            told("person_erased", **asdict(gone))

    kept = run(look)
    confirm(tell("person_erase_confirm", **asdict(kept)), yes)
    run(work)


def _write_new(file: Path, text: str) -> None:
    """Readable by its owner alone."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as made:
        made.write(text)
