"""The playground and evaluation sets over HTTP: trials as streams, sets, runs, and who may do what."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from sqlalchemy import func, select

from core.access import OPERATOR
from core.db.tables import AnswerRow, AuditRow, ConversationRow
from core.types import Role
from core.work.jobs import run_job
from tests.admin.conftest import Site, serving
from tests.admin.test_api import events
from tests.fakes.library import incoming

pytestmark = pytest.mark.anyio

FILES = {
    "leave.md": "# Leave\n\nEvery employee has 28 days of annual leave.",
    "canteen.md": "# Canteen\n\nThe canteen serves fish on Fridays. <script>alert(1)</script>",
}
LEAVE = "How many days of annual leave does an employee have?"
LINE = {"question": LEAVE, "answers": ["28 days"], "document": "leave.md"}


async def work_off(site: Site) -> None:
    while (job := await site.kvasir.jobs.claim()) is not None:
        await run_job(site.kvasir.jobs, job, site.kvasir.run_job)


@pytest.fixture
async def editor(site: Site) -> httpx2.AsyncClient:
    await site.kvasir.knowledge.create("kb")
    await site.kvasir.ingest.submit("kb", incoming(FILES))
    await work_off(site)
    return await site.person("edda", Role.EDITOR)


async def tried(client: httpx2.AsyncClient, text: str = LEAVE, **given: Any) -> list[tuple[str, Any]]:
    response = await client.post("/api/v1/kbs/kb/playground/questions", json={"text": text, **given})
    assert response.status_code == 200, response.text
    return events(response.text)


async def count(site: Site, table: type[Any]) -> int:
    async with site.kvasir.db.read() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


async def test_what_can_be_chosen(editor: httpx2.AsyncClient, site: Site) -> None:
    found = (await editor.get("/api/v1/kbs/kb/playground")).json()
    assert (found["top_k"], found["mode"], found["min_evidence"], found["engine"]) == (5, "hybrid", 0.5, "extractive")
    assert {"extractive", "openai", "scripted"} <= set(found["engines"])
    assert found["rerankers"] == ["sentences"]
    assert found["vectors"] is False
    assert "{refusal_mark}" in found["instructions"]
    await site.kvasir.knowledge.change("kb", top_k=2, instructions="Rhyme.")
    found = (await editor.get("/api/v1/kbs/kb/playground")).json()
    assert (found["top_k"], found["instructions"]) == (2, "Rhyme.")


async def test_a_trial_shows_scores_prompt_and_answer_and_leaves_nothing(
    editor: httpx2.AsyncClient, site: Site
) -> None:
    options = {"engine": "scripted", "top_k": 1, "instructions": "Answer from {kbs}."}
    (kind, found), *deltas, (last, finished) = await tried(editor, options=options)
    assert (kind, last) == ("considered", "finished")
    assert [(one["n"], one["document"], one["used"]) for one in found["passages"]] == [(1, "leave.md", True)]
    best = found["passages"][0]
    assert (best["vector_score"], best["rerank_score"]) == (None, None)
    assert 0 < best["keyword_share"] <= 1 < best["keyword_score"]
    assert found["evidence"] >= found["plan"]["min_evidence"] == 0.5
    assert found["refused"] is False
    assert [turn["role"] for turn in found["prompt"]] == ["system", "user"]
    assert found["prompt"][0]["text"] == "Answer from «kb»."
    assert LEAVE in found["prompt"][1]["text"]
    assert found["tokens"] == sum(turn["tokens"] for turn in found["prompt"]) > 0
    assert {kind for kind, _ in deltas} == {"delta"}
    assert finished["text"] == "".join(data["text"] for _, data in deltas)
    assert finished["engine"] == "scripted"
    for table in (AnswerRow, ConversationRow):
        assert await count(site, table) == 0
    async with site.kvasir.db.read() as session:
        assert not [one for one in await session.scalars(select(AuditRow.action)) if one.startswith("playground")]


async def test_a_threshold_refuses_and_still_shows_what_would_be_read(editor: httpx2.AsyncClient) -> None:
    (_, found), *_, (_, finished) = await tried(editor, options={"min_evidence": 1.0, "engine": "scripted"})
    assert found["refused"] is True
    assert found["prompt"]
    assert finished["answered"] is False


async def test_without_an_answer_it_ends_with_what_was_found(editor: httpx2.AsyncClient) -> None:
    happened = await tried(editor, answer=False, options={"mode": "keyword"})
    assert [kind for kind, _ in happened] == ["considered"]
    assert happened[0][1]["prompt"] == [], "the extractive engine reads none"


async def test_what_goes_wrong_is_said(editor: httpx2.AsyncClient) -> None:
    ((kind, problem),) = await tried(editor, options={"mode": "vector"})
    assert (kind, "vector" in problem["detail"] or "embed" in problem["detail"]) == ("error", True)
    ((kind, problem),) = await tried(editor, options={"engine": "nonesuch"})
    assert (kind, "nonesuch" in problem["detail"]) == ("error", True)
    path = "/api/v1/kbs/kb/playground/questions"
    assert (await editor.post(path, json={"text": " "})).status_code == 422
    assert (await editor.post(path, json={"text": "x", "options": {"top_k": 0}})).status_code == 422
    assert (await editor.post(path, json={"text": "x", "options": {"person": "y"}})).status_code == 422
    for generation_id in ("x", "0" * 32):
        assert (await editor.post(path, json={"text": "x", "generation_id": generation_id})).status_code == 404


async def test_two_trials_of_one_engine_wait_for_each_other(editor: httpx2.AsyncClient, site: Site) -> None:
    values = {"parallel": 1, "reply": "28 days [1].", "token_seconds": 0.05}
    await site.kvasir.models.add("engine", "poet", "scripted", values)
    both = await asyncio.gather(*(tried(editor, options={"engine": "poet"}) for _ in range(2)))
    assert sorted([data["place"] for kind, data in one if kind == "queued"] for one in both) == [[], [1, 0]]
    assert all(one[-1][0] == "finished" for one in both)


async def test_closing_stops_the_engine(open_site: Any) -> None:
    """Protection: a trial that nobody waits for costs nothing more."""
    async with open_site(scripted={"tokens": 100_000, "token_seconds": 0.01}) as site:
        await site.kvasir.knowledge.create("kb")
        await site.kvasir.ingest.submit("kb", incoming(FILES))
        await work_off(site)
        await site.person("edda", Role.EDITOR)
        async with (
            serving(site) as address,
            httpx2.AsyncClient(base_url=address, headers={"origin": address.rstrip("/")}) as edda,
        ):
            await edda.post("/api/v1/login", json={"name": "edda", "password": "correct horse battery"})
            body = {"text": LEAVE, "options": {"engine": "scripted"}}
            async with edda.stream("POST", "/api/v1/kbs/kb/playground/questions", json=body) as stream:
                async for line in stream.aiter_lines():
                    if line == "event: delta":
                        break
            async with asyncio.timeout(5):
                while any(task.get_name() == "event-stream" for task in asyncio.all_tasks()):
                    await asyncio.sleep(0.01)


# ---------------------------------------------------------------- sets
async def new_set(client: httpx2.AsyncClient, *lines: dict[str, Any]) -> str:
    made = await client.post("/api/v1/kbs/kb/evaluation-sets", json={"name": "Everyday"})
    assert made.status_code == 201, made.text
    set_id = str(made.json()["id"])
    for line in lines:
        added = await client.post(f"/api/v1/evaluation-sets/{set_id}/questions", json=line)
        assert added.status_code == 201, added.text
    return f"/api/v1/evaluation-sets/{set_id}"


async def test_a_set_from_first_to_last(editor: httpx2.AsyncClient, site: Site) -> None:
    path = await new_set(editor, LINE)
    assert (await editor.post("/api/v1/kbs/kb/evaluation-sets", json={"name": "Everyday"})).status_code == 409
    assert (await editor.post(f"{path}/questions", json=LINE)).status_code == 409
    file = '\ufeff{"question": "When is there fish?", "document": "canteen.md"}\r\n{"question": "谁？"}\n'.encode()
    headers = {"content-type": "application/jsonl"}
    taken = await editor.post(f"{path}/import", content=file, headers=headers)
    assert taken.json() == {"added": 2, "changed": 0}
    bad = await editor.post(f"{path}/import", content=b"{}\n", headers=headers)
    assert (bad.status_code, "Line 1" in bad.json()["detail"]) == (422, True)
    assert (await editor.post(f"{path}/import", content=b"\xff", headers=headers)).status_code == 422
    page = (await editor.get(f"{path}/questions", params={"text": "fish", "limit": 1})).json()
    assert (page["total"], page["items"][0]["document"]) == (1, "canteen.md")
    question = f"{path}/questions/{page['items'][0]['id']}"
    changed = await editor.put(question, json={"question": "When is fish?", "answers": ["Fridays"]})
    assert (changed.json()["answers"], changed.json()["document"]) == (["Fridays"], "")
    exported = await editor.get(f"{path}/export.jsonl")
    assert exported.headers["content-disposition"].startswith("attachment")
    assert len(exported.text.splitlines()) == 3
    assert (await editor.delete(question)).status_code == 204
    assert (await editor.get(path)).json()["questions"] == 2
    assert (await editor.patch(path, json={"name": "Often"})).json()["name"] == "Often"
    listed = (await editor.get("/api/v1/kbs/kb/evaluation-sets")).json()
    assert (listed["total"], listed["items"][0]["name"]) == (1, "Often")
    assert (await editor.delete(path)).status_code == 204
    assert (await editor.get(path)).status_code == 404


async def test_a_large_file_comes_in_and_a_larger_one_does_not(editor: httpx2.AsyncClient) -> None:
    path = await new_set(editor)
    rows = "".join(f'{{"question": "Question {n} {"x" * 100}"}}\n' for n in range(2000))
    headers = {"content-type": "application/jsonl"}
    assert (await editor.post(f"{path}/import", content=rows.encode(), headers=headers)).json()["added"] == 2000
    assert (await editor.post(f"{path}/import", content=b"x" * (5 << 20), headers=headers)).status_code == 413


async def test_runs_and_what_became_of_each_question(editor: httpx2.AsyncClient, site: Site) -> None:
    path = await new_set(editor, LINE, {"question": "Who won the cup?"})
    started = await editor.post(f"{path}/runs", json={})
    assert (started.status_code, started.json()["state"]) == (202, "queued")
    assert (await editor.post(f"{path}/runs", json={})).status_code == 409
    await work_off(site)
    run = (await editor.get(f"/api/v1/evaluation-runs/{started.json()['id']}")).json()
    assert (run["state"], run["figures"]["recall@1"], run["figures"]["problems"], run["live"]) == ("done", 1, 0, True)
    await editor.post(f"{path}/runs", json={"options": {"min_evidence": 1.0}})
    await work_off(site)
    runs = (await editor.get(f"{path}/runs")).json()
    assert (runs["total"], runs["items"][0]["settings"]["options"]) == (2, {"min_evidence": 1.0})
    outcomes = f"/api/v1/evaluation-runs/{runs['items'][0]['id']}/questions"
    page = (await editor.get(outcomes, params={"show": "problems"})).json()
    assert (page["total"], page["items"][0]["problem"], page["items"][0]["change"]) == (1, "refused", "worse")
    assert (await editor.get(outcomes, params={"show": "changed"})).json()["total"] == 1
    assert (await editor.get(outcomes, params={"limit": 1, "offset": 1})).json()["items"][0]["problem"] == ""
    assert (await editor.delete(f"/api/v1/evaluation-runs/{run['id']}")).status_code == 204
    assert (await editor.get(f"{path}/runs")).json()["total"] == 1


# ---------------------------------------------------------------- who may
async def test_reviewers_try_and_read_and_change_nothing(editor: httpx2.AsyncClient, site: Site) -> None:
    path = await new_set(editor, LINE)
    rita = await site.person("rita", Role.REVIEWER)
    assert [kind for kind, _ in await tried(rita, answer=False)] == ["considered"]
    assert (await rita.get(f"{path}/questions")).status_code == 200
    assert (await rita.post(f"{path}/runs", json={})).status_code == 403
    assert (await rita.delete(path)).status_code == 403
    vera = await site.person("vera", Role.VIEWER)
    assert (await vera.get("/api/v1/kbs/kb/playground")).status_code == 403
    assert (await vera.get(path)).status_code == 403


async def test_what_somebody_may_not_see_does_not_exist(editor: httpx2.AsyncClient, site: Site) -> None:
    """Protection: sets and runs of a private knowledge base, for an editor who was not let in."""
    path = await new_set(editor, LINE)
    run = (await editor.post(f"{path}/runs", json={})).json()["id"]
    await site.kvasir.knowledge.change("kb", private=True)
    await site.kvasir.people.create(OPERATOR, "olga", "correct horse battery", Role.EDITOR, everywhere=False)
    olga = await site.log_in("olga")
    (question,) = (await editor.get(f"{path}/questions")).json()["items"]
    for method, address, body in (
        ("GET", "/api/v1/kbs/kb/playground", None),
        ("POST", "/api/v1/kbs/kb/playground/questions", {"text": "x"}),
        ("GET", "/api/v1/kbs/kb/evaluation-sets", None),
        ("POST", "/api/v1/kbs/kb/evaluation-sets", {"name": "x"}),
        ("GET", path, None),
        ("PATCH", path, {"name": "x"}),
        ("DELETE", path, None),
        ("GET", f"{path}/questions", None),
        ("POST", f"{path}/questions", LINE),
        ("PUT", f"{path}/questions/{question['id']}", LINE),
        ("DELETE", f"{path}/questions/{question['id']}", None),
        ("POST", f"{path}/import", None),
        ("GET", f"{path}/export.jsonl", None),
        ("GET", f"{path}/runs", None),
        ("POST", f"{path}/runs", {}),
        ("GET", f"/api/v1/evaluation-runs/{run}", None),
        ("DELETE", f"/api/v1/evaluation-runs/{run}", None),
        ("GET", f"/api/v1/evaluation-runs/{run}/questions", None),
    ):
        assert (await olga.request(method, address, json=body)).status_code == 404, (method, address)
    assert (await editor.get(path)).status_code == 200
    for bad in ("x", "0" * 32, "%00"):
        assert (await editor.get(f"/api/v1/evaluation-sets/{bad}")).status_code == 404
        assert (await editor.get(f"/api/v1/evaluation-runs/{bad}")).status_code == 404
        assert (await editor.delete(f"{path}/questions/{bad}")).status_code == 404
