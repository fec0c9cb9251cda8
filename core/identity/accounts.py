"""Users, their logins and their API keys."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Delete, Update, delete, func, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import ACCOUNT_PREFIX, Action, Identity, Scope, may
from core.db.session import Database
from core.db.tables import ApiKeyRow, KbGrantRow, KnowledgeBaseRow, OneTimeTokenRow, SessionRow, UserRow, now
from core.errors import Conflict, LoginNeeded, NotAllowed, NotFound, Unavailable, UserError
from core.identity.passwords import MAX_PASSWORD, Backoff, Passwords, check_password
from core.settings import Settings
from core.texts import tell
from core.types import Person, Role

logger = logging.getLogger(__name__)

KEY_PREFIX = "kv_"
_SETUP = "setup"
_SEEN_EVERY = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class User:
    id: str
    name: str
    role: Role
    disabled: bool
    created_at: datetime
    everywhere: bool = True
    """The role counts in every knowledge base; False: only in those that are public or granted."""

    @property
    def person(self) -> Person:
        return Person(ACCOUNT_PREFIX + self.id, self.name, self.role, everywhere=self.everywhere)


@dataclass(frozen=True, slots=True)
class ApiKey:
    id: str
    user: str
    name: str
    prefix: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    used_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewLogin:
    """A login just made; the token is known to nobody else and is stored nowhere."""

    token: str
    user: User
    expires_at: datetime


class Accounts:
    """Users, their logins and their API keys."""

    def __init__(
        self,
        db: Database,
        settings: Settings,
        *,
        passwords: Passwords | None = None,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._db = db
        self._web = settings.web
        self._passwords = passwords or Passwords()
        self._backoff = Backoff(db, clock)
        self._notes: set[asyncio.Task[None]] = set()
        self._clock = clock

    def may(
        self,
        who: Identity | Person | None,
        action: Action,
        *,
        private: bool,
        granted: bool = False,
        edits: bool = False,
    ) -> bool:
        """`may` under these settings."""
        anonymous = self._web.anonymous
        return may(who, action, private=private, anonymous=anonymous, granted=granted, edits=edits)

    async def rights_of(self, person: Person) -> Mapping[str, str]:
        """The knowledge bases that an account was let into, by name, with its right there: ask or edit."""
        query = (
            select(KnowledgeBaseRow.name, KbGrantRow.right)
            .join(KbGrantRow, KbGrantRow.kb_id == KnowledgeBaseRow.id)
            .where(KbGrantRow.person == person.key)
        )
        async with self._db.read() as session:
            return dict(iter(await session.execute(query)))

    async def settle(self) -> None:
        """Wait until every time of last use is written."""
        if self._notes:
            await asyncio.wait(self._notes)

    async def close(self) -> None:
        await self.settle()
        self._passwords.close()

    # ------------------------------------------------------------ users
    async def create(self, name: str, password: str, role: Role) -> User:
        """Raises UserError where the name or password will not do, Conflict where the name is taken."""
        name = good_name(name)
        password_hash = await self.hashed(name, password)
        row = UserRow(name=name, password_hash=password_hash, role=role.value, disabled=False)
        try:
            async with self._db.session() as session:
                session.add(row)
        except IntegrityError as error:
            raise Conflict(tell("user_exists", name=name)) from error
        return user_of(row)

    async def list(self) -> Sequence[User]:
        async with self._db.read() as session:
            return [user_of(row) for row in await session.scalars(select(UserRow).order_by(UserRow.name))]

    async def get(self, name: str) -> User:
        async with self._db.read() as session:
            return user_of(await by_name(session, name))

    async def any_user(self) -> bool:
        async with self._db.read() as session:
            return await _any_user(session)

    async def set_password(self, name: str, password: str) -> None:
        """The old password and all logins made with it end at once."""
        password_hash = await self.hashed(normal_name(name), password)
        async with self._db.session() as session:
            row = await by_name(session, name)
            row.password_hash = password_hash
            await session.execute(delete(SessionRow).where(SessionRow.user_id == row.id))

    async def set_role(self, name: str, role: Role) -> User:
        async with self._db.session() as session:
            row = await by_name(session, name)
            if role is not Role.OWNER:
                await keep_an_owner(session, row)
            row.role = role.value
            return user_of(row)

    async def disable(self, name: str) -> User:
        """The user's logins end at once, and the API keys count for nothing."""
        async with self._db.session() as session:
            row = await by_name(session, name)
            await keep_an_owner(session, row)
            row.disabled = True
            await session.execute(delete(SessionRow).where(SessionRow.user_id == row.id))
            return user_of(row)

    async def enable(self, name: str) -> User:
        async with self._db.session() as session:
            row = await by_name(session, name)
            row.disabled = False
            return user_of(row)

    # ------------------------------------------------------------ the first administrator
    async def setup_token(self) -> str | None:
        """A new one-time token that creates the first user, ending those before it; None where there are users."""
        token = secrets.token_urlsafe(32)
        async with self._db.session() as session:
            await session.execute(delete(OneTimeTokenRow).where(OneTimeTokenRow.purpose == _SETUP))
            if await _any_user(session):
                return None
            session.add(OneTimeTokenRow(token_hash=digest(token), purpose=_SETUP))
        return token

    async def set_up(self, token: str, name: str, password: str) -> User:
        """Create the owner, once. Raises NotAllowed where the token is not, or no longer, good."""
        await self._check_setup(token)
        name = good_name(name)
        password_hash = await self.hashed(name, password)
        used = (
            update(OneTimeTokenRow)
            .where(
                OneTimeTokenRow.token_hash == digest(token),
                OneTimeTokenRow.purpose == _SETUP,
                OneTimeTokenRow.used_at.is_(None),
            )
            .values(used_at=self._clock())
        )
        async with self._db.session() as session:
            if await touched(session, used) != 1 or await _any_user(session):
                raise NotAllowed(tell("setup_link_used"))
            row = UserRow(name=name, password_hash=password_hash, role=Role.OWNER.value, disabled=False)
            session.add(row)
        return user_of(row)

    async def _check_setup(self, token: str) -> None:
        async with self._db.read() as session:
            row = await session.get(OneTimeTokenRow, digest(token))
            if row is None or row.purpose != _SETUP or row.used_at is not None or await _any_user(session):
                raise NotAllowed(tell("setup_link_used"))

    # ------------------------------------------------------------ logins
    async def login(self, name: str, password: str, *, address: str, user_agent: str = "") -> NewLogin:
        """A new login. Raises LoginNeeded, with the same sentence for wrong, unknown, disabled and too many tries."""
        name = normal_name(name)
        if not await self._backoff.take(name, address):
            await self._passwords.pretend()
            raise LoginNeeded(tell("login_refused"))
        async with self._db.read() as session:
            row = await session.scalar(select(UserRow).where(UserRow.name == name))
        right = await self._passwords.verify(row.password_hash if row else None, password[:MAX_PASSWORD])
        if row is None or not right or row.disabled or len(password) > MAX_PASSWORD:
            raise LoginNeeded(tell("login_refused"))
        await self._backoff.forgive(name, address)
        renewed = await self._passwords.hash(password) if self._passwords.is_outdated(row.password_hash) else None
        return await self._open(row.id, row.password_hash, renewed, user_agent, address)

    async def open_session(self, user: User, *, user_agent: str = "", address: str = "") -> NewLogin:
        """A login for somebody whose identity is proven otherwise."""
        return await self._open(user.id, None, None, user_agent, address)

    async def _open(
        self, user_id: str, proven: str | None, renewed: str | None, user_agent: str, address: str
    ) -> NewLogin:
        """Refuses where the password hash is no longer the `proven` one: it was changed while it was being checked."""
        token = secrets.token_urlsafe(32)
        at = self._clock()
        expires_at = at + timedelta(hours=self._web.session_hours)
        async with self._db.session() as session:
            await session.execute(delete(SessionRow).where(SessionRow.expires_at < at))
            row = await session.get(UserRow, user_id, with_for_update=True)
            if row is None or row.disabled or proven not in (None, row.password_hash):
                raise LoginNeeded(tell("login_refused"))
            row.password_hash = renewed or row.password_hash
            login = SessionRow(
                token_hash=digest(token), user_id=user_id, user_agent=user_agent[:255], address=address[:64]
            )
            login.created_at = login.seen_at = at
            login.expires_at = expires_at
            session.add(login)
            return NewLogin(token, user_of(row), expires_at)

    async def by_session(self, token: str) -> Identity | None:
        """Whose login the token is; None where it is unknown, ended, idle for too long, or the user is disabled."""
        at = self._clock()
        query = (
            select(SessionRow, UserRow)
            .join(UserRow, UserRow.id == SessionRow.user_id)
            .where(
                SessionRow.token_hash == digest(token),
                SessionRow.expires_at > at,
                SessionRow.seen_at > at - timedelta(hours=self._web.session_idle_hours),
                UserRow.disabled.is_(False),
            )
        )
        async with self._db.read() as session:
            pair = (await session.execute(query)).one_or_none()
        if pair is None:
            return None
        login, user = pair
        if at - login.seen_at > _SEEN_EVERY:
            self._note(update(SessionRow).where(SessionRow.token_hash == login.token_hash).values(seen_at=at))
        return Identity(user_of(user).person)

    async def logout(self, token: str) -> None:
        await self._execute(delete(SessionRow).where(SessionRow.token_hash == digest(token)))

    # ------------------------------------------------------------ API keys
    async def create_key(
        self, user: str, name: str, scopes: Iterable[Scope], *, expires_at: datetime | None = None
    ) -> tuple[ApiKey, str]:
        """A key of the user named `user`, and the key itself, which is shown this once and never again."""
        chosen = frozenset(scopes)
        if not chosen:
            raise UserError(tell("key_needs_scope"))
        token = KEY_PREFIX + secrets.token_urlsafe(32)
        async with self._db.session() as session:
            owner = await by_name(session, user)
            row = ApiKeyRow(
                user_id=owner.id,
                name=name.strip()[:100],
                prefix=token[:11],
                token_hash=digest(token),
                scopes=sorted(scope.value for scope in chosen),
                expires_at=expires_at,
            )
            session.add(row)
            await session.flush()
            return _key(row, owner.name), token

    async def list_keys(self, user: str | None = None) -> Sequence[ApiKey]:
        query = select(ApiKeyRow, UserRow.name).join(UserRow, UserRow.id == ApiKeyRow.user_id)
        if user is not None:
            query = query.where(UserRow.name == normal_name(user))
        async with self._db.read() as session:
            found = await session.execute(query.order_by(ApiKeyRow.created_at))
            return [_key(row, name) for row, name in found]

    async def revoke_key(self, id_or_prefix: str) -> None:
        """Raises NotFound where no key in use has this id or prefix."""
        revoked = (
            update(ApiKeyRow)
            .where(
                (ApiKeyRow.id == id_or_prefix) | (ApiKeyRow.prefix == id_or_prefix),
                ApiKeyRow.revoked_at.is_(None),
            )
            .values(revoked_at=self._clock())
        )
        if await self._execute(revoked) == 0:
            raise NotFound(tell("no_key", id=id_or_prefix))

    async def by_key(self, token: str) -> Identity | None:
        """Whose API key it is; None where it is unknown, revoked, expired, or its user is disabled."""
        if not token.startswith(KEY_PREFIX):
            return None
        at = self._clock()
        async with self._db.read() as session:
            found = await session.execute(
                select(ApiKeyRow, UserRow)
                .join(UserRow, UserRow.id == ApiKeyRow.user_id)
                .where(
                    ApiKeyRow.token_hash == digest(token),
                    ApiKeyRow.revoked_at.is_(None),
                    (ApiKeyRow.expires_at.is_(None)) | (ApiKeyRow.expires_at > at),
                    UserRow.disabled.is_(False),
                )
            )
            pair = found.one_or_none()
        if pair is None:
            return None
        key, user = pair
        if key.used_at is None or at - key.used_at > _SEEN_EVERY:
            self._note(update(ApiKeyRow).where(ApiKeyRow.id == key.id).values(used_at=at))
        return Identity(user_of(user).person, frozenset(Scope(scope) for scope in key.scopes))

    # ------------------------------------------------------------ inside
    async def hashed(self, name: str, password: str) -> str:
        check_password(name, password)
        return await self._passwords.hash(password)

    def _note(self, statement: Update) -> None:
        """Write when something was last used, without keeping the reader waiting for the database's writer."""

        async def write() -> None:
            try:
                await self._execute(statement)
            except Unavailable as error:
                logger.warning("a time of last use was not kept: %s", error)

        task = asyncio.create_task(write(), name="last-use")
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _execute(self, statement: Update | Delete) -> int:
        """How many rows it touched."""
        async with self._db.session() as session:
            return await touched(session, statement)


