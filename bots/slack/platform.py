"""Slack as a `Messenger`: what comes goes through `incoming.py`, what goes out through `call_in`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from bots.errors import Refused
from bots.memory import Memory
from bots.platform import Controls, Intake
from bots.rendering import slack as rendering
from bots.slack import blocks, events, files, hook, socket
from bots.slack.incoming import Incoming
from bots.slack.private import PrivateSurface, post_response
from bots.slack.surface import ThreadSurface
from bots.slack.workspaces import Workspaces
from core.texts import spoken
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
        self.workspaces = Workspaces(self.settings, Memory(kvasir.db, kvasir.vault, self.name), kvasir.limits)
        self._intake: Intake | None = None
        self._group: asyncio.TaskGroup | None = None
        self._links: dict[str, bool] = {}
        """The ways by which events come, and whether each is open."""
        self._streamless: set[str] = set()
        """Workspaces without streams."""
        self._plain: set[str] = set()
        """Workspaces that do not know all blocks."""

    # ------------------------------------------------------------ the port
    @property
    def connected(self) -> bool:
        return bool(self._links) and all(self._links.values())

    @property
    def standing_by(self) -> bool:
        """All processes are connected."""
        return False

    @property
    def spread(self) -> bool:
        """Slack gives each event to one of those who are connected."""
        return True

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
                        self._links = {}
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
            listening = socket.listen(token, web, incoming.handler(app), proxy, self._link("socket"))
            group.create_task(listening, name="slack-socket")
        if self.settings.app_token is None or self.settings.client_id:
            group.create_task(hook.listen(self, app, self._link("hook")), name="slack-hook")

    def _link(self, name: str) -> Callable[[bool], None]:
        """A way that is not open yet, and what says that it is."""
        self._links[name] = False

        def say(is_open: bool) -> None:
            self._links[name] = is_open

        return say

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

    async def post(self, place: Place, text: str) -> None:
        team = place.workspace or (await self._only_team())
        thread = None if place.thread.startswith("@") else place.thread or None  # that is one person's alone
        for part in rendering.render(text, language=spoken()).parts:

            async def say(plain: bool, words: str = part.text) -> JSON:
                args = {"channel": place.channel, "thread_ts": thread}
                message = blocks.message(words, Controls(), plain=plain)
                return await self.call_in(team, "chat.postMessage", {**args, **message})

            await self.saying(team, say)

    async def called(self, place: Place) -> str:
        about = await self.call_in(place.workspace, "conversations.info", {"channel": place.channel}, reads=True)
        channel = about.get("channel") or {}
        return "" if channel.get("is_im") or not channel.get("name") else f"#{channel['name']}"

    async def _only_team(self) -> str:
        """Raises Refused where there are several workspaces, or none."""
        teams = [workspace.installation.team for workspace in await self.workspaces.all()]
        if len(teams) != 1:
            raise Refused("team_not_specified")
        return teams[0]

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
