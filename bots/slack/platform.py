"""Slack as a `Messenger`: what comes goes through `incoming.py`, what goes out through `call_in`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from bots.errors import Refused
from bots.memory import Memory
from bots.platform import Intake
from bots.slack import blocks, events, files, hook, socket
from bots.slack.incoming import Incoming
from bots.slack.private import PrivateSurface, post_response
from bots.slack.surface import ThreadSurface
from bots.slack.workspaces import Workspaces
from core.types import JSON, ChatFile, Mention, Place, Said

if TYPE_CHECKING:
    from core.app import Kvasir

logger = logging.getLogger(__name__)

T = TypeVar("T")

_UNKNOWN_BLOCKS: Final = frozenset({"invalid_blocks", "invalid_blocks_format"})
_READ_BACK: Final = 200
"""Messages of a thread that are asked for; the last of them are used."""


class Slack:
    name = events.NAME

    def __init__(self, kvasir: Kvasir) -> None:
        self.kvasir = kvasir
        self.settings = kvasir.settings.slack
        self.workspaces = Workspaces(self.settings, Memory(kvasir.db, kvasir.vault, self.name))
        self._intake: Intake | None = None
        self._group: asyncio.TaskGroup | None = None
        self._streamless: set[str] = set()
        """Workspaces without streams."""
        self._plain: set[str] = set()
        """Workspaces that do not know all blocks."""

    # ------------------------------------------------------------ the port
    async def run(self, intake: Intake) -> None:
        self._intake = intake
        async with self.workspaces.one_session():
            await self.workspaces.all()  # a bad token is told at once
            try:
                async with asyncio.TaskGroup() as group:
                    incoming, self._group = Incoming(self, intake, group), group
                    try:
                        self._listen(incoming, group)
                        await asyncio.Event().wait()
                    finally:
                        self._group = None
                        await incoming.rest()
            except* Refused as refused:
                raise refused.exceptions[0] from None

    def _listen(self, incoming: Incoming, group: asyncio.TaskGroup) -> None:
        """Begin what brings events; its tasks raise Refused and Unreachable."""
        app, proxy = incoming.app(), self.settings.proxy or None
        group.create_task(self.workspaces.until_refused(), name="slack-token")
        if self.settings.app_token is not None:
            token = self.settings.app_token.get_secret_value().strip()
            web = self.workspaces.client(token)
            group.create_task(socket.listen(token, web, incoming.handler(app), proxy), name="slack-socket")
        if self.settings.app_token is None or self.settings.client_id:
            group.create_task(hook.listen(self, app), name="slack-hook")

    def surface(self, mention: Mention) -> ThreadSurface | PrivateSurface:
        return (PrivateSurface if mention.trigger == "command" else ThreadSurface)(self, mention)

    async def history(self, mention: Mention, limit: int) -> Sequence[Said]:
        place = mention.place
        if place.thread in ("", mention.message_id) or mention.trigger == "command":
            return ()
        bot_user = (await self.workspaces.get(place.workspace)).bot_user
        args = {"channel": place.channel, "ts": place.thread, "latest": mention.message_id, "limit": _READ_BACK}
        told = (await self.call_in(place.workspace, "conversations.replies", args, reads=True)).get("messages") or ()
        earlier = [message for message in told if str(message.get("ts", "")) < mention.message_id]
        return [_said(message, bot_user) for message in earlier[-limit:]]

    async def download(self, mention: Mention, file: ChatFile, most: int) -> bytes:
        team = mention.place.workspace
        about = (await self.call_in(team, "files.info", {"file": file.id}, reads=True)).get("file") or {}
        return await files.fetched(await self.workspaces.get(team), about, most, self.settings)

    async def call(self, place: Place, post: str, text: str, people: Sequence[str]) -> None:
        args = {"channel": place.channel, "thread_ts": place.thread or post, **blocks.call(text, people, post)}
        await self.call_in(place.workspace, "chat.postMessage", args)

    # ------------------------------------------------------------ for surfaces, and for what comes
    async def call_in(self, team: str, method: str, args: Mapping[str, Any], *, reads: bool = False) -> JSON:
        """A call in a workspace. Raises a DeliveryError."""
        workspace = await self.workspaces.get(team)
        try:
            if reads:
                return await workspace.web.ask(method, **args)
            return await workspace.web.call(method, **args)
        except Refused as error:
            self.workspaces.refused(team, error)
            raise

    async def respond(self, url: str, said: JSON) -> None:
        """Say something by the `response_url` of a command or button. Raises a DeliveryError."""
        if not url:
            raise Refused("no response_url")
        async with self.workspaces.any_session() as session:
            await post_response(session, url, said, self.settings.proxy or None)

    def streams_in(self, team: str) -> bool:
        return self.settings.streaming and team not in self._streamless

    def no_streams_in(self, team: str, why: str) -> None:
        self._streamless.add(team)
        logger.info("workspace %s has no streams (%s); answers are shown by edits there", team, why)

    def is_plain(self, team: str) -> bool:
        return team in self._plain

    async def saying(self, team: str, say: Callable[[bool], Awaitable[T]]) -> T:
        """What `say` gives with all blocks, or with plain ones where the workspace refuses the others."""
        try:
            return await say(self.is_plain(team))
        except Refused as error:
            if str(error) not in _UNKNOWN_BLOCKS or self.is_plain(team):
                raise
            self._plain.add(team)
            logger.info("workspace %s does not know all blocks (%s); it gets plain ones", team, error)
            return await say(True)

    def in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Do it beside all else, and not beyond `run`; None where that is over."""
        if self._group is not None:
            return self._group.create_task(work)
        work.close()
        return None

    async def is_known(self, place: Place, post: str) -> bool:
        """Whether a message of ours is known to belong to a question."""
        return self._intake is not None and await self._intake.thread_of(place, post) is not None


def _said(message: JSON, bot_user: str) -> Said:
    user = str(message.get("user", ""))
    return Said(events.readable(str(message.get("text") or ""), bot_user), user, by_us=user == bot_user)
