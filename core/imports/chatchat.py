"""What a folder of Langchain-Chatchat holds: its knowledge bases, their originals, and texts whose original is gone.

It may come from anywhere: links are not followed, no pickle is loaded, no name in it opens a file, and what cannot be
read is named and left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from core.errors import NotFound, UserError
from core.imports import chroma, docstore
from core.imports.databases import reading
from core.imports.pieces import Piece, joined
from core.texts import tell

DATABASE: Final = "info.db"
_CONTENT, _INDEX = "content", "vector_store"
_PICKLE, _VECTORS = "index.pkl", "index.faiss"
_INSIDE: Final = ("knowledge_base", "data/knowledge_base")
_LEFT_OUT: Final = ("~$", ".")
_TEXTS: Final = (".md", ".markdown", ".txt")
_MOST_FILES: Final = 200_000
_DEEPEST: Final = 40


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What was not brought, and why."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class Original:
    name: str
    path: Path
    size: int


@dataclass(slots=True)
class Found:
    """A knowledge base there."""

    name: str
    description: str = ""
    originals: list[Original] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    """Of documents whose original is gone, by the name they get."""
    left_out: list[LeftOut] = field(default_factory=list)


@dataclass(slots=True)
class _Noted:
    """What the database says of a knowledge base."""

    description: str = ""
    kind: str = ""
    model: str = ""
    files: dict[str, bool] = field(default_factory=dict)
    """By name: whether its chunks were given by people."""
    summaries: int = 0


def survey(folder: Path) -> list[Found]:
    """Its knowledge bases by name. Takes time: call it in a thread. Raises NotFound or UserError."""
    if not folder.is_dir():
        raise NotFound(tell("no_such_path", path=folder))
    inside = next((folder / name for name in _INSIDE if _is_folder(folder / name)), folder)
    if _is_one(inside):
        noted, left_out = _noted(inside.parent)
        return [_found(inside, inside.resolve().name, noted.get(inside.resolve().name), left_out)]
    noted, left_out = _noted(inside)
    folders = sorted(child for child in inside.iterdir() if _is_folder(child) and _is_one(child))
    missing = [LeftOut(name, tell("import_no_folder")) for name in noted if not _is_folder(inside / name)]
    if not folders:
        raise UserError(tell("import_nothing", folder=folder))
    return [
        _found(child, child.name, noted.get(child.name), [*left_out, *missing] if child is folders[0] else [])
        for child in folders
    ]


def _is_one(folder: Path) -> bool:
    """Whether it is the folder of one knowledge base, or of one index."""
    return any(_is_folder(folder / name) for name in (_CONTENT, _INDEX)) or bool(_indexes(folder, 0))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


# ---------------------------------------------------------------- the database
def _noted(folder: Path) -> tuple[dict[str, _Noted], list[LeftOut]]:
    path = folder / DATABASE
    found: dict[str, _Noted] = {}
    if not _is_file(path):
        return found, []
    chats = 0
    try:
        with reading(path) as file:
            for name, about, kind, model in file.rows(
                "knowledge_base", ("kb_name", "kb_info", "vs_type", "embed_model")
            ):
                found[str(name)] = _Noted(str(about or ""), str(kind or ""), str(model or ""))
            for kb, name, custom in file.rows("knowledge_file", ("kb_name", "file_name", "custom_docs")):
                if str(kb) in found:
                    found[str(kb)].files[_posix(str(name))] = bool(custom)
            for (kb,) in file.rows("summary_chunk", ("kb_name",)):
                if str(kb) in found:
                    found[str(kb)].summaries += 1
            chats = sum(1 for _ in file.rows("message", ("id",)))
    except UserError as error:
        return found, [LeftOut(DATABASE, str(error))]
    return found, [LeftOut(DATABASE, tell("import_chats", count=chats))] if chats else []


# ---------------------------------------------------------------- one knowledge base
def _found(folder: Path, name: str, noted: _Noted | None, left_out: Sequence[LeftOut]) -> Found:
    noted = noted or _Noted()
    found = Found(name, _description(noted, name), left_out=list(left_out))
    content = folder / _CONTENT
    if content.is_symlink():
        found.left_out.append(LeftOut(_CONTENT, tell("link_leads_out", name=_CONTENT)))
    elif content.is_dir():
        found.originals = list(_originals(content, found.left_out))
    there = {original.name for original in found.originals}
    pieces = _pieces(folder, noted, found.left_out)
    gone: dict[str, list[str]] = {}
    for piece in pieces:
        named = _named(piece.source) or name
        if named not in there:
            gone.setdefault(named, []).append(piece.text)
    for source, texts in gone.items():
        called = source if source.endswith(_TEXTS) else f"{source}.md"
        found.texts[called] = f"> {tell('import_from_chunks', name=source)}\n\n{joined(texts)}\n"
    for file, is_custom in noted.files.items():
        if file not in there and file not in gone:
            found.left_out.append(LeftOut(file, tell("import_gone")))
        elif is_custom and file in there:
            found.left_out.append(LeftOut(file, tell("import_custom")))
    if noted.summaries:
        found.left_out.append(LeftOut(name, tell("import_summaries", count=noted.summaries)))
    return found


def _description(noted: _Noted, name: str) -> str:
    """What people wrote; not what is made of the name."""
    return "" if noted.description in (f"关于{name}的知识库", name) else noted.description


def _originals(content: Path, left_out: list[LeftOut]) -> Iterator[Original]:
    count = 0
    for path, prefix in _folders(content, left_out):
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            left_out.append(LeftOut(prefix or _CONTENT, error.strerror or str(error)))
            continue
        for entry in entries:
            name = f"{prefix}{entry.name}"
            if entry.name.startswith(_LEFT_OUT) or entry.is_dir(follow_symlinks=False):
                continue
            if entry.is_symlink() or not entry.is_file(follow_symlinks=False):
                left_out.append(LeftOut(name, tell("import_link")))
                continue
            count += 1
            if count > _MOST_FILES:
                left_out.append(LeftOut(name, tell("import_many", most=_MOST_FILES)))
                return
            with suppress(OSError):
                yield Original(name, Path(entry.path), entry.stat(follow_symlinks=False).st_size)


def _folders(content: Path, left_out: list[LeftOut]) -> Iterator[tuple[Path, str]]:
    """Each with what its files' names begin with; not those that are links, hidden, or very deep."""
    waiting = [(content, "")]
    while waiting:
        path, prefix = waiting.pop()
        yield path, prefix
        if prefix.count("/") > _DEEPEST:
            left_out.append(LeftOut(prefix, tell("import_deep")))
            continue
        with suppress(OSError), os.scandir(path) as entries:
            inner = [one for one in entries if one.is_dir(follow_symlinks=False) and not one.name.startswith(_LEFT_OUT)]
            waiting += [
                (Path(one.path), f"{prefix}{one.name}/")
                for one in sorted(inner, key=lambda one: one.name, reverse=True)
            ]


