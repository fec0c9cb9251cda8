"""The durable inbox: a question is kept before its platform hears that it arrived, and stays until its answer stands.

What is promised to people is one visible answer for each question. A question is taken in at most once (its key is
unique), worked on at least once (a lease that is not renewed is taken over), and answered in messages whose ids are
kept before they are edited: whoever takes over edits those. A worker whose lease was taken over can write nothing
more, since each of its writes names its fencing number.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Integer, Text, and_, bindparam, delete, func, insert, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.batches import delete_in_batches
from core.db.direct import AnyRow, Statement
from core.db.session import Database
from core.db.tables import InboxRow, PostRow, new_id, now
from core.types import ChatFile, Mention, Person, Place, Role

LEASE: Final = timedelta(seconds=20)
BEAT_SECONDS: Final = 5.0
_SURE_SECONDS: Final = LEASE.total_seconds() - 3
MOST_ATTEMPTS: Final = 20
"""A question that was taken up so often and never finished is given up."""
MOST_EDITS: Final = 1
_KEPT: Final = timedelta(days=90)


class LeaseLost(Exception):
    """Another process goes on with this question: stop without writing."""


@dataclass(slots=True)
class Item:
    """A question this process has to answer."""

    id: str
    mention: Mention
    answer_id: str
    fence: int
    attempts: int
    posts: list[str]
    """Ids of our messages that answer it, in order."""
    held_until: float = field(default_factory=lambda: time.monotonic() + _SURE_SECONDS)
    """By this machine's monotonic clock; until then it is surely ours."""


@dataclass(frozen=True, slots=True)
class Posted:
    """What a message of ours belongs to."""

    inbox_id: str
    answer_id: str
    state: str
    mention: Mention
    edits: int = 0
    """How often it was answered anew since its text was changed."""


_HELD: Final = (
    InboxRow.id == bindparam("item"),
    InboxRow.fence == bindparam("held"),
    InboxRow.state == "working",
)
_PLACE: Final = ("platform", "workspace", "channel", "message")

_TAKE_IN: Final = Statement(lambda insert: insert(InboxRow).on_conflict_do_nothing())
_FINISH: Final = Statement(
    update(InboxRow).where(*_HELD).values(state=bindparam("outcome"), finished_at=bindparam("at"), lease_until=None)
)
_RELEASE: Final = Statement(
    update(InboxRow).where(*_HELD).values(state="waiting", lease_until=None, attempts=bindparam("tries"))
)
_CHECK: Final = Statement(select(InboxRow.id).where(*_HELD))
_ADD_POST: Final = Statement(
    insert(PostRow).from_select(
        ["inbox_id", "number", *_PLACE],
        select(
            InboxRow.id,
            bindparam("place_in_answer", type_=Integer),
            InboxRow.platform,
            InboxRow.workspace,
            InboxRow.channel,
            bindparam("post", type_=Text),
        ).where(*_HELD),
    )
)
_DROP_POST: Final = Statement(
    delete(PostRow).where(PostRow.inbox_id == bindparam("item"), PostRow.message == bindparam("post"))
)
_WANT: Final = Statement(
    update(InboxRow)
    .where(InboxRow.id == bindparam("item"), InboxRow.state == "working")
    .values(wanted=bindparam("what"))
)
_WANTED: Final = Statement(
    select(InboxRow.id).where(
        InboxRow.state == "working", InboxRow.lease_until >= bindparam("at"), InboxRow.wanted != ""
    )
)
_BY_MESSAGE: Final = Statement(select(InboxRow).where(*(getattr(InboxRow, name) == bindparam(name) for name in _PLACE)))
_BY_POST: Final = Statement(
    select(InboxRow)
    .join(PostRow, PostRow.inbox_id == InboxRow.id)
    .where(*(getattr(PostRow, name) == bindparam(name) for name in _PLACE))
)


