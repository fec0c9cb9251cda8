"""`kvasir eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.cli.ask import chosen_kb
from core.cli.common import AsJson, KbName, opened, plain, print_json, print_table, progress_bar, run

if TYPE_CHECKING:
    from core.settings import Settings


def evaluate(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.jsonl", help='Lines of {"question": …, "answers": […], "document": …}; see the README.'
        ),
    ],
    kb: KbName,
    engine: Annotated[str | None, typer.Option("--engine", help="Engine, e.g. extractive or openai.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure retrieval, answers and refusals on questions with known answers."""

    async def work(settings: Settings) -> None:
        from core.evaluate import evaluate as evaluate_file
        from core.evaluate import read_lines

        read_lines(file)  # a file that cannot be used is told before anything is opened
        async with opened(settings) as kvasir:
            name = await chosen_kb(kvasir, kb)
            with progress_bar() as bar:
                task = bar.add_task(plain(file.name), total=None)
                result = await evaluate_file(
                    kvasir.answers,
                    file,
                    name,
                    engine=engine,
                    progress=lambda done, total: bar.update(task, completed=done, total=total),
                )
        print_json(result) if as_json else print_table(("measure", "value"), list(result.items()))

    run(work)
