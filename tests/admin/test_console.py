"""The console's frame, and SQLAdmin behind it: the holes that it has by itself are closed here.

Found by running it: no protection against forged requests, actions by GET, files served from the working directory by
a column's name, logins that outlive the logout, formulas in exports, and texts of the address shown on the page.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from sqlalchemy import select

from admin.console.chinese import WORDS
from admin.console.pages import PAGES
from admin.console.records import RECORDS, label_of
from core.access import Scope
from core.db.tables import AnswerRow, DocumentRow, KnowledgeBaseRow, UserRow
from core.types import Role
from tests.admin.conftest import OpenSite, Site

pytestmark = pytest.mark.anyio

LISTS = [f"/console/{view.identity}/list" for view in RECORDS]
XSS = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'>{{7*7}}"


async def _answer(site: Site, **values: object) -> str:
    row = AnswerRow(**{"person": "web:x", "platform": "web", "question": "?", "standalone_question": "?"} | values)
    async with site.kvasir.db.session() as session:
        session.add(row)
    return row.id


# ---------------------------------------------------------------- who gets in
async def test_every_page_is_there_for_an_owner_and_in_both_languages(site: Site) -> None:
    ann = await site.person("ann", Role.OWNER)
    for path in [f"/console/{page.name}" for page in PAGES] + LISTS:
        english = await ann.get(path)
        chinese = await ann.get(path, headers={"cookie": f"{_cookies(ann)}; kvasir_language=zh"})
        assert (english.status_code, chinese.status_code) == (200, 200), path
        assert 'lang="en"' in english.text
        assert 'lang="zh-CN"' in chinese.text
        assert "default-src 'none'" in english.headers["content-security-policy"]
        for attribute in (" style=", " onclick=", "javascript:", "<script>"):
            assert attribute not in english.text, f"{attribute} in {path}: the policy would not let it work"


def _cookies(browser: object) -> str:
    return "; ".join(f"{name}={value}" for name, value in browser.cookies.items())  # type: ignore[attr-defined]


async def test_each_role_sees_its_pages_and_nobody_else_any(site: Site) -> None:
    expected = {
        Role.VIEWER: {"account", "reference"},
        Role.REVIEWER: {"account", "reference", "dashboard", "review", "conversations", "playground"},
        Role.EDITOR: {
            *("account", "reference", "dashboard", "review", "conversations", "playground"),
            *("bases", "library", "sources"),
        },
        Role.ADMIN: {page.name for page in PAGES},
    }
    for role, names in expected.items():
        browser = await site.person(f"a-{role.value}", role)
        for page in PAGES:
            answer = await browser.get(f"/console/{page.name}")
            assert answer.status_code == (200 if page.name in names else 403), (role, page.name)
        menu = (await browser.get("/console/account")).text
        for page in PAGES:
            assert (f'href="/console/{page.name}"' in menu) == (page.name in names), (role, page.name)
        for path in LISTS:
            assert (await browser.get(path)).status_code == (200 if role is Role.ADMIN else 403), (role, path)
        assert (await browser.get("/console/", follow_redirects=False)).status_code == 303


async def test_without_a_login_the_console_leads_to_the_login_page(open_site: OpenSite) -> None:
    async with open_site(web={"anonymous": True}) as site:
        guest = site.client()
        for path in ["/console/", "/console/account", *LISTS]:
            answer = await guest.get(path)
            assert answer.status_code in (303, 403), path
            assert "Records" not in answer.text
    async with open_site() as site:
        for path in ["/console/", "/console/dashboard", *LISTS]:
            answer = await site.client().get(path)
            assert answer.status_code == 303
            assert answer.headers["location"].startswith("/login?next=")


async def test_a_page_is_no_more_after_the_logout(site: Site) -> None:
    """SQLAdmin's own cookie would go on for 14 days."""
    ann = await site.person("ann", Role.OWNER)
    kept = _cookies(ann)
    assert (await ann.post("/api/v1/logout")).status_code == 204
    replayed = await site.client().get(LISTS[0], headers={"cookie": kept})
    assert replayed.status_code == 303


# ---------------------------------------------------------------- what SQLAdmin would do by itself
async def test_nothing_can_be_changed_through_it(site: Site) -> None:
    ann = await site.person("ann", Role.OWNER)
    victim = await _answer(site)
    for view in RECORDS:
        base = f"/console/{view.identity}"
        for method, path in (
            ("GET", f"{base}/create"),
            ("POST", f"{base}/create"),
            ("GET", f"{base}/edit/{victim}"),
            ("POST", f"{base}/edit/{victim}"),
            ("DELETE", f"{base}/delete?pks={victim}"),
            ("GET", f"{base}/delete?pks={victim}"),
            ("GET", f"{base}/action/delete?pks={victim}"),
            ("POST", f"{base}/import"),
            ("GET", f"{base}/ajax/lookup?name=x&term=y"),
        ):
            assert (await ann.request(method, path)).status_code in (404, 405), (method, path)
    for path in ("/console/login", "/console/logout"):
        for method in ("GET", "POST"):
            assert (await ann.request(method, path)).status_code in (404, 405), path
    async with site.kvasir.db.read() as session:
        assert await session.get(AnswerRow, victim) is not None