class Inbox:
    def __init__(self, db: Database) -> None:
        self._db = db

    # ------------------------------------------------------------ in
    async def take_in(self, mention: Mention, *, waiting: bool = False, state: str = "") -> Item | None:
        """Keep a question, and take it up at once unless it is `waiting`; None: it was here before.

        `state` keeps it as one that there is nothing to do for. Raises Unavailable; nothing was kept then.
        """
        item = Item(new_id(), mention, new_id(), 0 if waiting or state else 1, 1, [])
        take_in = _TAKE_IN(
            id=item.id,
            **_key(mention.place, mention.message_id),
            mention=to_json(mention),
            answer_id=item.answer_id,
            state=state or ("waiting" if waiting else "working"),
            fence=item.fence,
            attempts=item.fence,
            lease_until=now() + LEASE if item.fence else None,
            said_at=mention.said_at or now(),
        )
        (done,) = await self._db.run(take_in)
        return item if done.count else None

    async def reopen(self, mention: Mention, *, edited: bool, answer_id: str = "") -> Item | None:
        """Take a question up once more, with the messages it has: its text was changed, or another answer is wanted.

        None where that was done often enough, its text is the same, it was withdrawn, or its answer is another than
        `answer_id` by now: somebody else wanted that, too.
        """
        async with self._db.session() as session:
            row = await _by_message(session, mention.place, mention.message_id)
            if row is None or row.state == "withdrawn":
                return None
            if edited and (row.edits >= MOST_EDITS or row.mention.get("text") == mention.text):
                return None
            if answer_id and row.answer_id != answer_id:
                return None
            row.edits += edited
            row.mention, row.answer_id, row.attempts = to_json(mention), new_id(), 0
            return await _taken_up(session, row)

    async def withdraw(self, place: Place, message_id: str) -> Sequence[str] | None:
        """The question was deleted: it will not be answered; gives our messages for it, None if it was not here.

        A question that comes after its own deletion is known already.
        """
        async with self._db.session() as session:
            row = await _by_message(session, place, message_id)
            if row is None:
                return None
            row.state, row.fence, row.lease_until, row.mention = "withdrawn", row.fence + 1, None, {}
            row.finished_at = row.finished_at or now()
            return await _posts(session, row.id)

    # ------------------------------------------------------------ work
    async def take_over(self, platform: str, *, everything: bool = False, most: int = 200) -> Sequence[Item]:
        """Questions that wait or whose worker is gone, oldest first; `everything`: there is no other worker."""
        free = or_(InboxRow.state == "waiting", and_(InboxRow.state == "working", InboxRow.lease_until < now()))
        if everything:
            free = InboxRow.state.in_(("waiting", "working"))
        async with self._db.session() as session:
            rows = list(
                await session.scalars(
                    select(InboxRow)
                    .where(InboxRow.platform == platform, free)
                    .order_by(InboxRow.created_at, InboxRow.id)
                    .limit(most)
                    .with_for_update(skip_locked=True)
                )
            )
            items = []
            for row in rows:
                if row.attempts >= MOST_ATTEMPTS:
                    row.state, row.finished_at, row.lease_until = "failed", now(), None
                else:
                    items.append(await _taken_up(session, row))
            return items

    async def keep(self, items: Sequence[Item]) -> Sequence[Item]:
        """Renew the leases; gives those that another process has taken over."""
        if not items:
            return ()
        until = time.monotonic() + _SURE_SECONDS
        async with self._db.session() as session:
            held = await session.scalars(
                update(InboxRow)
                .where(
                    tuple_(InboxRow.id, InboxRow.fence).in_([(item.id, item.fence) for item in items]),
                    InboxRow.state == "working",
                )
                .values(lease_until=now() + LEASE)
                .returning(InboxRow.id)
            )
            ids = set(held)
        for item in items:
            if item.id in ids:
                item.held_until = until
        return [item for item in items if item.id not in ids]

    async def add_post(self, item: Item, post: str) -> None:
        """Remember a message of ours, before it is ever edited. Raises LeaseLost."""
        await self._write(item, _ADD_POST, place_in_answer=len(item.posts), post=post)
        item.posts.append(post)

    async def drop_post(self, item: Item, post: str) -> None:
        """Forget a message that is not there any more."""
        await self._db.run(_DROP_POST(item=item.id, post=post))
        item.posts.remove(post)

    async def finish(self, item: Item, state: str) -> None:
        """It is done, failed, or late. Raises LeaseLost."""
        await self._write(item, _FINISH, outcome=state, at=now())

    async def release(self, item: Item) -> None:
        """Give it back unanswered, for whoever comes next."""
        await self._write(item, _RELEASE, tries=max(0, item.attempts - 1))

    async def check(self, item: Item, *, surely: bool = False) -> None:
        """Raises LeaseLost where this process was away for so long that another may have gone on with the question.

        `surely`: look, however long it was; another may have been told to answer it anew.
        """
        if time.monotonic() < item.held_until and not surely:
            return
        (found,) = await self._db.fetch(_CHECK(item=item.id, held=item.fence))
        if not found.rows:
            raise LeaseLost(item.id)

    async def want_stop(self, inbox_id: str) -> bool:
        """Have the process that answers a question stop; False: nobody answers it."""
        (done,) = await self._db.run(_WANT(item=inbox_id, what="stop"))
        return bool(done.count)

    async def wanted_stops(self) -> Sequence[str]:
        """Ids of questions whose answer is to be stopped by whoever writes it."""
        (found,) = await self._db.fetch(_WANTED(at=now()))
        return [row.id for row in found.rows]

    async def forget_old(self) -> None:
        """Remove what was finished long ago; thumbs under such old messages are not heard any more."""
        is_over = InboxRow.state.not_in(("waiting", "working"))
        is_old = InboxRow.created_at < now() - _KEPT
        await delete_in_batches(self._db, InboxRow, is_over, is_old, belonging=[PostRow.inbox_id])

    # ------------------------------------------------------------ looked up
    async def posted(self, place: Place, post: str) -> Posted | None:
        """What a message of ours answers; None: it is not ours."""
        (found,) = await self._db.fetch(_BY_POST(**_key(place, post)))
        row = found.first
        return _posted(row, from_json(row.mention)) if row is not None and row.mention else None

    async def of(self, place: Place, message_id: str) -> Posted | None:
        """The question that was asked by a message, whatever became of it."""
        (found,) = await self._db.fetch(_BY_MESSAGE(**_key(place, message_id)))
        row = found.first
        if row is None:
            return None
        return _posted(row, from_json(row.mention) if row.mention else Mention(place, message_id, Person("", ""), ""))

    async def posts_of(self, inbox_id: str) -> Sequence[str]:
        async with self._db.read() as session:
            return await _posts(session, inbox_id)

    async def waiting(self) -> int:
        """How many questions are not answered yet, on all platforms."""
        async with self._db.read() as session:
            count = select(func.count()).where(InboxRow.state.in_(("waiting", "working")))
            return await session.scalar(count) or 0

    async def _write(self, item: Item, statement: Statement, **values: Any) -> None:
        (done,) = await self._db.run(statement(item=item.id, held=item.fence, **values))
        if not done.count:
            raise LeaseLost(item.id)


