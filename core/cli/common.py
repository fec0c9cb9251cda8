"""What the commands share: settings, one event loop, errors as one line, and clean output.

Whatever takes long to import is imported inside the functions that need it, here and in every command: «kvasir --help»
should be there at once.
"""

from __future__ import annotations

import asyncio
import codecs
import inspect
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from core.access import OPERATOR
from core.errors import KvasirError
from core.texts import CATALOGUE, speaking, system_language, tell
from core.types import Language

if TYPE_CHECKING:
    from core.app import Kvasir, WhenEmbedder
    from core.settings import Settings

T = TypeVar("T")

logger = logging.getLogger(__name__)

out = Console(highlight=False, emoji=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]
KbName = Annotated[str, typer.Option("--kb", help="Name of the knowledge base.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

_PIPED_WIDTH = 10_000
"""Columns of a table that no terminal folds."""


@dataclass(slots=True)
class Globals:
    """What was said before the command."""

    data_dir: Path | None = None
    config: Path | None = None

    def settings(self) -> Settings:
        from core import settings as settings_module

        given = {"data_dir": self.data_dir} if self.data_dir else {}
        return settings_module.load(config_file=self.config, **given)


GLOBALS = Globals()


def language(settings: Settings) -> Language:
    return system_language() if settings.language == "auto" else settings.language


def fail(sentence: str) -> NoReturn:
    """End with one clear line on stderr and status 1."""
    err.print(Text(f"kvasir: {' '.join(printable(sentence).split())}", style="red"))
    raise typer.Exit(1)


def run(work: Callable[[Settings], Coroutine[Any, Any, T]]) -> T:
    """Read the settings and do the work in an event loop; what goes wrong ends as `ending` says."""
    with speaking(system_language()), ending(), _commanded(work):
        settings = GLOBALS.settings()
        set_up_logging(settings, quiet=True)
        with speaking(language(settings)):
            return asyncio.run(_until_signal(work(settings)))


@contextmanager
def ending() -> Iterator[None]:
    """An error becomes one line and status 1; Ctrl+C and SIGTERM end with the shell's 130 and 143."""
    try:
        yield
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except KvasirError as error:
        fail(str(error))
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        err.print(Text(f"kvasir: {tell('interrupted')}"))
        raise typer.Exit(143 if isinstance(error, asyncio.CancelledError) else 130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except OSError as error:
        logger.debug("the command failed", exc_info=True)
        fail(tell("system_error", reason=error.strerror or error, file=error.filename or "-"))
    except Exception as error:  # the outermost place: whoever types a command gets a line, not a traceback
        logger.debug("the command failed", exc_info=True)
        fail(_sentence(error))


def _sentence(error: BaseException) -> str:
    """What a person reads of an error; in a group of them, of the first that is meant to be read."""
    if isinstance(error, BaseExceptionGroup):
        ours = error.subgroup(KvasirError) or error
        return _sentence(ours.exceptions[0])
    if isinstance(error, KvasirError):
        return str(error)
    return tell("our_error", kind=type(error).__name__, detail=error)


async def _until_signal(work: Coroutine[Any, Any, T]) -> T:
    """SIGTERM ends a command as Ctrl+C does: by cancelling, so that everything is closed."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def set_up_logging(settings: Settings, *, quiet: bool = False) -> None:
    """What is logged goes to stderr; with `quiet`, only errors do as long as the settings name no level."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.log.format == "json":
        handler.setFormatter(_JsonLines())
    else:
        handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(_is_trouble)
    said = "level" in settings.log.model_fields_set
    level = settings.log.level if said or not quiet else "ERROR"
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("alembic", "aiosqlite", "apscheduler", "httpx", "httpx2", "httpcore", "psycopg", "procrastinate"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))


def _is_trouble(record: logging.LogRecord) -> bool:
    """False where a task was cancelled while it closed its database connection, which the pool tells as an error."""
    error = record.exc_info[1] if record.exc_info else None
    return not (record.name.startswith("sqlalchemy.pool") and isinstance(error, asyncio.CancelledError))


class _OneLine(logging.Formatter):
    """One line per event, so that no text from outside can forge another."""

    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record)
        if record.exc_info:
            return message
        return message.replace("\r", "\\r").replace("\n", "\\n")


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


READING: Final = frozenset(
    {
        "ask",
        "search",
        "evaluate",
        "doctor",
        "up",
        "list",
        "show",
        "export",
        "find",
        "check",
        "sample",
        "test",
        "versions",
        "backup",
    }
)
"""Last words of commands that change nothing; all others are written down in the audit log."""
_command: ContextVar[tuple[str, Mapping[str, Any]]] = ContextVar("_command", default=("", {}))


@contextmanager
def _commanded(work: Callable[..., object]) -> Iterator[None]:
    """Know the command by the function that defined `work`, and what it was given by what `work` uses of it."""
    names = work.__code__.co_freevars if inspect.isfunction(work) else ()
    given = dict(zip(names, [cell.cell_contents for cell in work.__closure__ or ()], strict=True)) if names else {}
    values = {name: value for name, value in given.items() if not callable(value)}
    token = _command.set((work.__qualname__.partition(".")[0].replace("_", "."), values))
    try:
        yield
    finally:
        _command.reset(token)


async def _write_down(kvasir: Kvasir) -> None:
    name, given = _command.get()
    kind, _, verb = name.rpartition(".")
    if verb in READING or not name:
        return
    named = given.get("name") or given.get("kb") or ""
    await kvasir.audit.note(OPERATOR, name, kind=kind, object=str(named), changes=given)


@asynccontextmanager
async def opened(
    settings: Settings, embedder: WhenEmbedder = "if_ready", *, bar: bool = False
) -> AsyncIterator[Kvasir]:
    """Kvasir for one command; with `bar`, fetching and building the model shows on a terminal's stderr."""
    from core.app import Kvasir

    if not (bar and embedder == "wait" and err.is_terminal):
        async with Kvasir.open(settings, embedder=embedder) as kvasir:
            yield kvasir
            await _write_down(kvasir)
        return
    with model_bar() as follow:
        context = Kvasir.open(settings, embedder=embedder, progress=follow)
        kvasir = await context.__aenter__()
    try:
        yield kvasir
        await _write_down(kvasir)
    except BaseException:
        await context.__aexit__(*sys.exc_info())
        raise
    await context.__aexit__(None, None, None)


class model_bar:  # noqa: N801  a context manager, read as a verb
    """A progress bar on stderr that appears with the first step and goes with the last."""

    def __enter__(self) -> Callable[[str, float], None]:
        self._progress = progress_bar()
        self._task = self._progress.add_task("", total=1.0, visible=False)
        self._progress.start()
        return self._follow

    def _follow(self, stage: str, done: float) -> None:
        words = tell(f"model_{stage}") if f"model_{stage}" in CATALOGUE else stage
        self._progress.update(self._task, description=words, completed=done, visible=True)

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()


def progress_bar() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


def print_json(value: object) -> None:
    is_utf8 = codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8"
    sys.stdout.write(json.dumps(value, ensure_ascii=not is_utf8, indent=2, default=str) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "id")
    for row in rows:
        table.add_row(*[plain(str(value)) for value in row])
    where = out if out.is_terminal else Console(highlight=False, emoji=False, width=_PIPED_WIDTH)
    where.print(table)


def printable(text: str) -> str:
    """Text from outside without control characters."""
    return "".join(char if char.isprintable() or char == "\n" else "�" for char in text)


def plain(text: str) -> str:
    """Text from outside, fit for the markup of `out` and `err`."""
    return escape(printable(text))


def told(key: str, **values: object) -> None:
    """Say to a person on stdout what was done."""
    out.print(Text(printable(tell(key, **values))))


def confirm(sentence: str, yes: bool) -> None:
    """Ask before something is lost; without a terminal `--yes` is needed. Never inside an event loop: Ctrl+C waits."""
    if yes:
        return
    if not sys.stdin.isatty():
        fail(f"{sentence} {tell('say_yes')}")
    typer.confirm(sentence, abort=True, err=True)
