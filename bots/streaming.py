"""An answer as messages: the ladder from a platform's own stream over throttled edits to one message at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, TypeVar

from bots.errors import DeliveryError, Gone, Limited, Unreachable
from bots.inbox import Inbox, Item, LeaseLost
from bots.platform import Controls, Stream, Surface
from bots.rendering.parts import Part
from bots.tempo import Tempo
from core.texts import tell
from core.types import Finished, Source

logger = logging.getLogger(__name__)

NOTHING: Final = Controls()
_STOP: Final = Controls(stop=True)
_PATIENCE: Final = 900.0
"""Seconds for which the end of an answer is tried again while the platform cannot be reached or wants us to wait."""
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_ALIVE_EVERY: Final = 4.0
"""Seconds after which «is typing» is shown again."""
_STREAM_PAUSE: Final = 0.4
"""Seconds for which pieces are gathered before they go to a platform's stream."""

_SIGNS: Final = 2
"""Edits before there is any text, after which no more of them slow the text down: those that say where it waits."""
_LONG: Final = 1500
"""Characters from which rendering takes more than a few milliseconds."""
_LOOK_EVERY: Final = 1.0
"""Seconds between two looks whether another process writes the answer now, where there are others."""
_LAST_SECONDS: Final = 3.0
"""Seconds for a call under way when nothing more is to be shown."""

T = TypeVar("T")


async def _nothing() -> None:
    """The end of an answer that is gone on with elsewhere."""


