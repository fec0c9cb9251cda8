"""Weights are read from safetensors alone, and a file that breaks the format is refused before anything is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.embedders.safetensors import Safetensors
from core.errors import ConfigError
from tests.fakes.model import write_safetensors

ROWS = np.array([[1.5, -2.0, 0.25], [0.0, 1.0, 3.0]], np.float32)


def write(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


def entry(shape: list[Any], begin: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_floats_of_every_width_come_as_float32(tmp_path: Path, dtype: str) -> None:
    write_safetensors(tmp_path / "a", {"odd": np.ones(1, np.float32), "rows": ROWS}, dtype)
    tensors = Safetensors(tmp_path / "a")
    assert list(tensors) == ["odd", "rows"]
    assert "rows" in tensors
    assert tensors.floats("rows", (2, 3)).dtype == np.float32
    np.testing.assert_array_equal(tensors.floats("rows", (2, 3)), ROWS)


def test_a_tensor_must_be_there_in_the_shape_and_type_that_is_expected(tmp_path: Path) -> None:
    write(tmp_path / "a", {"rows": entry([2, 3], 0, 24), "ids": entry([2], 24, 40, "I64")}, bytes(40))
    tensors = Safetensors(tmp_path / "a")
    for name, shape in (("none", (2, 3)), ("rows", (3, 2)), ("rows", (6,)), ("ids", (2,))):
        with pytest.raises(ConfigError, match=name):
            tensors.floats(name, shape)


HOSTILE: dict[str, tuple[Any, bytes, int | None]] = {
    "no header": (b"", b"", None),
    "header longer than the file": ({}, b"", 1 << 40),
    "header of 2^64-1 bytes": ({}, b"", (1 << 64) - 1),
    "header is not JSON": (b"{nope}", b"", None),
    "header is not a table": ([], b"", None),
    "header is a deep nest": (b"[" * 200_000, b"", None),
    "entry is not a table": ({"a": 3}, b"", None),
    "unknown type": ({"a": entry([1], 0, 4, "F99")}, bytes(4), None),
    "type is a list": ({"a": entry([1], 0, 4, ["F32"])}, bytes(4), None),
    "pickle as a type": ({"a": entry([1], 0, 4, "OBJECT")}, bytes(4), None),
    "offsets outside": ({"a": entry([1000], 0, 4000)}, bytes(4), None),
    "offsets below zero": ({"a": entry([1], -4, 0)}, bytes(4), None),
    "offsets the wrong way round": ({"a": entry([1], 4, 0)}, bytes(4), None),
    "offsets that are no numbers": ({"a": entry([1], "0", "4")}, bytes(4), None),
    "offsets that are true": ({"a": entry([1], False, True)}, bytes(1), None),
    "three offsets": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, bytes(8), None),
    "no offsets": ({"a": {"dtype": "F32", "shape": [1]}}, bytes(4), None),
    "shape below zero": ({"a": entry([-1, -1], 0, 4)}, bytes(4), None),
    "shape that overflows": ({"a": entry([1 << 33, 1 << 33], 0, 4)}, bytes(4), None),
    "shape is not a list": ({"a": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}}, bytes(4), None),
    "shape and size differ": ({"a": entry([2], 0, 4)}, bytes(4), None),
    "tensors overlap": ({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12), None),
    "a gap": ({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12), None),
    "bytes left over": ({"a": entry([1], 0, 4)}, bytes(8), None),
    "cut short": ({"a": entry([2], 0, 8)}, bytes(4), None),
    "a name twice": (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{}}', bytes(4), None),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    header, data, length = HOSTILE[case]
    with pytest.raises(ConfigError, match="not a usable safetensors file"):
        Safetensors(write(tmp_path / "a", header, data, length=length))


@pytest.mark.parametrize("raw", [b"", b"\x02", b"\x80\x04\x95" + bytes(40), b"PK\x03\x04" + bytes(40)])
def test_other_kinds_of_files_are_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a").write_bytes(raw)
    with pytest.raises(ConfigError, match="not a usable safetensors file"):
        Safetensors(tmp_path / "a")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none-such"):
        Safetensors(tmp_path / "none-such")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 200), bit=st.integers(0, 7))
def test_flipped_bits_never_raise_anything_else(tmp_path: Path, place: int, bit: int) -> None:
    path = tmp_path / "a"
    write_safetensors(path, {"a": ROWS, "b": np.ones(3, np.float32)})
    raw = bytearray(path.read_bytes())
    raw[place % len(raw)] ^= 1 << bit
    path.write_bytes(raw)
    try:
        Safetensors(path).floats("a", (2, 3))
    except ConfigError:
        return
