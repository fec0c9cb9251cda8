"""The methods of the Bot API, each with the rules and the words of the real one."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.fakes.telegram.people import Chat, Document, Draft, Message, Person
from tests.fakes.telegram.texts import JSON, LONGEST_CAPTION, LONGEST_RICH, LONGEST_TEXT, Refused, bad, settled, units
from tests.fakes.telegram.world import World

_LONGEST_DATA: Final = 64
_DRAFT_LIVES: Final = 30.0
_LARGEST_DOWNLOAD: Final = 20_000_000
_LARGEST_UPLOAD: Final = 50_000_000
_REACTIONS: Final = frozenset("👍👎❤🔥🎉🤔👀👌🙏🤝✍💯🤯😢👏🫡")
_NOT_MODIFIED: Final = (
    "message is not modified: specified new message content and reply markup are exactly the same as a current content "
    "and reply markup of the message"
)
_TOO_OLD: Final = "query is too old and response timeout expired or query ID is invalid"
_RIGHTS: Final = (
    "can_be_edited",
    "is_anonymous",
    "can_manage_chat",
    "can_delete_messages",
    "can_manage_video_chats",
    "can_restrict_members",
    "can_promote_members",
    "can_change_info",
    "can_invite_users",
    "can_post_stories",
    "can_edit_stories",
    "can_delete_stories",
    "can_send_welcome_messages",
)
_GIFTS: Final = ("unlimited_gifts", "limited_gifts", "unique_gifts", "premium_subscription", "gifts_from_channels")


@dataclass
class Upload:
    name: str
    content: bytes


@dataclass
class Asked:
    """The parameters of a request, whatever form they came in."""

    values: Mapping[str, Any]
    files: Mapping[str, Upload] = field(default_factory=dict)

    def text(self, name: str) -> str:
        value = self.values.get(name)
        return "" if value is None else str(value)

    def number(self, name: str, default: int = 0) -> int:
        try:
            return int(self.values.get(name) or default)
        except ValueError:
            raise bad(f"{name} must be an Integer") from None

    def flag(self, name: str) -> bool:
        return str(self.values.get(name, "")).lower() in ("true", "1")

    def object(self, name: str) -> Any:
        """What is nested: JSON in a form, or plain in JSON."""
        value = self.values.get(name)
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value) if value else None
        except json.JSONDecodeError:
            raise bad(f"can't parse {name} JSON object") from None


class Methods:
    """Does what the bot asks for; `call` finds the method whatever the case of its name."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._bot = world.bot
        self._by_name: dict[str, Callable[[Asked], Awaitable[Any]]] = {
            name.replace("_", ""): getattr(self, name) for name in dir(self) if name[0] != "_" and name != "call"
        }

    async def call(self, name: str, asked: Asked) -> Any:
        method = self._by_name.get(name.lower())
        if method is None or ("rich" in name.lower() and not self._world.rich):
            raise Refused(404, "Not Found: method not found")
        if asked.text("parse_mode"):
            raise bad("this server of our tests reads entities, no parse_mode")
        return await method(asked)

    # ------------------------------------------------------------ the bot itself
    async def get_me(self, _: Asked) -> JSON:
        return {
            **self._bot.json(),
            "can_join_groups": True,
            "can_read_all_group_messages": not self._world.privacy,
            "supports_inline_queries": False,
            "supports_guest_queries": self._world.guests,
            "has_topics_enabled": False,
        }

    async def set_my_commands(self, asked: Asked) -> bool:
        scope = json.dumps(asked.object("scope") or {"type": "default"}, sort_keys=True)
        commands = asked.object("commands") or []
        for command in commands:
            name, said = command["command"], command["description"]
            if not (1 <= len(name) <= 32 and name.replace("_", "a").isalnum() and name == name.lower()):
                raise bad("BOT_COMMAND_INVALID")
            if not 1 <= len(said) <= 256:
                raise bad("BOT_COMMAND_DESCRIPTION_INVALID")
        self._world.commands[scope, asked.text("language_code")] = {c["command"]: c["description"] for c in commands}
        return True

    async def get_my_commands(self, asked: Asked) -> list[JSON]:
        scope = json.dumps(asked.object("scope") or {"type": "default"}, sort_keys=True)
        found = self._world.commands.get((scope, asked.text("language_code")), {})
        return [{"command": name, "description": said} for name, said in found.items()]

    # ------------------------------------------------------------ updates
    async def get_updates(self, asked: Asked) -> list[JSON]:
        return await self._world.mail.poll(
            asked.number("offset"), asked.number("limit", 100), asked.number("timeout"), asked.object("allowed_updates")
        )

    async def set_webhook(self, asked: Asked) -> bool:
        if asked.flag("drop_pending_updates"):
            self._world.mail.pending.clear()
        secret = asked.text("secret_token")
        if not all(c.isascii() and (c.isalnum() or c in "_-") for c in secret) or len(secret) > 256:
            raise bad("secret token contains unallowed characters")
        await self._world.mail.set_webhook(
            asked.text("url"), secret, asked.number("max_connections", 40), asked.object("allowed_updates")
        )
        return True

    async def delete_webhook(self, asked: Asked) -> bool:
        if asked.flag("drop_pending_updates"):
            self._world.mail.pending.clear()
        await self._world.mail.set_webhook("", "", 0, None)
        return True

    async def get_webhook_info(self, _: Asked) -> JSON:
        return self._world.mail.webhook_info()

    # ------------------------------------------------------------ messages
    async def send_message(self, asked: Asked) -> JSON:
        text, entities = settled(asked.text("text"), asked.object("entities") or [], LONGEST_TEXT)
        return self._posted(asked, text=text, entities=entities)

    async def send_rich_message(self, asked: Asked) -> JSON:
        return self._posted(asked, text=(rich := _rich(asked)), entities=[], rich=rich)

    async def send_document(self, asked: Asked) -> JSON:
        given = asked.text("document")
        upload = asked.files.get(given.removeprefix("attach://"))
        if upload is None:
            document = self._world.files.get(given)
            if document is None:
                raise bad("wrong file identifier/HTTP URL specified")
        else:
            if len(upload.content) > _LARGEST_UPLOAD:
                raise Refused(413, "Request Entity Too Large")
            document = self._world.keep(Document(upload.name, upload.content))
        entities = asked.object("caption_entities") or []
        text, entities = settled(asked.text("caption"), entities, LONGEST_CAPTION, may_be_empty=True)
        return self._posted(asked, text=text, entities=entities, document=document)

    async def edit_message_text(self, asked: Asked) -> JSON | bool:
        message = self._own(asked)
        self._world.spend(message.chat)
        rich = _rich(asked) if self._world.rich and asked.object("rich_message") is not None else None
        entities: list[JSON] = []
        if rich is None:
            text, entities = settled(asked.text("text"), asked.object("entities") or [], LONGEST_TEXT)
        else:
            text = rich
        keyboard = _keyboard(asked)
        if (text, entities, rich, keyboard) == (message.text, message.entities, message.rich, message.keyboard):
            raise bad(_NOT_MODIFIED)
        message.text, message.entities, message.rich, message.keyboard = text, entities, rich, keyboard
        message.preview = _preview(asked)
        return self._edited(message)

    async def edit_message_reply_markup(self, asked: Asked) -> JSON | bool:
        message = self._own(asked)
        self._world.spend(message.chat)
        keyboard = _keyboard(asked)
        if keyboard == message.keyboard:
            raise bad(_NOT_MODIFIED)
        message.keyboard = keyboard
        return self._edited(message, new_text=False)

    async def delete_message(self, asked: Asked) -> bool:
        chat = self._chat(asked)
        message = chat.messages.get(asked.number("message_id"))
        if message is None or message.deleted:
            raise bad("message to delete not found")
        if message.sender is not self._bot and chat.kind != "private" and not chat.bot_is_admin:
            raise bad("message can't be deleted")
        message.deleted = True
        self._world.change()
        return True

    async def send_chat_action(self, asked: Asked) -> bool:
        chat = self._chat(asked)
        self._may_post(chat)
        if asked.text("action") not in ("typing", "upload_document"):
            raise bad("wrong parameter action in request")
        chat.actions.append(asked.text("action"))
        self._world.change()
        return True

    async def set_message_reaction(self, asked: Asked) -> bool:
        chat = self._chat(asked)
        message = chat.messages.get(asked.number("message_id"))
        if message is None or message.deleted:
            raise bad("message to react not found")
        emoji = [reaction["emoji"] for reaction in asked.object("reaction") or []]
        if len(emoji) > 1 or not _REACTIONS.issuperset(emoji):
            raise bad("REACTION_INVALID")
        message.reactions[self._bot.id] = emoji
        self._world.change()
        return True

    # ------------------------------------------------------------ drafts
    async def send_message_draft(self, asked: Asked) -> bool:
        text, entities = settled(asked.text("text"), asked.object("entities") or [], LONGEST_TEXT, may_be_empty=True)
        return self._drafted(asked, text, entities, None)

    async def send_rich_message_draft(self, asked: Asked) -> bool:
        return self._drafted(asked, (rich := _rich(asked)), [], rich)

    def _drafted(self, asked: Asked, text: str, entities: list[JSON], rich: str | None) -> bool:
        chat = self._chat(asked)
        if chat.kind != "private":
            raise bad("drafts can be sent to private chats only")
        if not asked.number("draft_id"):
            raise bad("draft_id must be non-zero")
        self._may_post(chat)
        topic = self._topic(chat, asked.number("message_thread_id"))
        until = time.monotonic() + _DRAFT_LIVES
        chat.draft = Draft(asked.number("draft_id"), text, entities, topic, asked.flag("can_stop"), until, rich)
        chat.drafts.append(chat.draft)
        self._world.change()
        return True

    # ------------------------------------------------------------ ephemeral messages
    async def edit_ephemeral_message_text(self, asked: Asked) -> bool:
        message = self._ephemeral(asked)
        text, entities = settled(asked.text("text"), asked.object("entities") or [], LONGEST_TEXT)
        message.text, message.entities, message.keyboard = text, entities, _keyboard(asked)
        self._edited(message)
        return True

    async def delete_ephemeral_message(self, asked: Asked) -> bool:
        self._ephemeral(asked).deleted = True
        self._world.change()
        return True

    def _ephemeral(self, asked: Asked) -> Message:
        message = self._world.ephemeral.get(asked.number("ephemeral_message_id"))
        receiver = asked.number("receiver_user_id")
        if message is None or message.deleted or message.only_for is None or message.only_for.id != receiver:
            raise bad("message to edit not found")
        return message

    # ------------------------------------------------------------ queries
    async def answer_callback_query(self, asked: Asked) -> bool:
        press = self._world.presses.get(asked.text("callback_query_id"))
        if press is None or press.answered:
            raise bad(_TOO_OLD)
        if len(asked.text("text")) > 200:
            raise bad("MESSAGE_TOO_LONG")
        press.answered, press.toast, press.alert = True, asked.text("text"), asked.flag("show_alert")
        self._world.change()
        return True

    async def answer_guest_query(self, asked: Asked) -> JSON:
        asking = self._world.guest_queries.pop(asked.text("guest_query_id"), None)
        if asking is None:
            raise bad(_TOO_OLD)
        result = asked.object("result") or {}
        content = result.get("input_message_content") or {}
        if not result.get("id") or "message_text" not in content:
            raise bad("can't parse inline query result")
        text, entities = settled(content["message_text"], content.get("entities") or [], LONGEST_TEXT)
        keyboard = (result.get("reply_markup") or {}).get("inline_keyboard") or []
        _check_keyboard(keyboard)
        message = self._world.post(asking.chat, self._bot, text, entities, keyboard=keyboard, topic=asking.topic)
        message.inline_id = f"inline-{message.chat.id}-{message.id}"
        message.preview = not (content.get("link_preview_options") or {}).get("is_disabled")
        self._world.inline[message.inline_id] = message
        return {"inline_message_id": message.inline_id}

    # ------------------------------------------------------------ chats and files
    async def get_chat(self, asked: Asked) -> JSON:
        chat = self._chat(asked)
        gifts = dict.fromkeys(_GIFTS, False)
        return {**chat.json(), "accent_color_id": 0, "max_reaction_count": 11, "accepted_gift_types": gifts}

    async def get_chat_member(self, asked: Asked) -> JSON:
        chat, number = self._chat(asked), asked.number("user_id")
        person = self._bot if number == self._bot.id else self._world.persons.get(number)
        if person is None:
            raise bad("user not found")
        if person is self._bot and not chat.bot_is_member:
            return {"status": "left", "user": person.json()}
        if (person is self._bot and chat.bot_is_admin) or person.id in self._world.admins.get(chat.id, ()):
            return {"status": "administrator", "user": person.json(), **dict.fromkeys(_RIGHTS, False)}
        return {"status": "member", "user": person.json()}

    async def get_file(self, asked: Asked) -> JSON:
        document = self._world.files.get(asked.text("file_id"))
        if document is None:
            raise bad("wrong file_id or the file is temporarily unavailable")
        if len(document.content) > _LARGEST_DOWNLOAD and self._world.local is None:
            raise bad("file is too big")
        told: JSON = {"file_id": document.file_id, "file_unique_id": f"u{document.file_id}"}
        return {**told, "file_size": len(document.content), "file_path": self._world.path_of(document)}

    # ------------------------------------------------------------ the parts
    def _chat(self, asked: Asked) -> Chat:
        chat = self._world.chats.get(asked.number("chat_id"))
        if chat is None:
            raise bad("chat not found")
        return chat

    def _may_post(self, chat: Chat) -> None:
        if chat.moved_to is not None:
            raise Refused(
                400, "Bad Request: group chat was upgraded to a supergroup chat", migrate_to_chat_id=chat.moved_to
            )
        if chat.blocked:
            raise Refused(403, "Forbidden: bot was blocked by the user")
        if not chat.bot_is_member:
            raise Refused(403, f"Forbidden: bot is not a member of the {chat.kind} chat")

    def _topic(self, chat: Chat, number: int) -> int | None:
        if number and number not in chat.topics:
            raise bad("message thread not found")
        return number or None

    def _own(self, asked: Asked) -> Message:
        """The bot's message that is to be edited."""
        if inline := asked.text("inline_message_id"):
            message = self._world.inline.get(inline)
            if message is None:
                raise bad("MESSAGE_ID_INVALID")
            return message
        message = self._chat(asked).messages.get(asked.number("message_id"))
        if message is None or message.deleted or message.only_for is not None:
            raise bad("message to edit not found")
        if message.sender is not self._bot:
            raise bad("message can't be edited")
        return message

    def _posted(self, asked: Asked, **content: Any) -> JSON:
        chat = self._chat(asked)
        self._may_post(chat)
        topic = self._topic(chat, asked.number("message_thread_id"))
        reply = self._replied(chat, asked.object("reply_parameters"))
        receiver = self._receiver(chat, asked)
        keyboard = _keyboard(asked)
        self._world.spend(chat)
        message = self._world.post(
            chat,
            self._bot,
            topic=topic or (reply.topic if reply else None),
            reply_to=reply,
            keyboard=keyboard,
            only_for=receiver,
            **content,
        )
        message.preview = _preview(asked)
        chat.draft = None
        return message.json()

    def _replied(self, chat: Chat, parameters: JSON | None) -> Message | None:
        if not parameters:
            return None
        message = chat.messages.get(int(parameters.get("message_id") or 0))
        if message is not None and not message.deleted:
            return message
        if parameters.get("allow_sending_without_reply"):
            return None
        raise bad("message to be replied not found")

    def _receiver(self, chat: Chat, asked: Asked) -> Person | None:
        """Whom an ephemeral message is for. As we read the rules: an administrator may always, others after a press."""
        ephemeral = asked.object("ephemeral_message_parameters") or {}
        number = int(ephemeral.get("receiver_user_id") or asked.number("receiver_user_id"))
        if not number:
            return None
        person = self._world.persons.get(number)
        press = self._world.presses.get(ephemeral.get("callback_query_id") or asked.text("callback_query_id"))
        if chat.kind == "private" or person is None:
            raise bad("ephemeral messages can be sent to members of groups only")
        if not chat.bot_is_admin and (press is None or press.person is not person):
            raise bad("not enough rights to send ephemeral messages to the chat")
        return person

    def _edited(self, message: Message, *, new_text: bool = True) -> JSON | bool:
        if new_text:
            message.versions.append(message.text)
        message.edited = int(time.time())
        self._world.change()
        return True if message.inline_id else message.json()