# ---------------------------------------------------------------- the index
def _indexes(folder: Path, deepest: int) -> list[Path]:
    """Files that hold the texts of an index, so many folders deep."""
    found = [folder / name for name in (_PICKLE, chroma.FILE) if _is_file(folder / name)]
    if deepest > 0 and _is_folder(folder):
        with suppress(OSError):
            for child in sorted(folder.iterdir()):
                if _is_folder(child):
                    found += _indexes(child, deepest - 1)
    return found


def _pieces(folder: Path, noted: _Noted, left_out: list[LeftOut]) -> list[Piece]:
    """The texts of its index; where there are several, of the one that was used, else of the newest."""
    indexes = _indexes(folder / _INDEX, 2) or _indexes(folder, 0)
    if not indexes:
        if noted.kind and noted.kind not in ("faiss", "chromadb", "default"):
            left_out.append(LeftOut(_INDEX, tell("import_elsewhere", kind=noted.kind)))
        return []
    used = [path for path in indexes if noted.model and path.parent.name == noted.model]
    path = (used or sorted(indexes, key=lambda path: path.stat().st_mtime, reverse=True))[0]
    try:
        if path.name == chroma.FILE:
            return [piece for pieces in chroma.collections(path).values() for piece in pieces]
        found = docstore.pieces(path)
    except UserError as error:
        left_out.append(LeftOut(path.relative_to(folder).as_posix(), str(error)))
        return []
    vectors = docstore.vectors_in(path.with_name(_VECTORS))
    if vectors is not None and vectors[0] != len(found):
        left_out.append(LeftOut(_VECTORS, tell("import_differs", vectors=vectors[0], texts=len(found))))
    return found


def _named(source: str) -> str:
    """The document's name: its path below `content`, as far as the index says."""
    path = _posix(source)
    _, inside, rest = path.rpartition(f"/{_CONTENT}/")
    if inside:
        return rest
    return PurePosixPath(path).name if path.startswith("/") or path[1:3] == ":/" else path


def _posix(name: str) -> str:
    parts = [part for part in name.replace("\\", "/").split("/") if part not in (".", "..")]
    return "/".join(parts)
