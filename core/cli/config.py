"""`kvasir config …`: the sample file, and where each value comes from."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli.common import GLOBALS, AsJson, ending, err, language, plain, print_json, print_table, told
from core.errors import ConfigError
from core.texts import speaking, system_language, tell

if TYPE_CHECKING:
    from core.settings import Field_, Settings

config = typer.Typer(no_args_is_help=True, help="Settings.")

_MASK = "********"


@config.command("sample")
def config_sample() -> None:
    """Print a settings file with every key, its sentence and its default."""
    from core.settings import sample

    typer.echo(sample(), nl=False)


@config.command("check")
def config_check(
    as_json: AsJson = False,
    show_all: Annotated[bool, typer.Option("--all", help="Also those left at their default.")] = False,
) -> None:
    """Check the settings, and show each value with where it came from; secrets are masked."""
    from core.settings import unknown_variables

    with speaking(system_language()), ending():
        try:
            settings = GLOBALS.settings()
        except ConfigError:
            _show_origins()
            raise
        rows = list(_rows(settings))
        strangers = unknown_variables()
        if as_json:
            shown = [{"name": f.path, "value": value, "from": origin} for f, value, origin in rows]
            print_json({"settings": shown, "unknown": strangers})
            return
        with speaking(language(settings)):
            kept = [(f.path, value, origin) for f, value, origin in rows if show_all or origin != "default"]
            print_table(("setting", "value", "from"), kept)
            if not show_all:
                told("settings_at_default", count=len(rows) - len(kept))
            for name in strangers:
                err.print(plain(tell("no_such_setting", name=name)), style="yellow")


def _show_origins() -> None:
    """On stderr, where each value comes from, when they cannot be used together."""
    from core.settings import origins

    with contextlib.suppress(ConfigError, OSError, ValueError):
        for name, origin in origins(GLOBALS.config, GLOBALS.data_dir).items():
            err.print(f"{name}: {plain(origin)}")


def _rows(settings: Settings) -> Iterator[tuple[Field_, Any, str]]:
    from core.settings import fields, origins

    found = origins(GLOBALS.config, GLOBALS.data_dir)
    for field in fields():
        value: Any = settings
        for name in field.path.split("."):
            value = getattr(value, name)
        if field.secret:
            value = _MASK if value and value.get_secret_value() else ""
        elif isinstance(value, dict):
            value = dict.fromkeys(value, _MASK)  # a request header may be a key
        elif isinstance(value, str):
            value = re.sub(r"(?<=://)[^/@]+(?=@)", _MASK, value)  # user and password of a proxy
        yield (
            field,
            value if isinstance(value, bool | int | float | str | list | dict) else str(value or ""),
            found.get(field.path, "default"),
        )
