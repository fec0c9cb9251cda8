"""What people do with their own account: password, logins, API keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field, SecretStr

from admin.api.people import KeyOut, Keys, Logins, login_out, printable
from admin.auth import is_guest, session_token, set_session
from admin.deps import CallerDep, KvasirDep
from admin.schemas import Given, Out, ShortText
from core.access import ACCOUNT_PREFIX, Scope
from core.errors import NotAllowed, NotFound
from core.texts import tell


class NewPassword(Given):
    old_password: Annotated[SecretStr, Field(max_length=1000)]
    new_password: Annotated[SecretStr, Field(max_length=1000)]


class NewKey(Given):
    name: Annotated[ShortText, Field(min_length=1)]
    scopes: Annotated[Sequence[Scope], Field(min_length=1, max_length=4)]
    expires_at: datetime | None = None


class CreatedKey(Out):
    key: KeyOut
    token: str
    """The key itself; shown this once."""


async def _by_browser(caller: CallerDep) -> None:
    """Keys make no keys and change no passwords, and guests have no account. Raises NotAllowed."""
    if caller.identity.scopes is not None or is_guest(caller.identity):
        raise NotAllowed(tell("not_by_key"))


router = APIRouter(prefix="/me", dependencies=[Depends(_by_browser)])


@router.put("/password", status_code=204)
async def change_password(
    given: NewPassword, request: Request, response: Response, caller: CallerDep, kvasir: KvasirDep
) -> None:
    """All other logins end; this one goes on."""
    address = request.client.host if request.client else ""
    agent = request.headers.get("user-agent", "")
    name = caller.person.name
    proven = await kvasir.accounts.login(name, given.old_password.get_secret_value(), address=address)
    await kvasir.accounts.logout(proven.token)
    await kvasir.accounts.set_password(name, given.new_password.get_secret_value())
    login = await kvasir.accounts.open_session(proven.user, user_agent=agent, address=address)
    set_session(response, request.scope, kvasir.settings.web, login.token)


@router.get("/logins")
async def own_logins(
    caller: CallerDep,
    kvasir: KvasirDep,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> Logins:
    """Where the caller is logged in."""
    user_id = caller.person.key.removeprefix(ACCOUNT_PREFIX)
    items, total = await kvasir.people.logins(user_id=user_id, limit=limit, offset=offset)
    return Logins(items=[login_out(item) for item in items], total=total)


@router.delete("/logins/{login_id}", status_code=204)
async def end_own_login(login_id: str, caller: CallerDep, kvasir: KvasirDep) -> None:
    """Log one of the caller's own browsers out."""
    await kvasir.people.end_login(caller.person, printable(login_id), own=True)


@router.delete("/logins", status_code=204)
async def end_other_logins(request: Request, caller: CallerDep, kvasir: KvasirDep) -> None:
    """Log every other browser out."""
    here = session_token(request.headers, request.scope, kvasir.settings.web)
    await kvasir.people.end_other_logins(caller.person, here)


@router.get("/keys")
async def own_keys(caller: CallerDep, kvasir: KvasirDep) -> Keys:
    """The caller's own API keys, without what they are proved by."""
    items = [KeyOut.model_validate(key) for key in await kvasir.accounts.list_keys(caller.person.name)]
    return Keys(items=items, total=len(items))


@router.post("/keys", status_code=201)
async def create_key(given: NewKey, caller: CallerDep, kvasir: KvasirDep, response: Response) -> CreatedKey:
    """A key of one's own; it can do what its scopes and its owner's role both allow."""
    key, token = await kvasir.accounts.create_key(
        caller.person.name, given.name, given.scopes, expires_at=given.expires_at
    )
    response.headers["cache-control"] = "no-store"
    return CreatedKey(key=KeyOut.model_validate(key), token=token)


@router.delete("/keys/{key_id}", status_code=204)
async def revoke_own_key(key_id: str, caller: CallerDep, kvasir: KvasirDep) -> None:
    """Revoke one of the caller's own API keys; it is worth nothing from now on."""
    key_id = printable(key_id)
    if key_id not in {key.id for key in await kvasir.accounts.list_keys(caller.person.name)}:
        raise NotFound(tell("no_key", id=key_id))
    await kvasir.accounts.revoke_key(key_id)
