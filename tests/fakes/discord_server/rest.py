"""The REST API and the CDN: one method per route, as the documentation has them."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import BodyPartReader, web

from core.types import JSON
from tests.fakes.discord_server import limits, payloads
from tests.fakes.discord_server.limits import Refused, check, missing_permission, unknown
from tests.fakes.discord_server.telling import Teller
from tests.fakes.discord_server.world import Attachment, Channel, Guild, Kind, Message, Permission

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_OWN_FIELDS: Final = ("content", "embeds", "components", "flags", "allowed_mentions")


def answer(document: object = None, status: int = 200) -> web.Response:
    """JSON with exactly the content type that Discord sends; discord.py reads no other as JSON."""
    if document is None:
        return web.Response(status=204)
    return web.Response(body=json.dumps(document).encode(), status=status, content_type="application/json")


class Rest:
    """Answers requests; what it changes, the teller tells the gateway's clients."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self._world = teller.world
        self.token = ""
        self.base = ""
        """Of the server, without a path."""
        self.shards = 1
        self.remaining = 999
        """Sessions that may be begun today."""
        self.most_threads = 1000
        """That may be open at once on a server."""

    def routes(self) -> list[web.RouteDef]:
        api, channel, one = "/api/v10", "/api/v10/channels/{channel}", "/api/v10/channels/{channel}/messages/{message}"
        app = "/api/v10/applications/{application}"
        return [
            self._get(f"{api}/users/@me", self._me),
            self._get(f"{api}/users/@me/guilds", self._guilds),
            self._get(f"{api}/oauth2/applications/@me", self._application),
            self._get(f"{api}/applications/@me", self._application),
            self._get(f"{api}/gateway", self._gateway),
            self._get(f"{api}/gateway/bot", self._gateway),
            self._get(f"{api}/users/{{user}}", self._user),
            self.route("POST", f"{api}/users/@me/channels", self._open_dm),
            self._get(f"{api}/guilds/{{guild}}", self._guild),
            self._get(f"{api}/guilds/{{guild}}/channels", self._guild_channels),
            self._get(f"{api}/guilds/{{guild}}/threads/active", self._active_threads),
            self._get(f"{api}/guilds/{{guild}}/members/{{user}}", self._member),
            self._get(channel, self._channel),
            self.route("PATCH", channel, self._edit_channel),
            self._get(f"{channel}/messages", self._history),
            self.route("POST", f"{channel}/messages", self._post),
            self._get(one, self._message),
            self.route("PATCH", one, self._edit),
            self.route("DELETE", one, self._delete),
            self.route("POST", f"{channel}/typing", self._typing),
            self.route("PUT", f"{one}/reactions/{{emoji}}/@me", self._react),
            self.route("DELETE", f"{one}/reactions/{{emoji}}/@me", self._unreact),
            self.route("POST", f"{one}/threads", self._thread_of_message),
            self.route("POST", f"{channel}/threads", self._new_thread),
            self._get(f"{channel}/threads/archived/public", self._archived_threads),
            self.route("PUT", f"{channel}/thread-members/@me", self._join_thread),
            self._get(f"{app}/commands", self._commands),
            self.route("PUT", f"{app}/commands", self._set_commands),
            web.get("/attachments/{channel}/{file}/{name}", self._file),
        ]

    def _get(self, path: str, handler: Handler) -> web.RouteDef:
        return self.route("GET", path, handler)

    def route(self, method: str, path: str, handler: Handler, *, open: bool = False) -> web.RouteDef:
        """A route that wants the bot's token, unless it is `open`, and turns refusals into answers."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            if not open and request.headers.get("Authorization") != f"Bot {self.token}":
                return answer({"message": "401: Unauthorized", "code": 0}, 401)
            try:
                return await handler(request)
            except Refused as refused:
                return answer(refused.body, refused.status)

        return web.route(method, path, guarded)

    # -------------------------------------------------------------- who and where
    async def _me(self, _: web.Request) -> web.StreamResponse:
        return answer(payloads.user(self._world.bot) | {"verified": True, "mfa_enabled": True, "locale": "en-US"})

    async def _guilds(self, _: web.Request) -> web.StreamResponse:
        guilds = self._world.guilds.values()
        shown = [{"id": str(one.id), "name": one.name, "permissions": str(one.permissions)} for one in guilds]
        return answer(shown)

    async def _application(self, _: web.Request) -> web.StreamResponse:
        bot = self._world.bot
        flags = 1 << 19 if self._teller.portal_content else 0
        return answer(
            {
                "id": str(bot.id),
                "name": bot.name,
                "icon": None,
                "description": "",
                "bot_public": True,
                "bot_require_code_grant": False,
                "bot": payloads.user(bot),
                "owner": payloads.user(self._world.ann),
                "verify_key": "00",
                "team": None,
                "flags": flags,
                "approximate_guild_count": len(self._world.guilds),
                "install_params": None,
                "interactions_endpoint_url": None,
            }
        )

    async def _gateway(self, request: web.Request) -> web.StreamResponse:
        limit = {
            "total": 1000,
            "remaining": self.remaining,
            "reset_after": 0,
            "max_concurrency": self._teller.max_concurrency,
        }
        more = {"shards": self.shards, "session_start_limit": limit} if request.path.endswith("/bot") else {}
        return answer({"url": self._teller.gateway_url, **more})

    async def _user(self, request: web.Request) -> web.StreamResponse:
        user = self._world.users.get(int(request.match_info["user"]))
        if user is None:
            raise unknown("User", 10013)
        return answer(payloads.user(user))

    async def _open_dm(self, request: web.Request) -> web.StreamResponse:
        user = self._world.users.get(int((await request.json())["recipient_id"]))
        if user is None or user.bot:
            raise Refused(403, 50007, "Cannot send messages to this user")
        return answer(payloads.channel(self._world.dm_of(user), self._world))

    async def _guild(self, request: web.Request) -> web.StreamResponse:
        return answer(payloads.guild(self._guild_of(request), self._world))

    async def _guild_channels(self, request: web.Request) -> web.StreamResponse:
        return answer([payloads.channel(one, self._world) for one in self._guild_of(request).channels])

    async def _active_threads(self, request: web.Request) -> web.StreamResponse:
        threads = [one for one in self._world.threads(self._guild_of(request)) if not one.archived]
        return answer({"threads": [payloads.thread(one, self._world) for one in threads], "members": []})

    async def _member(self, request: web.Request) -> web.StreamResponse:
        user = self._world.users.get(int(request.match_info["user"]))
        if user is None or user not in self._guild_of(request).members:
            raise unknown("Member", 10007)
        return answer(payloads.member(user))

    def _guild_of(self, request: web.Request) -> Guild:
        guild = self._world.guilds.get(int(request.match_info["guild"]))
        if guild is None:
            raise unknown("Guild", 10004)
        return guild

    # -------------------------------------------------------------- channels
    async def _channel(self, request: web.Request) -> web.StreamResponse:
        return answer(payloads.channel(self._channel_of(request), self._world))

    async def _edit_channel(self, request: web.Request) -> web.StreamResponse:
        channel = self._channel_of(request)
        if channel.owner is not self._world.bot:
            self._need(channel, Permission.MANAGE_THREADS)
        body = await request.json()
        channel.name = body.get("name", channel.name)
        channel.archived, channel.locked = body.get("archived", channel.archived), body.get("locked", channel.locked)
        self._teller.channel_changed(channel)
        return answer(payloads.channel(channel, self._world))

    async def _history(self, request: web.Request) -> web.StreamResponse:
        channel = self._channel_of(request)
        limit = int(request.query.get("limit", 50))
        check(1 <= limit <= 100, "limit", "Must be between 1 and 100.")
        if not channel.allows(Permission.READ_MESSAGE_HISTORY):
            return answer([])
        messages = [one for one in channel.messages.values() if not one.deleted and one.seen_only_by is None]
        messages.sort(key=lambda one: one.id)
        return answer([self.shown(one) for one in reversed(_page(messages, request.query, limit))])

    async def _message(self, request: web.Request) -> web.StreamResponse:
        message = self._message_of(request)
        self._need(message.channel, Permission.READ_MESSAGE_HISTORY)
        return answer(self.shown(message))

    async def _typing(self, request: web.Request) -> web.StreamResponse:
        channel = self._channel_of(request)
        self._need(channel, Permission.SEND_MESSAGES)
        self._teller.typed.append((channel.id, time.monotonic()))
        return answer()

    def _channel_of(self, request: web.Request) -> Channel:
        channel = self._world.channels.get(int(request.match_info["channel"]))
        if channel is None:
            raise unknown("Channel", 10003)
        if not channel.allows(Permission.VIEW_CHANNEL):
            raise Refused(403, 50001, "Missing Access")
        return channel

    def _message_of(self, request: web.Request) -> Message:
        message = self._channel_of(request).messages.get(int(request.match_info["message"]))
        if message is None or message.deleted or message.seen_only_by is not None:
            raise unknown("Message", 10008)
        return message

    @staticmethod
    def _need(channel: Channel, permission: Permission) -> None:
        if not channel.allows(permission):
            raise missing_permission()

    def shown(self, message: Message) -> JSON:
        return payloads.message(message, self._world, content=self._teller.portal_content)

    # -------------------------------------------------------------- messages
    async def _post(self, request: web.Request) -> web.StreamResponse:
        channel = self._channel_of(request)
        body, files = await read_body(request)
        if channel.kind == Kind.FORUM:
            raise Refused(400, 50008, "Cannot send messages in a non-text channel")
        again = self._same_nonce(channel, body)
        if again is not None:
            return answer(self.shown(again))
        message = self._make(channel, body, files)
        if "message_reference" in body:
            message.reference = self._replied(channel, body["message_reference"])
        self._teller.said(message)
        return answer(self.shown(message))

    def _same_nonce(self, channel: Channel, body: JSON) -> Message | None:
        """With `enforce_nonce`, a message that was posted in the last minutes under this nonce."""
        if not body.get("enforce_nonce") or body.get("nonce") is None:
            return None
        for message in reversed(channel.messages.values()):
            if message.author is self._world.bot and message.nonce == body["nonce"]:
                return message if time.monotonic() - message.at < 300 else None
        return None

    def _replied(self, channel: Channel, reference: JSON) -> Message | None:
        replied = channel.messages.get(int(reference["message_id"]))
        if not channel.allows(Permission.READ_MESSAGE_HISTORY):
            raise Refused(400, 160002, "Cannot reply without permission to read message history")
        if replied is not None and not replied.deleted:
            return replied
        if reference.get("fail_if_not_exists", True):
            raise limits.invalid("message_reference", "Unknown message")
        return None

    def _make(self, channel: Channel, body: JSON, files: list[tuple[str, str, bytes]]) -> Message:
        """A message of the bot's, checked; not yet in its place."""
        thread = channel.kind == Kind.THREAD
        self._need(channel, Permission.SEND_MESSAGES_IN_THREADS if thread else Permission.SEND_MESSAGES)
        if channel.locked:
            raise Refused(400, 50083, "Thread is archived")
        if files:
            self._need(channel, Permission.ATTACH_FILES)
        limits.check_message(body, has_more=bool(files))
        if thread and channel.archived:
            channel.archived = False
            self._teller.channel_changed(channel)
        message = Message(self._world.new_id(), channel, self._world.bot, nonce=body.get("nonce"))
        self.write(message, body, files)
        return message

    def write(self, message: Message, body: JSON, files: list[tuple[str, str, bytes]]) -> None:
        for name in _OWN_FIELDS:
            if name in body:
                empty: Any = {"content": "", "flags": 0, "allowed_mentions": None}.get(name, [])
                setattr(message, name, empty if body[name] is None else body[name])
        message.content = message.content.strip()
        if not message.channel.allows(Permission.EMBED_LINKS):
            message.embeds = []
        message.attachments += [self.store(message.channel, *file) for file in files]

    def store(self, channel: Channel, name: str, kind: str, data: bytes) -> Attachment:
        """A file, with the address under which the CDN gives it."""
        number = self._world.new_id()
        file = Attachment(number, name, data, f"{self.base}/attachments/{channel.id}/{number}/{name}", kind)
        self._world.files[number] = file
        return file

    async def _edit(self, request: web.Request) -> web.StreamResponse:
        message = self._message_of(request)
        if message.author is not self._world.bot:
            raise Refused(403, 50005, "Cannot edit a message authored by another user")
        if message.channel.archived:
            raise Refused(400, 50083, "Thread is archived")
        return answer(await self.rewrite(request, message))

    async def rewrite(self, request: web.Request, message: Message) -> JSON:
        body, files = await read_body(request)
        whole = {"content": message.content, "embeds": message.embeds, "components": message.components}
        changed = {name: value for name, value in body.items() if name in _OWN_FIELDS}
        limits.check_message({**whole, "flags": message.flags, **changed}, has_more=bool(files or message.attachments))
        self.write(message, changed, files)
        self._teller.changed(message)
        return self.shown(message)

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        message = self._message_of(request)
        if message.author is not self._world.bot:
            self._need(message.channel, Permission.MANAGE_MESSAGES)
        self._teller.deleted(message)
        return answer()

    async def _react(self, request: web.Request) -> web.StreamResponse:
        message = self._message_of(request)
        self._need(message.channel, Permission.READ_MESSAGE_HISTORY)
        self._need(message.channel, Permission.ADD_REACTIONS)
        self._teller.reacted(message, request.match_info["emoji"], self._world.bot)
        return answer()

    async def _unreact(self, request: web.Request) -> web.StreamResponse:
        self._teller.unreacted(self._message_of(request), request.match_info["emoji"], self._world.bot)
        return answer()

    async def _file(self, request: web.Request) -> web.StreamResponse:
        file = self._world.files.get(int(request.match_info["file"]))
        if file is None:
            return web.Response(status=404)
        return web.Response(body=file.data, content_type=file.kind)

    # -------------------------------------------------------------- threads
    async def _thread_of_message(self, request: web.Request) -> web.StreamResponse:
        message = self._message_of(request)
        self._need(message.channel, Permission.CREATE_PUBLIC_THREADS)
        if message.thread is not None:
            raise Refused(400, 160004, "A thread has already been created for this message")
        if message.channel.kind != Kind.TEXT:
            raise Refused(400, 50024, "Cannot execute action on this channel type")
        guild = message.channel.guild
        if guild is not None and self._world.active_threads(guild) >= self.most_threads:
            raise Refused(400, 160006, "Maximum number of active threads reached")
        name = (await request.json())["name"]
        check(1 <= limits.length(name) <= 100, "name", "Must be between 1 and 100 in length.")
        thread = self._teller.open_thread(message.channel, name, self._world.bot, message)
        return answer(payloads.thread(thread, self._world), 201)

    async def _new_thread(self, request: web.Request) -> web.StreamResponse:
        parent = self._channel_of(request)
        self._need(parent, Permission.CREATE_PUBLIC_THREADS)
        body, files = await read_body(request)
        check(1 <= limits.length(body["name"]) <= 100, "name", "Must be between 1 and 100 in length.")
        thread = self._teller.open_thread(parent, body["name"], self._world.bot)
        document = payloads.thread(thread, self._world)
        if parent.kind == Kind.FORUM:
            first = self._make(thread, body["message"], files)
            first.id = thread.id
            self._teller.said(first)
            document["message"] = self.shown(first)
        return answer(document, 201)

    async def _archived_threads(self, request: web.Request) -> web.StreamResponse:
        parent = self._channel_of(request)
        threads = [one for one in self._world.channels.values() if one.parent is parent and one.archived]
        listed = [payloads.thread(one, self._world) for one in threads]
        return answer({"threads": listed, "members": [], "has_more": False})

    async def _join_thread(self, request: web.Request) -> web.StreamResponse:
        self._channel_of(request).bot_joined = True
        return answer()

    # -------------------------------------------------------------- commands
    async def _commands(self, _: web.Request) -> web.StreamResponse:
        return answer(self._world.commands)

    async def _set_commands(self, request: web.Request) -> web.StreamResponse:
        commands: list[JSON] = await request.json()
        limits.check_commands(commands)
        own = {"application_id": str(self._world.bot.id), "version": "1", "dm_permission": True}
        known = {(one.get("type", 1), one["name"]): one["id"] for one in self._world.commands}
        self._world.commands = [
            {"description": "", "type": 1, **one, **own}
            | {"id": known.get((one.get("type", 1), one["name"]), str(self._world.new_id()))}
            for one in commands
        ]
        self._teller.touch()
        return answer(self._world.commands)


def _page(messages: list[Message], query: Any, limit: int) -> list[Message]:
    """Those before, after or around an id, or the newest; oldest first."""
    if "before" in query:
        return [one for one in messages if one.id < int(query["before"])][-limit:]
    if "after" in query:
        return [one for one in messages if one.id > int(query["after"])][:limit]
    if "around" in query:
        middle = int(query["around"])
        older = [one for one in messages if one.id <= middle][-(limit // 2 + 1) :]
        return older + [one for one in messages if one.id > middle][: limit // 2]
    return messages[-limit:]


async def read_body(request: web.Request) -> tuple[JSON, list[tuple[str, str, bytes]]]:
    """The JSON of a request, and its files as (name, kind, bytes)."""
    if not request.content_type.startswith("multipart/"):
        return (await request.json() if request.can_read_body else {}), []
    body: JSON = {}
    files = []
    async for part in await request.multipart():
        assert isinstance(part, BodyPartReader)
        data = bytes(await part.read())
        if part.name == "payload_json":
            body = json.loads(data)
        else:
            files.append((part.filename or "file", part.headers.get("Content-Type", "text/plain"), data))
    return body, files
