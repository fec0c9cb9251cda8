"""Accounts, invitations, logins, keys and the provider over HTTP, as the page uses them."""

from __future__ import annotations

import pytest
from pytest_httpserver import HTTPServer

from core.types import Role
from tests.admin.conftest import PASSWORD, OpenSite, Site
from tests.fakes.provider import Provider

pytestmark = pytest.mark.anyio

API = "/api/v1"


async def test_an_administrator_looks_after_people(site: Site) -> None:
    ann = await site.person("ann", Role.ADMIN)
    assert (await ann.post(f"{API}/kbs", json={"name": "hr", "private": True})).status_code == 201
    given = {"name": "eve", "password": PASSWORD, "role": "editor", "everywhere": False, "rights": {"hr": "edit"}}
    made = await ann.post(f"{API}/people", json=given)
    assert made.status_code == 201, made.text
    assert made.json()["rights"] == {"hr": "edit"}
    assert "password" not in made.text
    eve = await site.log_in("eve")
    assert [kb["name"] for kb in (await eve.get(f"{API}/kbs")).json()["items"]] == ["hr"]
    assert (await eve.get(f"{API}/people")).status_code == 403
    assert (await ann.patch(f"{API}/people/eve", json={"rights": {}})).json()["rights"] == {}
    assert (await eve.get(f"{API}/kbs")).json()["items"] == []
    assert (await ann.patch(f"{API}/people/eve", json={"disabled": True})).json()["disabled"] is True
    assert (await eve.get(f"{API}/kbs")).status_code == 401
    assert (await ann.patch(f"{API}/people/eve", json={"role": "owner"})).status_code == 403
    listed = (await ann.get(f"{API}/people", params={"text": "ev"})).json()
    assert (listed["total"], listed["items"][0]["name"]) == (1, "eve")
    assert (await ann.delete(f"{API}/people/eve")).status_code == 204
    assert (await ann.get(f"{API}/people/eve")).status_code == 404
    written, _ = await site.kvasir.audit.list(kind="people")
    assert [one.action for one in written][-1] == "people.create_person"
    assert PASSWORD not in str(written)


async def test_somebody_invited_makes_their_own_account(site: Site) -> None:
    ann = await site.person("ann", Role.ADMIN)
    made = await ann.post(f"{API}/invitations", json={"role": "reviewer", "note": "Bob of support"})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    token = made.json()["token"]
    assert token not in (await ann.get(f"{API}/invitations")).text
    bob = site.client()
    taken = await bob.post(f"{API}/invitations/accept", json={"token": token, "name": "bob", "password": PASSWORD})
    assert taken.status_code == 201, taken.text
    assert (await bob.get(f"{API}/me")).json()["role"] == "reviewer"
    again = await site.client().post(
        f"{API}/invitations/accept", json={"token": token, "name": "eve", "password": PASSWORD}
    )
    assert again.status_code == 403
    assert token not in str((await site.kvasir.audit.list())[0])


async def test_ones_own_password_logins_and_keys(site: Site) -> None:
    bob = await site.person("bob", Role.VIEWER)
    other = await site.log_in("bob")
    assert (await bob.get(f"{API}/me/logins")).json()["total"] == 2
    wrong = {"old_password": "wrong horse", "new_password": PASSWORD + "!"}
    assert (await bob.put(f"{API}/me/password", json=wrong)).status_code == 401
    right = {"old_password": PASSWORD, "new_password": PASSWORD + "!"}
    assert (await bob.put(f"{API}/me/password", json=right)).status_code == 204
    assert (await bob.get(f"{API}/me")).status_code == 200, "whoever changed it stays logged in"
    assert (await other.get(f"{API}/me")).status_code == 401

    made = await bob.post(f"{API}/me/keys", json={"name": "ci", "scopes": ["ask"]})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    key, token = made.json()["key"], made.json()["token"]
    assert token not in (await bob.get(f"{API}/me/keys")).text
    program = site.client(headers={"authorization": f"Bearer {token}"})
    assert (await program.get(f"{API}/kbs")).status_code == 200
    assert (await program.post(f"{API}/me/keys", json={"name": "more", "scopes": ["admin"]})).status_code == 403
    eve = await site.person("eve", Role.VIEWER)
    assert (await eve.delete(f"{API}/me/keys/{key['id']}")).status_code == 404
    assert (await bob.delete(f"{API}/me/keys/{key['id']}")).status_code == 204
    assert (await program.get(f"{API}/kbs")).status_code == 401


