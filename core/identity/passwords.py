"""Passwords: what is a good one, how it is kept, and how long one waits between wrong ones."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import secrets
import time
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from core.db.session import Database
from core.db.tables import LoginFailureRow
from core.errors import UserError
from core.texts import tell

MIN_PASSWORD = 10
MAX_PASSWORD = 256
_FORGET_AFTER = timedelta(hours=24)


def check_password(name: str, password: str) -> None:
    """Raises UserError with the rule that the password breaks."""
    if len(password) < MIN_PASSWORD:
        raise UserError(tell("password_short", least=MIN_PASSWORD))
    if len(password) > MAX_PASSWORD:
        raise UserError(tell("password_long", most=MAX_PASSWORD))
    folded = password.casefold()
    if len(set(folded)) < 4 or folded.replace(name.casefold(), "").strip("0123456789 !.-_") == "":
        raise UserError(tell("password_simple"))


class Passwords:
    """Argon2id hashes, computed by one thread of their own: a flood of logins leaves the other cores free."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher(time_cost=3, memory_cost=32 << 10, parallelism=1)
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kvasir-passwords")
        self._decoy: str | None = None
        self._seconds = 0.05

    async def hash(self, password: str) -> str:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._hasher.hash, _bytes(password))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Takes the same time whether there is a stored hash or not."""
        started = time.perf_counter()
        right = await asyncio.get_running_loop().run_in_executor(self._threads, self._verify, stored, _bytes(password))
        self._seconds = 0.8 * self._seconds + 0.2 * (time.perf_counter() - started)
        return right

    async def pretend(self) -> None:
        """Wait about as long as a verification takes."""
        await asyncio.sleep(min(self._seconds, 2.0))

    def is_outdated(self, stored: str) -> bool:
        return self._hasher.check_needs_rehash(stored)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _verify(self, stored: str | None, password: bytes) -> bool:
        if self._decoy is None:
            self._decoy = self._hasher.hash(secrets.token_bytes(16))
        try:
            return self._hasher.verify(stored or self._decoy, password) and stored is not None
        except (VerificationError, InvalidHashError):
            return False


@dataclass(frozen=True, slots=True)
class Wait:
    """How the wait grows: none for the first `free` wrong passwords, then 1 s, 2 s, 4 s … up to `most`."""

    free: int
    most: timedelta

    def after(self, failures: int) -> timedelta:
        if failures < self.free:
            return timedelta()
        return min(self.most, timedelta(seconds=2 ** min(failures - self.free, 20)))


# An account's wait stays short, so that a stranger cannot lock its owner out; an address's grows long.
ACCOUNT_WAIT = Wait(free=5, most=timedelta(minutes=1))
ADDRESS_WAIT = Wait(free=20, most=timedelta(minutes=15))


class Backoff:
    """Counts wrong passwords by account and by address, in the database, so that every process counts the same."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock

    async def take(self, name: str, address: str) -> bool:
        """Whether a try is allowed now. It is counted before its outcome is known: parallel tries slip past nothing."""
        waits = {_account(name): ACCOUNT_WAIT, _network(address): ADDRESS_WAIT}
        for _ in range(3):
            try:
                return await self._take(waits)
            except IntegrityError:
                continue  # another process counted the first failure of this key at the same moment
        return False

    async def forgive(self, name: str, address: str) -> None:
        """A right password clears the account, and gives back the one try it cost the address."""
        async with self._db.session() as session:
            await session.execute(delete(LoginFailureRow).where(LoginFailureRow.key == _account(name)))
            await session.execute(
                update(LoginFailureRow)
                .where(LoginFailureRow.key == _network(address), LoginFailureRow.count > 0)
                .values(count=LoginFailureRow.count - 1)
            )

    async def _take(self, waits: dict[str, Wait]) -> bool:
        at = self._clock()
        async with self._db.session() as session:
            await session.execute(delete(LoginFailureRow).where(LoginFailureRow.last_at < at - _FORGET_AFTER))
            found = await session.scalars(
                select(LoginFailureRow)
                .where(LoginFailureRow.key.in_(waits))
                .order_by(LoginFailureRow.key)
                .with_for_update()
            )
            rows = {row.key: row for row in found}
            if any(at < row.last_at + waits[key].after(row.count) for key, row in rows.items()):
                return False
            for key in waits:
                row = rows.get(key) or LoginFailureRow(key=key, count=0)
                row.count += 1
                row.last_at = at
                session.add(row)
            return True


def _account(name: str) -> str:
    # Hashed: people type their password into the name field.
    return "account:" + hashlib.sha256(_bytes(name)).hexdigest()[:40]


def _network(address: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 one, which belongs to one customer."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "address:unknown"
    if parsed.version == 6 and parsed.ipv4_mapped is None:
        return f"address:{ipaddress.ip_network((parsed, 64), strict=False)}"
    return f"address:{getattr(parsed, 'ipv4_mapped', None) or parsed}"


def _bytes(text: str) -> bytes:
    return unicodedata.normalize("NFC", text).encode("utf-8", "replace")
