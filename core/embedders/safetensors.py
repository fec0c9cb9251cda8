"""Reads the tensors of a `.safetensors` file; a damaged or hostile file is refused before anything is read from it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeGuard

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigError

MAX_HEADER: Final = 100_000_000
_WIDTHS: Final = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_FLOATS: Final[dict[str, np.dtype[Any]]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
}


@dataclass(frozen=True, slots=True)
class _Entry:
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Safetensors:
    """The tensors of one file, read when they are asked for. Raises ConfigError for a file that breaks the format."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if size < 8 or not 2 <= length <= min(size - 8, MAX_HEADER):
                    raise self._refusal("its header does not fit into it")
                header = file.read(length)
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
        self._entries = self._checked(header, size - 8 - length)
        self._start = 8 + length

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def floats(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The tensor in float32; raises ConfigError unless it is there, made of floats and of that shape."""
        entry = self._entries.get(name)
        if entry is None:
            raise self._refusal(f"it has no tensor «{name}»")
        if entry.shape != shape:
            raise self._refusal(f"its tensor «{name}» has the shape {list(entry.shape)} instead of {list(shape)}")
        if entry.dtype != "BF16" and entry.dtype not in _FLOATS:
            raise self._refusal(f"its tensor «{name}» is of type {entry.dtype}")
        data = np.memmap(self._path, np.uint8, "r", offset=self._start + entry.begin, shape=(entry.end - entry.begin,))
        if entry.dtype == "BF16":
            return (data.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
        return np.asarray(data.view(_FLOATS[entry.dtype]).reshape(shape), np.float32)

    def _checked(self, header: bytes, size: int) -> dict[str, _Entry]:
        try:
            parsed = json.loads(header, object_pairs_hook=_without_repeats)
        except (ValueError, RecursionError) as error:
            raise self._refusal("its header is not JSON") from error
        if not isinstance(parsed, dict):
            raise self._refusal("its header is not a table of tensors")
        parsed.pop("__metadata__", None)
        entries = {name: self._entry(name, value) for name, value in parsed.items()}
        position = 0
        for entry in sorted(entries.values(), key=lambda one: (one.begin, one.end)):
            if entry.begin != position:
                raise self._refusal("its tensors overlap or leave gaps")
            position = entry.end
        if position != size:
            raise self._refusal("its tensors do not fill it exactly; it was cut short or grew")
        return entries

    def _entry(self, name: str, value: object) -> _Entry:
        if not isinstance(value, dict):
            raise self._refusal(f"the entry of «{name}» is not a table")
        dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
        if not isinstance(dtype, str) or dtype not in _WIDTHS:
            raise self._refusal(f"its tensor «{name}» is of an unknown type")
        if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
            raise self._refusal(f"the shape or place of its tensor «{name}» makes no sense")
        begin, end = offsets
        if end - begin != math.prod(shape) * _WIDTHS[dtype]:
            raise self._refusal(f"its tensor «{name}» has another size than its shape says")
        return _Entry(dtype, tuple(shape), begin, end)

    def _refusal(self, why: str) -> ConfigError:
        return ConfigError(f"{self._path} is not a usable safetensors file: {why}; get the model's files once more.")


def _naturals(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found
