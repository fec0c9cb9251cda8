"""The tokenizer in a GGUF file, by llama.cpp's own functions; they only read, so that threads may share it."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from core.serving.driver import Job
from core.serving.drivers.exllama_grammar import PACKAGE, Grammar, Grammars

_LONGEST_WORD: Final = 1024
_SPECIAL_WORD: Final = re.compile(r"<.+>|\[/?[A-Z_]+\]", re.DOTALL)
"""What controls look like; some models list theirs as words that users defined."""


class LlamaTokenizer:
    def __init__(self, library: Any, model: Any, template: str) -> None:
        self._library = library
        self.vocabulary: Any = library.llama_model_get_vocab(model)
        self._template = template
        self.size = int(library.llama_vocab_n_tokens(self.vocabulary))
        self.ends = tuple(one for one in range(self.size) if library.llama_vocab_is_eog(self.vocabulary, one))
        controls, defined = self._special_words()
        self._controls = (*controls, *defined)
        self._defined = (
            re.compile("|".join(map(re.escape, sorted(defined, key=len, reverse=True)))) if defined else None
        )

    @property
    def template(self) -> str:
        return self._template

    @property
    def specials(self) -> Mapping[str, str]:
        ids = {
            "bos_token": self._library.llama_vocab_bos(self.vocabulary),
            "eos_token": self._library.llama_vocab_eos(self.vocabulary),
            "pad_token": self._library.llama_vocab_pad(self.vocabulary),
        }
        return {name: self._word(token) for name, token in ids.items() if 0 <= token < self.size}

    @property
    def controls(self) -> Sequence[str]:
        return self._controls

    def encode(self, text: str, *, special: bool) -> list[int]:
        if special or self._defined is None:
            return self._encode(text, special)
        ids: list[int] = []
        at = 0
        for found in self._defined.finditer(text):  # the library never reads these as plain characters but in parts
            ids += self._encode(text[at : found.start() + 1], special=False)
            at = found.start() + 1
        return ids + self._encode(text[at:], special=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Control tokens as they are written."""
        return b"".join(self.bytes_of(token, special=True) for token in ids).decode("utf-8", "replace")

    def bytes_of(self, token: int, *, special: bool = False) -> bytes:
        """Those of one token; `special`: also of a control token, which has none else."""
        if not 0 <= token < self.size:
            return b""
        room = ctypes.create_string_buffer(_LONGEST_WORD)
        for _ in range(2):
            size = self._library.llama_token_to_piece(self.vocabulary, token, room, len(room), 0, special)
            if size >= 0:
                return room.raw[:size]
            room = ctypes.create_string_buffer(-size)
        return b""

    def words(self) -> list[bytes]:
        """All of them, controls with a sign before them that no text has, as llguidance wants it."""
        controls = {*self._controls}
        made = (self.bytes_of(token, special=True) for token in range(self.size))
        return [b"\xff" + word if word.decode("utf-8", "replace") in controls else word for word in made]

    def function(self, name: str) -> int:
        """Address of one of the library's functions."""
        return ctypes.cast(getattr(self._library.llama_cpp._lib, name), ctypes.c_void_p).value or 0

    def _encode(self, text: str, special: bool) -> list[int]:
        data = text.encode("utf-8", "replace")
        if not data:
            return []
        size = len(data) + 8
        for _ in range(2):
            room = (self._library.llama_token * size)()
            found = self._library.llama_tokenize(self.vocabulary, data, len(data), room, size, False, special)
            if found >= 0:
                return list(room[:found])
            size = -found
        return []

    def _word(self, token: int) -> str:
        return bytes(self._library.llama_vocab_get_text(self.vocabulary, token) or b"").decode("utf-8", "replace")

    def _special_words(self) -> tuple[list[str], list[str]]:
        """(those that the file calls controls, those that it calls words of users but look like controls)"""
        library = self._library
        controls, defined = [], []
        for token in range(self.size):
            kind = library.llama_vocab_get_attr(self.vocabulary, token)
            if kind & library.LLAMA_TOKEN_ATTR_CONTROL:
                controls.append(self._word(token))
            elif kind & library.LLAMA_TOKEN_ATTR_USER_DEFINED and _SPECIAL_WORD.fullmatch(self._word(token)):
                defined.append(self._word(token))
        return [word for word in controls if word], [word for word in defined if len(word) > 1]


class LlamaGrammars(Grammars):
    """Grammars over the words of a GGUF file."""

    def __init__(self, tokenizer: LlamaTokenizer) -> None:
        self._llama = tokenizer
        self.size = self._size = tokenizer.size
        self._ends = list(tokenizer.ends)
        self._words: Any = None

    def for_job(self, job: Job) -> Grammar | None:
        if self._words is None and (job.json_schema is not None or job.regex) and has_grammars():
            library: Any = import_module(PACKAGE)
            self._words = library.LLTokenizer.from_llamacpp(
                tokens=self._llama.words(),
                vocab_ptr=self._llama.vocabulary,
                tokenize_fptr=self._llama.function("llama_tokenize"),
                eos_token=self._ends or None,
                slices=None,
            )
        return super().for_job(job)


def has_grammars() -> bool:
    try:
        import_module(PACKAGE)
    except ModuleNotFoundError:
        return False
    return True
