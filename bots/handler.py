"""What happens to a mention and a thumb, the same on every platform; the only place where errors become chat."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from bots.platform import ChatPlatform, OpenAnswer
from bots.turns import Turns
from core.access import Action
from core.db.tables import new_id
from core.errors import KvasirError, NotFound, Unavailable
from core.texts import speaking, tell, text_language
from core.types import Delta, Finished, Language, Mention, Question, Sources, Thumb

if TYPE_CHECKING:
    from core.app import Kvasir
    from core.conversation import Conversation
    from core.knowledge import KnowledgeBase

logger = logging.getLogger(__name__)

PARALLEL: Final = 8
"""Answers at a time, over all platforms."""
_WAITING: Final = 500
"""Questions at a time, those that wait included."""


class ChatHandler:
    """Answers mentions and keeps thumbs. Cancelling `on_mention` stops the answer and all that runs for it."""

    def __init__(self, kvasir: Kvasir, *, engine: str | None = None, parallel: int = PARALLEL) -> None:
        self._kvasir = kvasir
        self._engine = engine
        self._turns = Turns(parallel)
        self._waiting = 0

    async def on_mention(self, platform: ChatPlatform, mention: Mention) -> None:
        """Every mention ends in an answer, a refusal, or a sentence that says what went wrong."""
        with speaking(self._language(mention)):
            try:
                answer = await platform.open_answer(mention)
                await self._answer_or_say_why(answer, mention)
            except Exception:
                logger.exception("%s could not show an answer", platform.name)

    async def on_thumb(self, thumb: Thumb) -> None:
        """Keep, change or withdraw a rating; one that cannot be kept is logged."""
        feedback = self._kvasir.feedback
        try:
            if thumb.value == 0:
                await feedback.withdraw(thumb.answer_id, thumb.person.key)
            else:
                await feedback.rate(thumb.answer_id, thumb.person.key, thumb.value, thumb.reason)
        except KvasirError as error:
            logger.info("a rating was not kept: %s", error)
        except Exception:
            logger.exception("a rating was not kept")

    async def _answer_or_say_why(self, answer: OpenAnswer, mention: Mention) -> None:
        self._waiting += 1
        try:
            if self._waiting > _WAITING:
                raise Unavailable(tell("queue_full"))
            # The line is joined before anything is looked up, so that nobody overtakes on the way to the database.
            line = mention.conversation_id or repr(mention.place)
            async with self._turns.turn(line, lambda ahead: answer.status(tell("queued", ahead=ahead))):
                conversation = await self._conversation(mention)
                await answer.status(tell("searching"))
                await self._answer(answer, mention, conversation)
        except KvasirError as error:
            await answer.fail(str(error))
        except Exception:
            number = new_id()[:8]
            logger.exception("question %s came to nothing", number)
            await answer.fail(tell("internal_error", id=number))
        finally:
            self._waiting -= 1

    async def _answer(self, answer: OpenAnswer, mention: Mention, conversation: Conversation) -> None:
        kbs = await self._kbs(mention, conversation)
        if mention.regenerate is None:
            await self._forward(answer, self._question(mention, mention.text, kbs, conversation))
            return
        swap = self._kvasir.conversations.swap_state
        asked, state = await swap(mention.regenerate, mention.person.key, "replaced")
        try:
            await self._forward(answer, self._question(mention, mention.text or asked, kbs, conversation))
        except Exception:
            await swap(mention.regenerate, mention.person.key, state)
            raise

    async def _forward(self, answer: OpenAnswer, question: Question) -> None:
        async with aclosing(self._kvasir.answers.answer(question)) as events:
            async for event in events:
                match event:
                    case Sources():
                        await answer.sources(event.sources, event.standalone_question)
                    case Delta():
                        await answer.append(event.text)
                    case Finished():
                        await answer.finish(event)

    def _question(self, mention: Mention, text: str, kbs: tuple[str, ...], conversation: Conversation) -> Question:
        return Question(
            text=text,
            kbs=kbs,
            person=mention.person.key,
            conversation_id=conversation.id,
            engine=self._engine,
            language=mention.language,
            platform=mention.place.platform,
            filter=mention.filter,
        )

    async def _conversation(self, mention: Mention) -> Conversation:
        conversations = self._kvasir.conversations
        if mention.conversation_id is not None:
            return await conversations.get(mention.conversation_id, mention.person.key)
        return await conversations.open(mention.place, mention.person.key)

    async def _kbs(self, mention: Mention, conversation: Conversation) -> tuple[str, ...]:
        """Those named with the question, in the conversation, or in the settings; else the only one, or all open ones.

        Whatever is named must be there, and the person must be allowed to ask it.
        """
        usable = [kb for kb in await self._kvasir.knowledge.list() if self._may_ask(mention, kb)]
        default = self._kvasir.settings.channels.default_kb
        named = mention.kbs or tuple(name for name in (conversation.kb or default,) if name)
        if named:
            _check_there(named, usable)
            return named
        public = [kb for kb in usable if not kb.private]
        chosen = usable if len(usable) == 1 else public or usable
        if not chosen:
            raise NotFound(tell("no_kb_yet"))
        return tuple(kb.name for kb in chosen)

    def _may_ask(self, mention: Mention, kb: KnowledgeBase) -> bool:
        return self._kvasir.accounts.may(mention.person, Action.ASK, private=kb.private)

    def _language(self, mention: Mention) -> Language:
        set_language = self._kvasir.settings.language
        return mention.language or (text_language(mention.text) if set_language == "auto" else set_language)


def _check_there(named: Sequence[str], usable: Sequence[KnowledgeBase]) -> None:
    there = [kb.name for kb in usable]
    for name in named:
        if name not in there:
            raise NotFound(tell("no_kb_of", name=name, there=", ".join(there)) if there else tell("no_kb_yet"))