async def test_a_login_is_ended_by_its_owner_and_by_administrators_only(site: Site) -> None:
    ann, bob, eve = [
        await site.person(name, role)
        for name, role in (("ann", Role.ADMIN), ("bob", Role.VIEWER), ("eve", Role.VIEWER))
    ]
    (login,) = (await bob.get(f"{API}/me/logins")).json()["items"]
    assert (await eve.delete(f"{API}/me/logins/{login['id']}")).status_code == 404
    assert (await eve.delete(f"{API}/logins/{login['id']}")).status_code == 403
    assert (await ann.delete(f"{API}/logins/{login['id']}")).status_code == 204
    assert (await bob.get(f"{API}/me")).status_code == 401


async def test_the_audit_log_is_for_administrators(site: Site) -> None:
    ann = await site.person("ann", Role.ADMIN)
    eve = await site.person("eve", Role.EDITOR)
    await site.log_in("ann")
    await site.log_in("eve")
    assert (await ann.get(f"{API}/audit")).json()["total"] == 2
    assert (await eve.get(f"{API}/audit")).status_code == 403


@pytest.fixture
def provider(httpserver: HTTPServer) -> Provider:
    return Provider(httpserver)


async def test_through_the_provider_and_back(open_site: OpenSite, provider: Provider) -> None:
    async with open_site(oidc={"issuer": provider.issuer, "client_id": "kvasir"}) as site:
        browser = site.client()
        assert (await browser.get(f"{API}/login")).json() == {"provider": "Single sign-on"}
        away = await browser.get("/login/oidc", params={"next": "/documents"})
        assert away.status_code == 303
        back = provider.consent(away.headers["location"])
        home = await browser.get("/login/oidc/callback", params=back)
        assert (home.status_code, home.headers["location"]) == (303, "/documents")
        assert (await browser.get(f"{API}/me")).json()["name"] == "ann"
        assert (await browser.get("/login/oidc/callback", params=back)).headers["location"] == "/login?refused=refused"


async def test_the_way_back_leads_to_no_other_site(open_site: OpenSite, provider: Provider) -> None:
    async with open_site(oidc={"issuer": provider.issuer, "client_id": "kvasir"}) as site:
        for wanted in ("https://evil.example", "//evil.example", "/\\evil.example"):
            browser = site.client()
            away = await browser.get("/login/oidc", params={"next": wanted})
            home = await browser.get("/login/oidc/callback", params=provider.consent(away.headers["location"]))
            assert home.headers["location"] == "/"


async def test_a_login_begun_elsewhere_is_not_finished_here(open_site: OpenSite, provider: Provider) -> None:
    """Login CSRF: somebody is made to log in as the attacker."""
    async with open_site(oidc={"issuer": provider.issuer, "client_id": "kvasir"}) as site:
        attacker, victim = site.client(), site.client()
        away = await attacker.get("/login/oidc")
        back = provider.consent(away.headers["location"])
        landed = await victim.get("/login/oidc/callback", params=back)
        assert landed.headers["location"].startswith("/login?refused")
        assert (await victim.get(f"{API}/me")).status_code == 401


async def test_without_a_provider_nothing_is_offered(site: Site) -> None:
    browser = site.client()
    assert (await browser.get(f"{API}/login")).json() == {"provider": None}
    assert (await browser.get("/login/oidc")).status_code >= 400
