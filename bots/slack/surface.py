"""The messages of one answer in Slack: in a thread, as a stream or by edits, or for one person alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from bots.errors import DeliveryError, Gone, Limited, Refused, Unreachable
from bots.platform import Controls
from bots.rendering import slack as rendering
from bots.rendering.parts import Part
from bots.slack import blocks
from core.texts import tell
from core.types import JSON, Capabilities, Finished, Mention

if TYPE_CHECKING:
    from bots.slack.platform import Slack

logger = logging.getLogger(__name__)

LONGEST: Final = 12_000
"""Characters of markdown in one message."""
EDIT_SECONDS: Final = 1.2
"""`chat.update` allows fifty a minute in a workspace, shared by all answers there."""
_NO_STREAMS: Final = frozenset(
    {"feature_not_enabled", "unknown_method", "method_deprecated", "not_allowed_token_type", "access_denied"}
)
"""Refusals that hold for the whole workspace."""
_STOPPABLE_AFTER: Final = 1.0
"""Seconds after which people get a stop button: shorter answers are not worth a call."""
_EVENT: Final = "kvasir_answer"
_TASK: Final = "kvasir-"
_LONGEST_TASK: Final = 250


class ThreadSurface:
    """Answers where everybody in the thread reads them."""

    repeatable = False

    def __init__(self, slack: Slack, mention: Mention) -> None:
        self._slack = slack
        self._mention = mention
        self._place = mention.place
        self._offer: asyncio.Task[None] | None = None
        self._stoppable = False
        """People have Slack's own stop button, or may have it."""
        place = mention.place
        streams = slack.streams_in(place.workspace)
        self.capabilities = Capabilities(LONGEST, "native" if streams else "edit", EDIT_SECONDS)
        self.tempo = f"{place.workspace}/{place.channel}/{place.thread}" if streams else place.workspace

    # ------------------------------------------------------------ rendering
    def preview(self, text: str, status: str) -> Part:
        return rendering.preview(text, status)

    def whole(self, finished: Finished) -> Sequence[Part]:
        return blocks.whole(finished)

    def plain(self, text: str) -> Part:
        return rendering.plain(text)

    # ------------------------------------------------------------ messages
    async def working(self, part: Part) -> None:
        """Nothing: a message or a stream shows it."""

    async def send(self, part: Part, controls: Controls, key: str) -> str:  # noqa: ARG002  Slack knows no such keys
        async def say(plain: bool) -> JSON:
            return await self._call(
                "chat.postMessage",
                channel=self._place.channel,
                thread_ts=self._place.thread,
                metadata=self.metadata(),
                **blocks.message(part.text, controls, plain=plain),
            )

        return str((await self._slack.saying(self._place.workspace, say))["ts"])

    async def edit(self, post: str, part: Part, controls: Controls) -> None:
        async def say(plain: bool) -> None:
            said = blocks.message(part.text, controls, plain=plain)
            del said["unfurl_links"], said["unfurl_media"]
            await self._unstreamed("chat.update", post, metadata=self.metadata(), **said)

        await self._slack.saying(self._place.workspace, say)
        if not controls.stop and self.no_more_stopping():
            await self._session("active")

    async def delete(self, post: str) -> None:
        try:
            await self._unstreamed("chat.delete", post)
        except Gone:
            logger.debug("a message to be deleted was not there")
        if self.no_more_stopping():
            await self._session("active")

    async def find(self, known: Sequence[str]) -> str | None:
        """By the question's id, which our messages carry; else a stream of ours that runs and that nobody knows."""
        workspace = await self._slack.workspaces.get(self._place.workspace)
        answer = await self._ask(
            "conversations.replies",
            channel=self._place.channel,
            ts=self._place.thread,
            oldest=self._mention.message_id,
            include_all_metadata="true",
            limit=200,
        )
        ours = [
            message
            for message in answer.get("messages") or ()
            if message.get("user") == workspace.bot_user
            and message["ts"] not in known
            and message["ts"] != self._place.thread
        ]
        for message in ours:
            if _question_of(message) == self._mention.message_id:
                return str(message["ts"])
        for message in ours:
            running = message.get("streaming_state") == "in_progress" and not _question_of(message)
            if running and not await self._slack.is_known(self._place, str(message["ts"])):
                return str(message["ts"])
        return None

    async def stream(self, status: str) -> ThreadStream | None:
        if not self._slack.streams_in(self._place.workspace) or not self._mention.extra.get("user"):
            return None
        stream = ThreadStream(self, f"{_TASK}{self._mention.message_id}")
        try:
            answer = await self._call(
                "chat.startStream",
                channel=self._place.channel,
                thread_ts=self._place.thread,
                recipient_team_id=self._mention.extra.get("team") or self._place.workspace,
                recipient_user_id=self._mention.extra["user"],
                chunks=[stream.task(status, "in_progress")],
            )
        except Refused as error:
            if str(error) not in _NO_STREAMS:
                raise
            self._slack.no_streams_in(self._place.workspace, str(error))
            return None
        except Limited:  # for streams; a message can be edited meanwhile
            return None
        except Unreachable:
            found = await self.find(())  # it may have begun all the same
            if found is None:
                raise
            answer = {"ts": found}
        stream.post = str(answer["ts"])
        self._offer = self._slack.in_background(self._offer_stop())
        return stream

    # ------------------------------------------------------------ inside
    async def _offer_stop(self) -> None:
        """Give people Slack's own stop button, which takes a call: answers that are there at once do without."""
        await asyncio.sleep(_STOPPABLE_AFTER)
        self._stoppable = True
        await self._session("processing")

    def no_more_stopping(self) -> bool:
        """Whether there is a stop button to be taken away."""
        if self._offer is not None:
            self._offer.cancel()
        there, self._stoppable = self._stoppable, False
        return there

    async def _session(self, status: str) -> None:
        """Set the agent's status in the thread; no matter where Slack knows no such thing."""
        args = {"channel_id": self._place.channel, "thread_ts": self._place.thread, "status": status}
        try:
            await self._call("agents.sessions.setStatus", **args)
        except DeliveryError as error:
            logger.debug("no stop button: %s", error)

    async def end_stream(self, post: str, chunks: Sequence[JSON], controls: Controls, status: str | None) -> None:
        async def say(plain: bool) -> JSON:
            under = blocks.under(controls, plain=plain) or None
            given = {"chunks": list(chunks), "blocks": under, "metadata": self.metadata(), "session_status": status}
            return await self.on_stream("chat.stopStream", post, **given)

        await self._slack.saying(self._place.workspace, say)

    async def on_stream(self, method: str, post: str, **args: Any) -> JSON:
        return await self._call(method, channel=self._place.channel, ts=post, **args)

    async def _unstreamed(self, method: str, post: str, **args: Any) -> None:
        """Change a message; a stream that somebody left open there is closed first."""
        try:
            await self._call(method, channel=self._place.channel, ts=post, **args)
            return
        except Refused as error:
            if str(error) not in ("streaming_state_conflict", "cant_delete_message"):
                raise
        except Gone as error:
            if str(error) != "cant_delete_message":
                raise
        try:
            await self._call(
                "chat.stopStream",
                channel=self._place.channel,
                ts=post,
                metadata=self.metadata(),
                session_status="active",
            )
        except Gone:
            logger.debug("the stream had ended meanwhile")
        await self._call(method, channel=self._place.channel, ts=post, **args)

    def metadata(self) -> JSON:
        return {"event_type": _EVENT, "event_payload": {"question": self._mention.message_id}}

    async def _call(self, method: str, **args: Any) -> JSON:
        return await self._slack.call_in(self._place.workspace, method, args)

    async def _ask(self, method: str, **args: Any) -> JSON:
        return await self._slack.call_in(self._place.workspace, method, args, reads=True)


