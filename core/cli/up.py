"""`kvasir up`: everything in one process, or only the named roles."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import signal
import time
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core import registry
from core.cli.common import GLOBALS, ending, err, language, model_bar, out, plain, set_up_logging
from core.cli.documents import bring_in
from core.cli.watched import report
from core.errors import KvasirError
from core.texts import say, speaking, system_language
from core.types import Language

if TYPE_CHECKING:
    from core.app import Kvasir
    from core.settings import Settings

logger = logging.getLogger(__name__)

SAMPLE_KB = "sample"
_SAMPLE_MARK = "sample-is-in"
_GRACE = 10.0
_SETTLED = 3.0
"""Seconds after which all services have imported what they need."""


def up(
    roles: Annotated[list[str] | None, typer.Argument(help="web, bots, jobs; none: all of them.")] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="First bring in the sample knowledge base and ask it a question.")
    ] = False,
) -> None:
    """Run Kvasir until Ctrl+C."""
    known = registry.names("kvasir.services")
    chosen = roles or known
    if unknown := [role for role in chosen if role not in known]:
        raise typer.BadParameter(f"There is no role {', '.join(unknown)}; there are: {', '.join(known)}.")
    with speaking(system_language()), ending():
        settings = GLOBALS.settings()
        set_up_logging(settings, quiet=True)  # until it serves, a person watches
        with speaking(language(settings)):
            asyncio.run(_up(settings, chosen, sample))


async def _up(settings: Settings, roles: list[str], sample: bool) -> None:
    """Serve until a signal comes; a service that ends by an error ends all."""
    from core.app import Kvasir

    started = time.monotonic()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    serving = False

    def on_signal() -> None:
        stop.set()
        if not serving and main is not None:  # still starting: leave at once, everything is closed on the way out
            main.cancel()

    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, on_signal)
    words = language(settings)
    try:
        first = sample and not (settings.data_dir / _SAMPLE_MARK).exists()
        with model_bar() if first else contextlib.nullcontext() as follow:
            context = Kvasir.open(settings, embedder="wait" if first else "background", progress=follow)
            kvasir = await context.__aenter__()
        try:
            if first:
                await show_sample(kvasir, words)
            serving = True
            set_up_logging(settings)
            await _serve(kvasir, roles, words, stop, started if not first else None)
        finally:
            await context.__aexit__(None, None, None)
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    out.print(say("stopped", words))


async def _serve(kvasir: Kvasir, roles: list[str], words: Language, stop: asyncio.Event, started: float | None) -> None:
    handler = registry.load("kvasir.handlers", "chat")(kvasir)
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def listening(url: str) -> None:
        if not ready.done():
            ready.set_result(url)

    fence = await kvasir.folder.take()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(kvasir.presence.keep(), name="presence")]
        tasks.append(group.create_task(kvasir.folder.keep(fence), name="folder"))
        for role in roles:
            kvasir.presence.say(role, {})
            serve = registry.load("kvasir.services", role)
            extra = {"listening": listening} if role == "web" else {}
            tasks.append(group.create_task(serve(kvasir, handler, **extra), name=f"service-{role}"))
        if roles == ["bots"] and not any(one.is_configured for one in await kvasir.connections.list()):
            err.print(say("no_platform_on", words), style="yellow", markup=False)
        # What was imported stays: a collection that looks through all of it would hold everybody up, at any time.
        asyncio.get_running_loop().call_later(_SETTLED, gc.freeze)
        if "web" in roles:
            tasks.append(group.create_task(_announce(kvasir, words, ready, started), name="announce"))
        else:
            out.print(say("roles_ready", words, roles=", ".join(roles)))
        tasks.append(group.create_task(report(), name="systemd"))
        await stop.wait()
        err.print(say("stopping", words))
        for task in tasks:
            task.cancel()
        _, pending = await asyncio.wait(tasks, timeout=_GRACE)
        if pending:
            logger.warning("still running after %s s: %s", _GRACE, ", ".join(task.get_name() for task in pending))


async def _announce(kvasir: Kvasir, words: Language, ready: asyncio.Future[str], started: float | None) -> None:
    url = await ready
    took = f" ({time.monotonic() - started:.1f} s)" if started is not None else ""
    out.print(say("ready_at", words, url=url) + took, markup=False)  # «[fd00::1]» is no style
    token = await kvasir.accounts.setup_token()
    if token is not None:
        out.print(say("set_up_at", words, url=f"{url}/setup?token={token}"), markup=False)
    state = kvasir.embedder_state
    if not state.ready and state.reason:
        err.print(say("keyword_only", words, reason=state.reason), style="yellow", markup=False)


async def show_sample(kvasir: Kvasir, words: Language) -> None:
    """Bring the sample knowledge base in, and let the terminal ask it a first question."""
    out.print(say("sample_coming", words))
    with as_file(files("configs") / "sample") as folder:
        outcomes = await bring_in(kvasir, SAMPLE_KB, [str(folder / "documents")], show=True)
        question = json.loads(Path(folder, "first_question.json").read_text(encoding="utf-8"))[words]
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    out.print(say("sample_in", words, count=len(outcomes) - len(failed), kb=SAMPLE_KB))
    for outcome in failed:
        err.print(f"  {plain(outcome.name)}: {plain(outcome.reason or '')}", style="yellow")
    out.print(f"\n[bold]> {plain(question)}[/bold]\n")
    terminal = registry.load("kvasir.platforms", "terminal")
    try:
        await terminal.converse(kvasir, kb=SAMPLE_KB, question=question, engine=None, language=words)
    except KvasirError as error:  # e.g. a language model that cannot be reached: the page can be used all the same
        err.print(plain(str(error)), style="yellow")
    (kvasir.settings.data_dir / _SAMPLE_MARK).write_text("The sample knowledge base was brought in once.\n")
