"""Looking after accounts: who there is, what they may do where, invitations, and logins."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import ACCOUNT_PREFIX, may_govern
from core.db.session import Database
from core.db.tables import (
    ApiKeyRow,
    KbGrantRow,
    KnowledgeBaseRow,
    OneTimeTokenRow,
    SessionRow,
    UserRow,
    new_id,
    now,
)
from core.errors import Conflict, NotAllowed, NotFound, UserError
from core.identity.accounts import Accounts, User, by_name, digest, good_name, keep_an_owner, touched, user_of
from core.texts import tell
from core.types import Person, Role

INVITATION: Final = "invitation"
_LASTS: Final = timedelta(days=7)
_ID: Final = 16
"""Characters of a token's hash that name a login or an invitation; they are of no use to get in."""
RIGHTS: Final = frozenset({"ask", "edit"})


@dataclass(frozen=True, slots=True)
class Member:
    """An account with what belongs to it."""

    user: User
    rights: Mapping[str, str]
    """Knowledge bases by name that it was let into, with ask or edit."""
    logins: int
    keys: int
    seen_at: datetime | None
    by_provider: bool
    """Logs in through the identity provider."""


@dataclass(frozen=True, slots=True)
class Invitation:
    id: str
    role: Role
    everywhere: bool
    rights: Mapping[str, str]
    note: str
    created_by: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Login:
    """A browser that is logged in."""

    id: str
    user: str
    address: str
    user_agent: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime


