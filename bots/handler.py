"""What happens to a question and a thumb, the same on every platform; the only place where errors become chat."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from bots.errors import DeliveryError
from bots.inbox import LeaseLost
from bots.platform import ChatPlatform, OpenAnswer
from bots.turns import Turns
from core.access import Action
from core.db.tables import new_id
from core.errors import KvasirError, NotFound, Unavailable, UserError
from core.texts import speaking, tell, text_language
from core.types import Delta, Finished, Language, Mention, PastTurn, Question, Queued, Said, Sources, Thumb

if TYPE_CHECKING:
    from core.answering.conversation import Conversation
    from core.app import Kvasir
    from core.chats.channels import ChannelSettings
    from core.kb.knowledge import KbName

logger = logging.getLogger(__name__)

_WAITING: Final = 5000
"""Questions at a time, those that wait included."""

ReadBack = Callable[[Mention], Awaitable[Sequence[Said]]]
"""Gives what was said in a thread before a mention."""
Files = Callable[[Mention, str], Awaitable[Sequence[str]]]
"""Brings in the files of a mention, in the conversation with that id; gives the knowledge bases that hold its files."""


class ChatHandler:
    """Answers mentions and keeps thumbs. Cancelling `on_mention` stops the answer and all that runs for it."""

    def __init__(self, kvasir: Kvasir, *, engine: str | None = None, parallel: int | None = None) -> None:
        self._kvasir = kvasir
        self._engine = engine
        self._turns = Turns(parallel or kvasir.settings.channels.parallel)
        self._waiting = 0

    async def on_mention(self, platform: ChatPlatform, mention: Mention) -> None:
        """Every mention ends in an answer, a refusal, or a sentence that says what went wrong."""
        with speaking(self.language(mention)):
            try:
                await self.answer(await platform.open_answer(mention), mention)
            except Exception:
                logger.exception("%s could not show an answer", platform.name)

    async def on_thumb(self, thumb: Thumb) -> bool:
        """Keep, change or withdraw a rating; whether it was kept. One that cannot be kept is logged."""
        feedback = self._kvasir.feedback
        try:
            if thumb.value == 0:
                await feedback.withdraw(thumb.answer_id, thumb.person.key, thumb.was)
            else:
                await feedback.rate(thumb.answer_id, thumb.person.key, thumb.value, thumb.reason)
            return True
        except KvasirError as error:
            logger.info("a rating was not kept: %s", error)
        except Exception:
            logger.exception("a rating was not kept")
        return False

    async def answer(
        self,
        answer: OpenAnswer,
        mention: Mention,
        *,
        answer_id: str | None = None,
        read_back: ReadBack | None = None,
        files: Files | None = None,
    ) -> None:
        """Answer a mention in `answer`. Raises only what `answer` itself raises; all else becomes a sentence there."""
        self._waiting += 1
        try:
            if self._waiting > _WAITING:
                raise Unavailable(tell("queue_full"))
            # The line is joined before anything is looked up, so that nobody overtakes on the way to the database.
            line = mention.conversation_id or repr(mention.place)
            async with self._turns.turn(
                line, mention.person.key, lambda place: answer.status(tell("queued", place=place))
            ):
                asked = await self._asked(mention, answer_id, read_back, files, answer)
                await answer.status(tell("searching"))
                await self._forward_in_place(answer, mention, asked)
        except KvasirError as error:
            await answer.fail(str(error))
        except (DeliveryError, LeaseLost):
            raise
        except Exception:
            number = new_id()[:8]
            logger.exception("question %s came to nothing", number)
            await answer.fail(tell("internal_error", id=number))
        finally:
            self._waiting -= 1

    async def _forward_in_place(self, answer: OpenAnswer, mention: Mention, question: Question) -> None:
        if mention.regenerate is None:
            await self._forward(answer, question)
            return
        swap = self._kvasir.conversations.swap_state
        asked, state = await swap(mention.regenerate, mention.person.key, "replaced")
        try:
            await self._forward(answer, replace(question, text=mention.text or asked))
        except Exception:
            await swap(mention.regenerate, mention.person.key, state)
            raise

    async def _forward(self, answer: OpenAnswer, question: Question) -> None:
        async with aclosing(self._kvasir.answers.answer(question)) as events:
            found = 0
            async for event in events:
                match event:
                    case Sources():
                        found = len(event.sources)
                        await answer.sources(event.sources, event.standalone_question)
                    case Queued(0):
                        await answer.status(tell("reading_passages", count=found))
                    case Queued():
                        await answer.status(tell("queued", place=event.place))
                    case Delta():
                        await answer.append(event.text)
                    case Finished():
                        await answer.finish(event)

    # ------------------------------------------------------------ the question
    async def _asked(
        self,
        mention: Mention,
        answer_id: str | None,
        read_back: ReadBack | None,
        files: Files | None,
        answer: OpenAnswer,
    ) -> Question:
        conversation = await self._conversation(mention)
        channel = await self._kvasir.channels.get(mention.place)
        own: Sequence[str] = ()
        if files is not None:
            if mention.files:
                await answer.status(tell("reading_files", count=len(mention.files)))
            own = await files(mention, conversation.id)
            if mention.files and not mention.text.strip():
                raise UserError(tell("files_read", count=len(mention.files)))
        kbs = await self._kbs(mention, conversation, channel, alone=bool(own))
        history: Sequence[PastTurn] = ()
        if read_back is not None and mention.place.thread and not conversation.title:
            history = past(await read_back(mention))
        return Question(
            text=mention.text,
            kbs=(*kbs, *own),
            person=mention.person.key,
            conversation_id=conversation.id,
            engine=channel.engine or self._engine,
            language=channel.language or mention.language,
            platform=mention.place.platform,
            workspace=mention.place.workspace,
            channel=mention.place.channel,
            filter=mention.filter,
            instructions=channel.instructions,
            answer_id=answer_id,
            history=tuple(history),
        )

    async def _conversation(self, mention: Mention) -> Conversation:
        conversations = self._kvasir.conversations
        if mention.conversation_id is not None:
            return await conversations.get(mention.conversation_id, mention.person.key)
        return await conversations.open(mention.place, mention.person.key)

    async def _kbs(
        self, mention: Mention, conversation: Conversation, channel: ChannelSettings, *, alone: bool
    ) -> tuple[str, ...]:
        """Those named with the question, in the conversation, for the channel or in the settings; else the only one, or
        all open ones.

        Whatever is named must be there, and the person must be allowed to ask it; a channel's own are narrowed to those
        that may be asked here. `alone`: none at all will do, there are files.
        """
        usable = [kb for kb in await self._kvasir.knowledge.names() if await self._may_ask(mention, kb, channel)]
        named = mention.kbs or tuple(name for name in (conversation.kb,) if name)
        if named:
            _check_there(named, usable)
            return named
        if channel.kbs:
            bound = tuple(kb.name for kb in usable if kb.name in channel.kbs)
            if not bound and not alone:
                raise NotFound(tell("kb_private_here"))
            return bound
        default = self._kvasir.settings.channels.default_kb
        if default:
            _check_there((default,), usable)
            return (default,)
        public = [kb for kb in usable if not kb.private]
        chosen = usable if len(usable) == 1 else public or usable
        if not chosen and not alone:
            raise NotFound(tell("no_kb_yet"))
        return tuple(kb.name for kb in chosen)

    async def _may_ask(self, mention: Mention, kb: KbName, channel: ChannelSettings) -> bool:
        """What is private is asked only by people who were let in, and where nobody else reads the answer."""
        may = self._kvasir.accounts.may
        person = mention.person
        if kb.name in channel.kbs and not kb.private:
            return True  # whoever set the channel up lets all in who can write there
        if may(person, Action.ASK, private=kb.private):
            return True
        if not kb.private or not mention.alone:
            return False
        granted = await self._kvasir.grants.is_granted(kb.name, person.key, member=person.member)
        return may(person, Action.ASK, private=True, granted=granted)

    def language(self, mention: Mention) -> Language:
        """In which Kvasir's own words are said to whoever asked."""
        set_language = self._kvasir.settings.language
        return mention.language or (text_language(mention.text) if set_language == "auto" else set_language)


def past(said: Sequence[Said]) -> Sequence[PastTurn]:
    """Messages of a thread as questions and answers: what we said answers what was said before it."""
    turns: list[PastTurn] = []
    for message in said:
        if not message.by_us:
            turns.append(PastTurn(message.text, message.text, "", answered=False))
        elif turns:
            turns[-1] = replace(turns[-1], answer=message.text, answered=True)
    return turns


def _check_there(named: Sequence[str], usable: Sequence[KbName]) -> None:
    there = [kb.name for kb in usable]
    for name in named:
        if name not in there:
            raise NotFound(tell("no_kb_of", name=name, there=", ".join(there)) if there else tell("no_kb_yet"))
