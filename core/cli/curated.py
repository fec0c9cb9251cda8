"""`kvasir curated …`: answers that a person wrote."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from core.cli.common import AsJson, KbName, Yes, opened, print_json, print_table, run, told
from core.errors import UserError
from core.texts import tell

if TYPE_CHECKING:
    from core.quality.curated import CuratedAnswer
    from core.settings import Settings

curated = typer.Typer(no_args_is_help=True, help="Answers that a person wrote, given whenever their question is asked.")


@curated.command("list")
def curated_list(
    kb: Annotated[str | None, typer.Option("--kb", help="Only those of this knowledge base.")] = None,
    state: Annotated[
        Literal["active", "review", "expired", "off"] | None, typer.Option("--state", help="Only these.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Curated answers with their state, the latest changed first."""

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            names = [found.name for found in await kvasir.knowledge.names()]
            wanted = names if kb is None else [(await kvasir.knowledge.get(kb)).name]
            found, _ = await kvasir.curated.list(wanted, state=state, limit=limit)
        if as_json:
            print_json({"curated": [_json(item) for item in found]})
        else:
            rows: list[tuple[Any, ...]] = [
                (i.id, i.kb, i.state, i.question[:80], i.used, f"{i.expires_at:%Y-%m-%d}" if i.expires_at else "")
                for i in found
            ]
            print_table(("id", "knowledge base", "state", "question", "given", "expires"), rows)

    run(work)


@curated.command("add")
def curated_add(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The question it is given for.")],
    kb: KbName,
    text: Annotated[str | None, typer.Option("--text", help="The answer (Markdown).")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="File that holds the answer; - reads standard input.")
    ] = None,
    also: Annotated[
        list[str] | None, typer.Option("--also", help="Another way to ask it; may be given several times.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a curated answer; it is given from the next question on."""
    if (text is None) == (file is None):
        raise typer.BadParameter(tell("curated_text_or_file"))

    async def work(settings: Settings) -> None:
        from core.access import OPERATOR
        from core.quality.curated import Written

        given = Written(question, _read(file) if file else text or "", tuple(also or ()))
        async with opened(settings) as kvasir:
            made = await kvasir.curated.add(kb, given, OPERATOR.name)
        if as_json:
            print_json(_json(made))
        else:
            told("curated_added", kb=kb, id=made.id)

    run(work)


@curated.command("delete")
def curated_delete(
    curated_id: Annotated[str, typer.Argument(metavar="ID", help="As «kvasir curated list» shows it.")],
    yes: Yes = False,
) -> None:
    """Delete a curated answer with its document."""

    async def work(settings: Settings) -> None:
        async with opened(settings) as kvasir:
            found = await kvasir.curated.get(curated_id)
            if not yes:
                typer.confirm(tell("curated_delete_sure", question=found.question), abort=True)
            await kvasir.curated.delete(curated_id)
        told("curated_deleted")

    run(work)


def _read(file: Path) -> str:
    """Raises UserError where it is not text."""
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(tell("curated_not_text", file=file)) from error


def _json(item: CuratedAnswer) -> dict[str, Any]:
    return {
        "id": item.id,
        "kb": item.kb,
        "question": item.question,
        "paraphrases": list(item.paraphrases),
        "text": item.text,
        "state": item.state,
        "reason": item.reason,
        "used": item.used,
        "created_by": item.created_by,
        "expires_at": item.expires_at.isoformat() if item.expires_at else None,
    }