def normal_name(name: str) -> str:
    """The login name as it is kept: NFKC, no spaces around, lower case; nothing in it that cannot be printed."""
    name = "".join(char if char.isprintable() else "\ufffd" for char in name)
    return unicodedata.normalize("NFKC", name).strip().lower()


def good_name(name: str) -> str:
    name = normal_name(name)
    if not 1 <= len(name) <= 100 or not all(char.isalnum() or char in "._-@+" for char in name):
        raise UserError(tell("bad_user_name"))
    return name


async def by_name(session: AsyncSession, name: str) -> UserRow:
    row = await session.scalar(select(UserRow).where(UserRow.name == normal_name(name)).with_for_update())
    if row is None:
        raise NotFound(tell("no_user", name=name))
    return row


async def _any_user(session: AsyncSession) -> bool:
    return await session.scalar(select(UserRow.id).limit(1)) is not None


async def keep_an_owner(session: AsyncSession, row: UserRow) -> None:
    """Raises Conflict where `row` is the only owner left who can log in."""
    if row.role != Role.OWNER.value or row.disabled:
        return
    others = select(func.count()).where(
        UserRow.role == Role.OWNER.value, UserRow.disabled.is_(False), UserRow.id != row.id
    )
    if not await session.scalar(others):
        raise Conflict(tell("last_owner", name=row.name))


async def touched(session: AsyncSession, statement: Update | Delete) -> int:
    return cast("CursorResult[Any]", await session.execute(statement)).rowcount


def digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def user_of(row: UserRow) -> User:
    return User(row.id, row.name, Role(row.role), row.disabled, row.created_at, row.everywhere)


def _key(row: ApiKeyRow, user: str) -> ApiKey:
    return ApiKey(
        id=row.id,
        user=user,
        name=row.name,
        prefix=row.prefix,
        scopes=frozenset(Scope(scope) for scope in row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        used_at=row.used_at,
    )
