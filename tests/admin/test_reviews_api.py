"""Feedback review and curated answers over HTTP: who may, what is refused, and the way from a 👎 to a cure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from core.access import Scope
from core.answering.conversation import Conversations
from core.db.tables import AnswerRow, OutboxRow, now
from core.quality.curated import Written
from core.quality.feedback import Feedback
from core.types import Place, Role
from tests.admin.conftest import Site
from tests.admin.test_insight_api import restricted
from tests.core.test_conversation import answered

pytestmark = pytest.mark.anyio

API = "/api/v1"
EVE = "slack:T1:U9"
QUESTION, TEXT = "How long is annual leave?", "**30 days** <img src=x onerror=alert(1)>"


async def furnish(site: Site) -> tuple[str, str]:
    """A 👎 from a Slack thread, and a question that rests on a private knowledge base."""
    for name, private in (("kb", False), ("secret", True)):
        await site.kvasir.knowledge.create(name, private=private)
    place = Place("slack", "T1", "C1", "17.5")
    conversation = await Conversations(site.kvasir.db).open(place, EVE)
    rated = await answered(
        site.kvasir.db, conversation.id, QUESTION, EVE, text="<script>alert(1)</script> 28 [1].", platform="slack"
    )
    await Feedback(site.kvasir.db).rate(rated, EVE, -1, "=cmd()")
    secret = await answered(site.kvasir.db, None, "Who is let go?", EVE, kbs=["secret"], answered=False)
    return rated, secret


async def sent(browser: httpx2.AsyncClient, method: str, path: str, given: Any = None, status: int = 200) -> Any:
    response = await browser.request(method, API + path, json=given)
    assert response.status_code == status, response.text
    return response.json() if response.content else None


async def test_from_a_thumb_down_to_a_cure_and_back_into_the_thread(site: Site) -> None:
    rated, _ = await furnish(site)
    browser = await site.person("rita", Role.REVIEWER)
    page = await sent(browser, "GET", "/reviews?state=new&state=working&why=down")
    assert [item["answer_id"] for item in page["items"]] == [rated]
    assert (page["total"], page["counts"]) == (1, {"new": 1, "working": 0, "solved": 0})
    whole = await sent(browser, "GET", f"/reviews/{rated}")
    assert "<script>" not in whole["entry"]["html"]
    assert (whole["link"], whole["can_post"]) == ("https://app.slack.com/client/T1/C1/thread/C1-17.5", True)
    people = (await sent(browser, "GET", "/reviews/people"))["items"]
    given = {"state": "working", "assignee": people[0]["id"], "labels": ["wrong_answer"], "note": "Mine."}
    whole = await sent(browser, "PATCH", f"/reviews/{rated}", given)
    assert (whole["review"]["assignee_name"], whole["review"]["labels"]) == ("rita", ["wrong_answer"])

    cure = {"kb": "kb", "question": QUESTION, "text": TEXT, "paraphrases": ["How much holiday do we get?"]}
    whole = await sent(browser, "POST", f"/reviews/{rated}/curated", cure, 201)
    assert (whole["review"]["cure"]["kind"], whole["curated"]["answer_id"]) == ("curated", rated)
    assert "<img" not in whole["curated"]["html"]
    await sent(browser, "POST", f"/reviews/{rated}/curated", cure, 409)
    whole = await sent(browser, "POST", f"/reviews/{rated}/again")
    assert (whole["again"]["text"], whole["again"]["engine"], whole["entry"]["text"]) == (
        TEXT, "curated", "<script>alert(1)</script> 28 [1]."
    )  # fmt: skip
    async with site.kvasir.db.read() as session:
        asked = await session.get(AnswerRow, whole["again"]["answer_id"])
    assert asked is not None
    assert (asked.platform, asked.conversation_id) == ("console", None)
    assert (await sent(browser, "GET", "/reviews?why=down"))["total"] == 1, "what the console asks is not in the queue"

    whole = await sent(browser, "POST", f"/reviews/{rated}/reply", {"text": "It is **30 days**."}, 202)
    assert (whole["posted"], whole["review"]["cure"]["kind"]) == ("waiting", "curated")
    async with site.kvasir.db.read() as session:
        row = await session.scalar(select(OutboxRow))
    assert row is not None
    assert (row.platform, row.channel, row.thread, row.purpose) == ("slack", "C1", "17.5", "reply")
    await sent(browser, "PATCH", f"/reviews/{rated}", {"state": "solved"})
    assert (await sent(browser, "GET", "/reviews?state=new&state=working&why=down"))["total"] == 0


async def test_a_missing_document_is_written_right_there(site: Site) -> None:
    rated, secret = await furnish(site)
    reviewer = await site.person("rita", Role.REVIEWER)
    given = {"kb": "secret", "name": "plans", "text": "# Plans\n\nNobody at all is let go this year."}
    await sent(reviewer, "POST", f"/reviews/{secret}/document", given, 403)
    editor = await site.person("edda", Role.EDITOR)
    whole = await sent(editor, "POST", f"/reviews/{secret}/document", given, 201)
    assert whole["review"]["cure"]["kind"] == "document"
    document = await site.kvasir.knowledge.document(whole["review"]["cure"]["object"])
    assert (document.name, document.status) == ("plans.md", "indexed")
    whole = await sent(editor, "POST", f"/reviews/{secret}/again")
    assert whole["again"]["answered"]
    await sent(editor, "POST", f"/reviews/{secret}/document", {**given, "text": " "}, 422)
    await sent(editor, "POST", f"/reviews/{secret}/reply", {"text": "Nobody."}, 422)
    assert (await sent(editor, "GET", f"/reviews/{rated}"))["again"] is None


async def test_what_somebody_may_not_see_does_not_exist(site: Site) -> None:
    rated, secret = await furnish(site)
    owner = await site.person("otto", Role.OWNER)
    hidden = await sent(owner, "POST", "/curated", {"kb": "secret", "question": "Who goes?", "text": "Nobody."}, 201)
    browser = await restricted(site, "rosa")
    assert [item["answer_id"] for item in (await sent(browser, "GET", "/reviews"))["items"]] == [rated]
    assert (await sent(browser, "GET", "/curated"))["total"] == 0
    assert (await sent(browser, "GET", "/curated?kb=secret"))["total"] == 0
    assert (await sent(browser, "GET", "/reviews/gaps"))["total"] == 0
    assert "Who is let go" not in (await browser.get(f"{API}/reviews/export?format=jsonl")).text
    cure = {"kb": "secret", "question": "Who?", "text": "Nobody."}
    for method, path, given in (
        ("GET", f"/reviews/{secret}", None),
        ("PATCH", f"/reviews/{secret}", {"state": "solved"}),
        ("POST", f"/reviews/{secret}/curated", cure),
        ("POST", f"/reviews/{secret}/again", None),
        ("POST", f"/reviews/{secret}/reply", {"text": "No."}),
        ("POST", f"/reviews/{secret}/document", {"kb": "secret", "name": "a", "text": "b"}),
        ("POST", f"/reviews/{rated}/curated", cure),
        ("POST", "/curated", cure),
        ("GET", f"/curated/{hidden['id']}", None),
        ("PATCH", f"/curated/{hidden['id']}", {"text": "All."}),
        ("DELETE", f"/curated/{hidden['id']}", None),
        ("GET", "/reviews/none", None),
        ("GET", f"/curated/{'f' * 32}", None),
    ):
        await sent(browser, method, path, given, 404)
    viewer = await site.person("vera", Role.VIEWER)
    for path in ("/reviews", "/reviews/people", "/reviews/gaps", "/reviews/export", f"/reviews/{rated}", "/curated"):
        await sent(viewer, "GET", path, None, 403)
    await sent(viewer, "POST", "/curated", {**cure, "kb": "kb"}, 403)
    many = {"answers": [rated, secret], "state": "solved"}
    await sent(viewer, "POST", "/reviews/states", many, 403)
    assert await sent(browser, "POST", "/reviews/states", many) == {"changed": 1}
    assert (await sent(owner, "GET", f"/reviews/{secret}"))["review"]["state"] == "new"


NOT_CURATED: Sequence[dict[str, Any]] = [
    {"question": "?", "text": "x"},
    {"question": "Q", "text": ""},
    {"question": "Q", "text": "x", "expires_at": "2001-01-01T00:00:00Z"},
    {"question": "Q", "text": "x", "expires_at": "2099-01-01T00:00:00"},
    {"question": "Q", "text": "x", "rests_on": ["../x"]},
    {"question": "Q", "text": "x", "state": "active", "used": 9},
]


async def test_what_is_no_curated_answer_is_refused(site: Site) -> None:
    await site.kvasir.knowledge.create("kb")
    rita = await site.person("rita", Role.REVIEWER)
    for given in NOT_CURATED:
        await sent(rita, "POST", "/curated", {"kb": "kb"} | given, 422)


async def test_a_curated_answer_is_changed_and_deleted(site: Site) -> None:
    await site.kvasir.knowledge.create("kb")
    browser = await site.person("rita", Role.REVIEWER)
    soon = (now() + timedelta(days=1)).isoformat()
    made = await sent(
        browser, "POST", "/curated", {"kb": "kb", "question": "Q one?", "text": "A", "expires_at": soon}, 201
    )
    path = f"/curated/{made['id']}"
    changed = await sent(browser, "PATCH", path, {"text": "B", "paraphrases": ["Q two?"]})
    assert (changed["text"], changed["paraphrases"], changed["expires_at"] is None) == ("B", ["Q two?"], False)
    assert (await sent(browser, "PATCH", path, {"expires_at": None}))["expires_at"] is None
    assert (await sent(browser, "PATCH", path, {"on": False}))["state"] == "off"
    assert [item["id"] for item in (await sent(browser, "GET", "/curated?state=off"))["items"]] == [made["id"]]
    await sent(browser, "DELETE", path, None, 204)
    await sent(browser, "GET", path, None, 404)


async def test_a_key_that_reads_changes_nothing(site: Site) -> None:
    rated, _ = await furnish(site)
    await site.kvasir.accounts.create("rita", "correct horse battery", Role.REVIEWER)
    made = await site.kvasir.curated.add("kb", Written("Q?", "A"), "rita")
    for scope, status in ((Scope.READ, 403), (Scope.WRITE, 200)):
        _, token = await site.kvasir.accounts.create_key("rita", scope.value, [Scope.READ, scope])
        browser = site.client(headers={"authorization": f"Bearer {token}"})
        await sent(browser, "GET", f"/reviews/{rated}")
        await sent(browser, "PATCH", f"/reviews/{rated}", {"state": "working"}, status)
        await sent(browser, "POST", f"/reviews/{rated}/reply", {"text": "x"}, 202 if status == 200 else status)
        await sent(browser, "PATCH", f"/curated/{made.id}", {"text": "B"}, status)
        await sent(browser, "POST", f"/reviews/{rated}/again", None, status if status == 403 else 422)


async def test_whoever_was_let_in_to_read_writes_no_answers_there(site: Site) -> None:
    rated, _ = await furnish(site)
    made = await site.kvasir.curated.add("kb", Written("Q?", "A"), "rita")
    browser = await restricted(site, "rosa", "kb")
    cure = {"kb": "kb", "question": QUESTION, "text": TEXT}
    await sent(browser, "GET", f"/curated/{made.id}")
    await sent(browser, "PATCH", f"/curated/{made.id}", {"text": "B"}, 403)
    await sent(browser, "DELETE", f"/curated/{made.id}", None, 403)
    await sent(browser, "POST", "/curated", cure, 403)
    await sent(browser, "POST", f"/reviews/{rated}/curated", cure, 403)
    await sent(browser, "PATCH", f"/reviews/{rated}", {"state": "working"})


async def test_exports_are_files_that_run_nothing(site: Site) -> None:
    await furnish(site)
    browser = await site.person("rita", Role.REVIEWER)
    response = await browser.get(f"{API}/reviews/export?format=csv&why=down")
    assert response.headers["content-disposition"].startswith("attachment;")
    assert response.headers["content-type"].startswith("text/csv")
    assert "'=cmd()" in response.text
    lines = (await browser.get(f"{API}/reviews/export?format=jsonl")).text.splitlines()
    assert len(lines) == 2
    await sent(browser, "GET", "/reviews/export?format=xlsx", None, 422)
