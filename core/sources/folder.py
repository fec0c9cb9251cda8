"""A folder of this machine, below those that the settings allow. No link is ever followed."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

from pydantic import Field

from core.errors import Gone, NotAllowed, TooLarge, Unavailable, UserError
from core.settings import SourcesSettings
from core.sources.patterns import is_wanted
from core.sources.port import Content, Item, Listing, Mark, Patterns, SourceKind, Spec, Tools
from core.texts import tell

_LEFT_OUT: Final = ("~$", ".")
_DEEPEST: Final = 40


class FolderSpec(Spec):
    path: Annotated[str, Field(min_length=1, max_length=4096)]
    include: Patterns = ()
    exclude: Patterns = ()


class Folder:
    def __init__(self, root: Path, spec: FolderSpec, tools: Tools) -> None:
        self._root = root
        self._spec = spec
        self._tools = tools

    async def list(self) -> Listing:
        return await asyncio.to_thread(self._list)

    def _list(self) -> Listing:
        items: list[Item] = []
        limit = self._tools.settings.max_documents
        left_out = 0
        for path, found in _walk(self._root, ""):
            if not is_wanted(path, self._spec.include, self._spec.exclude):
                continue
            if PurePosixPath(path).suffix.lower() not in self._tools.readable:
                left_out += 1
                continue
            if len(items) == limit:
                return Listing(items, False, (tell("source_limit", most=limit),))
            items.append(Item(path, path, path, {"size": str(found.st_size), "time": str(found.st_mtime_ns)}))
        notes = (tell("source_skipped_unreadable", count=left_out),) if left_out else ()
        return Listing(items, notes=notes)

    async def read(self, item: Item, _known: Mark) -> Content | None:
        return Content(await asyncio.to_thread(self._read, item.key))

    def _read(self, path: str) -> bytes:
        """Its bytes, by a way on which no part is a link; also not one that was put there since it was listed."""
        *folders, name = path.split("/")
        handle = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for folder in folders:
                inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
                os.close(handle)
                handle = inner
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=handle)
        except FileNotFoundError as error:
            raise Gone(tell("no_such_path", path=path)) from error
        except OSError as error:
            raise Unavailable(tell("file_unreadable", name=path, reason=error.strerror or error)) from error
        finally:
            os.close(handle)
        with os.fdopen(file, "rb") as opened:
            found = os.fstat(opened.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise Gone(tell("no_such_path", path=path))
            if found.st_size > self._tools.max_file_bytes:
                raise TooLarge(tell("file_too_large", name=path, limit=self._tools.max_file_bytes >> 20))
            return opened.read(self._tools.max_file_bytes + 1)


def _walk(top: Path, prefix: str, depth: int = 0) -> Iterator[tuple[str, os.stat_result]]:
    """The files below a folder, by name. Raises Unavailable where one cannot be listed: its files are not gone."""
    try:
        with os.scandir(top) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        raise Unavailable(tell("source_folder_unreadable", path=prefix or top.name, reason=error.strerror)) from error
    for entry in entries:
        if entry.name.startswith(_LEFT_OUT):
            continue
        if entry.is_dir(follow_symlinks=False) and depth < _DEEPEST:
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", depth + 1)
        elif entry.is_file(follow_symlinks=False):
            with suppress(FileNotFoundError):  # gone since it was listed
                yield f"{prefix}{entry.name}", entry.stat(follow_symlinks=False)


def allowed_folder(path: str, settings: SourcesSettings) -> Path:
    """The folder without any links on the way to it. Raises NotAllowed for one outside those of the settings."""
    if not settings.folders:
        raise NotAllowed(tell("source_no_folders"))
    given = Path(path)
    if not given.is_absolute():
        raise UserError(tell("source_folder_absolute"))
    try:
        real = given.resolve(strict=True)
        allowed = [folder.expanduser().resolve() for folder in settings.folders]
    except (OSError, RuntimeError, ValueError) as error:
        raise _not_among(settings) from error
    if not any(real.is_relative_to(folder) for folder in allowed) or not real.is_dir():
        raise _not_among(settings)
    return real


def _not_among(settings: SourcesSettings) -> NotAllowed:
    """The same for a folder that is not there: nobody learns what is."""
    return NotAllowed(tell("source_folder_outside", folders=", ".join(str(folder) for folder in settings.folders)))


@asynccontextmanager
async def open_folder(spec: FolderSpec, _secrets: Mapping[str, str], tools: Tools) -> AsyncIterator[Folder]:
    yield Folder(await asyncio.to_thread(allowed_folder, spec.path, tools.settings), spec, tools)


def _check(spec: FolderSpec, settings: SourcesSettings) -> None:
    allowed_folder(spec.path, settings)


FOLDER = SourceKind(FolderSpec, open_folder, check=_check)
