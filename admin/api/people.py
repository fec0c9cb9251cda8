"""Accounts, invitations and logins of others; one's own stand in `own.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field, SecretStr

from admin.auth import set_session
from admin.deps import CallerDep, KvasirDep
from admin.schemas import Given, Next, Out, ShortText
from core.access import Action, Scope
from core.identity.people import Invitation, Login, Member
from core.types import Role

Right = Literal["ask", "edit"]
Rights = Annotated[dict[str, Right], Field(max_length=500)]
Password = Annotated[SecretStr, Field(max_length=1000)]
Name = Annotated[str, Field(max_length=200)]


class MemberOut(Out):
    name: str
    role: Role
    disabled: bool
    everywhere: bool
    """The role counts in every knowledge base."""
    rights: Mapping[str, str]
    """Knowledge bases that they were let into besides."""
    logins: int
    keys: int
    seen_at: datetime | None
    by_provider: bool
    created_at: datetime

    @classmethod
    def of(cls, member: Member) -> MemberOut:
        user = member.user
        return cls(
            name=user.name, role=user.role, disabled=user.disabled, everywhere=user.everywhere, rights=member.rights,
            logins=member.logins, keys=member.keys, seen_at=member.seen_at, by_provider=member.by_provider,
            created_at=user.created_at,
        )  # fmt: skip


class Members(Out):
    items: Sequence[MemberOut]
    total: int


class NewMember(Given):
    name: Name
    password: Password
    role: Role = Role.VIEWER
    everywhere: bool = True
    rights: Annotated[Rights, Field(default_factory=dict)]


class MemberChange(Given):
    role: Role | None = None
    everywhere: bool | None = None
    rights: Rights | None = None
    disabled: bool | None = None
    password: Password | None = None


class InvitationOut(Out):
    id: str
    role: Role
    everywhere: bool
    rights: Mapping[str, str]
    note: str
    created_by: str
    created_at: datetime
    expires_at: datetime


class Invitations(Out):
    items: Sequence[InvitationOut]
    total: int


class NewInvitation(Given):
    role: Role = Role.VIEWER
    everywhere: bool = True
    rights: Annotated[Rights, Field(default_factory=dict)]
    note: ShortText = ""


class Invited(Out):
    invitation: InvitationOut
    token: str
    """Of the link `/setup?invitation=…`; shown this once."""


class Accept(Given):
    token: Annotated[str, Field(max_length=200)]
    name: Name
    password: Password


class LoginOut(Out):
    id: str
    user: str
    address: str
    user_agent: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime


class Logins(Out):
    items: Sequence[LoginOut]
    total: int


class KeyOut(Out):
    id: str
    user: str
    name: str
    prefix: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    used_at: datetime | None


class Keys(Out):
    items: Sequence[KeyOut]
    total: int


async def _looks_after_people(caller: CallerDep) -> None:
    caller.require(Action.PEOPLE)


router = APIRouter(dependencies=[Depends(_looks_after_people)])
open_router = APIRouter()
"""For somebody who has no account yet."""

_Limit = Annotated[int, Query(ge=1, le=200)]
_Offset = Annotated[int, Query(ge=0, le=10_000_000)]
_NO_STORE: Final = "no-store"


# ---------------------------------------------------------------- accounts
@router.get("/people")
async def list_people(
    kvasir: KvasirDep,
    text: Annotated[str, Query(max_length=200)] = "",
    role: Role | None = None,
    limit: _Limit = 50,
    offset: _Offset = 0,
) -> Members:
    """A page of all who have an account; `text` is part of a name."""
    items, total = await kvasir.people.list(text=printable(text), role=role, limit=limit, offset=offset)
    return Members(items=[MemberOut.of(item) for item in items], total=total)


@router.post("/people", status_code=201)
async def create_person(given: NewMember, caller: CallerDep, kvasir: KvasirDep) -> MemberOut:
    """A new account with its role, rights and first password."""
    member = await kvasir.people.create(
        caller.person,
        given.name,
        given.password.get_secret_value(),
        given.role,
        everywhere=given.everywhere,
        rights=given.rights,
    )
    return MemberOut.of(member)


@router.get("/people/{name}")
async def read_person(name: str, kvasir: KvasirDep) -> MemberOut:
    """One account, with role and rights."""
    return MemberOut.of(await kvasir.people.get(printable(name)))


@router.patch("/people/{name}")
async def change_person(name: str, given: MemberChange, caller: CallerDep, kvasir: KvasirDep) -> MemberOut:
    """Change what is given: role, rights, password, or whether the account is switched off."""
    name = printable(name)
    if given.password is not None:
        await kvasir.people.set_password(caller.person, name, given.password.get_secret_value())
    changes = given.model_dump(exclude={"password"}, exclude_none=True)
    return MemberOut.of(await kvasir.people.change(caller.person, name, **changes))


@router.delete("/people/{name}", status_code=204)
async def delete_person(name: str, caller: CallerDep, kvasir: KvasirDep) -> None:
    """Delete an account; what it asked stays until its data are erased."""
    await kvasir.people.delete(caller.person, printable(name))


# ---------------------------------------------------------------- invitations
@router.get("/invitations")
async def list_invitations(kvasir: KvasirDep) -> Invitations:
    """Invitations that are still open, the newest first."""
    items = [invitation_out(item) for item in await kvasir.people.invitations()]
    return Invitations(items=items, total=len(items))


@router.post("/invitations", status_code=201)
async def invite(given: NewInvitation, caller: CallerDep, kvasir: KvasirDep, response: Response) -> Invited:
    """A new invitation; its token is shown this once."""
    invitation, token = await kvasir.people.invite(
        caller.person, given.role, everywhere=given.everywhere, rights=given.rights, note=given.note
    )
    response.headers["cache-control"] = _NO_STORE
    return Invited(invitation=invitation_out(invitation), token=token)


@router.delete("/invitations/{invitation_id}", status_code=204)
async def withdraw_invitation(invitation_id: str, caller: CallerDep, kvasir: KvasirDep) -> None:
    """Withdraw an invitation; its link is worth nothing from now on."""
    await kvasir.people.withdraw(caller.person, printable(invitation_id))


@open_router.post("/invitations/accept", status_code=201)
async def accept_invitation(given: Accept, request: Request, response: Response, kvasir: KvasirDep) -> Next:
    """Create the account that the invitation is for, and log them in; open."""
    user = await kvasir.people.accept(given.token, given.name, given.password.get_secret_value())
    address = request.client.host if request.client else ""
    agent = request.headers.get("user-agent", "")
    login = await kvasir.accounts.open_session(user, user_agent=agent, address=address)
    await kvasir.audit.note(user.person, "people.accept_invitation", kind="people", object=user.name, address=address)
    set_session(response, request.scope, kvasir.settings.web, login.token)
    return Next(next="/")


# ---------------------------------------------------------------- logins and keys
@router.get("/logins")
async def list_logins(kvasir: KvasirDep, limit: _Limit = 50, offset: _Offset = 0) -> Logins:
    """A page of the browsers that are logged in, the last used first."""
    items, total = await kvasir.people.logins(limit=limit, offset=offset)
    return Logins(items=[login_out(item) for item in items], total=total)


@router.delete("/logins/{login_id}", status_code=204)
async def end_login(login_id: str, caller: CallerDep, kvasir: KvasirDep) -> None:
    """Log somebody's browser out."""
    await kvasir.people.end_login(caller.person, printable(login_id))


@router.get("/keys")
async def list_keys(kvasir: KvasirDep, limit: _Limit = 50, offset: _Offset = 0) -> Keys:
    """A page of everybody's API keys, the latest first, without what they are proved by."""
    found = await kvasir.accounts.list_keys()
    items = [KeyOut.model_validate(key) for key in reversed(found)]
    return Keys(items=items[offset : offset + limit], total=len(items))


@router.delete("/keys/{key_id}", status_code=204)
async def revoke_key(key_id: str, kvasir: KvasirDep) -> None:
    """Revoke somebody's API key; it is worth nothing from now on."""
    await kvasir.accounts.revoke_key(printable(key_id))


def invitation_out(invitation: Invitation) -> InvitationOut:
    return InvitationOut.model_validate(invitation)


def login_out(login: Login) -> LoginOut:
    return LoginOut.model_validate(login)


def printable(text: str) -> str:
    """Without what no database takes, and what could never be part of a name."""
    return "".join(char for char in text if char.isprintable())[:300]
