"""Takes in what people do on one chat platform, and sees each question through to its answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from bots.commands import Commands
from bots.errors import DeliveryError
from bots.files import ThreadFiles
from bots.helping import Helping
from bots.inbox import MOST_EDITS, Inbox, Item, LeaseLost, Posted
from bots.platform import Controls, Messenger
from bots.questions import looks_like_question
from bots.quota import Quota
from bots.streaming import ChatAnswer
from bots.tempo import Tempos
from core.db.tables import now
from core.errors import KvasirError, NotFound
from core.texts import speaking, spoken, tell
from core.types import ChatEvent, Command, Deleted, Mention, Person, Place, Press, Said, Thumb

if TYPE_CHECKING:
    from bots.handler import ChatHandler
    from core.app import Kvasir
    from core.chats.channels import ChannelSettings

logger = logging.getLogger(__name__)

_MOST_AT_ONCE: Final = 2000
"""Questions in this process's hands; more wait in the inbox."""
_READ_BACK: Final = 20
"""Messages of a thread that are read from its platform."""
_STOP_SECONDS: Final = 30.0
_MOMENT_SECONDS: Final = 2.0
_NOTICED_SECONDS: Final = 2.0
"""After which another process has noticed that an answer is no longer its own."""
_PAUSES: Final = (0.05, 0.15, 0.3)
"""Seconds before it is looked again for a message that was just sent."""


@dataclass(slots=True)
class _Work:
    """An answer being written."""

    item: Item
    task: asyncio.Task[None] | None = None
    speaking: asyncio.Task[None] | None = None
    """What generates it; cancelled to stop it."""
    answer: ChatAnswer | None = None
    why: Literal["", "stop", "withdrawn", "anew"] = ""
    """Why it was ended from outside."""


