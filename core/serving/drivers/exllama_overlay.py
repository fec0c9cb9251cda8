"""A folder of our own in a model's place: its configuration in words that the library reads, and links to the rest."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from core.serving.driver import CannotLoad
from core.serving.drivers.exllama_folder import ModelFolder

_LINKED: Final = (".json", ".jinja", ".txt")
_OWN: Final = "config.json"
_MOST: Final = 200
_PREFIX: Final = "kvasir-model-"


class Overlay:
    """The folder, for its owner's eyes only; `close` removes it, and never what it links to."""

    def __init__(self, folder: ModelFolder) -> None:
        _sweep(Path(tempfile.gettempdir()))
        self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))  # made with mode 0700
        try:
            self._fill(folder)
        except OSError as error:
            self.close()
            raise CannotLoad(f"{folder.path} cannot be read: {error.strerror}.") from error

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def _fill(self, folder: ModelFolder) -> None:
        (self.path / _OWN).write_text(json.dumps(folder.config), encoding="utf-8")
        small = sorted(
            one.name
            for one in folder.path.iterdir()
            if one.suffix in _LINKED and one.name != _OWN and not one.name.endswith(".index.json") and one.is_file()
        )
        for name in (*folder.weights, *small[:_MOST]):
            (self.path / name).symlink_to(os.path.realpath(folder.path / name))


def _sweep(place: Path) -> None:
    """Remove those of processes that were killed before they could."""
    if not Path("/proc/self").exists():
        return
    for left in place.glob(f"{_PREFIX}*-*"):
        number = left.name.removeprefix(_PREFIX).partition("-")[0]
        if number.isdecimal() and not Path(f"/proc/{number}").exists() and left.stat().st_uid == os.getuid():
            shutil.rmtree(left, ignore_errors=True)
