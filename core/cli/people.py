"""`kvasir user …` and `kvasir key …`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from core.access import Scope
from core.cli.common import AsJson, err, fail, opened, out, plain, print_json, print_table, run, told
from core.texts import tell
from core.types import Role

if TYPE_CHECKING:
    from core.settings import Settings

user = typer.Typer(no_args_is_help=True, help="People who may log in.")
key = typer.Typer(no_args_is_help=True, help="API keys for programs.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The person's name for logging in.")]


@user.command("add")
def user_add(
    name: Name,
    role: Annotated[Role, typer.Option("--role", help="What the person may do.")] = Role.VIEWER,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")] = False,
) -> None:
    """Add a person; the password is asked for."""
    password = _password(password_stdin)

    async def work(settings: Settings) -> None:
        async with opened(settings, "never") as kvasir:
            made = await kvasir.accounts.create(name, password, role)
        told("user_added", name=made.name, role=made.role)

    run(work)


@user.command("list")
def user_list(as_json: AsJson = False) -> None:
    """Everybody who may log in."""

    async def work(settings: Settings) -> None:
        async with opened(settings, "never") as kvasir:
            found = await kvasir.accounts.list()
        if as_json:
            print_json({"users": [{"name": u.name, "role": u.role, "disabled": u.disabled} for u in found]})
        else:
            print_table(("name", "role", ""), [(u.name, u.role, "disabled" if u.disabled else "") for u in found])

    run(work)


@user.command("disable")
def user_disable(
    name: Name, enable: Annotated[bool, typer.Option("--undo", help="Let the person in again.")] = False
) -> None:
    """Shut a person out: logins and API keys end at once."""

    async def work(settings: Settings) -> None:
        async with opened(settings, "never") as kvasir:
            await (kvasir.accounts.enable(name) if enable else kvasir.accounts.disable(name))
        told("user_enabled" if enable else "user_disabled", name=name)

    run(work)


@user.command("password")
def user_password(
    name: Name,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")] = False,
) -> None:
    """Set a new password; the person's logins end."""
    password = _password(password_stdin)

    async def work(settings: Settings) -> None:
        async with opened(settings, "never") as kvasir:
            await kvasir.accounts.set_password(name, password)
        told("user_new_password", name=name)

    run(work)


@key.command("create")
def key_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    owner: Annotated[str, typer.Option("--user", help="The user it acts as.")],
    scope: Annotated[list[Scope] | None, typer.Option("--scope", help="May be given several times.")] = None,
    days: Annotated[int | None, typer.Option("--days", min=1, help="It ends after this many days.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key; it is shown this once."""

    async def work(settings: Settings) -> None:
        async with opened(settings, "never") as kvasir:
            expires = datetime.now(UTC) + timedelta(days=days) if days else None
            made, secret = await kvasir.accounts.create_key(owner, name, scope or [Scope.ASK], expires_at=expires)
        if as_json:
            print_json({"id": made.id, "key": secret, "scopes": sorted(made.scopes)})
        else:
            out.print(plain(secret))
            err.print(tell("key_shown_once"))

    run(work)


@key.command("list")
def key_list(as_json: AsJson = False) -> None:
    """All API keys, without their secrets."""

    async def work(settings: Settings) -> None:
        async with opened(settings, "never") as kvasir:
            found = await kvasir.accounts.list_keys()
        if as_json:
            print_json(
                {
                    "keys": [
                        {
                            "id": k.id,
                            "name": k.name,
                            "user": k.user,
                            "prefix": k.prefix,
                            "scopes": sorted(k.scopes),
                            "revoked": k.revoked_at is not None,
                        }
                        for k in found
                    ]
                }
            )
        else:
            print_table(
                ("prefix", "name", "user", "scopes", ""),
                [
                    (k.prefix, k.name, k.user, " ".join(sorted(k.scopes)), "revoked" if k.revoked_at else "")
                    for k in found
                ],
            )

    run(work)


@key.command("revoke")
def key_revoke(key_id: Annotated[str, typer.Argument(metavar="ID|PREFIX")]) -> None:
    """End an API key."""

    async def work(settings: Settings) -> None:
        async with opened(settings, "never") as kvasir:
            await kvasir.accounts.revoke_key(key_id)
        told("key_revoked")

    run(work)


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        fail(tell("password_no_terminal"))
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
