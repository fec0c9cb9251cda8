"""Counting by words gives exactly what the tokenizers library gives for the whole text."""

from __future__ import annotations

import json
import string
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from core.errors import ConfigError
from core.splitters.counting import LONE, TokenCounter, token_counter
from tests.fakes.model import model_dir

__all__ = ["model_dir"]

WORDS = ["the", "of", "sat", "mat", "hand", "book", "work", "er", "invoice", "hello", *"香港大学。，éxy"]
NUMBERS = ["hand47", "##nd12", "book2", "##0123", "##12", "##123", "##47", *(f"##{digit}" for digit in range(10))]
CONTINUED = ["##s", "##ing", "##er", "##book", "##ö", "##ん", *NUMBERS]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [*"abcdefghij", *(f"##{letter}" for letter in "abcdefghij"), *".,!?-()[]'\""]

ENGLISH = """# Expenses

Book trains, not planes, below 600 km: it's cheaper (usually). Receipts over €25 need an invoice no. INV-2024/0815;
write to billing@example.org or call +44 20 7946 0958. Naïve façades — co-operate… "quoted", 'single', don't.

| item | price |
|------|-------|
| tea  | 3.50  |
"""
CHINESE = """报销：每次出差结束后，请在十五天内提交发票（电子版亦可）。「高铁」优先于飞机；
Kvasir 1.0 支持 PDF、DOCX 等格式！
第3章　附录—完"""
MIXED = """日本語のテキスト、ひらがなとカタカナ。한국어 문장입니다. Ελληνικά ΣΊΣΥΦΟΣ
Русский текст — ﬁne ½ ① ℃ 😀👍🏽 İstanbul ǅ e\u0301 \u200bzero"""


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join([*SPECIAL, *LETTERS, *WORDS, *CONTINUED]), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=["vocabulary of this test", "cased vocabulary", "real model"])
def tokenizer_json(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "real model":
        folder: Path = request.getfixturevalue("model_dir")
        return folder / "tokenizer.json"
    lowercase = request.param != "cased vocabulary"
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(json.dumps(_tokenizer_json(lowercase)), encoding="utf-8")
    return path


def _tokenizer_json(lowercase: bool) -> dict[str, object]:
    words = [*SPECIAL, *LETTERS, *WORDS, *CONTINUED]
    return {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": word,
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
            for index, word in enumerate(SPECIAL)
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: index for index, word in enumerate(words)},
        },
    }


@cache
def _library(path: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@pytest.mark.parametrize(
    "text", [ENGLISH, CHINESE, MIXED, "", " \n\t ", "x" * 5000, "好" * 5000, "a[SEP]b [CLS", "f\x0bg\x85h"]
)
def test_counts_like_the_library(tokenizer_json: Path, text: str) -> None:
    assert token_counter(str(tokenizer_json))(text) == len(
        _library(tokenizer_json).encode(text, add_special_tokens=False)
    )


PIECES = st.one_of(
    st.text(max_size=8),
    st.text(string.ascii_letters + string.punctuation + " \n", max_size=12),
    st.text("香港大学。，「」：第一 abe", max_size=8),
    st.sampled_from(
        [*WORDS, *SPECIAL, "\x0b", "\x85", "\x1c", "\u3000", "\xa0", "\u0301", "\u200b", "hand" * 30, "[CL\x0bS]"]
    ),
)


@given(texts=st.lists(PIECES, max_size=12), between=st.sampled_from(["", " ", "\n"]))
def test_counts_any_text_like_the_library(tokenizer_json: Path, texts: list[str], between: str) -> None:
    text = between.join(texts)
    expected = len(_library(tokenizer_json).encode(text, add_special_tokens=False))
    assert token_counter(str(tokenizer_json))(text) == expected


@given(
    name=st.one_of(st.sampled_from(["Hand", "hand", "book", "handbook", "the", "xhand"]), st.text("abdhn", min_size=2)),
    digits=st.text("01247", min_size=5, max_size=12),
    end=st.text(",;:.!?)", max_size=2),
)
def test_words_with_numbers_are_counted_by_their_digits(tokenizer_json: Path, name: str, digits: str, end: str) -> None:
    expected = len(_library(tokenizer_json).encode(f"{name}{digits}{end}", add_special_tokens=False))
    assert token_counter(str(tokenizer_json)).numbered(name, end)(digits) == expected


def test_lone_characters_are_always_one_token(tokenizer_json: Path) -> None:
    library = _library(tokenizer_json)
    first, last = ord(LONE[0]), ord(LONE[2])
    characters = [chr(code) for code in range(first, last + 1)] + list(LONE[3:])
    for encoded in library.encode_batch([f"a{character}e" for character in characters], add_special_tokens=False):
        assert len(encoded.ids) == 3


def test_a_word_list_counts_like_its_tokenizer_file(vocabulary: Path, tmp_path: Path) -> None:
    same = tmp_path / "tokenizer.json"
    same.write_text(json.dumps(_tokenizer_json(lowercase=True)), encoding="utf-8")
    from_words, from_file = token_counter(str(vocabulary)), token_counter(str(same))
    for text in (ENGLISH, CHINESE, MIXED, "a[SEP]b"):
        assert from_words(text) == from_file(text)


def test_another_kind_of_tokenizer_is_counted_by_the_library(tmp_path: Path) -> None:
    described = _tokenizer_json(lowercase=True)
    described["normalizer"] = {"type": "Lowercase"}
    described["pre_tokenizer"] = {"type": "Whitespace"}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(described), encoding="utf-8")
    assert token_counter(str(path))(CHINESE) == len(_library(path).encode(CHINESE, add_special_tokens=False))


def test_the_name_tells_vocabularies_apart(vocabulary: Path, tmp_path: Path) -> None:
    other = tmp_path / "vocab.txt"
    other.write_text(vocabulary.read_text(encoding="utf-8") + "\nmore", encoding="utf-8")
    counters: list[TokenCounter] = [token_counter(str(vocabulary)), token_counter(str(other)), token_counter("")]
    assert len({counter.name for counter in counters}) == 3
    assert "estimate" in counters[2].name


def test_without_a_vocabulary_it_estimates() -> None:
    count = token_counter("")
    assert count("香港大学。") == 5
    assert count("The cat, sat.") == 5
    assert count("internationalisation") == 4
    assert count("日本語のテキスト") == 8
    assert count.numbered("invoices", ".)")("471147") == count("invoices471147.)") == 6
    assert count("") == 0


@pytest.mark.parametrize("content", [b"", b"{}", b"{not json", b"\xff\xfe\x00", b"just\nwords"])
@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt"])
def test_an_unusable_file_is_named_in_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=name):
        token_counter(str(path))
    with pytest.raises(ConfigError, match="cannot be read"):
        token_counter(str(tmp_path / "absent.json"))
