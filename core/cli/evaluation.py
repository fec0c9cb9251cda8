"""`kvasir eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.cli.ask import chosen_kb
from core.cli.common import AsJson, KbName, opened, plain, print_json, print_table, progress_bar, run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.settings import Settings


def evaluate(
    kb: KbName,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE.jsonl]", help='Lines of {"question": …, "answers": […], "document": …}; see the README.'
        ),
    ] = None,
    set_name: Annotated[
        str | None,
        typer.Option(
            "--set",
            metavar="NAME",
            help="Run an evaluation set of the console, and keep the run; a file's lines are taken into it first.",
        ),
    ] = None,
    engine: Annotated[str | None, typer.Option("--engine", help="Engine, e.g. extractive or openai.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure retrieval, answers and refusals on questions with known answers."""
    if file is None and set_name is None:
        raise typer.BadParameter("Name a file, or an evaluation set with --set.")

    async def work(settings: Settings) -> None:
        from core.access import OPERATOR
        from core.quality.evaluate import evaluate as evaluate_file
        from core.quality.evaluate import read_lines
        from core.types import AnswerOptions

        lines = read_lines(file) if file else ()  # what cannot be used is told before anything is opened
        async with opened(settings) as kvasir:
            name = await chosen_kb(kvasir, kb)
            with progress_bar() as bar:
                task = bar.add_task(plain(set_name or (file.name if file else "")), total=None)

                async def told(done: int, total: int) -> None:
                    bar.update(task, completed=done, total=total)

                result: Mapping[str, float]
                if set_name is None and file is not None:
                    result = await evaluate_file(kvasir.answers, file, name, engine=engine, progress=told)
                else:
                    found = await kvasir.evaluations.named(name, set_name or "", create=bool(lines))
                    if lines:
                        await kvasir.evaluations.bring_in(found.id, lines)
                        changes = {"kb": name, "set": found.name, "lines": len(lines)}
                        action = "evaluations.import_questions"
                        await kvasir.audit.note(OPERATOR, action, kind="evaluations", object=found.id, changes=changes)
                    made = await kvasir.evaluations.measure(
                        name, found.id, options=AnswerOptions(engine=engine), on_progress=told
                    )
                    result = {key: value for key, value in made.figures.items() if key != "problems"}
        print_json(result) if as_json else print_table(("measure", "value"), list(result.items()))

    run(work)