def _question_of(message: JSON) -> str:
    """The id of the question that a message of ours answers; empty where it does not say."""
    metadata = message.get("metadata") or {}
    if metadata.get("event_type") == _EVENT:
        return str((metadata.get("event_payload") or {}).get("question", ""))
    for block in message.get("blocks") or ():
        task = str(block.get("task_id") or "")
        if block.get("type") == "task_card" and task.startswith(_TASK):
            return task.removeprefix(_TASK)
    return ""


class ThreadStream:
    """Slack's own stream. What was appended cannot be changed; a call whose fate nobody knows ends it for us."""

    def __init__(self, surface: ThreadSurface, task: str) -> None:
        self._surface = surface
        self._task = task
        self._says = ""
        self._stoppable = False
        self._waiting = ""
        """What was to be appended while Slack wanted us to wait."""
        self.post = ""

    def task(self, title: str, status: str) -> JSON:
        self._says = title or self._says or tell("searching")
        title = self._says if len(self._says) <= _LONGEST_TASK else self._says[: _LONGEST_TASK - 1] + "…"
        return {"type": "task_update", "id": self._task, "title": title, "status": status}

    async def status(self, text: str) -> None:
        await self._append([self.task(text, "in_progress")])

    async def append(self, text: str) -> None:
        self._waiting += rendering.streamed(text)
        if await self._append([{"type": "markdown_text", "text": self._waiting}]):
            self._waiting = ""

    async def close(self, rest: str, finished: Finished, controls: Controls) -> None:
        text = self._waiting + rendering.streamed(rest) + blocks.tail(finished)
        chunks: list[JSON] = [self.task("", "complete")]
        if text:
            chunks.append({"type": "markdown_text", "text": text})
        self._stoppable = self._surface.no_more_stopping() or self._stoppable
        await self._surface.end_stream(self.post, chunks, controls, "active" if self._stoppable else None)

    async def _append(self, chunks: Sequence[JSON]) -> bool:
        """Whether it is there; False where Slack wants no more pieces for a while, which the end need not heed."""
        try:
            await self._surface.on_stream("chat.appendStream", self.post, chunks=list(chunks))
        except Limited:
            return False
        except Unreachable as error:  # once more would perhaps be twice
            raise Gone(f"appended or not: {error}") from error
        return True
