"""Login through an identity provider, against one on loopback that signs for real; and what must not get in."""

from __future__ import annotations

from typing import Any

import pytest
from argon2 import PasswordHasher
from joserfc import jwk
from pydantic import SecretStr
from pytest_httpserver import HTTPServer

from core.db.session import Database
from core.errors import ConfigError, LoginNeeded, Unavailable
from core.identity.accounts import Accounts
from core.identity.oidc import NoAccount, Oidc, Proven
from core.identity.passwords import Passwords
from core.identity.people import People
from core.settings import OidcSettings, load
from core.types import Role
from tests.fakes.provider import Provider

pytestmark = pytest.mark.anyio


def accounts_of(db: Database) -> Accounts:
    """With hashes that cost nothing."""
    return Accounts(db, load(), passwords=Passwords(PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)))


BACK = "http://127.0.0.1:8410/login/oidc/callback"


@pytest.fixture
def provider(httpserver: HTTPServer) -> Provider:
    return Provider(httpserver)


def settings(provider: Provider, **more: Any) -> OidcSettings:
    return OidcSettings(issuer=provider.issuer, client_id="kvasir", client_secret=SecretStr("s3cret"), **more)


async def log_in(oidc: Oidc, provider: Provider, **changed: str) -> Proven:
    begun = await oidc.begin(BACK, "/documents")
    back = {**provider.consent(begun.url), "kept": begun.state, **changed}
    return await oidc.finish(BACK, **back)


async def test_a_person_gets_an_account_once_and_the_way_on(db: Database, provider: Provider) -> None:
    oidc = Oidc(db, settings(provider, role=Role.REVIEWER))
    proven = await log_in(oidc, provider)
    assert (proven.user.name, proven.user.role, proven.next) == ("ann", Role.REVIEWER, "/documents")
    provider.claims["preferred_username"] = "Anna"
    assert (await log_in(oidc, provider)).user == proven.user
    assert provider.seen[0].startswith("Basic ")


async def test_an_account_with_a_password_is_never_taken_over(db: Database, provider: Provider) -> None:
    accounts = accounts_of(db)
    await accounts.create("ann", "correct horse battery", Role.OWNER)
    proven = await log_in(Oidc(db, settings(provider)), provider)
    assert proven.user.name != "ann"
    assert proven.user.role is Role.VIEWER


@pytest.mark.parametrize(
    "lie",
    [
        {"iss": "https://elsewhere.example.org"},
        {"aud": "another"},
        {"aud": ["kvasir", "another"]},
        {"exp": 1_000_000},
        {"exp": None},
        {"nonce": "another"},
        {"nonce": None},
        {"sub": None},
    ],
    ids=str,
)
async def test_a_token_that_is_not_for_us_now_is_refused(db: Database, provider: Provider, lie: dict[str, Any]) -> None:
    provider.lies = lie
    with pytest.raises(LoginNeeded):
        await log_in(Oidc(db, settings(provider)), provider)
    assert await accounts_of(db).list() == []


async def test_a_token_signed_by_another_key_is_refused(db: Database, provider: Provider) -> None:
    provider.signing = provider.other
    with pytest.raises(LoginNeeded):
        await log_in(Oidc(db, settings(provider)), provider)


async def test_a_token_signed_with_the_shared_secret_is_refused(db: Database, provider: Provider) -> None:
    provider.algorithm, provider.signing = "HS256", jwk.OctKey.import_key("s3cret" * 6)
    with pytest.raises(LoginNeeded):
        await log_in(Oidc(db, settings(provider)), provider)


async def test_a_state_works_once_and_only_in_the_browser_that_began(db: Database, provider: Provider) -> None:
    oidc = Oidc(db, settings(provider))
    for kept in ("", "another"):
        with pytest.raises(LoginNeeded):
            await log_in(oidc, provider, kept=kept)
    begun = await oidc.begin(BACK, "/")
    back = {**provider.consent(begun.url), "kept": begun.state}
    await oidc.finish(BACK, **back)
    provider.consent(begun.url)
    with pytest.raises(LoginNeeded):
        await oidc.finish(BACK, **back)
    with pytest.raises(LoginNeeded):
        await oidc.finish(BACK, state="", kept="", code="x")


async def test_an_answer_of_another_provider_is_refused(db: Database, provider: Provider) -> None:
    with pytest.raises(LoginNeeded):
        await log_in(Oidc(db, settings(provider)), provider, issuer="https://elsewhere.example.org")


async def test_only_people_of_given_domains_with_a_verified_address(db: Database, provider: Provider) -> None:
    oidc = Oidc(db, settings(provider, domains=["example.org"]))
    for claims in ({"email": "ann@example.com"}, {"email_verified": False}, {"email": "ann@example.org.evil.net"}):
        provider.lies = dict(claims)
        with pytest.raises(NoAccount):
            await log_in(oidc, provider)
    provider.lies = {}
    assert (await log_in(oidc, provider)).user.name == "ann"


async def test_groups_give_roles_anew_with_each_login_and_owners_stay(db: Database, provider: Provider) -> None:
    oidc = Oidc(db, settings(provider, roles={"staff": Role.EDITOR, "it": Role.ADMIN}))
    provider.claims["groups"] = ["staff", "it"]
    assert (await log_in(oidc, provider)).user.role is Role.ADMIN
    provider.claims["groups"] = ["staff"]
    assert (await log_in(oidc, provider)).user.role is Role.EDITOR
    provider.claims["groups"] = []
    assert (await log_in(oidc, provider)).user.role is Role.VIEWER
    await accounts_of(db).set_role("ann", Role.OWNER)
    assert (await log_in(oidc, provider)).user.role is Role.OWNER


async def test_unknown_people_stay_out_where_accounts_are_not_created(db: Database, provider: Provider) -> None:
    with pytest.raises(NoAccount):
        await log_in(Oidc(db, settings(provider, create=False)), provider)


async def test_a_disabled_account_stays_out(db: Database, provider: Provider) -> None:
    oidc = Oidc(db, settings(provider))
    accounts = accounts_of(db)
    await accounts.create("olga", "correct horse battery", Role.OWNER)
    await log_in(oidc, provider)
    await accounts.disable("ann")
    with pytest.raises(NoAccount):
        await log_in(oidc, provider)


async def test_a_provider_that_is_away_or_unsafe_is_said(db: Database, provider: Provider) -> None:
    with pytest.raises(ConfigError):
        await Oidc(db, OidcSettings()).begin(BACK, "/")
    with pytest.raises(ConfigError, match="https"):
        await Oidc(db, OidcSettings(issuer="http://example.org", client_id="x")).begin(BACK, "/")
    with pytest.raises(Unavailable):
        await Oidc(db, OidcSettings(issuer="http://127.0.0.1:9", client_id="x")).begin(BACK, "/")
    elsewhere = OidcSettings(issuer=provider.issuer.replace("localhost", "127.0.0.1"), client_id="x")
    with pytest.raises(ConfigError, match="another name"):
        await Oidc(db, elsewhere).begin(BACK, "/")


async def test_the_account_is_one_of_those_that_administrators_see(db: Database, provider: Provider) -> None:
    await log_in(Oidc(db, settings(provider)), provider)
    member = await People(db, accounts_of(db)).get("ann")
    assert member.by_provider
