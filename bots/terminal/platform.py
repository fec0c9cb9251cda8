"""The terminal as a chat platform: lines in, streamed answers out."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

from bots.handler import ChatHandler
from bots.rendering.terminal import rendered, tail
from bots.terminal.lines import LineReader, interruptible
from core.access import OPERATOR
from core.db.tables import new_id
from core.errors import Unavailable
from core.texts import say, text_language
from core.types import Capabilities, Filter, Finished, Language, Mention, Place, Source, Thumb

if TYPE_CHECKING:
    from core.app import Kvasir

_WIDEST: Final = 100

ReadLine = Callable[[], Awaitable[str | None]]
"""The next line; None at the end."""


class TerminalAnswer:
    """An answer on its way to a terminal: its end while it arrives, then the whole with its sources."""

    def __init__(self, console: Console, language: Language) -> None:
        self._console = console
        self._language = language
        self._text = ""
        self._live = Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None
        self.finished: Finished | None = None
        self.failure = ""

    async def status(self, text: str) -> None:
        self._show(Text(text, style="dim"))

    async def sources(self, sources: Sequence[Source], standalone_question: str) -> None:
        """They are shown with the whole answer."""

    async def append(self, text: str) -> None:
        self._text += text
        if self._live is not None:
            room = max(3, self._console.height - 2)
            self._show(Text(tail(self._text, width=self._width, height=room)))

    async def finish(self, finished: Finished) -> None:
        self.close()
        self.finished = finished
        color = self._console.is_terminal and not self._console.no_color
        text = rendered(finished, self._language, width=self._width, color=color)
        self._console.file.write(text + "\n")
        self._console.file.flush()

    async def fail(self, sentence: str) -> None:
        self.close()
        self.failure = sentence

    def close(self) -> None:
        """Take away what is shown only while the answer arrives."""
        if self._live is not None:
            self._live.stop()

    @property
    def _width(self) -> int:
        return min(self._console.width, _WIDEST)

    def _show(self, text: Text) -> None:
        if self._live is not None:
            self._live.start()
            self._live.update(text, refresh=True)


class Screen(Protocol):
    """What the platform asks of the rest for its commands."""

    async def new_conversation(self) -> str: ...

    async def kbs(self) -> Sequence[str]: ...


class TerminalPlatform:
    """The `ChatPlatform` port on lines of text; commands begin with a slash."""

    name = "terminal"
    capabilities = Capabilities(max_length=1_000_000, streaming="native", edit_interval=0)

    def __init__(
        self,
        console: Console,
        read_line: ReadLine,
        screen: Screen,
        *,
        kb: str | None,
        language: Language,
        filter: Filter | None = None,
    ) -> None:
        self._console = console
        self._read_line = read_line
        self._screen = screen
        self._kb = kb
        self._filter = filter
        self._language = language
        self._conversation = ""
        self.last: TerminalAnswer | None = None

    async def events(self) -> AsyncIterator[Mention | Thumb]:
        """A mention for every line, a thumb for /up and /down, until the end or /quit."""
        while (line := await self._read_line()) is not None:
            text = line.strip()
            if text.startswith("/"):
                command, _, rest = text.partition(" ")
                if command in ("/quit", "/exit", "/q"):
                    return
                thumb = await self._command(command, rest.strip())
                if thumb is not None:
                    yield thumb
            elif text:
                yield await self.mention(text)

    async def open_answer(self, mention: Mention) -> TerminalAnswer:
        self.last = TerminalAnswer(self._console, mention.language or text_language(mention.text))
        return self.last

    async def mention(self, text: str) -> Mention:
        """The question as the handler takes it, in the conversation that is open."""
        if not self._conversation:
            self._conversation = await self._screen.new_conversation()
        return Mention(
            place=Place(self.name),
            message_id=new_id(),
            person=OPERATOR,
            text=text,
            conversation_id=self._conversation,
            kbs=(self._kb,) if self._kb else (),
            filter=self._filter,
        )

    async def _command(self, command: str, rest: str) -> Thumb | None:
        match command:
            case "/up" | "/down":
                return self._thumb(command, rest)
            case "/new":
                self._conversation = ""
                self._say("terminal_new")
            case "/kb":
                await self._choose(rest)
            case "/help":
                self._say("terminal_help")
            case _:
                self._say("terminal_unknown", command=command)
        return None

    def _thumb(self, command: str, reason: str) -> Thumb | None:
        if self.last is None or self.last.finished is None:
            self._say("terminal_nothing_to_rate")
            return None
        self._say("terminal_thanks")
        return Thumb(self.last.finished.answer_id, OPERATOR, 1 if command == "/up" else -1, reason)

    async def _choose(self, name: str) -> None:
        there = await self._screen.kbs()
        if name not in there:
            self._say("terminal_kb_missing", there=", ".join(there))
            return
        self._kb = name
        self._say("terminal_kb", name=name)

    def _say(self, key: str, **values: object) -> None:
        self._console.print(Text(say(key, self._language, **values), style="dim"))

    @staticmethod
    async def converse(
        kvasir: Kvasir,
        *,
        kb: str | None,
        question: str | None,
        engine: str | None,
        language: Language,
        filter: Filter | None = None,
    ) -> None:
        """Answer one question on the terminal, or, without one, all that are typed until the end."""
        console = Console(highlight=False, emoji=False, markup=False)
        screen = _Kvasir(kvasir)
        platform = TerminalPlatform(console, LineReader(), screen, kb=kb, language=language, filter=filter)
        handler = ChatHandler(kvasir, engine=engine)
        if question is not None:
            await handler.on_mention(platform, await platform.mention(question))
            if platform.last is not None and platform.last.failure:
                raise Unavailable(platform.last.failure)
            return
        if sys.stdin.isatty():
            platform._say("terminal_help")
        async for event in platform.events():
            if isinstance(event, Thumb):
                await handler.on_thumb(event)
            else:
                platform._ended(stopped=await interruptible(handler.on_mention(platform, event)))

    def _ended(self, *, stopped: bool) -> None:
        if self.last is None:
            return
        self.last.close()
        if stopped:
            self._say("terminal_stopped")
        elif self.last.failure:
            self._console.print(Text(self.last.failure, style="red"))


class _Kvasir:
    """The `Screen` of a whole Kvasir."""

    def __init__(self, kvasir: Kvasir) -> None:
        self._kvasir = kvasir

    async def new_conversation(self) -> str:
        return (await self._kvasir.conversations.start("terminal", OPERATOR.key)).id

    async def kbs(self) -> Sequence[str]:
        return [kb.name for kb in await self._kvasir.knowledge.list()]