class Intake:
    """The port `Intake` of one messenger; owns the work that it begins until `close`."""

    def __init__(self, kvasir: Kvasir, handler: ChatHandler, messenger: Messenger, inbox: Inbox) -> None:
        self._kvasir = kvasir
        self._handler = handler
        self._messenger = messenger
        self._inbox = inbox
        self._tempos = Tempos(messenger.name, kvasir.limits, spread=messenger.spread)
        self._commands = Commands(kvasir, inbox)
        self._files = ThreadFiles(kvasir, messenger)
        self._helping = Helping(kvasir, messenger)
        self._working: dict[str, _Work] = {}
        """By the id of the question."""
        self._quota = Quota(kvasir.limits, messenger.name)
        self._closing = False
        self.heard_at: datetime | None = None
        """When something last happened on the platform."""

    # ------------------------------------------------------------ the port
    async def take(self, event: ChatEvent) -> str:
        self.heard_at = now()
        match event:
            case Mention():
                with speaking(self._handler.language(event)):
                    return await self._mention(event)
            case Deleted():
                await self._deleted(event)
                return ""
            case Thumb() | Press() | Command():
                channel = await self._kvasir.channels.get(event.place) if event.place else None
                language = (channel.language if channel else None) or self._kvasir.settings.language
                with speaking(spoken() if language == "auto" else language):
                    try:
                        return await self._other(event)
                    except KvasirError as error:
                        return str(error)

    async def thread_of(self, place: Place, post: str) -> str | None:
        posted = await self._inbox.posted(place, post)
        return posted.mention.place.thread if posted else None

    async def _other(self, event: Thumb | Press | Command) -> str:
        match event:
            case Thumb():
                return await self._thumb(event)
            case Press():
                return await self._press(event)
            case Command():
                return await self._commands.run(event)

    # ------------------------------------------------------------ questions
    async def _mention(self, mention: Mention) -> str:
        channel = await self._kvasir.channels.get(mention.place)
        if not await self._is_for_us(mention, channel):
            return ""
        if channel.askers and not _is_among(mention.person, channel.askers):
            return "" if mention.trigger in ("heard", "thread") else tell("not_among_askers")
        if mention.edited and (await self._edited(mention)):
            return ""
        full = self._full(mention)
        waiting = self._closing or len(self._working) >= _MOST_AT_ONCE
        item = await self._inbox.take_in(mention, waiting=waiting, state="failed" if full else "")
        if item is None:
            return ""
        if not full and not waiting and (full := await self._full_in_all(mention)):
            await self._finish(item, "failed")
        if full:  # in the open it is said once a minute
            alone = mention.trigger == "command"
            return tell(f"quota_{full}") if alone or self._quota.may_tell(mention) else ""
        self._quota.count(mention)
        if not waiting:
            await self._begin(item)
        return ""

    async def _is_for_us(self, mention: Mention, channel: ChannelSettings) -> bool:
        """Whether this is to be answered where it was said. Direct messages and commands always are."""
        if mention.trigger in ("dm", "command"):
            return True
        if channel.mode == "off":
            return False
        if mention.trigger == "thread" and channel.follow_ups and await self._kvasir.conversations.known(mention.place):
            return True
        if mention.trigger in ("heard", "thread"):
            return channel.mode == "auto" and looks_like_question(mention.text)
        return True

    def _full(self, mention: Mention) -> Literal["", "person", "channel"]:
        """Whose quota is used up by now."""
        limits = self._kvasir.settings.channels
        return self._quota.full(mention, limits.questions_per_minute, limits.channel_questions_per_minute)

    async def _full_in_all(self, mention: Mention) -> Literal["", "person", "channel"]:
        """Whose quota is used up by what all processes let in."""
        limits = self._kvasir.settings.channels
        return await self._quota.full_in_all(mention, limits.questions_per_minute, limits.channel_questions_per_minute)

    async def _edited(self, mention: Mention) -> bool:
        """Whether the question was here before; if so, it is answered anew where that is due."""
        before = await self._inbox.of(mention.place, mention.message_id)
        if before is None:
            return False
        if mention.text.strip() not in ("", before.mention.text.strip()) and before.edits < MOST_EDITS:
            was_here = await self._stop(before.inbox_id, "anew")
            await self._take_from_history(before)
            is_elsewhere = before.state == "working" and not was_here
            item = await self._inbox.reopen(mention, edited=True)
            if item is not None:
                await self._begin(item, after=_NOTICED_SECONDS if is_elsewhere else 0.0)
        return True

    async def _take_from_history(self, before: Posted) -> None:
        """Let later questions not be understood by what is no longer asked."""
        with contextlib.suppress(NotFound):  # it was not answered yet
            await self._kvasir.conversations.swap_state(before.answer_id, before.mention.person.key, "replaced")

    def _held(self, place: Place, message_id: str) -> Item | None:
        for work in self._working.values():
            mention = work.item.mention
            if mention.message_id == message_id and replace(mention.place, thread="") == replace(place, thread=""):
                return work.item
        return None

    async def _deleted(self, event: Deleted) -> None:
        held = self._held(event.place, event.message_id)
        if held is not None:
            await self._stop(held.id, "withdrawn")
        before = await self._inbox.of(event.place, event.message_id)
        posts = await self._inbox.withdraw(event.place, event.message_id)
        if before is not None:
            await self._take_from_history(before)
        gone = Mention(event.place, event.message_id, Person("", ""), "")
        if posts is None:  # it may come yet
            await self._inbox.take_in(gone, state="withdrawn")
            return
        surface = self._messenger.surface(gone)
        for post in posts:
            try:
                await surface.delete(post)
            except DeliveryError as error:
                logger.info("an answer to a deleted question stays: %s", error)

    # ------------------------------------------------------------ work
    async def _begin(self, item: Item, *, after: float = 0.0) -> None:
        if self._closing:
            await asyncio.shield(self._give_back(item))  # whoever comes next goes on with it
            return
        work = self._working[item.id] = _Work(item)
        work.task = asyncio.create_task(self._see_through(work, after), name=f"answer-{item.id}")

    async def _see_through(self, work: _Work, after: float) -> None:
        """Answer a question; whatever happens, its row says how it stands."""
        item = work.item
        try:
            if after:
                await asyncio.sleep(after)
            with speaking(self._handler.language(item.mention)):
                await self._answer(work)
        except LeaseLost:
            logger.info("question %s was taken over by another process", item.id)
        except asyncio.CancelledError:
            await asyncio.shield(self._give_back(item))
            raise
        except DeliveryError as error:
            logger.warning("the answer to question %s is not shown on %s: %s", item.id, self._messenger.name, error)
            await self._finish(item, "failed")
        except Exception:
            logger.exception("question %s could not be answered on %s", item.id, self._messenger.name)
            await self._finish(item, "failed")
        finally:
            if self._working.get(item.id) is work:
                del self._working[item.id]

    async def _answer(self, work: _Work) -> None:
        item = work.item
        mention = item.mention
        surface = self._messenger.surface(mention)
        can = surface.capabilities
        channel = await self._kvasir.channels.get(mention.place)
        share = mention.alone and mention.trigger == "command"
        answer = work.answer = ChatAnswer(
            surface,
            self._inbox,
            item,
            self._tempos.of(surface.tempo, can.edit_interval, can.edit_growth),
            quiet=mention.trigger == "heard",
            controls=Controls(
                rate=channel.feedback,
                again=True,
                human=bool(channel.helpers),
                share=share,
            ),
            private=[kb.name for kb in await self._kvasir.knowledge.names() if kb.private] if share else (),
            shared=self._kvasir.limits.are_shared(self._messenger.name),
        )
        answer.begin()
        speaking_task = work.speaking = asyncio.create_task(self._speak(answer, item), name=f"speak-{item.id}")
        try:
            await asyncio.wait({speaking_task})
            if not speaking_task.cancelled():
                speaking_task.result()
            elif work.why == "stop":
                await answer.stopped()
            elif work.why == "withdrawn":
                await answer.withdraw()
            if work.why not in ("withdrawn", "anew"):
                await self._finish(item, "failed" if answer.failed else "done")
        finally:
            speaking_task.cancel()
            await asyncio.gather(speaking_task, return_exceptions=True)
            await answer.close()

    async def _speak(self, answer: ChatAnswer, item: Item) -> None:
        mention = item.mention
        if item.attempts > 1 and (finished := await self._kvasir.answers.recorded(item.answer_id)):
            await answer.finish(finished)
            return
        oldest = now() - timedelta(minutes=self._kvasir.settings.channels.max_age_minutes)
        if mention.said_at is not None and mention.said_at < oldest:
            await answer.fail(tell("question_too_old"))
            return
        await self._handler.answer(
            answer,
            mention,
            answer_id=item.answer_id,
            read_back=self._read_back if self._kvasir.settings.channels.reading_back else None,
            files=self._files.of,
        )

    async def _read_back(self, mention: Mention) -> Sequence[Said]:
        try:
            return await self._messenger.history(mention, _READ_BACK)
        except DeliveryError as error:
            logger.info("the thread could not be read back: %s", error)
            return ()

    async def _stop(self, inbox_id: str, why: Literal["stop", "withdrawn", "anew"]) -> bool:
        """End an answer that is being written here, and wait until it has come to rest; False: there is none."""
        work = self._working.get(inbox_id)
        if work is None or work.task is None:
            return False
        work.why = why
        if work.speaking is not None:
            work.speaking.cancel()
        await asyncio.wait({work.task}, timeout=_STOP_SECONDS)
        return True

    async def _finish(self, item: Item, state: str) -> None:
        try:
            await self._inbox.finish(item, state)
        except LeaseLost:
            logger.info("question %s was taken over by another process", item.id)

    async def _give_back(self, item: Item) -> None:
        with contextlib.suppress(LeaseLost):
            await self._inbox.release(item)

    # ------------------------------------------------------------ over time
    async def take_over(self, *, everything: bool = False) -> None:
        """Go on with questions that nobody works on."""
        room = _MOST_AT_ONCE - len(self._working)
        if room > 0 and not self._closing:
            items = await self._inbox.take_over(self._messenger.name, everything=everything, most=min(room, 200))
            for item in items:
                await self._begin(item)

    async def keep_leases(self) -> None:
        """Renew the leases of what is being answered; leave what another process has taken over."""
        for item in await self._inbox.keep([work.item for work in self._working.values()]):
            work = self._working.get(item.id)
            if work is not None and work.item is item and work.task is not None:
                work.task.cancel()

    async def hear_wants(self) -> None:
        """Stop what people asked other processes to stop."""
        if self._working and self._kvasir.limits.are_shared(self._messenger.name):
            for inbox_id in await self._inbox.wanted_stops():
                await self._stop(inbox_id, "stop")

    async def idle(self) -> None:
        """Until nothing is being answered here."""
        while tasks := {work.task for work in self._working.values() if work.task is not None}:
            await asyncio.wait(tasks)

    async def close(self, grace: float) -> None:
        """Let answers come to their end for so many seconds; the rest is given back to the inbox.

        What is asked from now on waits there for whoever comes next.
        """
        self._closing = True
        tasks = {work.task for work in self._working.values() if work.task is not None}
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------ thumbs and controls
    async def _thumb(self, thumb: Thumb) -> str:
        if thumb.place is not None:
            posted = await self._inbox.posted(thumb.place, thumb.post) if thumb.post else None
            if thumb.post and posted is None and not thumb.answer_id:
                return ""
            if not (await self._kvasir.channels.get(thumb.place)).feedback:
                return ""
            thumb = replace(thumb, answer_id=thumb.answer_id or (posted.answer_id if posted else ""))
        if not await self._handler.on_thumb(thumb):
            return tell("rating_not_kept")
        return tell({1: "thanks_up", -1: "thanks_down", 0: "thanks_withdrawn"}[thumb.value])

    async def _press(self, press: Press) -> str:
        if press.control == "keep":
            return await self._helping.keep(press)
        posted = await self._posted(press)
        if posted is None:
            return await self._stop_unposted(press) if press.control == "stop" else tell("not_our_message")
        match press.control:
            case "human":
                return await self._helping.call(press, posted)
            case "resolved":
                return await self._helping.resolve(press, posted)
        if press.person.key != posted.mention.person.key and not press.may_manage:
            return tell("only_the_asker")
        if press.control == "stop":
            return "" if await self._stop_anywhere(posted.inbox_id) else tell("nothing_to_stop")
        return await self._again(posted)

    async def _posted(self, press: Press) -> Posted | None:
        """What was pressed. People may see a message, and press, a moment before we hear that it stands there."""
        posted = await self._inbox.posted(press.place, press.post)
        pauses = iter(_PAUSES)
        while posted is None and self._is_sending(press) and (pause := next(pauses, None)) is not None:
            await asyncio.sleep(pause)
            posted = await self._inbox.posted(press.place, press.post)
        return posted

    def _is_sending(self, press: Press) -> bool:
        """Whether an answer in that channel may have a message that we do not know of yet."""
        items = [work.item for work in self._working.values()]
        return any(
            item.mention.place.channel == press.place.channel and item.mention.message_id != press.post
            for item in items
        )

    async def _stop_unposted(self, press: Press) -> str:
        """Stop an answer named by its question (drafts are no messages); without a name, the person's newest here."""
        if press.post:
            held = self._held(press.place, press.post)
            if held is None and self._kvasir.limits.are_shared(self._messenger.name):
                return await self._stop_elsewhere(press)
        else:
            mine = (work.item for work in self._working.values() if work.item.mention.person.key == press.person.key)
            here = [item for item in mine if replace(item.mention.place, thread="") == replace(press.place, thread="")]
            held = here[-1] if here else None
        if held is None:
            return tell("nothing_to_stop")
        if held.mention.person.key != press.person.key and not press.may_manage:
            return tell("only_the_asker")
        await self._stop(held.id, "stop")
        return ""

    async def _stop_elsewhere(self, press: Press) -> str:
        asked = await self._inbox.of(press.place, press.post)
        if asked is None or asked.state != "working":
            return tell("nothing_to_stop")
        if asked.mention.person.key != press.person.key and not press.may_manage:
            return tell("only_the_asker")
        return "" if await self._inbox.want_stop(asked.inbox_id) else tell("nothing_to_stop")

    async def _stop_anywhere(self, inbox_id: str) -> bool:
        """Here, or by whatever process answers it."""
        if await self._stop(inbox_id, "stop"):
            return True
        return self._kvasir.limits.are_shared(self._messenger.name) and await self._inbox.want_stop(inbox_id)

    async def _again(self, posted: Posted) -> str:
        work = self._working.get(posted.inbox_id)
        if work is not None and work.task is not None and work.answer is not None and work.answer.is_ending:
            await asyncio.wait({work.task}, timeout=_MOMENT_SECONDS)  # people see its end before we hear that they do
        if posted.state == "working" and posted.inbox_id not in self._working:  # it came to its end since we looked
            posted = await self._inbox.of(posted.mention.place, posted.mention.message_id) or posted
        if posted.inbox_id in self._working or posted.state == "working":
            return tell("still_working")
        recorded = await self._kvasir.answers.recorded(posted.answer_id)
        mention = replace(posted.mention, regenerate=posted.answer_id if recorded else None, said_at=now())
        item = await self._inbox.reopen(mention, edited=False, answer_id=posted.answer_id)
        if item is not None:
            await self._begin(item)
        return ""


def _is_among(person: Person, askers: Sequence[str]) -> bool:
    """Whether somebody is named, by key or id, or is in a group that is."""
    return not {person.key, person.key.rpartition(":")[2], *person.groups}.isdisjoint(askers)