class ChatAnswer:
    """The `OpenAnswer` of platforms made of messages.

    One task makes all calls to the platform, so that they arrive in order and the engine never waits for a message; it
    always shows the newest state, and the end is tried until it stands there. A message's id is kept before the message
    is edited, so that whoever takes the question over goes on in the same messages.
    """

    def __init__(
        self,
        surface: Surface,
        inbox: Inbox,
        item: Item,
        tempo: Tempo,
        *,
        quiet: bool = False,
        controls: Controls = NOTHING,
        private: Collection[str] = (),
        shared: bool = False,
    ) -> None:
        self._shared = shared
        """Other processes may be told to answer the question anew, or that it was deleted."""
        self._looked = -_LOOK_EVERY
        self._surface = surface
        self._inbox = inbox
        self._item = item
        self._tempo = tempo
        self._quiet = quiet
        """Show nothing but a real answer: nobody asked us."""
        self._controls = controls
        """What stands under the finished answer."""
        self._private = frozenset(private)
        """Knowledge bases whose answers are not offered to be shared."""
        self._read: frozenset[str] = frozenset()
        """Knowledge bases that the engine was shown passages of."""
        self._mode = "post" if quiet else surface.capabilities.streaming
        self._status = ""
        self._text = ""
        self._shown: object = None
        self._edits = 0
        self._stream: Stream | None = None
        self._streamed = 0
        self._stream_says = ""
        self._unsure = False
        """A message was sent, and nobody knows whether it arrived."""
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._ending: Callable[[], Awaitable[None]] | None = None
        self._task: asyncio.Task[None] | None = None
        self.failed = False

    # ------------------------------------------------------------ what the handler says
    def begin(self) -> asyncio.Task[None]:
        """The first sign of life, at once."""
        if self._task is None:
            self._task = asyncio.create_task(self._show(), name=f"show-{self._item.id}")
        return self._task

    async def status(self, text: str) -> None:
        self._status = text
        self._changed.set()

    async def sources(self, sources: Sequence[Source], standalone_question: str) -> None:  # noqa: ARG002  the port
        self._read = _kbs(sources)
        await self.status(tell("reading_passages", count=len(sources)))

    async def append(self, text: str) -> None:
        self._text += text
        self._changed.set()

    async def finish(self, finished: Finished) -> None:
        """Returns when the whole answer stands there. Raises Refused where it cannot, LeaseLost."""
        if self._quiet and not finished.answered:
            return
        await self._end(lambda: self._finish(finished))

    async def fail(self, sentence: str) -> None:
        """As `finish`."""
        self.failed = True
        if not self._quiet:
            await self._end(lambda: self._put([self._surface.plain(sentence)], Controls(again=self._controls.again)))

    async def stopped(self) -> None:
        """The asker stopped it: what there is stays, marked."""
        so_far = Finished("", self._text, True, (), "", "", {}, notice=tell("answer_stopped"))
        parts = self._surface.whole(so_far) if self._text.strip() else [self._surface.plain(tell("answer_stopped"))]
        await self._end(lambda: self._put(parts, Controls(again=self._controls.again)))

    async def withdraw(self) -> None:
        """Take everything back that was shown."""
        await self._end(self._take_back)

    async def close(self) -> None:
        """Show nothing more; what stands there stays. A message under way is let arrive, so that its id is known."""
        if self._task is None:
            return
        if self._ending is None:
            self._ends(_nothing)
            await asyncio.wait({self._task}, timeout=_LAST_SECONDS)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def is_ending(self) -> bool:
        """Whether its end may stand there already."""
        return self._ending is not None

    async def _end(self, ending: Callable[[], Awaitable[None]]) -> None:
        self._ends(ending)
        await asyncio.shield(self.begin())

    def _ends(self, ending: Callable[[], Awaitable[None]]) -> None:
        self._ending = ending
        self._changed.set()
        self._ended.set()

    # ------------------------------------------------------------ the task that shows it
    async def _show(self) -> None:
        if self._ending is None or self._item.attempts > 1:
            await self._open()
        while self._ending is None:
            await self._next_change()
            await self._look()
            if self._ending is None:
                await self._update()
        await self._inbox.check(self._item, surely=self._shared)
        await self._ending()

    async def _look(self) -> None:
        """Whether it is still ours to write, now and then. Raises LeaseLost."""
        now = asyncio.get_running_loop().time()
        if self._shared and self._ending is None and now - self._looked >= _LOOK_EVERY:
            self._looked = now
            await self._inbox.check(self._item, surely=True)

    async def _next_change(self) -> None:
        """Until there is something new and it may be shown; or until a sign of life is due."""
        try:
            async with asyncio.timeout(_ALIVE_EVERY):
                await self._changed.wait()
        except TimeoutError:
            if self._mode in ("draft", "post") and not self._quiet:
                self._shown = None  # such signs fade
            return
        pause = _STREAM_PAUSE if self._stream else max(self._tempo.wait(self._edits), await self._tempo.turn())
        if pause > 0:  # what changes meanwhile does not wake it: an answer has many pieces
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._ended.wait()
        self._changed.clear()

    async def _open(self) -> None:
        """The first message, or another sign of life; one that was sent just before a crash is found again."""
        if self._item.attempts > 1:
            await self._find()
        if self._item.posts and self._mode == "native":
            self._mode = "edit"
        if self._mode == "native":
            self._stream_says = self._status
            self._stream = await self._try(self._surface.stream(self._status))
            if self._stream is not None:
                self._tempo.took()
                await self._own(self._stream.post)
                return
            self._mode = "edit"
        if self._mode == "edit" and not self._item.posts:
            await self._try(self._reserve(self._surface.preview("", self._status), _STOP))
        elif self._mode != "edit" and not self._quiet:
            await self._try(self._surface.working(self._surface.preview("", self._status)))

    async def _reserve(self, part: Part, controls: Controls) -> None:
        """The next message of the answer."""
        if self._unsure and not self._surface.repeatable and await self._find():
            return
        try:
            post = await self._surface.send(part, controls, f"{self._item.answer_id}-{len(self._item.posts)}")
        except Unreachable:
            self._unsure = True
            raise
        self._tempo.took()
        await self._own(post)

    async def _own(self, post: str) -> None:
        """Remember a message that was sent. Raises LeaseLost; then nobody would know of the message, and it goes."""
        try:
            await self._inbox.add_post(self._item, post)
        except LeaseLost:
            if not self._surface.repeatable:  # where it is, whoever goes on sends the same one
                await self._try(self._surface.delete(post))
            raise

    async def _find(self) -> bool:
        """Whether there was a message of ours that we did not know of; it is ours again then."""
        found = await self._try(self._surface.find(self._item.posts))
        if found is not None:
            await self._inbox.add_post(self._item, found)
        return found is not None

    async def _update(self) -> None:
        """Show how far it is; what fails here is made good by the next change or the end."""
        if self._quiet or self._tempo.frozen():
            return
        if self._stream is not None:
            await self._grow(self._stream)
            return
        part = await self._written(lambda: self._surface.preview(self._text, self._status))
        if part == self._shown:
            return
        self._shown = part
        if self._mode == "edit":
            if not self._item.posts:
                await self._try(self._reserve(part, _STOP))
            else:
                await self._try(self._surface.edit(self._item.posts[0], part, _STOP))
                self._tempo.took()
            self._edits += bool(self._text) or self._edits < _SIGNS
        else:
            await self._try(self._surface.working(part))
            self._tempo.took()

    async def _grow(self, stream: Stream) -> None:
        room = self._surface.capabilities.max_length // 2
        piece = self._text[self._streamed : room]
        try:
            if piece:
                await stream.append(piece)
                self._streamed += len(piece)
            elif not self._text and self._status != self._stream_says:
                self._stream_says = self._status
                await stream.status(self._status)
        except Limited as error:
            self._tempo.freeze(error.seconds)
        except Unreachable:
            pass  # the piece is still ours, and comes with the next
        except DeliveryError as error:
            logger.info("the stream ended early (%s); going on by edits", error)
            self._stream, self._mode = None, "edit"

    # ------------------------------------------------------------ the end
    async def _finish(self, finished: Finished) -> None:
        parts = await self._written(lambda: self._surface.whole(finished))
        controls = Controls(
            rate=self._controls.rate,
            again=self._controls.again,
            human=self._controls.human,
            share=self._controls.share and self._private.isdisjoint(self._read | _kbs(finished.sources)),
            answer_id=finished.answer_id,
        )
        if self._stream is not None and len(parts) == 1 and finished.text.startswith(self._text[: self._streamed]):
            stream, rest = self._stream, finished.text[self._streamed :]
            try:
                await self._surely(lambda: stream.close(rest, finished, controls))
            except DeliveryError as error:
                logger.info("the stream could not be closed (%s); writing the whole answer", error)
            else:
                return
        await self._put(parts, controls)

    async def _put(self, parts: Sequence[Part], controls: Controls) -> None:
        """Let exactly these messages stand there."""
        for number, part in enumerate(parts):
            under = controls if number == len(parts) - 1 else NOTHING
            if number < len(self._item.posts):
                await self._replace(number, part, under)
            elif self._surface.repeatable:
                await self._surely(lambda part=part, under=under: self._reserve(part, under))  # type: ignore[misc]
            else:  # first a message without content: were we killed now, no text would stand there twice
                waiting = self._surface.preview("", "…")
                await self._surely(lambda waiting=waiting: self._reserve(waiting, NOTHING))  # type: ignore[misc]
                await self._replace(number, part, under)
        for post in self._item.posts[len(parts) :]:
            await self._drop(post)

    async def _replace(self, number: int, part: Part, controls: Controls) -> None:
        try:
            post = self._item.posts[number]
            await self._surely(lambda: self._surface.edit(post, part, controls))
            self._tempo.took()
        except Gone:  # somebody deleted it; the end of an answer is never lost
            key = f"{self._item.answer_id}-{number}-again"
            post = await self._surely(lambda: self._surface.send(part, controls, key))
            await self._inbox.drop_post(self._item, self._item.posts[number])
            await self._inbox.add_post(self._item, post)

    async def _take_back(self) -> None:
        for post in list(self._item.posts):
            await self._try(self._surface.delete(post))

    async def _drop(self, post: str) -> None:
        await self._try(self._surface.delete(post))
        await self._inbox.drop_post(self._item, post)

    async def _written(self, render: Callable[[], T]) -> T:
        """What a renderer makes of the text; a long one is rendered where it holds up nobody."""
        return await asyncio.to_thread(render) if len(self._text) > _LONG else render()

    # ------------------------------------------------------------ calls
    async def _try(self, call: Awaitable[T]) -> T | None:
        """One try of something that is not needed; None where it failed."""
        try:
            return await call
        except Limited as error:
            self._tempo.freeze(error.seconds)
        except DeliveryError as error:
            logger.info("%s: %s", type(error).__name__, error)
        return None

    async def _surely(self, call: Callable[[], Awaitable[T]]) -> T:
        """Try until it is done. Raises Gone, Refused, and what is left when all patience is spent."""
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + _PATIENCE, _FIRST_PAUSE
        while True:
            if wait := self._tempo.slot():
                await asyncio.sleep(wait)
            try:
                return await call()
            except Limited as error:
                self._tempo.freeze(error.seconds)
                if loop.time() > until:
                    raise
            except Unreachable:
                if loop.time() > until:
                    raise
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)


def _kbs(sources: Sequence[Source]) -> frozenset[str]:
    return frozenset(source.passage.kb for source in sources)
