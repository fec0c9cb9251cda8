"""`kvasir connection …`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from core.cli.channels import At, place_of
from core.cli.common import AsJson, Yes, confirm, err, opened, out, plain, print_json, print_table, run, told
from core.errors import Unavailable, UserError
from core.texts import tell

if TYPE_CHECKING:
    from core.chats.connections import Connection
    from core.chats.platform_options import Field
    from core.ports import Finding
    from core.settings import Settings

connection = typer.Typer(no_args_is_help=True, help="Chat platforms: their tokens, on or off, and a test message.")

Platform = Annotated[str, typer.Argument(metavar="PLATFORM", help="slack, discord, or telegram.")]
_ASKED: Final = "-"
"""In the place of a value: it is asked for, and not shown."""
_YES: Final = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}
_LOOK_SECONDS: Final = 0.5


@connection.command("list")
def connection_list(as_json: AsJson = False) -> None:
    """Every chat platform, and how it is."""

    async def work(settings: Settings) -> None:
        async with opened(settings, "never") as kvasir:
            found = await kvasir.connections.list()
        if as_json:
            print_json({"connections": [_json(one) for one in found]})
        else:
            rows = [(one.platform, tell(f"connection_{one.state}"), _trouble(one), _set(one)) for one in found]
            print_table(("platform", "state", "last error", "set here"), rows)

    run(work)


@connection.command("set")
def connection_set(
    platform: Platform,
    options: Annotated[
        list[str],
        typer.Argument(metavar="OPTION=VALUE...", help="«bot_token=-» asks for a token; «streaming=» sets one back."),
    ],
    unchecked: Annotated[bool, typer.Option("--unchecked", help="Do not try them at the platform first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Set tokens and options of a platform, after they were tried there; running bots take them up at once."""
    given = [_split(option) for option in options]
    answer = {
        name: _asked(platform, name) for name, value in given if value == _ASKED
    }.get  # no value to be written down

    async def work(settings: Settings) -> None:
        from core.access import OPERATOR

        async with opened(settings, "never") as kvasir:
            fields = {field.name: field for field in (await kvasir.connections.get(platform)).fields}
            values = {name: _value(fields.get(name), value, answer(name)) for name, value in given}
            findings = await kvasir.connections.change(platform, OPERATOR.key, values, unchecked=unchecked)
            _say(await kvasir.connections.get(platform), findings, as_json)

    run(work)


@connection.command("enable")
def connection_enable(platform: Platform, as_json: AsJson = False) -> None:
    """Switch a platform on, or have it connect anew where it is."""

    async def work(settings: Settings) -> None:
        await _switched(settings, platform, True, as_json)

    run(work)


@connection.command("disable")
def connection_disable(platform: Platform, as_json: AsJson = False) -> None:
    """Switch a platform off; its tokens are kept."""

    async def work(settings: Settings) -> None:
        await _switched(settings, platform, False, as_json)

    run(work)


@connection.command("remove")
def connection_remove(platform: Platform, yes: Yes = False) -> None:
    """Forget the tokens and options of a platform that were set here or in the console."""
    confirm(tell("connection_remove", platform=platform), yes)

    async def work(settings: Settings) -> None:
        from core.access import OPERATOR

        async with opened(settings, "never") as kvasir:
            if not await kvasir.connections.remove(platform, OPERATOR.key):
                raise UserError(tell("connection_nothing_kept", platform=platform))
        told("connection_removed", platform=platform)

    run(work)


@connection.command("test")
def connection_test(
    at: At,
    text: Annotated[str, typer.Option("--text", help="What to say there.")] = "",
    wait: Annotated[int, typer.Option("--wait", min=0, max=600, help="Seconds to wait for what came of it.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Have a running Kvasir post a message in a channel, and say what came of it."""

    async def work(settings: Settings) -> None:
        place = place_of(at)
        async with opened(settings, "never") as kvasir:
            await kvasir.connections.get(place.platform)
            posting_id = await kvasir.outbox.add(place, text or tell("outbox_test"), "test")
            posting = await kvasir.outbox.get(posting_id)
            for _ in range(int(wait / _LOOK_SECONDS)):
                if posting.state in ("sent", "failed"):
                    break
                await asyncio.sleep(_LOOK_SECONDS)
                posting = await kvasir.outbox.get(posting_id)
        if posting.state == "failed":
            raise Unavailable(posting.error)
        if as_json:
            print_json({"id": posting.id, "state": posting.state})
        elif posting.state == "sent":
            told("outbox_sent")
        else:
            told("outbox_still_waiting", platform=place.platform)

    run(work)


async def _switched(settings: Settings, platform: str, on: bool, as_json: bool) -> None:
    from core.access import OPERATOR

    async with opened(settings, "never") as kvasir:
        await kvasir.connections.change(platform, OPERATOR.key, {}, enabled=on)
        _say(await kvasir.connections.get(platform), (), as_json)


def _split(option: str) -> tuple[str, str]:
    name, sign, value = option.partition("=")
    if not sign or not name:
        raise typer.BadParameter(f"«{option}» is not of the form OPTION=VALUE.")
    return name, value


def _asked(platform: str, name: str) -> str:
    """From the terminal, unseen; without one, a line of what comes in. Never inside an event loop: Ctrl+C waits."""
    if sys.stdin.isatty():
        return str(typer.prompt(f"{platform}.{name}", hide_input=True, err=True))
    return sys.stdin.readline()


def _value(field: Field | None, given: str, asked: str | None) -> Any:
    """As the platform's settings want it. Raises UserError."""
    text = (given if asked is None else asked).strip()
    if not text:
        return None
    if field is None:
        return text  # and that there is no such option is told with the others
    match field.kind:
        case "secret" if asked is None:
            raise UserError(tell("connection_no_secret_here", name=field.name))
        case "switch" if text.lower() in _YES:
            return _YES[text.lower()]
        case "list":
            return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _say(found: Connection, findings: Sequence[Finding], as_json: bool) -> None:
    if as_json:
        print_json({**_json(found), "findings": [one.as_json() for one in findings]})
        return
    for one in findings:
        mark = "[green]✓[/green]" if one.ok else "[yellow]![/yellow]"
        out.print(f"{mark} {plain(one.what)}: {plain(one.says)}")
    told("connection_is", platform=found.platform, state=tell(f"connection_{found.state}"))
    if found.trouble:
        err.print(plain(found.trouble), style="yellow")


def _trouble(one: Connection) -> str:
    return one.trouble or next((report.error for report in one.reports if report.error), "")


def _set(one: Connection) -> str:
    return ", ".join(field.name for field in one.fields if field.origin == "console")


def _json(one: Connection) -> dict[str, Any]:
    return {
        "platform": one.platform,
        "state": one.state,
        "enabled": one.enabled,
        "trouble": _trouble(one),
        "set": {
            field.name: field.origin for field in one.fields if field.origin
        },
        "reports": [
            {"process": report.process, "state": report.state, "since": report.since, "at": report.at,
             "last_event_at": report.last_event_at, "error": report.error}
            for report in one.reports
        ],
        "waiting": one.waiting,
        "working": one.working,
    }  # fmt: skip