def _rich(asked: Asked) -> str:
    """The content of a rich message, in the one form it has."""
    given = asked.object("rich_message") or {}
    forms = [form for form in ("markdown", "html", "blocks") if given.get(form)]
    if len(forms) != 1:
        raise bad("exactly one of markdown, html and blocks must be specified in rich_message")
    text = given[forms[0]] if forms[0] != "blocks" else json.dumps(given["blocks"], ensure_ascii=False)
    if len(text.encode()) > LONGEST_RICH:
        raise bad("rich message is too long")
    return str(text)


def _preview(asked: Asked) -> bool:
    return not (asked.object("link_preview_options") or {}).get("is_disabled", False)


def _keyboard(asked: Asked) -> list[list[JSON]]:
    keyboard: list[list[JSON]] = (asked.object("reply_markup") or {}).get("inline_keyboard") or []
    _check_keyboard(keyboard)
    return keyboard


def _check_keyboard(keyboard: list[list[JSON]]) -> None:
    for button in (button for row in keyboard for button in row):
        if not button.get("text"):
            raise bad("can't parse inline keyboard button: text is empty")
        data = button.get("callback_data")
        if data is not None and not 1 <= len(data.encode()) <= _LONGEST_DATA:
            raise bad("BUTTON_DATA_INVALID")
        if data is None and not button.get("url"):
            raise bad("can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard")
    if units("".join(button["text"] for row in keyboard for button in row)) > LONGEST_TEXT:
        raise bad("reply markup is too long")