def _posted(row: AnyRow, mention: Mention) -> Posted:
    return Posted(row.id, row.answer_id, row.state, mention, row.edits)


async def _taken_up(session: AsyncSession, row: InboxRow) -> Item:
    row.state, row.fence, row.attempts = "working", row.fence + 1, row.attempts + 1
    row.lease_until, row.finished_at, row.wanted = now() + LEASE, None, ""
    posts = await _posts(session, row.id)
    return Item(row.id, from_json(row.mention), row.answer_id, row.fence, row.attempts, posts)


async def _by_message(session: AsyncSession, place: Place, message: str) -> InboxRow | None:
    """Locked until the session ends."""
    query = select(InboxRow).filter_by(**_key(place, message)).with_for_update()
    row: InboxRow | None = await session.scalar(query)
    return row


async def _posts(session: AsyncSession, inbox_id: str) -> list[str]:
    return list(
        await session.scalars(select(PostRow.message).where(PostRow.inbox_id == inbox_id).order_by(PostRow.number))
    )


def _key(place: Place, message: str) -> dict[str, str]:
    return {
        "platform": place.platform,
        "workspace": place.workspace,
        "channel": place.channel,
        "message": message,
    }


def to_json(mention: Mention) -> dict[str, Any]:
    """A mention of a chat platform as JSON; `from_json` gives the same again."""
    return {
        **_fields(mention),
        "place": _fields(mention.place),
        "person": _fields(mention.person),
        "files": [_fields(file) for file in mention.files],
        "extra": dict(mention.extra),
        "filter": None,
        "said_at": mention.said_at.isoformat() if mention.said_at else None,
    }


def _fields(value: Mention | Place | Person | ChatFile) -> dict[str, Any]:
    """By name, as they are; `dataclasses.asdict` would copy all that is in them."""
    return {one.name: getattr(value, one.name) for one in fields(value)}


def from_json(kept: dict[str, Any]) -> Mention:
    person = kept["person"]
    return Mention(
        **{
            **kept,
            "place": Place(**kept["place"]),
            "person": Person(**{**person, "role": Role(person["role"]), "groups": tuple(person["groups"])}),
            "kbs": tuple(kept["kbs"]),
            "files": tuple(ChatFile(**file) for file in kept["files"]),
            "said_at": datetime.fromisoformat(kept["said_at"]) if kept["said_at"] else None,
        }
    )
