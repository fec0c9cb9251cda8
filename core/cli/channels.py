"""`kvasir channel …`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from core.cli.common import AsJson, err, opened, plain, print_json, print_table, run, told
from core.errors import NotFound, UserError
from core.texts import tell

if TYPE_CHECKING:
    from core.app import Kvasir
    from core.chats.channels import SetPlace
    from core.settings import Settings
    from core.types import Place

channel = typer.Typer(no_args_is_help=True, help="Which knowledge bases answer where, and how.")

At = Annotated[
    str,
    typer.Argument(
        metavar="PLATFORM[:WORKSPACE[:CHANNEL]]",
        help="E.g. slack:T1:C9 for a channel, slack:T1 for a workspace, slack for all.",
    ),
]
Kbs = Annotated[
    list[str] | None, typer.Option("--kb", help="Knowledge base that answers there; may be given several times.")
]
Model = Annotated[str | None, typer.Option("--model", help="Engine that writes the answers.")]
Prompt = Annotated[
    Path | None, typer.Option("--prompt", help="Text file with the instructions for the language model.")
]
Mode = Annotated[
    Literal["mention", "auto", "off"] | None,
    typer.Option("--mode", help="Answer mentions; also questions without a mention; nothing."),
]
In = Annotated[Literal["en", "zh"] | None, typer.Option("--language", help="Language of Kvasir's own words.")]
Feedback = Annotated[bool | None, typer.Option("--feedback/--no-feedback", help="Thumbs under answers, or none.")]
FollowUps = Annotated[
    bool | None,
    typer.Option("--follow-ups/--no-follow-ups", help="Answer without a mention in threads Kvasir is in, or not."),
]
Managers = Annotated[
    list[str] | None, typer.Option("--manager", help="Key of somebody who may change this there, e.g. slack:T1:U9.")
]
Helpers = Annotated[
    list[str] | None, typer.Option("--helper", help="Whom «ask a human» calls, as the platform names them.")
]
Askers = Annotated[
    list[str] | None,
    typer.Option("--asker", help="Who is answered there, a person or a group; may be given several times."),
]
Digest = Annotated[
    Literal["off", "daily", "weekly"] | None, typer.Option("--digest", help="Post a summary of what was asked there.")
]
Called = Annotated[str | None, typer.Option("--name", help="What people call the place.")]


class Setting(StrEnum):
    """Fields of `ChannelSettings`, by the words of the options."""

    KBS = "kb"
    ENGINE = "model"
    INSTRUCTIONS = "prompt"
    MODE = "mode"
    LANGUAGE = "language"
    FEEDBACK = "feedback"
    FOLLOW_UPS = "follow-ups"
    MANAGERS = "manager"
    HELPERS = "helper"
    ASKERS = "asker"
    DIGEST = "digest"


Reset = Annotated[
    list[Setting] | None,
    typer.Option("--reset", help="Set this back to what holds in wider places; may be given several times."),
]


@channel.command("list")
def channel_list(as_json: AsJson = False) -> None:
    """Every channel, workspace and platform something was set for."""

    async def work(settings: Settings) -> None:
        async with opened(settings, "never") as kvasir:
            found = await kvasir.channels.list()
        if as_json:
            print_json({"channels": [_json(item) for item in found]})
        else:
            rows = [(_written(item.place), item.name, _shown(item), item.updated_by) for item in found]
            print_table(("place", "name", "settings", "by"), rows)

    run(work)


@channel.command("bind", help="Let knowledge bases answer in a channel, a workspace, or on a whole platform.")
@channel.command("set", help="Change how questions are answered in a channel, a workspace, or on a whole platform.")
def channel_set(
    ctx: typer.Context,
    at: At,
    kbs: Kbs = None,
    model: Model = None,
    prompt: Prompt = None,
    mode: Mode = None,
    language: In = None,
    feedback: Feedback = None,
    follow_ups: FollowUps = None,
    managers: Managers = None,
    helpers: Helpers = None,
    askers: Askers = None,
    digest: Digest = None,
    called: Called = None,
    reset: Reset = None,
    as_json: AsJson = False,
) -> None:
    """Both commands; `bind` wants a knowledge base."""
    if ctx.info_name == "bind" and not kbs:
        raise typer.BadParameter("Name a knowledge base that answers there.", ctx=ctx, param_hint="--kb")
    given = {"kbs": kbs, "engine": model, "mode": mode, "language": language, "feedback": feedback,
             "follow_ups": follow_ups, "managers": managers, "helpers": helpers,
             "askers": askers, "digest": digest}  # fmt: skip
    changes: dict[str, Any] = {setting.name.lower(): None for setting in reset or ()}
    changes |= {field: value for field, value in given.items() if value is not None}

    async def work(settings: Settings) -> None:
        await _change(settings, at, changes, prompt, called, as_json)

    run(work)


@channel.command("unbind")
def channel_unbind(at: At) -> None:
    """Forget all that was set for a channel, a workspace, or a platform."""

    async def work(settings: Settings) -> None:
        place = place_of(at)
        async with opened(settings, "never") as kvasir:
            if not await kvasir.channels.clear(place):
                raise NotFound(tell("channel_not_set", place=_written(place)))
        told("channel_was_unbound", place=_written(place))

    run(work)


async def _change(
    settings: Settings, at: str, changes: dict[str, Any], prompt: Path | None, called: str | None, as_json: bool
) -> None:
    from core.access import OPERATOR

    place = place_of(at)
    if prompt is not None:
        changes["instructions"] = _text(prompt)
    if not changes and called is None:
        raise UserError(tell("channel_nothing_to_set"))
    async with opened(settings, "never") as kvasir:
        await kvasir.channels.change(place, OPERATOR.key, name=called, **changes)
        found = next(item for item in await kvasir.channels.list() if item.place == place)
        private = await _private(kvasir, changes.get("kbs") or ())
    if as_json:
        print_json(_json(found))
    else:
        told("channel_was_set", place=_written(place), values=_shown(found) or "–")
    for name in private:
        err.print(plain(tell("channel_private_kb", kb=name)), style="yellow")


async def _private(kvasir: Kvasir, names: Sequence[str]) -> list[str]:
    return [kb.name for kb in await kvasir.knowledge.names() if kb.private and kb.name in names]


def place_of(at: str) -> Place:
    from core import registry
    from core.types import Place

    platform, *rest = at.split(":", 2)
    there = registry.names("kvasir.platforms")
    if not all(part.strip() == part != "" for part in (platform, *rest[-1:])) or not at.isprintable():
        raise UserError(tell("channel_bad_place", place=at))
    if platform not in there:
        raise UserError(tell("channel_no_platform", name=platform, there=", ".join(there)))
    return Place(platform, *rest)


def _written(place: Place) -> str:
    return f"{place.platform}:{place.workspace}:{place.channel}".rstrip(":")


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(tell("prompt_file_unreadable", file=file, reason=reason)) from error


def _shown(item: SetPlace) -> str:
    """On one line, a prompt by its beginning."""
    parts = []
    for field, value in item.values.items():
        text = ", ".join(value) if isinstance(value, tuple) else str(value).lower() if value in (True, False) else value
        parts.append(f"{Setting[field.upper()]}={' '.join(text.split())[:60]}")
    return "; ".join(parts)


def _json(item: SetPlace) -> dict[str, Any]:
    place = item.place
    return {
        "platform": place.platform,
        "workspace": place.workspace,
        "channel": place.channel,
        "name": item.name,
        **item.values,
        "updated_by": item.updated_by,
        "updated_at": item.updated_at.isoformat(),
    }
