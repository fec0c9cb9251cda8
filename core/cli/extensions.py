"""`kvasir model build`: the CUDA extension of an ExLlama, before its first model is loaded."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from core.cli.common import AsJson, err, fail, print_json, progress_bar, run, told
from core.texts import tell

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from core.settings import Settings

_MODULE: Final = "core.serving.drivers.exllama_build"
_LAST_LINES: Final = 3


def model_build(
    kind: Annotated[Literal["exllamav2", "exllamav3"], typer.Option("--kind", help="The engine.")],
    arch: Annotated[
        list[str] | None,
        typer.Option(
            "--arch", metavar="X.Y", help="Compute capability of the card, as 8.6 or 9.0. Else: the cards here."
        ),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option("--into", help="Folder to keep it in, named to Kvasir as build_dir. Else: in the data directory."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compile an engine's CUDA extension; else that happens when its first model is loaded. It takes minutes."""

    async def work(settings: Settings) -> None:
        own = settings.exllamav2 if kind == "exllamav2" else settings.exllamav3
        folder = into or own.build_dir or settings.data_dir / "workers" / "build"
        python = settings.worker.pythons.get(kind, sys.executable)
        options = [part for one in arch or () for part in ("--arch", one)]
        with progress_bar() as bar:
            end = await _followed([python, "-P", "-m", _MODULE, kind, "--into", str(folder.absolute()), *options], bar)
        if "error" in end:
            if as_json:
                print_json(end)
                raise typer.Exit(1)
            fail(str(end["error"]))
        if as_json:
            print_json(end)
        else:
            told("model_built", kind=kind, folder=end["folder"])

    run(work)


async def _followed(command: list[str], bar: Progress) -> dict[str, Any]:
    """What the build ends with; its progress is shown on the way."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    task = bar.add_task(tell("model_compile"), total=None)
    try:
        said = asyncio.create_task(_end_of(process.stderr))
        end: dict[str, Any] = {}
        if process.stdout is not None:
            async for line in process.stdout:
                end = _shown(line, bar, task) or end
        await process.wait()
        last = await said
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    return end or {"error": last or tell("model_build_died", status=process.returncode)}


def _shown(line: bytes, bar: Progress, task: TaskID) -> dict[str, Any]:
    """The end, where the line is that."""
    try:
        read: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}
    if "stage" not in read:
        return read
    bar.update(task, completed=read["done"], total=read["total"] or None)
    if not err.is_terminal:
        err.print(f"{read['stage']}: {read['done']}/{read['total']}")
    return {}


async def _end_of(stream: asyncio.StreamReader | None) -> str:
    """The last lines of what it complains of."""
    lines = [line.decode(errors="replace").strip() async for line in stream] if stream is not None else []
    return " ".join([line for line in lines if line][-_LAST_LINES:])
