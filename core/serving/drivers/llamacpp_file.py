"""The header of a GGUF file, read before llama.cpp is, which ends the whole process over some that are broken.

Source: the GGUF specification of ggml, version 3. Nothing is believed: every length is checked against the file.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from core.serving.driver import CannotLoad

WITHIN_REASON: Final = 8192
"""Tokens of context where nobody asks for more: its memory is taken when the model is loaded."""
CACHES: Final = {"f16": (1, 1.0), "q8_0": (8, 17 / 32)}
"""How a number of the cache is kept -> (ggml's type, its share of 16 bits)."""
_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_MOST_ENTRIES: Final = 100_000
_LONGEST_TEXT: Final = 16 << 20
_LONGEST_ARRAY: Final = 50_000_000
_MOST_DIMENSIONS: Final = 4
_SCALARS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_TEXT, _ARRAY = 8, 9
_BLOCKS: Final[Mapping[int, tuple[int, int]]] = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54),
    35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip
"""ggml's type of a tensor -> (numbers of a block, bytes of it)."""
_TYPES: Final = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4",
}  # fmt: skip
_MOST_LAYERS: Final = 512
_WORDS: Final = "tokenizer.ggml.tokens"
_BESIDE_WORDS: Final = frozenset({"tokenizer.ggml.scores", "tokenizer.ggml.token_type"})
_NUMBERED: Final = re.compile(r"(.{0,240}-)(\d{5})(-of-)(\d{5})(\.gguf)")
_NO_WRITERS: Final = frozenset({"bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2",
                                "jina-bert-v3", "eurobert", "t5encoder", "gemma-embedding", "llama-embed"})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Header:
    values: Mapping[str, Any]
    """Metadata; of an array its length alone."""
    architecture: str
    quantization: str
    context_size: int
    """What the model was made for; 0 where it does not say."""
    weights: int
    """Bytes of all its files."""

    def number(self, name: str) -> int:
        """A number of its architecture; 0 where it has none."""
        found = self.values.get(f"{self.architecture}.{name}", 0)
        return int(found) if isinstance(found, (int, float)) else 0

    @property
    def cell(self) -> int:
        """Bytes that a token takes in the cache, at 16 bits a number; 0 where it cannot be said."""
        heads, heads_kv = self.number("attention.head_count"), self.number("attention.head_count_kv")
        width = self.number("embedding_length") // heads if heads else 0
        keys = self.number("attention.key_length") or width
        values = self.number("attention.value_length") or width
        return self.number("block_count") * (heads_kv or heads) * (keys + values) * 2


