"""Counts tokens as the embedder's tokenizer would, fast enough for every paragraph of every document."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from core.errors import ConfigError

LONE = "\u4e00-\u9fa5" + "、。〈〉《》「」『』【】！（），：；？…—“”‘’·"
"""Inside `[]` of a pattern: characters that are always a token of their own, whatever stands beside them."""
_LONE_RUN = re.compile(f"[{LONE}]+")

_NOT_WHITESPACE_TO_BERT = "\x0b\x0c\x1c\x1d\x1e\x1f\x85"
"""`str.split` parts words at these; BERT's normaliser removes them, so that the words join."""

_ASCII_PIECE = re.compile(r"[A-Za-z0-9]+|[!-/:-@\[-`{-~]")
_ASCII_WORD = re.compile(r"[!-~]+")
_ESTIMATED_PIECE = re.compile(r"\d+|[\u2e80-\uffef]|[^\W\d_\u2e80-\uffef]+|_|[^\w\s]")

_UNKNOWN = "[UNK]"
_SPECIAL = ("[PAD]", _UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
_LONGEST_WORD = 100
_DIGITS = "0123456789"
_MOST_DIGITS = 4
"""Digits in one entry of a vocabulary at most, to remember how it cuts numbers."""

_CACHED_WORDS = 200_000
_CACHED_WORD_LENGTH = 48


class TokenCounter(Protocol):
    """Tells how many tokens a text has, special tokens not counted."""

    @property
    def name(self) -> str:
        """Part of an index's fingerprint: equal names count equally."""

    def __call__(self, text: str) -> int: ...

    def each(self, texts: Sequence[str]) -> list[int]:
        """The tokens of every one of them."""

    def is_sum(self, text: str, /) -> bool:
        """Whether this text has as many tokens as its words together, each counted by itself."""

    def word(self, word: str, /) -> int:
        """The tokens of one word of such a text; nothing is remembered of it."""

    def numbered(self, name: str, end: str, /) -> Callable[[str], int]:
        """Counts, by their digits, words that begin with these ASCII letters and end with these marks: `No12345.`"""


def token_counter(vocabulary: str) -> TokenCounter:
    """A counter that is exact for the WordPiece vocabulary at this path, or an estimate where the path is empty.

    The path names a `tokenizer.json` or a `vocab.txt`. Raises ConfigError where it cannot be used.

    The estimate: one token for a Chinese, Japanese or Korean character and for a punctuation mark, one for every five
    letters of a word, one for every three digits of a number.
    """
    if not vocabulary:
        return _WordCounter("estimate-1", _Estimate(), whole=None)
    path = Path(vocabulary)
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigError(f"The tokenizer file {path} cannot be read: {error.strerror}.") from error
    return _open_counter(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _open_counter(path: Path, *_version: int) -> TokenCounter:
    """One counter for each state of a file, so that what it has learnt serves the next document."""
    try:
        data = path.read_bytes()
        tokenizer, bert = _open_tokenizer(path, data)
    except OSError as error:
        raise ConfigError(f"The tokenizer file {path} cannot be read: {error.strerror}.") from error
    except Exception as error:
        raise ConfigError(f"{path} is not the tokenizer.json or vocab.txt of a BERT-like model.") from error
    name = f"wordpiece-{hashlib.blake2b(data, digest_size=8).hexdigest()}"

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    if bert is None:
        return _LibraryCounter(name, count)
    return _WordCounter(name, _WordPiece(bert, tokenizer.model, count), whole=count, added=bert.added)


class _LibraryCounter:
    def __init__(self, name: str, count: Callable[[str], int]) -> None:
        self.name = name
        self._count = count

    def __call__(self, text: str) -> int:
        return self._count(text)

    def each(self, texts: Sequence[str]) -> list[int]:
        return list(map(self._count, texts))

    def is_sum(self, _text: str) -> bool:
        return False

    def word(self, word: str) -> int:
        return self._count(word)

    def numbered(self, name: str, end: str) -> Callable[[str], int]:
        return lambda digits: self._count(f"{name}{digits}{end}")


class _OfWords(Protocol):
    def __call__(self, word: str, /) -> int: ...

    def numbered(self, name: str, end: str, /) -> Callable[[str], int]: ...


class _WordCounter:
    """Sums over words, each counted once and remembered."""

    def __init__(
        self,
        name: str,
        word: _OfWords,
        *,
        whole: Callable[[str], int] | None,
        added: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.word = word
        self.numbered = word.numbered
        self._words = _Words(word)
        self._whole = whole
        self._added = added
        self._suspicious = {*_NOT_WHITESPACE_TO_BERT, *(token[0] for token in added if token)}

    def __call__(self, text: str) -> int:
        if self._whole is not None and self._is_suspicious(text) and self._must_be_whole(text):
            return self._whole(text)
        ones = 0
        if not text.isascii():
            rest, runs = _LONE_RUN.subn(" ", text)
            ones = len(text) - len(rest) + runs
            text = rest
        return ones + sum(map(self._words.__getitem__, text.split()))

    def each(self, texts: Sequence[str]) -> list[int]:
        everything = " ".join(texts)
        if not everything.isascii() or (self._whole is not None and self._is_suspicious(everything)):
            return list(map(self, texts))
        known = self._words.__getitem__
        return [sum(map(known, text.split())) for text in texts]

    def is_sum(self, text: str) -> bool:
        return text.isascii() and (self._whole is None or not self._is_suspicious(text))

    def _is_suspicious(self, text: str) -> bool:
        return any(map(text.__contains__, self._suspicious))

    def _must_be_whole(self, text: str) -> bool:
        return any(mark in text for mark in (*self._added, *_NOT_WHITESPACE_TO_BERT))


class _Words(dict[str, int]):
    """Word -> tokens, filled as words are asked for, and emptied before it grows without end."""

    def __init__(self, count: Callable[[str], int]) -> None:
        super().__init__()
        self._count = count

    def __missing__(self, word: str) -> int:
        tokens = self._count(word)
        if len(word) <= _CACHED_WORD_LENGTH:
            if len(self) >= _CACHED_WORDS:
                self.clear()
            self[word] = tokens
        return tokens


class _Estimate:
    def __call__(self, word: str) -> int:
        if word.isalpha() and word.isascii():
            return (len(word) + 3) // 5 or 1
        tokens = 0
        for piece in _ESTIMATED_PIECE.findall(word):
            tokens += (len(piece) + 2) // 3 if piece.isdigit() else (len(piece) + 3) // 5 or 1
        return tokens

    def numbered(self, name: str, end: str) -> Callable[[str], int]:
        others = self(name) + self(end)
        return lambda digits: others + (len(digits) + 2) // 3


@dataclass(frozen=True, slots=True)
class _Bert:
    """What must be known to count word by word and stay exact: the tokenizer is BERT's own kind."""

    vocabulary: frozenset[str]
    lowercase: bool
    added: tuple[str, ...]


class _WordPiece:
    """Counts one word: plain ASCII by the model alone, anything else by all of the library, which takes longer."""

    def __init__(self, bert: _Bert, model: models.Model, library: Callable[[str], int]) -> None:
        self._bert = bert
        self._tokens_of = model.tokenize
        self._library = library
        self._digits: _Digits | None = None

    def __call__(self, word: str) -> int:
        if not _ASCII_WORD.fullmatch(word):
            return self._library(word)
        if self._bert.lowercase:
            word = word.lower()
        return sum(map(self._piece, _ASCII_PIECE.findall(word)))

    def numbered(self, name: str, end: str) -> Callable[[str], int]:
        if self._digits is None:
            self._digits = _Digits(self._bert.vocabulary)
        known = self._digits
        word = name.lower() if self._bert.lowercase else name
        pieces = self._tokens_of(word)
        starts = [piece.offsets[0] for piece in pieces]
        if _UNKNOWN in (piece.value for piece in pieces) or not known.begin_behind(word, starts):
            return lambda digits: self(f"{name}{digits}{end}")
        others = len(pieces) + sum(map(self._piece, end))
        return lambda digits: others + known.count(digits)

    def _piece(self, piece: str) -> int:
        return 1 if piece in self._bert.vocabulary else len(self._tokens_of(piece))


class _Digits(dict[str, int]):
    """How a vocabulary cuts numbers that stand behind letters; by the digits that come next: how many go together."""

    def __init__(self, vocabulary: frozenset[str]) -> None:
        super().__init__()
        self._vocabulary = vocabulary
        self._before = {entry.rstrip(_DIGITS) for entry in vocabulary if entry.endswith(tuple(_DIGITS))}
        """What stands before the digits that an entry ends with."""
        self._longest = max((len(entry) - 2 for entry in vocabulary if not entry.strip("#" + _DIGITS)), default=0)
        self._is_able = self._longest <= _MOST_DIGITS and all(f"##{digit}" in vocabulary for digit in _DIGITS)

    def begin_behind(self, name: str, starts: Sequence[int]) -> bool:
        """Whether a token ends where this name does, which is cut at `starts`, whatever digits come behind."""
        ends = (f"##{name[start:]}" if start else name for start in starts)
        return self._is_able and self._before.isdisjoint(ends)

    def count(self, digits: str) -> int:
        tokens = at = 0
        while at < len(digits):
            at += self[digits[at : at + self._longest]]
            tokens += 1
        return tokens

    def __missing__(self, digits: str) -> int:
        long = len(digits)
        while f"##{digits[:long]}" not in self._vocabulary:
            long -= 1
        self[digits] = long
        return long


def _open_tokenizer(path: Path, data: bytes) -> tuple[Tokenizer, _Bert | None]:
    if path.suffix == ".json":
        tokenizer = Tokenizer.from_buffer(data)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer, _as_bert(json.loads(data))
    words = data.decode("utf-8").splitlines()
    vocabulary = {word: number for number, word in enumerate(words)}
    if _UNKNOWN not in vocabulary:
        raise ValueError(f"no {_UNKNOWN} among the words")
    lowercase = not any(word != word.lower() for word in words if not word.startswith("["))
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=_UNKNOWN, max_input_chars_per_word=_LONGEST_WORD))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    added = tuple(word for word in _SPECIAL if word in vocabulary)
    tokenizer.add_special_tokens(list(added))
    return tokenizer, _Bert(frozenset(vocabulary), lowercase, added)


def _as_bert(described: dict[str, Any]) -> _Bert | None:
    """What the file describes, where it is a BERT tokenizer through and through."""
    normalizer = described.get("normalizer") or {}
    model = described.get("model") or {}
    added = described.get("added_tokens") or []
    is_bert = (
        model.get("type", "WordPiece") == "WordPiece"
        and model.get("continuing_subword_prefix") == "##"
        and normalizer.get("type") == "BertNormalizer"
        and normalizer.get("clean_text") is True
        and normalizer.get("handle_chinese_chars") is True
        and (described.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
        and not any(token.get("normalized") for token in added)
    )
    if not is_bert:
        return None
    return _Bert(
        vocabulary=frozenset(model["vocab"]),
        lowercase=bool(normalizer.get("lowercase")),
        added=tuple(token["content"] for token in added),
    )