class People:
    """What administrators do with accounts. Nobody gives, changes or takes away a role above their own."""

    def __init__(self, db: Database, accounts: Accounts) -> None:
        self._db = db
        self._accounts = accounts

    # ------------------------------------------------------------ accounts
    async def list(
        self, *, text: str = "", role: Role | None = None, limit: int = 50, offset: int = 0
    ) -> tuple[Sequence[Member], int]:
        """A page of accounts by name, and how many there are."""
        query = select(UserRow)
        if text:
            query = query.where(UserRow.name.icontains(text, autoescape=True))
        if role is not None:
            query = query.where(UserRow.role == role.value)
        async with self._db.read() as session:
            total = await session.scalar(select(func.count()).select_from(query.subquery())) or 0
            rows = list(await session.scalars(query.order_by(UserRow.name).limit(limit).offset(offset)))
            return await _members(session, rows), total

    async def get(self, name: str) -> Member:
        """Raises NotFound."""
        async with self._db.read() as session:
            (member,) = await _members(session, [await by_name(session, name)])
            return member

    async def create(
        self,
        by: Person,
        name: str,
        password: str,
        role: Role,
        *,
        everywhere: bool = True,
        rights: Mapping[str, str] | None = None,
    ) -> Member:
        """Raises UserError, Conflict where the name is taken, NotAllowed, NotFound for an unknown knowledge base."""
        _govern(by, role)
        name = good_name(name)
        hashed = await self._accounts.hashed(name, password)
        await self._add(name, hashed, role, everywhere=everywhere, rights=rights or {})
        return await self.get(name)

    async def change(
        self,
        by: Person,
        name: str,
        *,
        role: Role | None = None,
        everywhere: bool | None = None,
        rights: Mapping[str, str] | None = None,
        disabled: bool | None = None,
    ) -> Member:
        """Change what is given. A disabled account's logins end at once, and its API keys count for nothing."""
        async with self._db.session() as session:
            row = await by_name(session, name)
            _govern(by, Role(row.role))
            if role is not None:
                _govern(by, role)
                if role is not Role.OWNER:
                    await keep_an_owner(session, row)
                row.role = role.value
            if everywhere is not None:
                row.everywhere = everywhere
            if rights is not None:
                await _set_rights(session, row, rights)
            if disabled is not None:
                if disabled:
                    await keep_an_owner(session, row)
                    await session.execute(delete(SessionRow).where(SessionRow.user_id == row.id))
                row.disabled = disabled
        return await self.get(name)

    async def set_password(self, by: Person, name: str, password: str) -> None:
        """The old password and all logins made with it end at once."""
        member = await self.get(name)
        _govern(by, member.user.role)
        await self._accounts.set_password(name, password)

    async def delete(self, by: Person, name: str) -> None:
        """Delete an account with its logins, keys and rights; what it asked stays until its data are erased."""
        async with self._db.session() as session:
            row = await by_name(session, name)
            _govern(by, Role(row.role))
            if by.key == ACCOUNT_PREFIX + row.id:
                raise Conflict(tell("people_not_yourself"))
            await keep_an_owner(session, row)
            await session.execute(delete(KbGrantRow).where(KbGrantRow.person == ACCOUNT_PREFIX + row.id))
            await session.execute(delete(SessionRow).where(SessionRow.user_id == row.id))
            await session.execute(delete(ApiKeyRow).where(ApiKeyRow.user_id == row.id))
            await session.delete(row)

    async def _add(
        self,
        name: str,
        password_hash: str,
        role: Role,
        *,
        everywhere: bool,
        rights: Mapping[str, str],
        invitation: str = "",
    ) -> User:
        row = UserRow(
            id=new_id(), name=name, password_hash=password_hash, role=role.value, disabled=False, everywhere=everywhere
        )
        try:
            async with self._db.session() as session:
                if invitation and await touched(session, _used(invitation)) != 1:
                    raise NotAllowed(tell("invitation_over"))
                session.add(row)
                await session.flush()
                await _set_rights(session, row, rights)
        except IntegrityError as error:
            raise Conflict(tell("user_exists", name=name)) from error
        return user_of(row)

    # ------------------------------------------------------------ invitations
    async def invite(
        self,
        by: Person,
        role: Role,
        *,
        everywhere: bool = True,
        rights: Mapping[str, str] | None = None,
        note: str = "",
    ) -> tuple[Invitation, str]:
        """An invitation, and the token of its link, which is shown this once; it ends after seven days."""
        _govern(by, role)
        token = secrets.token_urlsafe(32)
        async with self._db.session() as session:
            await _kb_ids(session, rights or {})
            row = OneTimeTokenRow(
                token_hash=digest(token),
                purpose=INVITATION,
                payload={
                    "role": role.value,
                    "everywhere": everywhere,
                    "rights": dict(rights or {}),
                    "note": note.strip()[:200],
                    "by": by.name,
                },
                created_at=now(),
                expires_at=now() + _LASTS,
            )
            session.add(row)
        return _invitation(row), token

    async def invitations(self) -> Sequence[Invitation]:
        """Those that are still open, the newest first."""
        async with self._db.read() as session:
            rows = await session.scalars(select(OneTimeTokenRow).where(*_open()).order_by(OneTimeTokenRow.created_at))
            return [_invitation(row) for row in rows][::-1]

    async def withdraw(self, by: Person, invitation_id: str) -> None:
        """Raises NotFound where it is not open any more."""
        async with self._db.session() as session:
            row = await session.scalar(
                select(OneTimeTokenRow).where(
                    *_open(), OneTimeTokenRow.token_hash.startswith(invitation_id[:_ID], autoescape=True)
                )
            )
            if row is None or len(invitation_id) != _ID:
                raise NotFound(tell("no_invitation"))
            _govern(by, Role(row.payload["role"]))
            await session.delete(row)

    async def accept(self, token: str, name: str, password: str) -> User:
        """Create the account that somebody was invited to, once. Raises NotAllowed where the link is not good."""
        async with self._db.read() as session:
            row = await session.scalar(
                select(OneTimeTokenRow).where(*_open(), OneTimeTokenRow.token_hash == digest(token))
            )
        if row is None:
            raise NotAllowed(tell("invitation_over"))
        name = good_name(name)
        hashed = await self._accounts.hashed(name, password)
        payload = row.payload
        return await self._add(
            name,
            hashed,
            Role(payload["role"]),
            everywhere=payload["everywhere"],
            rights=payload["rights"],
            invitation=row.token_hash,
        )

    # ------------------------------------------------------------ logins
    async def logins(
        self, *, user_id: str | None = None, limit: int = 50, offset: int = 0
    ) -> tuple[Sequence[Login], int]:
        """Browsers that are logged in, the last used first; `user_id`: those of one account."""
        query = select(SessionRow, UserRow.name).join(UserRow, UserRow.id == SessionRow.user_id)
        query = query.where(SessionRow.expires_at > now())
        if user_id is not None:
            query = query.where(SessionRow.user_id == user_id)
        async with self._db.read() as session:
            counted = query.with_only_columns(SessionRow.token_hash).subquery()
            total = await session.scalar(select(func.count()).select_from(counted)) or 0
            found = await session.execute(query.order_by(SessionRow.seen_at.desc()).limit(limit).offset(offset))
            return [_login(row, name) for row, name in found], total

    async def end_login(self, by: Person, login_id: str, *, own: bool = False) -> None:
        """Log a browser out: one's own, or, without `own`, that of somebody one may look after. Raises NotFound."""
        async with self._db.session() as session:
            query = select(SessionRow, UserRow).join(UserRow, UserRow.id == SessionRow.user_id)
            prefix = SessionRow.token_hash.startswith(login_id[:_ID], autoescape=True)
            pair = (await session.execute(query.where(prefix))).one_or_none() if len(login_id) == _ID else None
            if pair is None:
                raise NotFound(tell("no_login"))
            login, user = pair
            if by.key != ACCOUNT_PREFIX + user.id and (own or not may_govern(by, Role(user.role))):
                raise NotFound(tell("no_login"))
            await session.delete(login)

    async def end_other_logins(self, person: Person, token: str) -> None:
        """Log an account out everywhere but where `token` is used."""
        others = (
            SessionRow.user_id == person.key.removeprefix(ACCOUNT_PREFIX),
            SessionRow.token_hash != digest(token),
        )
        async with self._db.session() as session:
            await session.execute(delete(SessionRow).where(*others))


