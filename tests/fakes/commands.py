"""The command line in this process: what a command prints, and how it ends."""

from __future__ import annotations

import json
import logging
import sys
from functools import cache
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from core.cli import data_dir_first
from core.cli.main import app


@cache
def _tree() -> Any:
    """The commands; typer puts them together anew each time that it is asked."""
    return get_command(app)


class Commands:
    """Runs `kvasir` on one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.out = self.err = ""

    def __call__(self, *arguments: object, status: int = 0, stdin: str | None = None) -> str:
        """What the command wrote on stdout; it has to end with `status`."""
        given = data_dir_first([*map(str, arguments), "--data-dir", str(self.data_dir)])
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        ended: str | int | None = 0
        with CliRunner().isolation(input=stdin) as (out, err, _):
            try:
                _tree().main(args=given, prog_name="kvasir")
            except SystemExit as end:
                ended = end.code
            finally:
                root.handlers[:], root.level = handlers, level
                sys.stdout.flush()
                sys.stderr.flush()
                self.out, self.err = out.getvalue().decode(), err.getvalue().decode()
        assert (ended or 0) == status, (ended, self.out, self.err)
        return self.out

    def json(self, *arguments: object, status: int = 0) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self(*arguments, "--json", status=status))

    def fails(self, *arguments: object, stdin: str | None = None) -> str:
        """The one line on stderr of a command that fails; stdout stays empty."""
        assert self(*arguments, status=1, stdin=stdin) == ""
        (line,) = self.err.splitlines()
        assert line.startswith("kvasir: ")
        return line.removeprefix("kvasir: ")
