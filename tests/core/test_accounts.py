"""Users, logins, API keys and the access decision, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select

from core.access import OPERATOR, Action, Identity, Scope, may
from core.db.session import Database
from core.db.tables import ApiKeyRow, LoginFailureRow, OneTimeTokenRow, SessionRow, UserRow
from core.errors import Conflict, LoginNeeded, NotAllowed, NotFound, UserError
from core.identity.accounts import Accounts
from core.identity.passwords import Passwords
from core.settings import Settings, load
from core.types import Person, Role

pytestmark = pytest.mark.anyio

PASSWORD = "correct horse battery"
HERE = "192.0.2.7"


class Clock:
    def __init__(self) -> None:
        self.at = datetime(2026, 11, 21, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def pass_by(self, **span: float) -> None:
        self.at += timedelta(**span)


class CountingHasher(PasswordHasher):
    """A cheap one, so that tests are quick; counts its verifications."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=64, parallelism=1)
        self.verified = 0

    def verify(self, hash: str | bytes, password: str | bytes) -> bool:  # type: ignore[override]
        self.verified += 1
        return super().verify(hash, password)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hasher() -> CountingHasher:
    return CountingHasher()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(data_dir=tmp_path)


@pytest.fixture
async def accounts(db: Database, settings: Settings, clock: Clock, hasher: CountingHasher) -> AsyncIterator[Accounts]:
    made = Accounts(db, settings, passwords=Passwords(hasher), clock=clock)
    yield made
    await made.close()


# ---------------------------------------------------------------- users and passwords
async def test_weak_passwords_and_strange_names_are_refused(accounts: Accounts) -> None:
    for password in ("short", "aaaaaaaaaaaa", "anna123456789", "annaannaanna", "ANNA-1984-1985", "x" * 257):
        with pytest.raises(UserError):
            await accounts.create("anna", password, Role.VIEWER)
    for name in ("", " ", "a b", "x" * 101, "a\x00b", "a/b", "<script>", "a\nb", "a\u202eb", "\ud800"):
        with pytest.raises(UserError):
            await accounts.create(name, PASSWORD, Role.VIEWER)
    assert not await accounts.any_user()


async def test_names_differ_by_more_than_case_and_width(accounts: Accounts) -> None:
    await accounts.create("Anna", PASSWORD, Role.VIEWER)
    with pytest.raises(Conflict):
        await accounts.create("ＡＮＮＡ", PASSWORD, Role.VIEWER)
    await accounts.create("王芳", PASSWORD, Role.VIEWER)
    assert [user.name for user in await accounts.list()] == ["anna", "王芳"]


async def test_passwords_and_tokens_are_stored_as_hashes_only(accounts: Accounts, db: Database) -> None:
    setup = await accounts.setup_token()
    assert setup
    await accounts.set_up(setup, "anna", PASSWORD)
    login = await accounts.login("anna", PASSWORD, address=HERE)
    _, key = await accounts.create_key("anna", "mine", [Scope.ASK])
    async with db.read() as session:
        rows = [
            *await session.scalars(select(UserRow)),
            *await session.scalars(select(SessionRow)),
            *await session.scalars(select(OneTimeTokenRow)),
            *await session.scalars(select(ApiKeyRow)),
        ]
    stored = repr([{k: v for k, v in vars(row).items() if not k.startswith("_")} for row in rows])
    for secret in (PASSWORD, setup, login.token, key):
        assert secret not in stored
    assert "$argon2id$" in stored


# ---------------------------------------------------------------- the first administrator
async def test_the_set_up_link_works_once(accounts: Accounts) -> None:
    token = await accounts.setup_token()
    assert token
    with pytest.raises(UserError):
        await accounts.set_up(token, "anna", "short")
    user = await accounts.set_up(token, "anna", PASSWORD)
    assert user.role is Role.OWNER
    with pytest.raises(NotAllowed):
        await accounts.set_up(token, "eve", PASSWORD)
    assert await accounts.setup_token() is None


async def test_each_start_makes_a_new_set_up_link_and_ends_the_old(accounts: Accounts) -> None:
    first, second = await accounts.setup_token(), await accounts.setup_token()
    assert first
    assert second
    with pytest.raises(NotAllowed):
        await accounts.set_up(first, "anna", PASSWORD)
    await accounts.set_up(second, "anna", PASSWORD)


async def test_a_link_is_dead_once_there_is_a_user_of_another_making(accounts: Accounts) -> None:
    token = await accounts.setup_token()
    assert token
    await accounts.create("root", PASSWORD, Role.OWNER)
    with pytest.raises(NotAllowed):
        await accounts.set_up(token, "eve", PASSWORD)


