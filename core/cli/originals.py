"""`kvasir originals …`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import TaskID

from core.cli.common import opened, progress_bar, run, told
from core.errors import UserError
from core.texts import tell

if TYPE_CHECKING:
    from core.app import Kvasir
    from core.blobs_s3 import S3Blobs
    from core.settings import Settings

originals = typer.Typer(no_args_is_help=True, help="The bytes of documents, as they were given.")


@originals.command("push")
def originals_push(
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove them here then; every process must use the bucket by now.")
    ] = False,
) -> None:
    """Copy the originals that lie in the data directory into the bucket of the settings; it may be run again."""

    async def work(settings: Settings) -> None:
        async with opened(settings, "never") as kvasir:
            blobs = _in_s3(kvasir)
            with progress_bar() as bar:
                task = bar.add_task(tell("doctor_originals"), total=None)

                def follow(done: int, total: int, task: TaskID = task) -> None:
                    bar.update(task, completed=done, total=total)

                count = await asyncio.to_thread(blobs.push, delete=delete, on_originals=follow)
        told("originals_copied", count=count, place=blobs.place)

    run(work)


@originals.command("pull")
def originals_pull() -> None:
    """Copy the originals of the bucket into the data directory, before originals.url is taken out of the settings."""

    async def work(settings: Settings) -> None:
        async with opened(settings, "never") as kvasir:
            blobs = _in_s3(kvasir)
            with progress_bar() as bar:
                task = bar.add_task(tell("doctor_originals"), total=None)

                def follow(done: int, total: int, task: TaskID = task) -> None:
                    bar.update(task, completed=done, total=total)

                count = await asyncio.to_thread(blobs.pull, on_originals=follow)
        told("originals_copied", count=count, place=blobs.folder)

    run(work)


def _in_s3(kvasir: Kvasir) -> S3Blobs:
    """Raises UserError where they are in a folder."""
    from core.blobs_s3 import S3Blobs

    if not isinstance(kvasir.blobs, S3Blobs):
        raise UserError(tell("originals_in_folder", folder=kvasir.blobs.place))
    return kvasir.blobs
