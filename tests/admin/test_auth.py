"""Set up, log in, log out, API keys, and who gets in where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

import admin
from admin.auth import OPEN_PATHS, local_path
from core.access import Scope
from core.types import Role
from tests.admin.conftest import HERE, PASSWORD, OpenSite, Site

pytestmark = pytest.mark.anyio

OPEN = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/login"),
    ("GET", "/setup"),
    ("POST", "/api/v1/login"),
    ("POST", "/api/v1/setup"),
    ("GET", "/api/v1/login"),  # the login page asks whether there is an identity provider
    ("GET", "/login/oidc"),  # on to it, and back
    ("GET", "/login/oidc/callback"),
    ("POST", "/api/v1/invitations/accept"),  # whoever was invited has no account yet
}
"""Everything that answers without a login, beside /static/. Do not add to it without a reason."""


def _routes(app: FastAPI) -> list[tuple[str, str]]:
    """(method, path) of everything that is served."""
    found = []
    for route in iter_route_contexts(app.routes):
        assert route.path, route
        if route.path == "/static":
            continue
        if route.path == "/console":
            mounted: Any = route.original_route
            found += [(method, f"/console{one.path}") for one in mounted.routes for method in one.methods - {"HEAD"}]
            continue
        assert route.methods, route  # nothing but plain routes: no other mounts, no WebSockets
        found += [(method, route.path) for method in sorted(route.methods - {"HEAD"})]
    return found


# ---------------------------------------------------------------- the sweep
async def test_no_route_but_the_listed_ones_is_open(site: Site) -> None:
    routes = _routes(site.app)
    assert len(routes) > 20
    async with site.client() as stranger:
        for method, path in routes:
            url = path.replace("{name}", "kb").replace("{", "").replace("}", "")
            response = await stranger.request(method, url, json={})
            if (method, path) in OPEN:
                assert not response.headers.get("location", "").startswith("/login?next="), (method, path)
            elif path.startswith("/api/"):
                assert response.status_code == 401, (method, path)
                assert response.headers["content-type"] == "application/problem+json"
            elif path.startswith("/v1/"):
                assert response.status_code == 401, (method, path)
                assert response.json()["error"]["code"] == "invalid_api_key"
            else:
                assert response.status_code == 303, (method, path)
                assert response.headers["location"].startswith("/login?next=%2F")
    assert set(routes) >= OPEN
    assert {path for _, path in OPEN} == OPEN_PATHS


async def test_what_is_not_there_is_not_told_to_strangers(site: Site) -> None:
    async with site.client() as stranger:
        for path in ("/api/v1/nothing", "/api/v1/kbs/x", "/api/v1/", "/openapi.json", "/docs", "/redoc", "/.env"):
            response = await stranger.get(path)
            assert response.status_code in (401, 303), path
        for path in ("/static/../../core/app.py", "/static/%2e%2e/app.py", "/static/", "/static/..\\app.py"):
            assert (await stranger.get(path)).status_code in (303, 404, 405), path


async def test_a_file_of_the_pages_is_sent_once_as_long_as_it_is_the_same(site: Site) -> None:
    path = "/static/js/dom.js"
    async with site.client() as stranger:
        sent = await stranger.get(path)
        assert (sent.status_code, sent.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
        assert sent.text == (Path(admin.__file__).parent / path.strip("/")).read_text(encoding="utf-8")
        assert sent.headers["cache-control"] == "no-cache"
        again = await stranger.get(path, headers={"if-none-match": sent.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        for odd in (
            "/static/js",
            "/static/js/none.js",
            "/static/" + "x" * 5000,
            "/static/a%00b",
            "/static//etc/passwd",
        ):
            assert (await stranger.get(odd)).status_code == 404, odd
        assert (await stranger.post(path)).status_code in (401, 405)


async def test_those_inside_get_problems_for_what_is_not_there(site: Site) -> None:
    anna = await site.person("anna", Role.OWNER)
    for method, path, status in (
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/docs", 404),
        ("PUT", "/api/v1/kbs", 405),
        ("POST", "/healthz", 405),
    ):
        response = await anna.request(method, path)
        assert response.status_code == status, path
        assert response.headers["content-type"] == "application/problem+json"
        problem = response.json()
        assert problem["status"] == status
        assert set(problem) == {"type", "title", "status", "detail"}


# ---------------------------------------------------------------- set up
async def test_a_fresh_kvasir_has_no_user_and_no_default_password(site: Site) -> None:
    assert not await site.kvasir.accounts.any_user()
    async with site.client() as stranger:
        for name, password in (("admin", "admin"), ("admin", ""), ("root", "root"), ("kvasir", "kvasir"), ("", "")):
            response = await stranger.post("/api/v1/login", json={"name": name, "password": password})
            assert response.status_code == 401


async def test_the_link_makes_the_owner_and_logs_in(site: Site) -> None:
    token = await site.kvasir.accounts.setup_token()
    async with site.client() as anna:
        given = {"token": token, "name": "Anna", "password": PASSWORD}
        assert (await anna.post("/api/v1/setup", json=given | {"token": "x"})).status_code == 403
        assert (await anna.post("/api/v1/setup", json=given | {"password": "short"})).status_code == 422
        response = await anna.post("/api/v1/setup", json=given)
        assert response.status_code == 201
        assert response.json() == {"next": "/"}
        me = (await anna.get("/api/v1/me")).json()
        assert (me["name"], me["role"], me["anonymous"], me["can_upload"]) == ("anna", "owner", False, True)
        assert (await anna.post("/api/v1/setup", json=given | {"name": "eve"})).status_code == 403


async def test_a_password_never_comes_back(site: Site) -> None:
    secret = "my-secret-" + "x" * 2000
    async with site.client() as stranger:
        for body in ({"name": "a", "password": secret}, {"name": ["x"], "password": secret}, {"password": secret}):
            response = await stranger.post("/api/v1/login", json=body)
            assert response.status_code in (401, 422)
            assert "my-secret" not in response.text


# ---------------------------------------------------------------- cookies and sessions
async def test_the_cookie_is_for_the_server_alone(site: Site) -> None:
    await site.kvasir.accounts.create("anna", PASSWORD, Role.OWNER)
    async with site.client() as anna:
        response = await anna.post("/api/v1/login", json={"name": "anna", "password": PASSWORD})
    cookie = response.headers["set-cookie"].lower()
    assert cookie.startswith("kvasir_session=")
    for part in ("httponly", "samesite=lax", "path=/", "max-age="):
        assert part in cookie
    assert "domain" not in cookie


async def test_over_https_only_a_secure_cookie_of_this_host_counts(open_site: OpenSite) -> None:
    async with open_site(web={"public_url": "https://ask.example.org"}) as site:
        await site.kvasir.accounts.create("anna", PASSWORD, Role.OWNER)
        headers = {"origin": "https://ask.example.org", "host": "ask.example.org"}
        async with site.client(headers=headers) as anna:
            response = await anna.post("/api/v1/login", json={"name": "anna", "password": PASSWORD})
            cookie = response.headers["set-cookie"]
            assert cookie.startswith("__Host-kvasir=")
            assert "; secure" in cookie.lower()
            token = cookie.partition("=")[2].partition(";")[0]
            assert (await _me(anna, f"__Host-kvasir={token}")).status_code == 200
            assert (await _me(anna, f"kvasir_session={token}")).status_code == 401


async def _me(browser: httpx2.AsyncClient, cookie: str) -> httpx2.Response:
    browser.cookies.clear()
    return await browser.get("/api/v1/me", headers={"cookie": cookie})


async def test_a_login_gets_a_new_cookie_and_ends_the_one_before(site: Site) -> None:
    """Session fixation: whatever the browser came with is worth nothing afterwards."""
    anna = await site.person("anna", Role.OWNER)
    other = site.client()
    old = anna.cookies["kvasir_session"]
    anna.cookies.clear()
    planted = await anna.post(
        "/api/v1/login", json={"name": "anna", "password": PASSWORD}, headers={"cookie": f"kvasir_session={old}"}
    )
    assert f"kvasir_session={old}" not in planted.headers["set-cookie"]
    assert (await _me(other, f"kvasir_session={old}")).status_code == 401
    assert (await _me(other, "kvasir_session=planted-by-eve")).status_code == 401


async def test_after_logout_the_old_cookie_is_worth_nothing(site: Site) -> None:
    anna = await site.person("anna", Role.OWNER)
    other = site.client()
    old = anna.cookies["kvasir_session"]
    assert (await anna.get("/api/v1/logout")).status_code == 405  # a link logs nobody out
    response = await anna.post("/api/v1/logout")
    assert response.status_code == 204
    assert 'kvasir_session=""' in response.headers["set-cookie"]
    assert (await _me(other, f"kvasir_session={old}")).status_code == 401


async def test_after_a_change_of_password_or_disabling_it_is_worth_nothing(site: Site) -> None:
    root = await site.person("root", Role.OWNER)
    bert = await site.person("bert", Role.ADMIN)
    _, key = await site.kvasir.accounts.create_key("bert", "k", [Scope.ADMIN])
    async with site.client(headers={"authorization": f"Bearer {key}"}) as script:
        assert (await script.get("/api/v1/me")).status_code == 200
        await site.kvasir.accounts.disable("bert")
        assert (await script.get("/api/v1/me")).status_code == 401
    assert (await bert.get("/api/v1/me")).status_code == 401
    await site.kvasir.accounts.set_password("root", "another long one")
    assert (await root.get("/api/v1/me")).status_code == 401


async def test_wrong_logins_all_get_the_same_answer(site: Site) -> None:
    await site.kvasir.accounts.create("anna", PASSWORD, Role.OWNER)
    answers = set()
    async with site.client() as stranger:
        for name, password in [("anna", "wrong"), ("nobody", "wrong"), ("", "")] + [
            ("anna", f"guess {n}") for n in range(9)
        ]:
            response = await stranger.post("/api/v1/login", json={"name": name, "password": password})
            answers.add((response.status_code, response.text))
        response = await stranger.post("/api/v1/login", json={"name": "anna", "password": PASSWORD})
        answers.add((response.status_code, response.text))  # right, but too early
    assert len(answers) == 1


# ---------------------------------------------------------------- where to after the login
ELSEWHERE = [
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil",
    "https://evil.example",
    "javascript:alert(1)",
    "",
    "evil",
    "/\t/evil.example",
    "/a\nb",
    "/a b",
    "/%0d%0ax:1\r\n",
    "http:/evil.example",
    "/x\\..\\y",
]


async def test_the_login_leads_only_to_pages_of_ours(site: Site) -> None:
    await site.kvasir.accounts.create("anna", PASSWORD, Role.OWNER)
    anna = site.client()
    for wanted in (*ELSEWHERE, "/" * 1999):
        assert local_path(wanted) == "/"
        response = await anna.post("/api/v1/login", json={"name": "anna", "password": PASSWORD, "next": wanted})
        assert response.json() == {"next": "/"}, wanted


def test_pages_of_ours_are_found_again() -> None:
    for wanted in ("/", "/documents", "/documents?kb=a%20b#x", "/?c=1&d=%2F%2Fevil"):
        assert local_path(wanted) == wanted


# ---------------------------------------------------------------- API keys
async def test_an_api_key_does_what_its_scopes_say(site: Site) -> None:
    await site.kvasir.accounts.create("anna", PASSWORD, Role.OWNER)
    await site.kvasir.knowledge.create("kb")
    _, read = await site.kvasir.accounts.create_key("anna", "read", [Scope.READ])
    _, manage = await site.kvasir.accounts.create_key("anna", "admin", [Scope.ADMIN])
    async with site.client() as script:
        del script.headers["origin"]

        async def status(key: str, method: str, path: str, **body: Any) -> int:
            headers = {"authorization": f"Bearer {key}"}
            return (await script.request(method, path, headers=headers, **body)).status_code

        assert await status(read, "GET", "/api/v1/kbs/kb/documents") == 200
        assert await status(read, "POST", "/api/v1/kbs", json={"name": "x"}) == 403
        assert await status(read, "DELETE", "/api/v1/kbs/kb") == 403
        assert await status(manage, "POST", "/api/v1/kbs", json={"name": "x"}) == 201
        for wrong in ("", "kv_", "kv_" + "x" * 43, read + "x", read[:-1], "Basic x"):
            assert await status(wrong, "GET", "/api/v1/me") == 401


async def test_a_request_with_a_key_is_not_helped_by_a_cookie(site: Site) -> None:
    """Else another site's form could add a made-up key, skip the origin check and ride on the cookie."""
    anna = await site.person("anna", Role.OWNER)
    headers = {"authorization": "Bearer kv_wrong", "origin": "https://evil.example"}
    response = await anna.post("/api/v1/kbs", json={"name": "x"}, headers=headers)
    assert response.status_code == 401
    response = await anna.post("/api/v1/kbs", json={"name": "x"}, headers={"origin": "https://evil.example"})
    assert response.status_code == 403


