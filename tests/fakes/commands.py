"""The command line in this process: what a command prints, and how it ends."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from core.cli import data_dir_first
from core.cli.main import app


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
        try:
            result = CliRunner().invoke(app, given, input=stdin, prog_name="kvasir")
        finally:
            root.handlers[:], root.level = handlers, level
        self.out, self.err = result.stdout, result.stderr
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, (result.exit_code, self.out, self.err)
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
