"""The queue of what went wrong: what is in it, who sees it, what becomes of it, and what leaves it as a file."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta

import pytest
from sqlalchemy import event

from core.db.session import Database
from core.db.tables import ConversationRow, EscalationRow, InboxRow, PostRow, UserRow, now
from core.errors import NotFound, UserError
from core.quality.feedback import Feedback
from core.quality.reviews import Changed, Reviews, Sought, permalink
from core.quality.selection import Selection
from core.types import Person, Place, Role
from tests.core.test_conversation import ANN, BOB, answered

pytestmark = pytest.mark.anyio

RITA = Person("user:" + "a" * 32, "rita", Role.REVIEWER)
EVERYTHING = Sought()


@pytest.fixture
async def reviews(db: Database) -> Reviews:
    async with db.session() as session:
        for key, name, role in (("a", "rita", "reviewer"), ("b", "vera", "viewer"), ("c", "otto", "owner")):
            session.add(UserRow(id=key * 32, name=name, password_hash="", role=role))
    return Reviews(db)


async def furnish(db: Database) -> tuple[str, str, str]:
    """A 👎, an unanswered question, and both at once; beside a good answer, a failed one, and an evaluation's."""
    moment = now()
    down = await answered(db, None, "How long is leave?", created_at=moment - timedelta(days=3))
    await Feedback(db).rate(down, ANN, -1, "=too short")
    await Feedback(db).rate(down, BOB, -1)
    refused = await answered(
        db,
        None,
        "Where do I park?",
        answered=False,
        platform="slack",
        kbs=["secret"],
        created_at=moment - timedelta(days=2),
    )
    both = await answered(db, None, "What is new?", answered=False, created_at=moment - timedelta(days=1))
    await Feedback(db).rate(both, ANN, -1, "no help")
    good = await answered(db, None, "Good?")
    await Feedback(db).rate(good, ANN, 1)
    await answered(db, None, "Down?", answered=False, state="failed")
    await answered(db, None, "An evaluation's?", answered=False, platform="eval")
    return down, refused, both


async def ids(reviews: Reviews, sought: Sought = EVERYTHING) -> list[str]:
    page = await reviews.list(sought)
    assert page.total == len(page.items)
    return [item.answer_id for item in page.items]


async def test_what_was_rated_down_or_not_answered_is_in_it_once(db: Database, reviews: Reviews) -> None:
    down, refused, both = await furnish(db)
    assert await ids(reviews) == [both, refused, down]
    assert await ids(reviews, Sought(why="down")) == [both, down]
    assert await ids(reviews, Sought(why="unanswered")) == [both, refused]
    (found,) = (await reviews.list(Sought(text="LEAVE"))).items
    assert [(one.person, one.reason) for one in found.complaints] == [(ANN, "=too short"), (BOB, "")]
    assert (found.state, found.labels, found.assignee, found.escalation) == ("new", (), None, None)
    await Feedback(db).withdraw(down, ANN)
    await Feedback(db).withdraw(down, BOB)
    assert await ids(reviews) == [both, refused]


async def test_whoever_may_not_read_the_base_does_not_see_it(db: Database, reviews: Reviews) -> None:
    down, refused, both = await furnish(db)
    allowed = ("kb",)
    assert await ids(reviews, Sought(Selection(allowed=allowed))) == [both, down]
    with pytest.raises(NotFound):
        await reviews.get(refused, allowed)
    with pytest.raises(NotFound):
        await reviews.change(refused, Changed(state="solved"), RITA, allowed)
    assert (await reviews.get(refused)).question == "Where do I park?"


async def test_it_is_taken_labelled_and_solved(db: Database, reviews: Reviews) -> None:
    down, refused, both = await furnish(db)
    given = Changed("working", RITA.key.removeprefix("user:"), ("wrong_answer", "wrong_passage"), "Asked Ann.")
    found = await reviews.change(down, given, RITA)
    assert (found.state, found.assignee_name, found.updated_by) == ("working", "rita", "rita")
    assert found.labels == ("wrong_passage", "wrong_answer")
    found = await reviews.change(down, Changed(cure={"kind": "curated", "object": "x"}, again_id=both), RITA)
    assert (found.note, found.cure["object"], found.again_id) == ("Asked Ann.", "x", both)
    await reviews.change(both, Changed(state="solved"), RITA)
    assert dict((await reviews.list(EVERYTHING)).counts) == {"new": 1, "working": 1, "solved": 1}
    assert await ids(reviews, Sought(states=("new", "working"))) == [refused, down]
    assert await ids(reviews, Sought(label="wrong_answer")) == [down]
    assert await ids(reviews, Sought(assignee="a" * 32)) == [down]
    assert await ids(reviews, Sought(assignee="none")) == [both, refused]
    assert (await reviews.change(down, Changed(assignee=""), RITA)).assignee is None
    await Feedback(db).withdraw(down, ANN)
    await Feedback(db).withdraw(down, BOB)
    assert down in await ids(reviews), "what somebody works on stays"


