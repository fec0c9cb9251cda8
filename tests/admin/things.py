"""One of everything that the API names by an id, in one knowledge base."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta

from core.access import Scope
from core.db.tables import (
    AnswerRow,
    ChunkOverrideRow,
    ConversationRow,
    CuratedRow,
    DocumentRow,
    DocumentVersionRow,
    EscalationRow,
    EvaluationQuestionRow,
    EvaluationRunRow,
    EvaluationSetRow,
    InboxRow,
    JobRow,
    KnowledgeBaseRow,
    OutboxRow,
    RatingRow,
    ScheduleRow,
    SourceRow,
    Table,
    new_id,
    now,
)
from core.identity.people import People
from core.indexing.ingest import Incoming
from core.types import Person, Role
from core.work.jobs import run_job
from tests.admin.conftest import PASSWORD, Site


async def make_things(site: Site, kb: str, *, by: Person) -> Mapping[str, str]:
    """Name of a path parameter → what stands there; `by` is an owner."""
    kvasir = site.kvasir
    asker = f"slack:T1:U{kb}"
    await kvasir.knowledge.create(kb, private=True)

    async def incoming() -> AsyncIterator[Incoming]:
        yield Incoming(
            "leave.md", lambda: f"# Leave in {kb}\n\nAnnual leave is 28 days.\n\n## Notice\n\nTwo weeks.".encode()
        )

    ticket = await kvasir.ingest.submit(kb, incoming(), claimed=True)
    await run_job(kvasir.jobs, ticket.job, kvasir.run_job)
    document = ticket.documents[0]
    chunks = await kvasir.knowledge.chunks(document.id)
    async with kvasir.db.session() as session:
        base = await session.get(KnowledgeBaseRow, await _kb_id(site, kb))
        row = await session.get(DocumentRow, document.id)
        assert base is not None
        assert row is not None
        answer = AnswerRow(
            id=new_id(), person=asker, platform="slack", workspace="T1", channel="C1", kbs=[kb], question="Sabbatical?",
            standalone_question="Sabbatical?", text="No.", answered=False, engine="extractive",
        )  # fmt: skip
        conversation = ConversationRow(
            id=new_id(),
            platform="slack",
            workspace="T1",
            channel="C1",
            thread=new_id(),
            person=asker,
            title="Sabbatical",
        )
        answer.conversation_id = conversation.id
        evaluation_set = EvaluationSetRow(id=new_id(), kb_id=base.id, name="first")
        question = EvaluationQuestionRow(id=new_id(), set_id=evaluation_set.id, question="Leave?", document="leave.md")
        run = EvaluationRunRow(id=new_id(), set_id=evaluation_set.id, results={})
        override = ChunkOverrideRow(id=new_id(), document_id=document.id, action="add", text="More.", by=by.key)
        version = DocumentVersionRow(
            id=new_id(), document_id=document.id, number=1, content_hash=row.content_hash, size=row.size
        )
        source = SourceRow(
            id=new_id(), kb_id=base.id, name="site", kind="url", settings={"urls": ["https://example.org/"]}
        )
        curated = CuratedRow(
            id=new_id(), kb_id=base.id, document_id=None, question="Sick note?", text="By noon.", paraphrases=[],
        )  # fmt: skip
        schedule = ScheduleRow(
            id=new_id(), name="tidy", kind="retention", settings={"platform": "slack", "days": 90}, cron="0 3 * * *"
        )
        job = JobRow(id=new_id(), kind="ingest", payload={"kb": kb}, state="failed", error="It was too much.")
        message = OutboxRow(id=new_id(), platform="slack", channel="C1", text="Hello", purpose="test")
        inbox = InboxRow(platform="slack", workspace="T1", channel="C1", message=new_id(), said_at=now(), state="done")
        rows: list[Table] = [
            conversation,
            evaluation_set,
            source,
            curated,
            schedule,
            job,
            message,
            inbox,
            version,
            override,
        ]
        session.add_all(rows)
        await session.flush()
        session.add_all([answer, question, run])
        await session.flush()
        session.add(RatingRow(answer_id=answer.id, person=asker, value=-1, reason="wrong"))
        session.add(EscalationRow(answer_id=answer.id, person=asker))
        index_id = base.live_generation_id or ""
    await kvasir.grants.allow(kb, asker)
    model = await kvasir.models.add("engine", f"echo-{kb}", "scripted")
    people = People(kvasir.db, kvasir.accounts)
    victim = f"victim-{kb}"
    await kvasir.accounts.create(victim, PASSWORD, Role.VIEWER)
    await kvasir.accounts.login(victim, PASSWORD, address="127.0.0.1")
    member = await people.get(victim)
    logins, _ = await people.logins(user_id=member.user.id)
    key, _ = await kvasir.accounts.create_key(victim, "ci", [Scope.ASK], expires_at=now() + timedelta(days=1))
    invitation, _ = await people.invite(by, Role.VIEWER)
    return {
        "kb": kb,
        "document_id": document.id,
        "number": "0",
        "version": "1",
        "override_id": override.id,
        "answer_id": answer.id,
        "record_id": conversation.id,
        "conversation_id": conversation.id,
        "set_id": evaluation_set.id,
        "question_id": question.id,
        "run_id": run.id,
        "source_id": source.id,
        "curated_id": curated.id,
        "schedule_id": schedule.id,
        "job_id": job.id,
        "message_id": message.id,
        "index_id": index_id,
        "person": asker,
        "user": victim,
        "login_id": logins[0].id,
        "key_id": key.id,
        "invitation_id": invitation.id,
        "platform": "slack",
        "kind": "engine",
        "model": model.name,
        "seen": chunks[0].content_hash,
        "kb_model": f"kb:{kb}",
    }


async def _kb_id(site: Site, name: str) -> str:
    return (await site.kvasir.knowledge.get(name)).id
