"""Backups that are made by schedule: «kvasir backup» files in a folder, of which the newest are kept."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from core.db.tables import now
from core.errors import ConfigError
from core.settings import Settings
from core.texts import tell
from core.upkeep import archive
from core.work.jobs import Job

if TYPE_CHECKING:
    from core.app import Kvasir

_OURS: Final = re.compile(r"kvasir-[0-9]{8}-[0-9]{6}\.zip")


def folder_of(settings: Settings) -> Path:
    return settings.backup.folder or settings.data_dir / "backups"


async def run(kvasir: Kvasir, job: Job) -> str:
    """Write a backup, and delete the oldest beyond the number that is kept. Raises ConfigError for a bad folder."""
    folder = folder_of(kvasir.settings)
    keep = int(job.payload.get("settings", {}).get("keep", 7))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(tell("backup_folder_refused", folder=folder, reason=error.strerror or error)) from error
    file = folder / f"kvasir-{now():%Y%m%d-%H%M%S}.zip"
    with_index = bool(job.payload.get("settings", {}).get("index", False))
    count = await archive.backup(kvasir, file, with_index=with_index)
    deleted = await asyncio.to_thread(_delete_all_but, folder, keep)
    return tell("backup_done", file=file.name, count=count, megabytes=_megabytes(file), deleted=deleted)


def _delete_all_but(folder: Path, keep: int) -> int:
    """Only files that are named as ours are; gives how many went."""
    ours = sorted(item for item in folder.iterdir() if _OURS.fullmatch(item.name) and item.is_file())
    for old in ours[:-keep]:
        old.unlink(missing_ok=True)
    return len(ours[:-keep])


def _megabytes(file: Path) -> str:
    return f"{file.stat().st_size / 1e6:.1f}"