async def test_several_get_one_state(db: Database, reviews: Reviews) -> None:
    down, refused, both = await furnish(db)
    good = await answered(db, None, "Good?")
    await reviews.change(both, Changed(note="Kept."), RITA)
    assert await reviews.set_state((down, both, both, refused, good, "f" * 32), "solved", RITA, ("kb",)) == 2
    assert await ids(reviews, Sought(states=("solved",))) == [both, down]
    found = await reviews.get(both)
    assert (found.note, found.updated_by) == ("Kept.", "rita")
    assert (await reviews.get(refused)).state == "new"
    with pytest.raises(UserError):
        await reviews.set_state((down,), "gone", RITA)


@pytest.mark.parametrize(
    "given",
    [
        Changed(state="gone"),
        Changed(labels=("nonsense",)),
        Changed(note="x" * 4001),
        Changed(cure={"kind": "magic"}),
        Changed(assignee="b" * 32),
        Changed(assignee="f" * 32),
    ],
)
async def test_what_does_not_exist_is_refused(db: Database, reviews: Reviews, given: Changed) -> None:
    down, *_ = await furnish(db)
    with pytest.raises(UserError):
        await reviews.change(down, given, RITA)
    assert (await reviews.get(down)).updated_at is None


async def test_what_needs_no_review_is_not_found(db: Database, reviews: Reviews) -> None:
    good = await answered(db, None, "Good?")
    for answer in (good, "f" * 32):
        with pytest.raises(NotFound):
            await reviews.change(answer, Changed(state="solved"), RITA)


async def test_filters_go_together(db: Database, reviews: Reviews) -> None:
    _, refused, both = await furnish(db)
    assert await ids(reviews, Sought(Selection(platform="slack"))) == [refused]
    assert await ids(reviews, Sought(Selection(kb="secret"), why="unanswered")) == [refused]
    assert await ids(reviews, Sought(Selection(since=now() - timedelta(hours=30)))) == [both]
    assert await ids(reviews, Sought(text="100%")) == []


async def test_a_page_costs_the_same_number_of_statements_however_long_it_is(db: Database, reviews: Reviews) -> None:
    statements: list[str] = []

    @event.listens_for(db.engine.sync_engine, "before_cursor_execute")
    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT"):
            statements.append(statement)

    await furnish(db)
    statements.clear()
    await reviews.list(EVERYTHING, limit=1)
    one = len(statements)
    statements.clear()
    await reviews.list(EVERYTHING, limit=3)
    assert len(statements) == one


async def test_escalations_and_the_way_back_to_the_thread(db: Database, reviews: Reviews) -> None:
    conversation = ConversationRow(platform="discord", workspace="77", channel="88", thread="99", person=ANN)
    async with db.session() as session:
        session.add(conversation)
    answer = await answered(db, conversation.id, "Where?", answered=False, platform="discord")
    inbox = InboxRow(platform="discord", workspace="77", channel="88", message="1", answer_id=answer, said_at=now())
    async with db.session() as session:
        session.add_all([inbox, EscalationRow(answer_id=answer, person=BOB)])
        await session.flush()
        session.add(PostRow(inbox_id=inbox.id, platform="discord", workspace="77", channel="88", message="123"))
    found = await reviews.get(answer)
    assert found.escalation is not None
    assert (found.escalation.person, found.escalation.resolved_at) == (BOB, None)
    place, link = await reviews.place(answer)
    assert (place, link) == (Place("discord", "77", "88", "99"), "https://discord.com/channels/77/99/123")
    alone = await answered(db, None, "Alone?", answered=False)
    assert await reviews.place(alone) == (Place(""), "")


@pytest.mark.parametrize(
    ("place", "message", "link"),
    [
        (Place("slack", "T1", "C1", "17.5"), "18.1", "https://app.slack.com/client/T1/C1/thread/C1-17.5"),
        (Place("slack", "T1", "D1"), "", "https://app.slack.com/client/T1/D1"),
        (Place("discord", "", "88"), "5", "https://discord.com/channels/@me/88/5"),
        (Place("telegram", "b", "-1001234", "7"), "55", "https://t.me/c/1234/55"),
        (Place("telegram", "b", "4321"), "55", ""),
        (Place("web", "", "user:1", "x"), "55", ""),
    ],
)
def test_a_platform_s_own_addresses(place: Place, message: str, link: str) -> None:
    assert permalink(place, message) == link


async def test_an_export_holds_the_filtered_list_and_runs_nothing(db: Database, reviews: Reviews) -> None:
    down, *_ = await furnish(db)
    await reviews.change(down, Changed(note="@SUM(A1)", labels=("wrong_answer",)), RITA)
    lines = (await reviews.export(EVERYTHING, "jsonl")).splitlines()
    assert [json.loads(line)["question"] for line in lines] == [
        "What is new?",
        "Where do I park?",
        "How long is leave?",
    ]
    assert json.loads(lines[2])["reasons"] == ["=too short"]
    text = await reviews.export(Sought(why="down", text="leave"), "csv")
    (row,) = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))
    assert (row["answer_id"], row["reasons"], row["note"]) == (down, "'=too short", "'@SUM(A1)")
    assert (row["labels"], row["complaints"], row["state"]) == ("wrong_answer", "2", "new")
    assert (await reviews.export(Sought(text="nothing"), "csv")).count("\n") == 1
