"""One answer in one chat: its messages, or its draft until it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from aiogram.methods import (
    AnswerGuestQuery,
    DeleteMessage,
    EditMessageText,
    SendChatAction,
    SendMessage,
    SendMessageDraft,
    SendRichMessage,
    SendRichMessageDraft,
    TelegramMethod,
)
from aiogram.types import (
    InlineQueryResultArticle,
    InputRichMessage,
    InputTextMessageContent,
    LinkPreviewOptions,
    MessageEntity,
    ReplyParameters,
)

from bots.errors import Gone, Refused
from bots.platform import Controls, Stream
from bots.rendering import telegram, telegram_rich
from bots.rendering.parts import Part, utf16_units
from bots.telegram.client import Client, NotModified
from bots.telegram.events import GUEST, GUESTS, TOPIC, inline_of, inline_post
from bots.telegram.keyboard import keyboard
from bots.telegram.lost import Lost
from core.texts import spoken, tell
from core.types import Capabilities, Finished, Mention

T = TypeVar("T")

LONGEST: Final = 4096
"""UTF-16 units of one message."""
IN_PRIVATE: Final = Capabilities(max_length=LONGEST, streaming="draft", edit_interval=0.3)
IN_GROUP: Final = Capabilities(max_length=LONGEST, streaming="edit", edit_interval=3.2, edit_growth=1.6)
"""Telegram lets a bot write 20 times a minute in a group, edits included."""
AS_GUEST: Final = Capabilities(max_length=LONGEST, streaming="edit", edit_interval=3.2, edit_growth=1.6)
NO_PREVIEW: Final = LinkPreviewOptions(is_disabled=True)


class TelegramSurface:
    """The port `Surface`. A post's id is the message's number, or `inline:…` for what was written as a guest."""

    repeatable = False

    def __init__(self, client: Client, lost: Lost, mention: Mention) -> None:
        self._client = client
        self._lost = lost
        self._mention = mention
        place = mention.place
        self._guest = mention.extra.get(GUEST, "") if place.channel == GUESTS else ""
        self._chat = 0 if place.channel == GUESTS else int(place.channel)
        self._topic = int(mention.extra[TOPIC]) if TOPIC in mention.extra else None
        self.tempo = place.channel
        self.capabilities = AS_GUEST if self._guest else IN_PRIVATE if self._chat > 0 else IN_GROUP

    # ------------------------------------------------------------ what is shown
    def preview(self, text: str, status: str) -> Part:
        show = telegram_rich.preview if self._client.rich else telegram.preview
        return show(text, status)

    def whole(self, finished: Finished) -> Sequence[Part]:
        render = telegram_rich.render if self._client.rich else telegram.render
        told = render(finished.text, sources=finished.sources, notice=finished.notice, language=spoken())
        if self._guest and len(told.parts) > 1:  # a guest may write one message
            return [shortened(told.parts[0], tell("telegram_guest_cut"))]
        return told.parts

    def plain(self, text: str) -> Part:
        return telegram.plain(text)

    # ------------------------------------------------------------ signs of life
    async def working(self, part: Part) -> None:
        where: dict[str, Any] = {"chat_id": self._chat, "message_thread_id": self._topic}
        if self._guest:
            return
        if self._chat < 0:
            await self._client.call(SendChatAction(action="typing", **where))
            return
        where |= {"draft_id": int(self._mention.message_id), "can_stop": True}
        classic = SendMessageDraft(text=part.text, entities=entities_of(part), **where)
        rich = self._rich(part)
        await self._either(SendRichMessageDraft(rich_message=rich, **where) if rich else None, classic)

    async def stream(self, status: str) -> Stream | None:  # noqa: ARG002  drafts are no stream: they do not stay
        return None

    # ------------------------------------------------------------ messages
    async def send(self, part: Part, controls: Controls, key: str) -> str:  # noqa: ARG002  Telegram knows no such keys
        if self._guest:
            return await self._send_as_guest(part, controls)
        reply = ReplyParameters(message_id=int(self._mention.message_id), allow_sending_without_reply=True)
        given: dict[str, Any] = {
            "chat_id": self._chat,
            "message_thread_id": self._topic,
            "reply_parameters": reply,
            "reply_markup": keyboard(controls),
        }
        rich = self._rich(part)
        classic = SendMessage(**_classic(part), **given)
        sent = await self._either(SendRichMessage(rich_message=rich, **given) if rich else None, classic)
        return str(sent.message_id)

    async def _send_as_guest(self, part: Part, controls: Controls) -> str:
        content = InputTextMessageContent(
            message_text=part.text, entities=entities_of(part), link_preview_options=NO_PREVIEW
        )
        result = InlineQueryResultArticle(
            id="answer", title="Kvasir", input_message_content=content, reply_markup=keyboard(controls)
        )
        sent = await self._client.call(AnswerGuestQuery(guest_query_id=self._guest, result=result))
        return inline_post(sent.inline_message_id)

    async def edit(self, post: str, part: Part, controls: Controls) -> None:
        given: dict[str, Any] = {**self._named(post), "reply_markup": keyboard(controls)}
        rich = None if self._guest else self._rich(part)
        classic = EditMessageText(**_classic(part), **given)
        try:
            await self._either(EditMessageText(rich_message=rich, **given) if rich else None, classic)
        except NotModified:
            return

    async def _either(self, rich: TelegramMethod[T] | None, classic: TelegramMethod[T]) -> T:
        """What the rich call gives; where it is refused, what the classic one gives, and no rich ones from then on."""
        if rich is None:
            return await self._client.call(classic)
        try:
            return await self._client.call(rich)
        except Refused as error:
            given = await self._client.call(classic)
            self._client.give_up_rich(error)
            return given

    async def delete(self, post: str) -> None:
        named = self._named(post)
        if "chat_id" not in named:
            raise Refused("what was written as a guest cannot be deleted")
        try:
            await self._client.call(DeleteMessage(**named))
        except Gone:
            return

    async def find(self, known: Sequence[str]) -> str | None:
        if self._guest:
            return None
        return await self._lost.find(self._chat, int(self._mention.message_id), known)

    def _named(self, post: str) -> dict[str, Any]:
        inline = inline_of(post)
        return {"inline_message_id": inline} if inline else {"chat_id": self._chat, "message_id": int(post)}

    def _rich(self, part: Part) -> InputRichMessage | None:
        """The part as a rich message, where it is one and they work."""
        if not self._client.rich or not isinstance(part, telegram_rich.RichPart):
            return None
        return InputRichMessage.model_validate({"blocks": part.blocks, "skip_entity_detection": True})


def _classic(part: Part) -> dict[str, Any]:
    return {"text": part.text, "entities": entities_of(part), "link_preview_options": NO_PREVIEW}


def shortened(part: Part, notice: str) -> Part:
    """The beginning of a part that goes on elsewhere, and what is said about that."""
    room = LONGEST - utf16_units(notice) - 4
    raw = part.text.encode("utf-16-le")[: 2 * room].decode("utf-16-le", "ignore").rstrip()
    size = utf16_units(raw)
    kept = [
        replace(entity, length=min(entity.length, size - entity.offset))
        for entity in part.entities
        if entity.offset < size
    ]
    return Part(f"{raw}…\n\n{notice}", tuple(kept))


def entities_of(part: Part) -> list[MessageEntity] | None:
    """How its text is shown, in Telegram's form."""
    return [
        MessageEntity(
            type=entity.type,
            offset=entity.offset,
            length=entity.length,
            url=entity.url or None,
            language=entity.language or None,
        )
        for entity in part.entities
    ] or None
