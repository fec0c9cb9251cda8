"""`kvasir config …`: the sample file, and where each value comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from core.cli.common import GLOBALS, AsJson, fail, out, print_json, print_table
from core.errors import KvasirError
from core.settings import Field_, Settings, fields, origins, sample, unknown_variables

config = typer.Typer(no_args_is_help=True, help="Settings.")


@config.command("sample")
def config_sample() -> None:
    """Print a settings file with every key, its sentence and its default."""
    out.print(sample(), markup=False, end="")


@config.command("check")
def config_check(
    as_json: AsJson = False,
    show_all: Annotated[bool, typer.Option("--all", help="Also those left at their default.")] = False,
) -> None:
    """Check the settings, and show each value with where it came from; secrets are masked."""
    try:
        settings = GLOBALS.settings()
        rows = list(_rows(settings))
        strangers = unknown_variables()
    except KvasirError as error:
        fail(str(error))
    if as_json:
        shown = [{"name": f.path, "value": value, "from": origin} for f, value, origin in rows]
        print_json({"settings": shown, "unknown": strangers})
        return
    kept = [(f.path, value, origin) for f, value, origin in rows if show_all or origin != "default"]
    print_table(("setting", "value", "from"), kept)
    if not show_all:
        out.print(f"{len(rows) - len(kept)} settings are at their default; --all shows them.")
    for name in strangers:
        out.print(f"[yellow]{name} is set, but there is no such setting; mind the spelling.[/yellow]")


def _rows(settings: Settings) -> Iterator[tuple[Field_, Any, str]]:
    found = origins(GLOBALS.config, GLOBALS.data_dir)
    for field in fields():
        value: Any = settings
        for name in field.path.split("."):
            value = getattr(value, name)
        if field.secret:
            value = "********" if value and value.get_secret_value() else ""
        yield (
            field,
            value if isinstance(value, bool | int | float | str | list | dict) else str(value or ""),
            found.get(field.path, "default"),
        )
