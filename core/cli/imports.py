"""`kvasir kb import-chatchat`."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.cli.common import AsJson, err, opened, plain, print_json, run, told
from core.cli.documents import ingestion_bar
from core.errors import NotFound, UserError
from core.texts import tell

if TYPE_CHECKING:
    from core.imports.bringing import Brought
    from core.imports.chatchat import Found
    from core.settings import Settings


def kb_import_chatchat(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Its folder knowledge_base, one of those in it, or a folder with a FAISS or Chroma index.",
        ),
    ],
    kb: Annotated[str | None, typer.Option("--kb", help="Another name for it here, where there is only one.")] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="Only the one of this name; several times.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help="Its prompt_config.py: the prompt for knowledge bases becomes instructions."),
    ] = None,
    prompt: Annotated[str, typer.Option("--prompt", help="Which one of these prompts.")] = "default",
    as_json: AsJson = False,
) -> None:
    """Bring in the knowledge bases of a Langchain-Chatchat: originals, names, descriptions; stopped, it goes on."""

    async def work(settings: Settings) -> None:
        from core.imports import prompts as prompts_module
        from core.imports.bringing import bring, name_for
        from core.imports.chatchat import survey

        started = time.monotonic()
        found = _chosen(await asyncio.to_thread(survey, folder.expanduser()), only or [], kb)
        instructions = prompts_module.instructions(prompts.expanduser(), prompt) if prompts else ""
        names = {one.name: kb or name_for(one.name) for one in found}
        brought: list[Brought] = []
        async with opened(settings, "wait", bar=not as_json) as kvasir:
            if not kvasir.embedder_state.ready and settings.embedder.kind != "none":
                err.print(plain(tell("keyword_only", reason=kvasir.embedder_state.reason)), style="yellow")
            for one in found:
                watch = ingestion_bar(kvasir, show=not as_json)
                brought.append(await bring(kvasir, one, names[one.name], instructions, watch))
        _report(brought, time.monotonic() - started, as_json)

    run(work)


def _chosen(found: list[Found], only: list[str], kb: str | None) -> list[Found]:
    names = [one.name for one in found]
    for name in only:
        if name not in names:
            raise NotFound(tell("import_no_such", name=name, names=", ".join(names)))
    chosen = [one for one in found if not only or one.name in only]
    if kb is not None and len(chosen) > 1:
        raise UserError(tell("import_several", names=", ".join(names)))
    return chosen


def _report(brought: list[Brought], seconds: float, as_json: bool) -> None:
    outcomes = [outcome for one in brought for outcome in one.outcomes]
    if as_json:
        print_json({"kbs": [one.as_json() for one in brought], "seconds": round(seconds, 3)})
    else:
        for one in brought:
            counts = {s: sum(o.status == s for o in one.outcomes) for s in ("indexed", "unchanged", "failed")}
            chunks = sum(outcome.chunks for outcome in one.outcomes)
            told("ingested", kb=one.kb, chunks=chunks, seconds=f"{seconds:.1f}", **counts)
            for outcome in one.outcomes:
                if outcome.reason:
                    err.print(f"  {plain(outcome.name)}: {plain(outcome.reason)}", style="yellow")
            for left in one.left_out:
                err.print(f"  {plain(left.what)}: {plain(left.reason)}", style="yellow")
    if outcomes and all(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)