async def test_no_column_serves_files(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLAdmin takes any text column for a path, and looks in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("hush")
    ann = await site.person("ann", Role.OWNER)
    victim = await _answer(site, notice="secret.txt")
    for path in (f"answer-row/{victim}/notice/download/", f"answer-row/{victim}/notice/preview/"):
        answer = await ann.get(f"/console/{path}")
        assert answer.status_code == 404
        assert "hush" not in answer.text


async def test_the_address_puts_no_words_on_the_page(site: Site) -> None:
    ann = await site.person("ann", Role.OWNER)
    answer = await ann.get(f"{LISTS[0]}?error=Your%20account%20is%20locked,%20call%200900")
    assert "is locked" not in answer.text


async def test_what_people_wrote_is_never_markup(site: Site) -> None:
    ann = await site.person("ann", Role.OWNER)
    victim = await _answer(site, notice=XSS, error=XSS, model=XSS)
    async with site.kvasir.db.session() as session:
        row = await session.get(AnswerRow, victim)
        assert row is not None
        row.question = row.text = row.standalone_question = XSS
        row.passages = [{"text": XSS}]
        base = KnowledgeBaseRow(name="hr", description=XSS, chunk_size=100, chunk_overlap=10)
        session.add(base)
        await session.flush()
        session.add(DocumentRow(kb_id=base.id, name=XSS, title=XSS, content_hash="0" * 64, reason=XSS))
        session.add(UserRow(name=XSS, password_hash="", role="viewer", subject=XSS))
    for path in (*LISTS, f"/console/answer-row/details/{victim}", f"{LISTS[0]}?search={XSS}"):
        text = (await ann.get(path)).text
        assert "<script>alert" not in text, path
        assert "<img src=x" not in text, path
        assert "49" not in text.partition("{{7*7}}")[0][-20:], path


async def test_an_export_has_nothing_that_a_spreadsheet_would_run(site: Site) -> None:
    ann = await site.person("ann", Role.OWNER)
    for formula in ("=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "＝1"):
        await _answer(site, question=formula)
    exported = await ann.get("/console/answer-row/export/csv")
    assert exported.status_code == 200
    assert exported.headers["content-disposition"].startswith("attachment")
    cells = [one for line in csv.reader(io.StringIO(exported.text)) for one in line]
    assert any("cmd|" in one for one in cells)
    assert not [one for one in cells if one[:1] in ("=", "+", "-", "@", "\t", "＝")]


async def test_secrets_are_in_no_list_no_detail_and_no_export(site: Site) -> None:
    ann = await site.person("ann", Role.OWNER)
    _, token = await site.kvasir.accounts.create_key("ann", "ci", [Scope.ASK])
    async with site.kvasir.db.read() as session:
        user = (await session.scalars(select(UserRow))).one()
    keys = await site.kvasir.accounts.list_keys()
    seen = ""
    for view in RECORDS:
        seen += (await ann.get(f"/console/{view.identity}/list")).text
        seen += (await ann.get(f"/console/{view.identity}/export/csv")).text
        seen += (await ann.get(f"/console/{view.identity}/export/json")).text
    seen += (await ann.get(f"/console/user-row/details/{user.id}")).text
    seen += (await ann.get(f"/console/api-key-row/details/{keys[0].id}")).text
    assert keys[0].prefix in seen
    assert user.password_hash not in seen
    assert token not in seen
    for column in ("password_hash", "token_hash"):
        assert column not in seen


# ---------------------------------------------------------------- lists
async def test_lists_are_searched_filtered_sorted_and_paged(site: Site) -> None:
    ann = await site.person("ann", Role.OWNER)
    for number in range(60):
        await _answer(site, answered=number % 2 == 0, notice=f"n{number}")
    first = (await ann.get("/console/answer-row/list")).text
    assert "Showing 1 to 50 of 60 items" in first
    assert "Showing 51 to 60 of 60 items" in (await ann.get("/console/answer-row/list?page=2")).text
    assert "of 30 items" in (await ann.get("/console/answer-row/list?answered=yes")).text
    assert "of 0 items" in (await ann.get("/console/answer-row/list?search=nowhere")).text
    for strange in (
        "page=0",
        "page=-1",
        "page=x",
        "pageSize=1000000",
        "sortBy=nowhere",
        "answered=perhaps",
        "pageSize=0",
    ):
        assert (await ann.get(f"/console/answer-row/list?{strange}", follow_redirects=True)).status_code in (200, 400)


def test_every_word_of_the_lists_has_its_chinese() -> None:
    missing = set()
    for view in RECORDS:
        names = {view.name, view.name_plural, *map(label_of, view().get_list_columns())}
        missing |= {one for one in names if one not in WORDS}
        for choice in view.column_filters:
            missing |= {value for value in choice._values if value not in WORDS and value.isalpha()}  # type: ignore[union-attr]
    assert missing <= {"slack", "discord", "telegram"}