async def test_of_many_racing_with_one_link_one_becomes_owner(accounts: Accounts) -> None:
    token = await accounts.setup_token()
    assert token
    tries = [accounts.set_up(token, f"anna{n}", PASSWORD) for n in range(8)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert len(await accounts.list()) == 1


# ---------------------------------------------------------------- logins
async def test_a_login_lasts_until_it_ends(accounts: Accounts, clock: Clock, settings: Settings) -> None:
    await accounts.create("anna", PASSWORD, Role.EDITOR)
    login = await accounts.login(" ANNA ", PASSWORD, address=HERE)
    found = await accounts.by_session(login.token)
    assert found == Identity(login.user.person)
    await accounts.logout(login.token)
    assert await accounts.by_session(login.token) is None

    idle = await accounts.login("anna", PASSWORD, address=HERE)
    clock.pass_by(hours=settings.web.session_idle_hours, seconds=1)
    assert await accounts.by_session(idle.token) is None

    used = await accounts.login("anna", PASSWORD, address=HERE)
    for _ in range(settings.web.session_hours // 24):
        assert await accounts.by_session(used.token) is not None
        await accounts.settle()
        clock.pass_by(hours=24)
    assert await accounts.by_session(used.token) is None


async def test_every_login_has_a_token_of_its_own(accounts: Accounts) -> None:
    await accounts.create("anna", PASSWORD, Role.VIEWER)
    tokens = {(await accounts.login("anna", PASSWORD, address=HERE)).token for _ in range(5)}
    assert len(tokens) == 5
    assert all(len(token) == 43 for token in tokens)  # 256 bits


async def test_all_that_a_user_holds_dies_at_once(accounts: Accounts) -> None:
    await accounts.create("root", PASSWORD, Role.OWNER)
    await accounts.create("anna", PASSWORD, Role.ADMIN)
    login = await accounts.login("anna", PASSWORD, address=HERE)
    _, key = await accounts.create_key("anna", "mine", [Scope.ADMIN])
    assert await accounts.by_session(login.token)
    assert await accounts.by_key(key)
    await accounts.disable("anna")
    assert await accounts.by_session(login.token) is None
    assert await accounts.by_key(key) is None
    with pytest.raises(LoginNeeded):
        await accounts.login("anna", PASSWORD, address=HERE)
    await accounts.enable("anna")
    assert await accounts.by_session(login.token) is None


async def test_a_new_password_ends_the_logins_made_with_the_old_one(accounts: Accounts) -> None:
    await accounts.create("anna", PASSWORD, Role.OWNER)
    login = await accounts.login("anna", PASSWORD, address=HERE)
    await accounts.set_password("anna", "another long one")
    assert await accounts.by_session(login.token) is None
    with pytest.raises(LoginNeeded):
        await accounts.login("anna", PASSWORD, address=HERE)
    await accounts.login("anna", "another long one", address=HERE)


async def test_the_last_owner_stays(accounts: Accounts) -> None:
    await accounts.create("root", PASSWORD, Role.OWNER)
    for attempt in (accounts.disable("root"), accounts.set_role("root", Role.VIEWER)):
        with pytest.raises(Conflict):
            await attempt
    await accounts.create("anna", PASSWORD, Role.OWNER)
    await accounts.disable("root")
    with pytest.raises(NotFound):
        await accounts.disable("nobody")


# ---------------------------------------------------------------- guessing
async def _refused(accounts: Accounts, name: str, password: str, address: str = HERE) -> str:
    with pytest.raises(LoginNeeded) as refused:
        await accounts.login(name, password, address=address)
    return str(refused.value)


async def test_no_answer_tells_why_a_login_was_refused(accounts: Accounts, clock: Clock) -> None:
    await accounts.create("anna", PASSWORD, Role.OWNER)
    await accounts.create("bert", PASSWORD, Role.VIEWER)
    await accounts.disable("bert")
    answers = {
        await _refused(accounts, "anna", "wrong password"),
        await _refused(accounts, "nobody", "wrong password"),
        await _refused(accounts, "bert", PASSWORD),
        await _refused(accounts, "", ""),
        await _refused(accounts, "\x00\ud800", "\ud800"),
        await _refused(accounts, "anna", PASSWORD + "x" * 10_000),
    }
    for _ in range(10):
        answers.add(await _refused(accounts, "anna", "wrong password"))
    answers.add(await _refused(accounts, "anna", PASSWORD))  # right, but too early
    assert len(answers) == 1
    clock.pass_by(minutes=2)
    await accounts.login("anna", PASSWORD, address=HERE)


async def test_an_unknown_name_costs_the_same_work(accounts: Accounts, hasher: CountingHasher) -> None:
    await accounts.create("anna", PASSWORD, Role.OWNER)
    await _refused(accounts, "anna", "wrong password")
    known = hasher.verified
    await _refused(accounts, "nobody", "wrong password")
    assert hasher.verified - known == known == 1


async def test_guessing_one_account_slows_down_from_any_address(accounts: Accounts, hasher: CountingHasher) -> None:
    await accounts.create("anna", PASSWORD, Role.OWNER)
    for n in range(12):
        await _refused(accounts, "anna", f"guess {n}", address=f"192.0.{n}.1")
    assert hasher.verified <= 6


async def test_spraying_many_accounts_slows_down_by_address(accounts: Accounts, hasher: CountingHasher) -> None:
    for n in range(30):
        await _refused(accounts, f"name{n}", "guess", address=f"2001:db8::{n:x}")  # one customer's network
    assert hasher.verified <= 22


async def test_parallel_guesses_do_not_slip_past_the_wait(accounts: Accounts, hasher: CountingHasher) -> None:
    await asyncio.gather(*[_refused(accounts, "anna", f"guess {n}") for n in range(15)])
    assert hasher.verified <= 6


async def test_an_owner_is_locked_out_for_a_minute_at_most(accounts: Accounts, clock: Clock) -> None:
    await accounts.create("anna", PASSWORD, Role.OWNER)
    for n in range(40):
        clock.pass_by(seconds=10)
        await _refused(accounts, "anna", f"guess {n}", address=f"198.51.{n}.1")
    clock.pass_by(seconds=61)
    await accounts.login("anna", PASSWORD, address=HERE)


async def test_a_right_password_clears_the_count(accounts: Accounts, db: Database) -> None:
    await accounts.create("anna", PASSWORD, Role.OWNER)
    for _ in range(6):
        await accounts.login("anna", PASSWORD, address=HERE)
    async with db.read() as session:
        left = {row.key: row.count for row in await session.scalars(select(LoginFailureRow))}
    assert left == {f"address:{HERE}": 0}


async def test_what_is_typed_as_a_name_is_not_kept(accounts: Accounts, db: Database) -> None:
    await _refused(accounts, "MyOwnPassword", "x")
    async with db.read() as session:
        keys = [row.key for row in await session.scalars(select(LoginFailureRow))]
    assert not any("myownpassword" in key.lower() for key in keys)


# ---------------------------------------------------------------- API keys
async def test_an_api_key_from_birth_to_death(accounts: Accounts, clock: Clock) -> None:
    await accounts.create("anna", PASSWORD, Role.ADMIN)
    made, token = await accounts.create_key("anna", "script", [Scope.ASK, Scope.READ])
    assert token.startswith("kv_")
    assert len(token) == 46
    assert made.prefix == token[:11]
    found = await accounts.by_key(token)
    assert found is not None
    assert found.scopes == frozenset({Scope.ASK, Scope.READ})
    await accounts.settle()
    assert [key.used_at for key in await accounts.list_keys("anna")] == [clock.at]
    await accounts.revoke_key(made.id)
    assert await accounts.by_key(token) is None
    with pytest.raises(NotFound):
        await accounts.revoke_key(made.id)


async def test_an_api_key_expires(accounts: Accounts, clock: Clock) -> None:
    await accounts.create("anna", PASSWORD, Role.ADMIN)
    _, token = await accounts.create_key("anna", "script", [Scope.ASK], expires_at=clock.at + timedelta(days=1))
    assert await accounts.by_key(token)
    clock.pass_by(days=1)
    assert await accounts.by_key(token) is None
    clock.pass_by(days=1)
    assert await accounts.by_key(token) is None


async def test_a_key_needs_a_user_and_a_scope(accounts: Accounts) -> None:
    await accounts.create("anna", PASSWORD, Role.ADMIN)
    with pytest.raises(UserError):
        await accounts.create_key("anna", "script", [])
    with pytest.raises(NotFound):
        await accounts.create_key("nobody", "script", [Scope.ASK])
    for token in ("", "kv_", "kv_x\x00", "nonsense", "kv_\ud800"):
        assert await accounts.by_key(token) is None


# ---------------------------------------------------------------- access
LEAST = {
    Action.ASK: Role.VIEWER,
    Action.READ: Role.VIEWER,
    Action.WRITE: Role.EDITOR,
    Action.MANAGE: Role.ADMIN,
    Action.REVIEW: Role.REVIEWER,
    Action.CURATE: Role.REVIEWER,
    Action.PEOPLE: Role.ADMIN,
}


def test_roles_rise_from_viewer_to_owner() -> None:
    order = list(reversed(Role))
    for action, role, private, anonymous in product(Action, Role, (False, True), (False, True)):
        allowed = may(Person("user:1", "x", role), action, private=private, anonymous=anonymous)
        assert allowed == (order.index(role) >= order.index(LEAST[action])), (action, role)


def test_guests_ask_and_read_what_is_not_private_where_the_settings_let_them() -> None:
    guests = (None, Person("web:1", "", Role.OWNER), Person("slack:T:U", "Eve", Role.OWNER), Person("terminal:x", "x"))
    for guest, action, private, anonymous in product(guests, Action, (False, True), (False, True)):
        allowed = may(guest, action, private=private, anonymous=anonymous)
        assert allowed == (anonymous and not private and action in (Action.ASK, Action.READ))


def test_members_of_a_chat_platform_ask_what_is_not_private_and_read_no_documents() -> None:
    member = Person("slack:T:U", "Ann", Role.OWNER, member=True)
    for action, private in product(Action, (False, True)):
        assert may(member, action, private=private, anonymous=False) == (action is Action.ASK and not private), action
        allowed = may(member, action, private=private, anonymous=True)
        assert allowed == (not private and action in (Action.ASK, Action.READ)), action


@pytest.mark.parametrize("person", [Person("slack:T:U", "Ann"), Person("slack:T:U", "Ann", member=True), None])
def test_whoever_was_let_in_to_what_is_private_may_ask_it_and_nothing_else(person: Person | None) -> None:
    for action, anonymous in product(Action, (False, True)):
        assert may(person, action, private=True, anonymous=anonymous, granted=True) == (action is Action.ASK)
    for action in Action:
        allowed = may(person, action, private=False, anonymous=False, granted=True)
        assert allowed == may(person, action, private=False, anonymous=False), action


def test_a_grant_gives_an_account_and_its_keys_nothing_more() -> None:
    viewer = Person("user:2", "y", Role.VIEWER)
    assert not may(viewer, Action.WRITE, private=True, anonymous=True, granted=True)
    assert not may(Identity(viewer, frozenset({Scope.READ})), Action.ASK, private=True, anonymous=True, granted=True)


def test_a_key_does_no_more_than_its_scopes_and_its_user() -> None:
    owner = Person("user:1", "x", Role.OWNER)
    assert may(Identity(owner, frozenset({Scope.ASK})), Action.ASK, private=True, anonymous=False)
    assert not may(Identity(owner, frozenset({Scope.ASK})), Action.READ, private=False, anonymous=True)
    assert may(Identity(owner, frozenset({Scope.ADMIN})), Action.WRITE, private=True, anonymous=False)
    viewer = Person("user:2", "y", Role.VIEWER)
    assert not may(Identity(viewer, frozenset({Scope.ADMIN})), Action.WRITE, private=False, anonymous=True)


def test_whoever_sits_at_the_machine_may_do_all() -> None:
    assert all(may(OPERATOR, action, private=True, anonymous=False) for action in Action)


def test_a_role_that_does_not_count_everywhere_counts_where_it_was_let_in() -> None:
    editor = Person("user:3", "z", Role.EDITOR, everywhere=False)

    def allowed(action: Action, *, private: bool, right: str = "") -> bool:
        granted, edits = bool(right), right == "edit"
        return may(editor, action, private=private, anonymous=False, granted=granted, edits=edits)

    for action in (Action.ASK, Action.READ, Action.REVIEW):
        assert allowed(action, private=False), action
        assert not allowed(action, private=True), action
        assert allowed(action, private=True, right="ask"), action
        assert allowed(action, private=True, right="edit"), action
    for private in (False, True):
        assert not allowed(Action.WRITE, private=private)
        assert not allowed(Action.WRITE, private=private, right="ask")
        assert allowed(Action.WRITE, private=private, right="edit")
        assert not allowed(Action.MANAGE, private=private, right="edit")
        viewer = Person("user:4", "v", Role.VIEWER, everywhere=False)
        assert not may(viewer, Action.WRITE, private=private, anonymous=True, granted=True, edits=True)
    admin = Person("user:5", "a", Role.ADMIN, everywhere=False)
    assert may(admin, Action.WRITE, private=True, anonymous=False)
