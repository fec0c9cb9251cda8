"""The texts of a Chroma folder, from its `chroma.sqlite3`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from core.errors import UserError
from core.imports.databases import reading
from core.imports.pieces import MOST_CHARACTERS, Piece
from core.texts import tell

FILE: Final = "chroma.sqlite3"
_TEXT: Final = "chroma:document"


def collections(path: Path) -> dict[str, list[Piece]]:
    """By name, chunks in the order in which they came. Raises UserError."""
    with reading(path) as file:
        names = dict(file.rows("collections", ("id", "name")))
        of_segment = {key: names.get(collection) for key, collection in file.rows("segments", ("id", "collection"))}
        places = dict(file.rows("embeddings", ("id", "segment_id"), order="id"))
        texts: dict[int, str] = {}
        sources: dict[int, str] = {}
        size = 0
        for row, key, value in file.rows("embedding_metadata", ("id", "key", "string_value")):
            if key == _TEXT and isinstance(value, str):
                texts[row] = value
                size += len(value)
            elif key == "source" and isinstance(value, str):
                sources[row] = value
            if size > MOST_CHARACTERS:
                raise UserError(tell("import_large", most=MOST_CHARACTERS >> 20))
    if not places and not names:
        raise UserError(tell("import_no_chroma", file=path.name))
    found: dict[str, list[Piece]] = {}
    for row in places:
        name = of_segment.get(places[row])
        if name is not None and row in texts:
            found.setdefault(str(name), []).append(Piece(texts[row], sources.get(row, "")))
    return found
