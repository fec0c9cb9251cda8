"""Looking after accounts: nobody reaches above their own role, an owner always stays, and links work once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from argon2 import PasswordHasher
from sqlalchemy import update

from core.access import OPERATOR, Scope
from core.db.session import Database
from core.db.tables import KnowledgeBaseRow, OneTimeTokenRow, now
from core.errors import Conflict, LoginNeeded, NotAllowed, NotFound, UserError
from core.identity.accounts import Accounts
from core.identity.passwords import Passwords
from core.identity.people import People
from core.settings import load
from core.types import Person, Role

pytestmark = pytest.mark.anyio


def accounts_of(db: Database) -> Accounts:
    """With hashes that cost nothing."""
    return Accounts(db, load(), passwords=Passwords(PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)))


PASSWORD = "correct horse battery"


@pytest.fixture
async def accounts(db: Database) -> Accounts:
    return accounts_of(db)


@pytest.fixture
async def people(db: Database, accounts: Accounts) -> People:
    async with db.session() as session:
        session.add_all(KnowledgeBaseRow(name=name, chunk_size=100, chunk_overlap=10) for name in ("hr", "it"))
    return People(db, accounts)


async def _somebody(accounts: Accounts, name: str, role: Role) -> Person:
    return (await accounts.create(name, PASSWORD, role)).person


async def test_an_editor_of_given_bases(people: People, accounts: Accounts) -> None:
    ann = await people.create(OPERATOR, "Ann", PASSWORD, Role.EDITOR, everywhere=False, rights={"hr": "edit"})
    assert (ann.user.name, ann.user.everywhere, ann.rights) == ("ann", False, {"hr": "edit"})
    assert await accounts.rights_of(ann.user.person) == {"hr": "edit"}
    changed = await people.change(OPERATOR, "ann", rights={"it": "ask"})
    assert changed.rights == {"it": "ask"}
    with pytest.raises(NotFound, match="nowhere"):
        await people.change(OPERATOR, "ann", rights={"nowhere": "edit"})
    with pytest.raises(UserError):
        await people.change(OPERATOR, "ann", rights={"it": "own"})
    assert (await people.get("ann")).rights == {"it": "ask"}, "what was refused changed nothing"


async def test_nobody_reaches_above_their_own_role(people: People, accounts: Accounts) -> None:
    owner = await _somebody(accounts, "olga", Role.OWNER)
    admin = await _somebody(accounts, "adam", Role.ADMIN)
    editor = await _somebody(accounts, "eve", Role.EDITOR)
    with pytest.raises(NotAllowed):
        await people.create(admin, "mine", PASSWORD, Role.OWNER)
    with pytest.raises(NotAllowed):
        await people.change(admin, "eve", role=Role.OWNER)
    with pytest.raises(NotAllowed):
        await people.change(admin, "adam", role=Role.OWNER)
    for act in (
        people.change(admin, "olga", disabled=True),
        people.change(admin, "olga", role=Role.VIEWER),
        people.set_password(admin, "olga", PASSWORD + "2"),
        people.delete(admin, "olga"),
        people.invite(admin, Role.OWNER),
        people.create(editor, "pal", PASSWORD, Role.VIEWER),
        people.invite(editor, Role.VIEWER),
    ):
        with pytest.raises(NotAllowed):
            await act
    assert (await people.change(owner, "adam", role=Role.OWNER)).user.role is Role.OWNER


async def test_an_owner_stays_and_nobody_deletes_themselves(people: People, accounts: Accounts) -> None:
    owner = await _somebody(accounts, "olga", Role.OWNER)
    with pytest.raises(Conflict):
        await people.delete(owner, "olga")
    with pytest.raises(Conflict):
        await people.delete(OPERATOR, "olga")
    with pytest.raises(Conflict):
        await people.change(owner, "olga", disabled=True)


async def test_with_an_account_go_its_logins_keys_and_rights(people: People, accounts: Accounts) -> None:
    await people.create(OPERATOR, "ann", PASSWORD, Role.EDITOR, everywhere=False, rights={"hr": "edit"})
    login = await accounts.login("ann", PASSWORD, address="10.0.0.1", user_agent="Firefox")
    await accounts.create_key("ann", "ci", [Scope.ASK])
    member = await people.get("ann")
    assert (member.logins, member.keys) == (1, 1)
    await people.delete(OPERATOR, "ann")
    assert await accounts.by_session(login.token) is None
    assert await accounts.list_keys() == []
    again = await people.create(OPERATOR, "ann", PASSWORD, Role.VIEWER)
    assert again.rights == {}


async def test_an_invitation_works_once(people: People, accounts: Accounts) -> None:
    invitation, token = await people.invite(
        OPERATOR, Role.EDITOR, everywhere=False, rights={"it": "edit"}, note="for Ann"
    )
    assert [one.note for one in await people.invitations()] == ["for Ann"]
    assert token not in str(invitation)
    user = await people.accept(token, "ann", PASSWORD)
    assert (user.role, user.everywhere) == (Role.EDITOR, False)
    assert (await people.get("ann")).rights == {"it": "edit"}
    assert await people.invitations() == []
    with pytest.raises(NotAllowed):
        await people.accept(token, "bob", PASSWORD)


async def test_an_invitation_is_not_used_up_by_a_name_that_is_taken(people: People, accounts: Accounts) -> None:
    await _somebody(accounts, "ann", Role.VIEWER)
    _, token = await people.invite(OPERATOR, Role.VIEWER)
    with pytest.raises(Conflict):
        await people.accept(token, "ann", PASSWORD)
    with pytest.raises(UserError):
        await people.accept(token, "bob", "short")
    assert (await people.accept(token, "bob", PASSWORD)).name == "bob"


async def test_an_invitation_ends_and_can_be_withdrawn(people: People, db: Database) -> None:
    _, late = await people.invite(OPERATOR, Role.VIEWER)
    async with db.session() as session:
        await session.execute(update(OneTimeTokenRow).values(expires_at=now() - timedelta(seconds=1)))
    with pytest.raises(NotAllowed):
        await people.accept(late, "ann", PASSWORD)
    invitation, token = await people.invite(OPERATOR, Role.VIEWER)
    for wrong in ("", "%", invitation.id[:4], "f" * 16):
        with pytest.raises(NotFound):
            await people.withdraw(OPERATOR, wrong)
    await people.withdraw(OPERATOR, invitation.id)
    with pytest.raises(NotAllowed):
        await people.accept(token, "ann", PASSWORD)


async def test_a_set_up_token_is_no_invitation(people: People, accounts: Accounts) -> None:
    token = await accounts.setup_token()
    assert token
    with pytest.raises(NotAllowed):
        await people.accept(token, "ann", PASSWORD)


async def test_logins_are_listed_and_ended(people: People, accounts: Accounts) -> None:
    ann = await _somebody(accounts, "ann", Role.VIEWER)
    bob = await _somebody(accounts, "bob", Role.VIEWER)
    admin = await _somebody(accounts, "adam", Role.ADMIN)
    first = await accounts.login("ann", PASSWORD, address="10.0.0.1", user_agent="Firefox")
    second = await accounts.login("ann", PASSWORD, address="10.0.0.2", user_agent="Chrome")
    listed, total = await people.logins(user_id=ann.key.removeprefix("user:"))
    assert total == 2
    assert {(one.address, one.user_agent) for one in listed} == {("10.0.0.1", "Firefox"), ("10.0.0.2", "Chrome")}
    assert first.token not in str(listed)
    with pytest.raises(NotFound):
        await people.end_login(bob, listed[0].id)
    for wrong in ("", "%", "f" * 16, listed[0].id[:8]):
        with pytest.raises(NotFound):
            await people.end_login(admin, wrong)
    await people.end_other_logins(ann, second.token)
    assert await accounts.by_session(first.token) is None
    assert await accounts.by_session(second.token) is not None
    (left,), _ = await people.logins()
    await people.end_login(admin, left.id)
    assert await accounts.by_session(second.token) is None


async def test_an_account_of_a_provider_has_no_password_to_guess(people: People, accounts: Accounts) -> None:
    await people._add("sso", "", Role.VIEWER, everywhere=True, rights={})
    for password in ("", " ", PASSWORD):
        with pytest.raises(LoginNeeded):
            await accounts.login("sso", password, address="10.0.0.3")