def find_file(path: Path) -> Path:
    """The file that the path means: a folder may hold one model. Raises CannotLoad."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise CannotLoad(f"model_path must be a GGUF file; there is no {path}.")
    found = [one for one in sorted(path.glob("*.gguf")) if not _is_later_part(one) and "mmproj" not in one.name.lower()]
    if not found:
        raise CannotLoad(f"{path} has no GGUF file.")
    if len(found) > 1:
        raise CannotLoad(f"{path} has several GGUF files; name one: {', '.join(one.name for one in found[:8])}.")
    return found[0]


def read_header(file: Path) -> Header:
    """Raises CannotLoad where the file, or one of its parts, is none that could be run."""
    parts = _parts(file)
    headers = [_read_one(part) for part in parts]
    values = headers[0]
    architecture = values.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise CannotLoad(f"{file.name} does not say which architecture it is.")
    if architecture in _NO_WRITERS:
        raise CannotLoad(f"{file.name} is a model for embeddings ({architecture}); it writes no text.")
    if architecture in ("clip", "mmproj") or values.get("general.type") in ("mmproj", "adapter", "imatrix"):
        raise CannotLoad(f"{file.name} is a part for another model, and no language model itself.")
    context = values.get(f"{architecture}.context_length")
    kind = values.get("general.file_type")
    return Header(
        values=values,
        architecture=architecture,
        quantization=_TYPES.get(kind, "") if isinstance(kind, int) else "",
        context_size=context if isinstance(context, int) and context > 0 else 0,
        weights=sum(part.stat().st_size for part in parts),
    )


def sizes(header: Header, context: int, cells: int) -> tuple[int, int]:
    """(tokens of prompt and answer, tokens of the whole cache), as far as they are asked for; 0: what suits the model.

    Raises CannotLoad where more is asked for than the model was made for.
    """
    made_for = header.context_size or WITHIN_REASON
    if header.context_size and context > header.context_size:
        raise CannotLoad(f"context_size is {context}, and the model was made for {made_for} tokens; set it to less.")
    context = context or min(made_for, WITHIN_REASON)
    return context, max(cells or 2 * context, context)


def memory_bytes(header: Header, context: int, cells: int, cache: str) -> int:
    """Of weights and cache together. Raises CannotLoad as `sizes` does."""
    _, cells = sizes(header, context, cells)
    return header.weights + int(cells * header.cell * CACHES[cache][1])


def _is_later_part(file: Path) -> bool:
    found = _NUMBERED.fullmatch(file.name)
    return found is not None and int(found[2]) > 1


def _parts(file: Path) -> list[Path]:
    found = _NUMBERED.fullmatch(file.name)
    if found is None:
        return [file]
    if int(found[2]) != 1:
        raise CannotLoad(f"{file.name} is a part of a model; name its first part.")
    parts = [
        file.with_name(f"{found[1]}{number:05}{found[3]}{found[4]}{found[5]}") for number in range(1, int(found[4]) + 1)
    ]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise CannotLoad(f"Of the model's {len(parts)} parts these are missing: {', '.join(missing[:4])}.")
    return parts


def _read_one(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            return _Reader(opened, file.stat().st_size).read()
    except OSError as error:
        raise CannotLoad(f"{file} cannot be read: {error.strerror or error}") from error
    except (struct.error, UnicodeDecodeError, _Broken) as error:
        raise CannotLoad(f"{file.name} is no GGUF file that could be run: {error}") from error


class _Broken(Exception):
    pass


def _check_values(values: Mapping[str, Any]) -> None:
    """What the library takes for granted, and ends the process over where it is not so."""
    layers = values.get(f"{values.get('general.architecture')}.block_count")
    if layers is not None and not (isinstance(layers, int) and 0 < layers <= _MOST_LAYERS):
        raise _Broken("it has more layers than can be, or none")
    words = values.get(_WORDS)
    for name, value in values.items():
        if name in _BESIDE_WORDS and value != words:
            raise _Broken(f"{name} is not of its words")


class _Reader:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    def read(self) -> dict[str, Any]:
        if self._bytes(4) != _MAGIC:
            raise _Broken("it does not begin as one")
        version = self._number("<I")
        if version not in _VERSIONS:
            raise _Broken(f"its version is {version}, and not 2 or 3")
        tensors, entries = self._number("<Q"), self._number("<Q")
        if not 0 < tensors <= _MOST_ENTRIES or entries > _MOST_ENTRIES:
            raise _Broken("it says that it has more than it can hold, or nothing")
        values: dict[str, Any] = {}
        for _ in range(entries):
            name = self._text()
            values[name] = self._value(self._number("<I"), name)
        found = [self._tensor() for _ in range(tensors)]
        alignment = values.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
            raise _Broken("its alignment cannot be")
        self._check(found, alignment)
        _check_values(values)
        return values

    def _check(self, tensors: Sequence[tuple[str, int, int]], alignment: int) -> None:
        """Every tensor lies within the file."""
        start = -(-self._file.tell() // alignment) * alignment
        if len({name for name, _, _ in tensors}) != len(tensors):
            raise _Broken("two of its tensors have the same name")
        for name, offset, size in tensors:
            if offset % alignment:
                raise _Broken(f"the tensor {name} does not begin where it may")
            if start + offset + size > self._size:
                missing = start + offset + size - self._size
                raise _Broken(f"it ends too soon, the tensor {name} lacks {missing} bytes; download it again")

    def _tensor(self) -> tuple[str, int, int]:
        """(name, offset, bytes)"""
        name = self._text()
        dimensions = self._number("<I")
        if not 0 < dimensions <= _MOST_DIMENSIONS:
            raise _Broken(f"the tensor {name[:80]} has {dimensions} dimensions")
        shape = [self._number("<Q") for _ in range(dimensions)]
        kind, offset = self._number("<I"), self._number("<Q")
        if any(not 0 < length < 1 << 40 for length in shape) or math.prod(shape) >= 1 << 50:
            raise _Broken(f"the tensor {name[:80]} has a size that cannot be")
        block, size = _BLOCKS.get(kind, (1, 0))  # a type that is newer than this list: the library will know it
        if shape[0] % block:
            raise _Broken(f"the tensor {name[:80]} has rows that do not fit its type")
        return name, offset, math.prod(shape) // block * size

    def _value(self, kind: int, name: str) -> Any:
        if kind == _TEXT:
            return self._text()
        if kind == _ARRAY:
            return self._array(is_unique=name == _WORDS)
        if kind not in _SCALARS:
            raise _Broken(f"it has a value of the unknown type {kind}")
        return self._number(_SCALARS[kind])

    def _array(self, *, is_unique: bool) -> int:
        """Its length; what is in it is passed over."""
        kind, length = self._number("<I"), self._number("<Q")
        if length > _LONGEST_ARRAY or (kind != _TEXT and kind not in _SCALARS):
            raise _Broken("it has a list that cannot be")
        if kind != _TEXT:
            self._skip(length * struct.calcsize(_SCALARS[kind]))
        elif is_unique:
            if len({self._bytes(self._length()) for _ in range(length)}) != length:
                raise _Broken("it has the same word twice")
        else:
            for _ in range(length):
                self._skip(self._length())
        return int(length)

    def _length(self) -> int:
        length = int(self._number("<Q"))
        if length > _LONGEST_TEXT:
            raise _Broken("it has a text that cannot be")
        return length

    def _text(self) -> str:
        return self._bytes(self._length()).decode("utf-8")

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _bytes(self, length: int) -> bytes:
        found = self._file.read(length)
        if len(found) < length:
            raise _Broken("it ends within its header; download it again")
        return found

    def _skip(self, length: int) -> None:
        if self._file.tell() + length > self._size:
            raise _Broken("it ends within its header; download it again")
        self._file.seek(length, 1)
