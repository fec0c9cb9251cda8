"""Broken GGUF files are refused before the library reads them, and places in its cache are given with sense."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.serving.driver import CannotLoad
from core.serving.drivers.llamacpp_cells import Cells, Seat, alike
from core.serving.drivers.llamacpp_file import find_file, read_header
from tests.models.gguf_file import gguf, metadata
from tests.models.llama_dir import TEMPLATE

WORDS = "tokenizer.ggml.tokens"
ONES = np.ones((300, 32), np.float32)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def written(path: Path, **values: object) -> Path:
    """The header of the tiny model, with little behind it."""
    path.write_bytes(gguf({**metadata(), **values}, {"one": ONES, "other": ONES[:40, :3]}))
    return path


def test_a_header_says_what_people_want_to_know(tiny: Path) -> None:
    header = read_header(tiny)
    assert (header.architecture, header.quantization, header.context_size) == ("llama", "F32", 2048)
    assert header.weights == tiny.stat().st_size
    assert header.cell == 2 * 8 * (64 + 64) * 2
    assert header.values["tokenizer.chat_template"] == TEMPLATE
    assert header.values[WORDS] == 288


@pytest.mark.parametrize("size", [0, 3, 20, 1000, 5000, 40_000, -4])
def test_a_file_that_was_cut_is_refused(tiny: Path, tmp_path: Path, size: int) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny.read_bytes()[:size])
    with pytest.raises(CannotLoad, match=r"download it again|does not begin as one"):
        read_header(cut)


def test_other_versions_and_other_files_are_refused(tiny: Path, tmp_path: Path) -> None:
    whole = tiny.read_bytes()
    other = tmp_path / "other.gguf"
    other.write_bytes(whole[:4] + b"\x01" + whole[5:])
    with pytest.raises(CannotLoad, match="version is 1"):
        read_header(other)
    other.write_bytes(b"PK\x03\x04" + whole[4:])
    with pytest.raises(CannotLoad, match="does not begin"):
        read_header(other)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"llama.block_count": 600}, "layers"),
        ({"llama.block_count": 0}, "layers"),
        ({WORDS: [*metadata()[WORDS][:-1], "a"]}, "same word twice"),
        ({"tokenizer.ggml.token_type": [1] * 287}, "token_type"),
        ({"general.alignment": 33}, "alignment"),
        ({"general.architecture": "bert"}, "embeddings"),
        ({"general.architecture": "clip"}, "part for another model"),
        ({"general.type": "adapter"}, "part for another model"),
        ({"general.architecture": ""}, "architecture"),
    ],
)
def test_what_the_library_would_end_the_process_over_is_refused(
    tmp_path: Path, values: dict[str, object], says: str
) -> None:
    file = written(tmp_path / "odd.gguf", **values)
    with pytest.raises(CannotLoad, match=says):
        read_header(file)


def test_a_header_with_any_byte_wrong_is_read_or_refused(tiny: Path, tmp_path: Path) -> None:
    whole, draw = tiny.read_bytes(), random.Random(7)
    changed = tmp_path / "changed.gguf"
    for _ in range(300):
        data = bytearray(whole[:-4])
        for _ in range(draw.choice([1, 4])):
            data[draw.randrange(8000)] = draw.randrange(256)
        changed.write_bytes(data)
        with pytest.raises(CannotLoad):  # cut as it is, it never passes; nothing else may be raised, nor much read
            read_header(changed)


def test_a_folder_may_hold_one_model_in_parts(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(CannotLoad, match="no GGUF file"):
        find_file(tmp_path)
    for number in (1, 2, 3):
        (tmp_path / f"big-0000{number}-of-00003.gguf").write_bytes(tiny.read_bytes())
    (tmp_path / "mmproj-big.gguf").touch()
    first = find_file(tmp_path)
    assert first.name == "big-00001-of-00003.gguf"
    assert read_header(first).weights == 3 * tiny.stat().st_size
    with pytest.raises(CannotLoad, match="name its first part"):
        read_header(tmp_path / "big-00002-of-00003.gguf")
    (tmp_path / "big-00002-of-00003.gguf").unlink()
    with pytest.raises(CannotLoad, match="big-00002-of-00003"):
        read_header(first)
    (tmp_path / "another.gguf").touch()
    with pytest.raises(CannotLoad, match="several"):
        find_file(tmp_path)
    with pytest.raises(CannotLoad, match="there is no"):
        find_file(tmp_path / "nowhere")


# ---------------------------------------------------------------- places in the cache
def seated(cells: Cells, prompt: list[int], need: int) -> Seat:
    place = cells.place(prompt, need, can_keep=True)
    assert place is not None
    cells.take(place, need)
    place.seat.tokens += prompt[place.keep :]
    return place.seat


TURNS = st.tuples(
    *(st.booleans(), st.integers(0, 2)),
    *(st.integers(1, 120), st.text("abc", max_size=40), st.integers(1, 80), st.booleans()),
)
"""Whether somebody leaves, and who; else how long a beginning all have, how one goes on, room, whether it is kept."""
HOUSE = list(range(1000, 1100))


def test_an_answer_goes_on_where_an_earlier_one_began_alike() -> None:
    cells = Cells(2, 1000)
    first = seated(cells, [*HOUSE, 1, 2], 200)
    cells.leave(first)
    place = cells.place([*HOUSE, 1, 3], 200, can_keep=True)
    assert place is not None
    assert (place.seat, place.keep, place.copy_from) == (first, 101, None)
    again = cells.place([*HOUSE, 1, 2], 200, can_keep=True)
    assert again is not None
    assert again.keep == 101  # the last token is read anew, else nothing could be drawn
    cannot = cells.place([*HOUSE, 1, 3], 200, can_keep=False)
    assert cannot is not None
    assert cannot.keep == 0


def test_what_an_answer_in_work_has_is_copied() -> None:
    cells = Cells(2, 1000)
    first = seated(cells, [*HOUSE, 1], 200)
    place = cells.place([*HOUSE, 2], 200, can_keep=True)
    assert place is not None
    assert place.copy_from is first
    assert place.seat is not first
    assert place.keep == 100
    cells.take(place, 200)
    assert place.seat.tokens == HOUSE
    assert cells.place([5], 1, can_keep=True) is None  # every seat is taken


def test_a_long_conversation_is_not_lost_to_what_only_begins_like_it() -> None:
    cells = Cells(2, 1000)
    first = seated(cells, [*HOUSE, *range(300)], 500)
    cells.leave(first)
    place = cells.place([*HOUSE, 7], 200, can_keep=True)
    assert place is not None
    assert (place.copy_from, place.seat is first, place.keep) == (first, False, 100)


def test_nobody_is_let_in_before_there_is_room_and_old_beginnings_make_it() -> None:
    cells = Cells(3, 1000)
    first, second = seated(cells, [1] * 300, 400), seated(cells, [2] * 300, 400)
    assert cells.place([3] * 10, 201, can_keep=True) is None
    cells.leave(first)
    place = cells.place([3] * 10, 500, can_keep=True)
    assert place is not None
    assert place.clear == (first,)
    cells.take(place, 500)
    assert not first.tokens
    assert second.tokens


@given(st.lists(TURNS, min_size=20, max_size=20))
def test_the_cache_is_never_promised_twice(turns: list[tuple[bool, int, int, str, int, bool]]) -> None:
    size = 400
    cells = Cells(3, size)
    busy: list[Seat] = []
    for somebody_leaves, who, house, question, answer, can_keep in turns:
        if busy and somebody_leaves:
            cells.leave(busy.pop(who % len(busy)))
            continue
        prompt = [0] * house + [ord(letter) for letter in question]
        need = len(prompt) + answer
        place = cells.place(prompt, need, can_keep=can_keep)
        if place is None:
            continue
        assert place.seat not in busy
        assert not set(map(id, place.clear)) & set(map(id, [*busy, place.seat]))
        source = place.copy_from or place.seat
        assert source.tokens[: place.keep] == prompt[: place.keep]
        assert place.keep < len(prompt)
        cells.take(place, need)
        place.seat.tokens += prompt[place.keep :]
        busy.append(place.seat)
        assert sum(seat.reserved or len(seat.tokens) for seat in cells.seats) <= size


def test_alike_counts_what_both_begin_with() -> None:
    assert (alike([1, 2, 3], [1, 2]), alike([1, 2], [1, 3]), alike([], [1])) == (2, 1, 0)
