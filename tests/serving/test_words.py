"""Whatever the tokens, text comes in whole characters, without stop strings, and no longer than it may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from core.serving.driver import Done, Event, Job, Piece, Refused
from core.serving.words import ByteSpelling, DecodedSpelling, Spelling, StopStrings, Words, room

BYTES = st.binary(max_size=80)
TEXTS = st.text("ab你é🎈 \n", max_size=40)
STOPS = st.lists(st.text("ab你 ", min_size=1, max_size=4), max_size=3)

Make = Callable[[], Spelling]


def by_bytes() -> Spelling:
    return ByteSpelling(lambda token: bytes([token]))


def by_decoding() -> Spelling:
    return DecodedSpelling(lambda ids: bytes(ids).decode("utf-8", "replace"))


def by_byte_fallback() -> Spelling:
    """As SentencePiece models have it: a blank before the first word, and characters that are not known in bytes."""
    vocabulary = {f"<0x{number:02X}>": number for number in range(256)} | {"word": 256}
    library = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    library.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return DecodedSpelling(lambda ids: str(library.decode(list(ids))))


ALL: list[Make] = [by_bytes, by_decoding, by_byte_fallback]


def spelled(spelling: Spelling, tokens: Sequence[int]) -> list[str]:
    return [*(spelling.feed(token) for token in tokens), spelling.close()]


@pytest.mark.parametrize("make", ALL)
@given(text=TEXTS)
def test_a_text_comes_whole_and_never_in_halves(make: Make, text: str) -> None:
    pieces = spelled(make(), text.encode())
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("make", [by_bytes, by_decoding])
@given(tokens=BYTES)
def test_what_is_no_text_costs_nothing_but_itself(make: Make, tokens: bytes) -> None:
    assert "".join(spelled(make(), tokens)) == tokens.decode("utf-8", "replace")


@given(tokens=BYTES)
def test_a_text_behind_broken_tokens_is_whole(tokens: bytes) -> None:
    pieces = spelled(by_byte_fallback(), [*tokens, 256, *"你".encode()])
    assert "".join(pieces).endswith("word你")


def test_a_hundred_broken_tokens_are_given_out_on_the_way() -> None:
    pieces = spelled(by_decoding(), [0x80] * 200)
    assert "".join(pieces) == "\ufffd" * 200
    assert all(len(piece) < 80 for piece in pieces)


def test_blanks_between_words_stay_where_the_decoder_leaves_out_the_first() -> None:
    words = ["▁one", "▁two", "▁three"]
    library = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="▁one"))
    library.decoder = decoders.Metaspace()
    pieces = spelled(DecodedSpelling(lambda ids: str(library.decode(list(ids)))), [0, 1, 2])
    assert pieces == ["one", " two", " three", ""]


@given(text=TEXTS, stops=STOPS, data=st.data())
def test_text_ends_before_the_first_stop_string_however_it_is_cut(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    parts = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    watch = StopStrings(stops)
    shown = "".join([watch.feed(part) for part in parts] + [watch.close()])
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    # of two stop strings that overlap, the one that is whole first counts, since the text is shown as it comes
    assert watch.found == bool(places)
    assert text.startswith(shown)
    assert not any(stop in shown for stop in stops)
    if places and len({*stops}) == 1:
        assert len(shown) == min(places)
    if not places:
        assert shown == text


def test_nothing_is_held_back_that_cannot_become_a_stop_string() -> None:
    watch = StopStrings(["\nUser:"])
    assert watch.feed("one\n") == "one"
    assert watch.feed("two") == "\ntwo"
    assert watch.feed("\nUser") == ""
    assert watch.feed(": hello") == ""
    assert watch.found


def job(**values: object) -> Job:
    return Job(**{"id": "a", "prompt": (1, 2, 3), "max_tokens": 100, **values})  # type: ignore[arg-type]


def written(words: Words, tokens: Sequence[int]) -> list[Event]:
    return [event for token in tokens for event in words.add(token)]


@pytest.mark.parametrize("most", [1, 2, 5])
def test_the_cap_holds_also_while_a_character_is_not_whole(most: int) -> None:
    words = Words(job(max_tokens=most), by_bytes(), {0}, most=50)
    events = written(words, [0xE4] * 20)
    assert events[-1] == Done("a", "length", 3, most)
    assert words.over


def test_the_room_that_is_left_is_a_cap_too() -> None:
    words = Words(job(), by_bytes(), {0}, most=2, cached=3)
    assert written(words, b"abc") == [Piece("a", "a"), Piece("a", "b"), Done("a", "length", 3, 2, 3)]


def test_an_end_token_ends_it_and_is_not_counted() -> None:
    words = Words(job(stop=("xy",)), by_bytes(), {0}, most=50)
    events = written(words, [*b"abx", 0, *b"more"])
    assert events == [Piece("a", "a"), Piece("a", "b"), Piece("a", "x"), Done("a", "stop", 3, 3)]


def test_a_stop_string_over_several_tokens_is_left_out() -> None:
    words = Words(job(stop=("xyz",)), by_bytes(), {0}, most=50)
    events = written(words, b"abxyzcd")
    assert events == [Piece("a", "a"), Piece("a", "b"), Done("a", "stop", 3, 5)]


def test_a_stop_string_at_the_cap_is_left_out_too() -> None:
    words = Words(job(max_tokens=3, stop=("c",)), by_bytes(), {0}, most=50)
    assert written(words, b"abc")[-1] == Done("a", "stop", 3, 3)


def test_a_piece_knows_of_how_many_tokens_it_is() -> None:
    words = Words(job(), by_bytes(), {0}, most=50)
    assert written(words, "你".encode()) == [Piece("a", "你", tokens=3)]


def test_a_prompt_that_leaves_no_room_is_refused() -> None:
    assert room(job(), 10) == 7
    assert room(job(max_tokens=2), 10) == 2
    assert room(job(), 4) == 1
    with pytest.raises(Refused, match="3 tokens long, and the model reads 3") as raised:
        room(job(), 3)
    assert raised.value.code == "context_length"
    with pytest.raises(Refused, match="empty"):
        room(job(prompt=()), 3)