def _govern(by: Person, role: Role) -> None:
    if not may_govern(by, role):
        raise NotAllowed(tell("role_above_yours"))


async def _kb_ids(session: AsyncSession, rights: Mapping[str, str]) -> Mapping[str, str]:
    """Name → id of the knowledge bases. Raises NotFound, and UserError for a right that there is not."""
    if not set(rights.values()) <= RIGHTS:
        raise UserError(tell("bad_right"))
    found = await session.execute(
        select(KnowledgeBaseRow.name, KnowledgeBaseRow.id).where(KnowledgeBaseRow.name.in_(rights))
    )
    ids: dict[str, str] = dict(iter(found))
    for name in rights:
        if name not in ids:
            raise NotFound(tell("no_such_kb", name=name))
    return ids


async def _set_rights(session: AsyncSession, row: UserRow, rights: Mapping[str, str]) -> None:
    ids = await _kb_ids(session, rights)
    person = ACCOUNT_PREFIX + row.id
    await session.execute(delete(KbGrantRow).where(KbGrantRow.person == person))
    session.add_all(KbGrantRow(kb_id=ids[name], person=person, right=right) for name, right in rights.items())


async def _members(session: AsyncSession, rows: Sequence[UserRow]) -> Sequence[Member]:
    ids = [row.id for row in rows]
    at = now()
    logins = (
        select(SessionRow.user_id, func.count(), func.max(SessionRow.seen_at))
        .where(SessionRow.user_id.in_(ids), SessionRow.expires_at > at)
        .group_by(SessionRow.user_id)
    )
    keys = (
        select(ApiKeyRow.user_id, func.count())
        .where(
            ApiKeyRow.user_id.in_(ids),
            ApiKeyRow.revoked_at.is_(None),
            (ApiKeyRow.expires_at.is_(None)) | (ApiKeyRow.expires_at > at),
        )
        .group_by(ApiKeyRow.user_id)
    )
    grants = (
        select(KbGrantRow.person, KnowledgeBaseRow.name, KbGrantRow.right)
        .join(KnowledgeBaseRow, KnowledgeBaseRow.id == KbGrantRow.kb_id)
        .where(KbGrantRow.person.in_([ACCOUNT_PREFIX + item for item in ids]))
        .order_by(KnowledgeBaseRow.name)
    )
    seen = {user: (count, last) for user, count, last in await session.execute(logins)}
    counted: dict[str, int] = dict(iter(await session.execute(keys)))
    rights: dict[str, dict[str, str]] = {}
    for person, name, right in await session.execute(grants):
        rights.setdefault(person, {})[name] = right
    return [
        Member(
            user=user_of(row),
            rights=rights.get(ACCOUNT_PREFIX + row.id, {}),
            logins=seen.get(row.id, (0, None))[0],
            keys=counted.get(row.id, 0),
            seen_at=seen.get(row.id, (0, None))[1],
            by_provider=row.subject is not None,
        )
        for row in rows
    ]


def _open() -> Sequence[Any]:
    return (
        OneTimeTokenRow.purpose == INVITATION,
        OneTimeTokenRow.used_at.is_(None),
        OneTimeTokenRow.expires_at > now(),
    )


def _used(token_hash: str) -> Any:
    return update(OneTimeTokenRow).where(*_open(), OneTimeTokenRow.token_hash == token_hash).values(used_at=now())


def _invitation(row: OneTimeTokenRow) -> Invitation:
    payload = row.payload
    assert row.expires_at is not None  # noqa: S101  every invitation ends
    return Invitation(
        id=row.token_hash[:_ID],
        role=Role(payload["role"]),
        everywhere=payload["everywhere"],
        rights=payload["rights"],
        note=payload["note"],
        created_by=payload["by"],
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def _login(row: SessionRow, name: str) -> Login:
    return Login(row.token_hash[:_ID], name, row.address, row.user_agent, row.created_at, row.seen_at, row.expires_at)
