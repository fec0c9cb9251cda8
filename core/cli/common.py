"""What the commands share: settings, one event loop, errors as one line, and clean output."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from core import settings as settings_module
from core.app import Kvasir, WhenEmbedder
from core.errors import KvasirError
from core.settings import Settings
from core.texts import speaking, system_language
from core.types import Language

T = TypeVar("T")

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]
KbName = Annotated[str, typer.Option("--kb", help="Name of the knowledge base.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@dataclass(slots=True)
class Globals:
    """What was said before the command."""

    data_dir: Path | None = None
    config: Path | None = None

    def settings(self) -> Settings:
        given = {"data_dir": self.data_dir} if self.data_dir else {}
        return settings_module.load(config_file=self.config, **given)


GLOBALS = Globals()


def language(settings: Settings) -> Language:
    return system_language() if settings.language == "auto" else settings.language


def fail(sentence: str) -> NoReturn:
    """End with one clear line on stderr and status 1."""
    err.print(f"kvasir: {sentence}", style="red", markup=False)
    raise typer.Exit(1)


def run(work: Callable[[Settings], Coroutine[Any, Any, T]]) -> T:
    """Read the settings and do the work in an event loop; an error of ours becomes one line, Ctrl+C status 130."""
    try:
        settings = GLOBALS.settings()
        set_up_logging(settings)
        with speaking(language(settings)):
            return asyncio.run(_until_signal(work(settings)))
    except KvasirError as error:
        fail(str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        err.print("kvasir: stopped; nothing is left half done.")
        raise typer.Exit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None


async def _until_signal(work: Coroutine[Any, Any, T]) -> T:
    """SIGTERM ends a command as Ctrl+C does: by cancelling, so that everything is closed."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def set_up_logging(settings: Settings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    if settings.log.format == "json":
        handler.setFormatter(_JsonLines())
    else:
        handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log.level, handlers=[handler], force=True)
    for name in ("alembic", "aiosqlite", "httpx", "httpx2", "httpcore", "pypdf", "trafilatura"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[settings.log.level]))


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


@asynccontextmanager
async def opened(
    settings: Settings, embedder: WhenEmbedder = "if_ready", *, bar: bool = False
) -> AsyncIterator[Kvasir]:
    """Kvasir for one command; with `bar`, fetching and building the model shows on a terminal's stderr."""
    if not (bar and embedder == "wait" and err.is_terminal):
        async with Kvasir.open(settings, embedder=embedder) as kvasir:
            yield kvasir
        return
    with model_bar() as follow:
        context = Kvasir.open(settings, embedder=embedder, progress=follow)
        kvasir = await context.__aenter__()
    try:
        yield kvasir
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
        self._progress.update(self._task, description=stage, completed=done, visible=True)

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
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*[plain(str(value)) for value in row])
    out.print(table)


def plain(text: str) -> str:
    """Text from outside, fit for a terminal: no control characters, no markup."""
    cleaned = "".join(char if char.isprintable() or char == "\n" else "�" for char in text)
    return cleaned.replace("[", "\\[")


def confirm(sentence: str, yes: bool) -> None:
    """Ask before something is lost; without a terminal `--yes` is needed."""
    if yes:
        return
    if not sys.stdin.isatty():
        fail(f"{sentence} Say --yes to do it.")
    typer.confirm(sentence, abort=True, err=True)