# ---------------------------------------------------------------- guests
async def test_guests_come_in_only_where_the_settings_say_so(open_site: OpenSite) -> None:
    async with open_site(web={"anonymous": True}) as site:
        await site.kvasir.knowledge.create("open")
        await site.kvasir.knowledge.create("closed", private=True)
        async with site.client() as guest, site.client() as other:
            me = (await guest.get("/api/v1/me")).json()
            assert (me["anonymous"], me["can_upload"], me["name"]) == (True, False, "")
            cookie = guest.cookies["kvasir_guest"]
            await guest.get("/api/v1/me")
            assert guest.cookies["kvasir_guest"] == cookie
            await other.get("/api/v1/me")
            assert other.cookies["kvasir_guest"] != cookie
            assert (await guest.get("/")).status_code == 200
            items = (await guest.get("/api/v1/kbs")).json()["items"]
            assert [item["name"] for item in items] == ["open"]
            assert (await guest.get("/api/v1/kbs/open/documents")).status_code == 200
            assert (await guest.get("/api/v1/kbs/closed/documents")).status_code == 404
            assert (await guest.post("/api/v1/kbs", json={"name": "x"})).status_code == 403
            assert (await guest.delete("/api/v1/kbs/open")).status_code == 403
            assert (await guest.post("/api/v1/kbs/open/documents", files={"files": b"x"})).status_code == 403


async def test_without_that_setting_a_guest_cookie_is_nothing(site: Site) -> None:
    async with site.client() as stranger:
        response = await stranger.get("/api/v1/me", headers={"cookie": "kvasir_guest=" + "x" * 22})
        assert response.status_code == 401
        assert "set-cookie" not in response.headers


async def test_the_origin_is_checked_for_the_login_too(site: Site) -> None:
    async with site.client(headers={"origin": "https://evil.example"}) as eve:
        for path in ("/api/v1/login", "/api/v1/setup"):
            assert (await eve.post(path, json={"name": "a", "password": "b"})).status_code == 403
    assert HERE.startswith("http://127.0.0.1")
